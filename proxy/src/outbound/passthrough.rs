//! What is not the mesh's: hosts outside of it are called as any HTTP proxy calls them, untouched.
//!
//! A name that resolves to an address of the mesh is the mesh's after all: plain text never goes there.

use std::net::SocketAddr;
use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use mesh_names::{Host, ServicePort};
use mesh_topology::{RequestKey, Resolved};

use super::to_plain;
use crate::body::Body;
use crate::exchange::Flight;
use crate::failure::Failure;
use crate::plain::Spoken;
use crate::worker::Core;

/// What an outside host turned out to be.
pub(crate) enum Found {
    /// Somewhere outside.
    Outside(Vec<SocketAddr>),
    /// An address of the mesh.
    Mesh(RequestKey),
}

/// Looks a host up.
pub(crate) async fn look_up(core: &Core, host: &Host, port: ServicePort) -> Result<Found, Failure> {
    let lookup = |source| Failure::Lookup { host: host.to_string(), source };
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port.get())).await.map_err(lookup)?.collect();
    if let Some(own) = addresses.iter().find(|address| core.shared.is_own(**address)) {
        return Err(Failure::OwnAddress(*own));
    }
    let snapshot = core.shared.snapshot.load();
    for address in &addresses {
        match snapshot.resolve_address(*address) {
            Resolved::Mesh { key, .. } => return Ok(Found::Mesh(key)),
            Resolved::Refused(refused) => return Err(refused.into()),
            Resolved::Passthrough => {}
        }
    }
    if addresses.is_empty() {
        return Err(lookup(std::io::Error::from(std::io::ErrorKind::NotFound)));
    }
    Ok(Found::Outside(addresses))
}

/// Carries a request to a host outside the mesh.
pub(crate) async fn request(
    core: &Rc<Core>,
    request: Request<Incoming>,
    host: &Host,
    port: ServicePort,
) -> Result<(Response<Body>, Option<Flight>), Failure> {
    let addresses = match look_up(core, host, port).await? {
        Found::Mesh(key) => return Box::pin(super::send(core, key, request)).await,
        Found::Outside(addresses) => addresses,
    };
    let (mut parts, body) = request.into_parts();
    let body = super::Replay::of(body);
    to_plain(&mut parts, Spoken::Http1);
    let mut last = Failure::NoHost;
    for address in addresses {
        let attempt = Request::from_parts(super::copy(&parts), body.attempt());
        match core.plain.send(address, Spoken::Http1, attempt).await {
            Ok(response) => return Ok((response, None)),
            Err(error) => {
                let connect = matches!(error, crate::plain::PlainError::Connect { .. });
                last = Failure::Plain(error);
                if !connect {
                    break;
                }
            }
        }
    }
    Err(last)
}
