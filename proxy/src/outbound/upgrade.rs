//! Requests that turn their connection into something else (WebSocket): they travel in a raw stream, HTTP/1.1 and all, and the serving
//! proxy reads that HTTP as it reads every other.

use std::rc::Rc;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mesh_topology::RequestKey;
use mesh_transport::session::head;
use mesh_transport::splice::copy_bidirectional;

use super::raw::{self, Upstream};
use super::to_plain;
use crate::body::Body;
use crate::exchange::Flight;
use crate::failure::Failure;
use crate::headers;
use crate::plain::Spoken;
use crate::worker::Core;

/// Carries a request that asks for an upgrade.
pub(crate) async fn carry(
    core: &Rc<Core>,
    key: RequestKey,
    mut request: Request<Incoming>,
) -> Result<(Response<Body>, Option<Flight>), Failure> {
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    headers::strip_claims(&mut parts.headers);
    let wanted = parts.headers.get(UPGRADE).cloned();
    to_plain(&mut parts, Spoken::Http1);
    if let Some(wanted) = wanted {
        parts.headers.insert(UPGRADE, wanted);
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let (upstream, flight) = raw::open(core, key).await?;
    let mut sender = match upstream {
        Upstream::Session(stream) => core.plain.open(stream).await,
        Upstream::Plain(stream) => core.plain.open(stream).await,
    }
    .map_err(Failure::Plain)?;
    let sent = sender.send_request(Request::from_parts(parts, Body::from(body))).await;
    let mut response = sent.map_err(|error| Failure::Plain(crate::plain::PlainError::Broken(error)))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        head::strip_hop(response.headers_mut());
        return Ok((response.map(Body::from), Some(flight)));
    }
    let server = hyper::upgrade::on(&mut response);
    core.upgraded.borrow_mut().spawn_local(async move {
        let _flight = flight;
        match (client.await, server.await) {
            (Ok(client), Ok(server)) => {
                let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                let spliced = copy_bidirectional(&mut client, &mut server).await;
                tracing::trace!(sent = spliced.forward, received = spliced.back, "upgraded connection ended");
            }
            (Err(error), _) | (_, Err(error)) => tracing::debug!(%error, "upgrade failed"),
        }
    });
    Ok((response.map(|_| Body::default()), None))
}
