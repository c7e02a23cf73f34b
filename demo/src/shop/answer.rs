//! What the shop answers over HTTP: what it saw of the request, its own health, the body back, or what its calls onward brought.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Shop, call, grpc};

/// A response body of the shop.
pub(super) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// What the server saw of a request.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Saw {
    pub(super) cluster: String,
    pub(super) pod: String,
    pub(super) peer: Option<String>,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) version: String,
    pub(super) headers: BTreeMap<String, String>,
}

impl Saw {
    fn of<B>(request: &Request<B>, shop: &Shop) -> Self {
        Self {
            cluster: shop.cluster.clone(),
            pod: shop.pod.clone(),
            peer: request.headers().get(PEER).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            method: request.method().to_string(),
            path: request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            version: format!("{:?}", request.version()),
            headers: texts(request.headers()),
        }
    }
}

fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        texts.entry(name.to_string()).and_modify(|held| *held = format!("{held}, {value}")).or_insert_with(|| value.into_owned());
    }
    texts
}

/// Answers one request: `/healthz`, `/echo` (the body back), `/status/<code>`, `/call?url=…`, `/shop` (every configured call), gRPC, and
/// what it saw for every other path.
pub(super) async fn answer(request: Request<Incoming>, shop: &Shop) -> Response<Body> {
    let saw = Saw::of(&request, shop);
    if grpc::is_grpc(&request) {
        return grpc::answer(request, saw).await;
    }
    match request.uri().path() {
        "/healthz" => respond(StatusCode::OK, "text/plain", Full::from("ok\n")),
        "/echo" => Response::new(request.into_body().boxed_unsync()),
        "/call" => match query(&request, "url") {
            Some(url) => onward(saw, shop, &[url], request.headers()).await,
            None => json_answer(
                StatusCode::BAD_REQUEST,
                &json!({ "error": "say what to call: /call?url=http://cart.shop.svc.clusterset.local/" }),
            ),
        },
        "/shop" => onward(saw, shop, &shop.calls, request.headers()).await,
        path => match path.strip_prefix("/status/").and_then(|code| code.parse().ok()) {
            Some(status) => json_answer(status, &json!(saw)),
            None => seen(request, saw).await,
        },
    }
}

/// Reads the body to its end first, so that a caller that still sends sees no reset, and tells its size.
async fn seen(request: Request<Incoming>, saw: Saw) -> Response<Body> {
    let mut size = 0;
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => size += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => return json_answer(StatusCode::BAD_REQUEST, &json!({ "error": error.to_string() })),
        }
    }
    let mut answer = json!(saw);
    answer["body_bytes"] = json!(size);
    json_answer(StatusCode::OK, &answer)
}

async fn onward(saw: Saw, shop: &Shop, urls: &[String], headers: &HeaderMap) -> Response<Body> {
    let calls: Vec<Value> = futures_util::future::join_all(urls.iter().map(|url| call::call(url, shop.proxy.as_ref(), headers))).await;
    let failed = calls.iter().any(|call| call.get("error").is_some());
    let mut answer = json!(saw);
    answer["calls"] = Value::Array(calls);
    json_answer(if failed { StatusCode::BAD_GATEWAY } else { StatusCode::OK }, &answer)
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    respond(status, "application/json", Full::from(format!("{value:#}\n")))
}

fn respond(status: StatusCode, kind: &'static str, body: Full<Bytes>) -> Response<Body> {
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The query's parameter `name`. Percent signs are decoded; a URL given plain (as a person types it) is taken as it is.
fn query<B>(request: &Request<B>, name: &str) -> Option<String> {
    let query = request.uri().query()?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(decode)
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = (first == b'%').then(|| after.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The header in which an inbound proxy hands over the verified caller.
const PEER: &str = "x-mesh-peer";

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> Shop {
        Shop { cluster: "east".into(), pod: "cart-1".into(), calls: vec![], greeting: None, proxy: None }
    }

    #[test]
    fn the_answer_tells_what_the_server_saw() {
        let request = Request::get("http://cart.shop.svc.clusterset.local/a?b=c").header(PEER, "spiffe://west.mesh/ns/shop/sa/storefront");
        let saw = Saw::of(&request.header("x-two", "1").header("x-two", "2").body(()).unwrap(), &shop());
        assert_eq!(saw.peer.as_deref(), Some("spiffe://west.mesh/ns/shop/sa/storefront"));
        assert_eq!((saw.cluster.as_str(), saw.pod.as_str(), saw.path.as_str()), ("east", "cart-1", "/a?b=c"));
        assert_eq!(saw.headers["x-two"], "1, 2");
    }

    #[test]
    fn a_url_to_call_may_be_percent_encoded_or_plain() {
        let asked = |uri: &str| query(&Request::get(uri).body(()).unwrap(), "url");
        assert_eq!(asked("/call?url=http://a/b").as_deref(), Some("http://a/b"));
        assert_eq!(asked("/call?x=1&url=http%3A%2F%2Fa%2F").as_deref(), Some("http://a/"));
        assert_eq!(asked("/call?url=100%").as_deref(), Some("100%"));
        assert_eq!(asked("/call"), None);
    }
}
