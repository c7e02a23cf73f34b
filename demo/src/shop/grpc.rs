//! The shop's one gRPC method, on hyper directly: a unary call is one frame each way and a trailer, and a generated service would hide
//! the headers that the answer is about. Field for field `proto/shop.proto`.

use std::collections::HashMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use prost::Message;

use super::answer::{Body, Saw};

/// What `Describe` is asked.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DescribeRequest {
    /// Handed back unchanged.
    #[prost(string, tag = "1")]
    pub note: String,
}

/// What `Describe` answers.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DescribeReply {
    /// The cluster that answers.
    #[prost(string, tag = "1")]
    pub cluster: String,
    /// The pod that answers.
    #[prost(string, tag = "2")]
    pub pod: String,
    /// The caller's SPIFFE id; empty when the call came in plain.
    #[prost(string, tag = "3")]
    pub peer: String,
    /// The HTTP method.
    #[prost(string, tag = "4")]
    pub method: String,
    /// The path.
    #[prost(string, tag = "5")]
    pub path: String,
    /// The request's headers.
    #[prost(map = "string, string", tag = "6")]
    pub headers: HashMap<String, String>,
    /// The note of the request.
    #[prost(string, tag = "7")]
    pub note: String,
}

/// Whether the request is a gRPC call.
pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Answers one call.
pub(super) async fn answer(request: Request<Incoming>, saw: Saw) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if path != DESCRIBE {
        return refuse(UNIMPLEMENTED, "this service has one method: isthmus.shop.v1.Shop/Describe");
    }
    let Ok(body) = Limited::new(request.into_body(), MESSAGE_MAX).collect().await else {
        return refuse(INTERNAL, "the request message could not be read");
    };
    match unframe(&body.to_bytes()) {
        Ok(asked) => describe(saw, asked.note),
        Err(why) => refuse(INTERNAL, why),
    }
}

fn describe(saw: Saw, note: String) -> Response<Body> {
    let reply = DescribeReply {
        cluster: saw.cluster,
        pod: saw.pod,
        peer: saw.peer.unwrap_or_default(),
        method: saw.method,
        path: saw.path,
        headers: saw.headers.into_iter().collect(),
        note,
    };
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(frame(&reply)).with_trailers(std::future::ready(Some(Ok(trailers))));
    respond(body.map_err(|never| match never {}).boxed_unsync())
}

/// A trailers-only answer.
fn refuse(status: u8, why: &'static str) -> Response<Body> {
    let mut response = respond(Full::default().map_err(|never| match never {}).boxed_unsync());
    response.headers_mut().insert(STATUS, HeaderValue::from(u16::from(status)));
    response.headers_mut().insert(header::HeaderName::from_static("grpc-message"), HeaderValue::from_static(why));
    response
}

fn respond(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn frame(message: &impl Message) -> Bytes {
    let encoded = message.encode_to_vec();
    let mut framed = BytesMut::with_capacity(5 + encoded.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
    framed.put_slice(&encoded);
    framed.freeze()
}

fn unframe(body: &[u8]) -> Result<DescribeRequest, &'static str> {
    let (prefix, message) = body.split_first_chunk::<5>().ok_or("the request has no message")?;
    if prefix[0] != 0 {
        return Err("compressed messages are not understood");
    }
    DescribeRequest::decode(message).map_err(|_| "the request message is not a DescribeRequest")
}

const DESCRIBE: &str = "/isthmus.shop.v1.Shop/Describe";
const STATUS: header::HeaderName = header::HeaderName::from_static("grpc-status");
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;

/// Larger request messages are refused.
const MESSAGE_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_back() {
        let asked = DescribeRequest { note: "hello".into() };
        assert_eq!(unframe(&frame(&asked)), Ok(asked));
    }

    #[test]
    fn other_peoples_bytes_are_refused_with_a_reason() {
        assert!(unframe(b"").is_err());
        assert!(unframe(&[1, 0, 0, 0, 0]).is_err());
        assert!(unframe(&[0, 0, 0, 0, 1, 0xff]).is_err());
    }
}
