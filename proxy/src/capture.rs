//! How the workload's connections reach the mesh: the HTTP proxy address (absolute-form requests, CONNECT, origin-form requests for mesh
//! names), an address for one service, and connections that the kernel redirected.
//!
//! What is spoken in a connection is what its service declares; when nobody said, the client's first bytes tell, if they come soon.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_names::Protocol;
use mesh_topology::{RequestKey, Resolved};
use mesh_transport::splice::copy_bidirectional;
use mesh_transport::tcp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::body::Body;
use crate::detect::{First, Peeked};
use crate::failure::Failure;
use crate::local::server;
use crate::outbound::passthrough::{Found, look_up};
use crate::outbound::{self, Remembered, Scope, raw, split};
use crate::plain::CONNECT_MAX;
use crate::worker::Core;

/// A connection to the HTTP proxy address.
pub(crate) async fn explicit(core: &Rc<Core>, stream: TcpStream) {
    http(core, stream, Scope::Proxy(Remembered::default())).await;
}

/// A connection to the address of one service.
pub(crate) async fn service(core: &Rc<Core>, stream: TcpStream, listener: usize) {
    let listener = &core.shared.listeners[listener];
    let resolved = core.shared.snapshot.load().resolve(&listener.host, listener.port);
    match resolved {
        Resolved::Mesh { key, protocol } => client(core, stream, key, protocol).await,
        Resolved::Refused(refused) => {
            tracing::info!(host = %listener.host, port = %listener.port, reason = refused.reason(), "service of a listener cannot be called");
            tcp::abort(stream);
        }
        Resolved::Passthrough => {
            tracing::info!(host = %listener.host, "the host of a listener is not of the mesh");
            tcp::abort(stream);
        }
    }
}

/// A connection that the kernel redirected.
pub(crate) async fn transparent(core: &Rc<Core>, mut stream: TcpStream) {
    let original = match tcp::original_destination(&stream) {
        Ok(original) if !core.shared.is_own(original) => original,
        Ok(_) | Err(_) => return tcp::abort(stream),
    };
    let resolved = core.shared.snapshot.load().resolve_address(original);
    match resolved {
        Resolved::Mesh { key, protocol } => client(core, stream, key, protocol).await,
        Resolved::Refused(refused) => {
            tracing::debug!(%original, reason = refused.reason(), "redirected connection refused");
            tcp::abort(stream);
        }
        Resolved::Passthrough => match tcp::connect(original, CONNECT_MAX).await {
            Ok(mut outside) => drop(copy_bidirectional(&mut stream, &mut outside).await),
            Err(error) => {
                tracing::debug!(%original, %error, "outside destination refused");
                tcp::abort(stream);
            }
        },
    }
}

/// A CONNECT request to the HTTP proxy: the answer, while what follows is carried in a task of its own.
pub(crate) async fn connect(core: &Rc<Core>, mut request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let authority = request.uri().authority().ok_or(Failure::NoHost)?;
    let (host, port) = split(authority, 443)?;
    let resolved = core.shared.snapshot.load().resolve(&host, port);
    let (key, protocol) = match resolved {
        Resolved::Mesh { key, protocol } => (key, protocol),
        Resolved::Refused(refused) => return Err(refused.into()),
        Resolved::Passthrough => match look_up(core, &host, port).await? {
            Found::Mesh(key) => (key, Protocol::Unknown),
            Found::Outside(addresses) => return outside(core, request, &addresses).await,
        },
    };
    if protocol == Protocol::Tcp {
        // Nothing will be looked at, so it can be opened now: a failure is then an answer, and no connection that breaks.
        let (upstream, flight) = raw::open(core, key).await?;
        let mut exchange = crate::exchange::Exchange::begin(core, crate::metrics::Direction::outbound, crate::metrics::Kind::raw);
        exchange.answered(0, Some(flight));
        after_upgrade(core, &mut request, async move |mut client| drop(raw::carry(&mut client, upstream, exchange).await));
    } else {
        let own = Rc::clone(core);
        // Boxed: what is carried inside may be a request to the proxy once more.
        after_upgrade(core, &mut request, async move |io| drop(any(&own, io, key, protocol).boxed_local().await));
    }
    Ok(Response::new(Body::default()))
}

async fn outside(core: &Rc<Core>, mut request: Request<Incoming>, addresses: &[std::net::SocketAddr]) -> Result<Response<Body>, Failure> {
    let mut last = Failure::NoHost;
    for address in addresses {
        match tcp::connect(*address, CONNECT_MAX).await {
            Ok(mut stream) => {
                after_upgrade(core, &mut request, async move |mut client| drop(copy_bidirectional(&mut client, &mut stream).await));
                return Ok(Response::new(Body::default()));
            }
            Err(source) => last = Failure::Plain(crate::plain::PlainError::Connect { address: *address, source }),
        }
    }
    Err(last)
}

/// Runs `then` on the connection once the answer to CONNECT was sent.
fn after_upgrade<F>(core: &Rc<Core>, request: &mut Request<Incoming>, then: F)
where
    F: AsyncFnOnce(TokioIo<hyper::upgrade::Upgraded>) + 'static,
{
    let upgrade = hyper::upgrade::on(request);
    core.upgraded.borrow_mut().spawn_local(async move {
        match upgrade.await {
            Ok(upgraded) => then(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "client left after CONNECT"),
        }
    });
}

/// A TCP client whose target is known; when nothing can be reached, its connection breaks.
async fn client(core: &Rc<Core>, stream: TcpStream, key: RequestKey, protocol: Protocol) {
    if let Err(peeked) = any(core, stream, key, protocol).await {
        tcp::abort(peeked.into_inner());
    }
}

/// Carries a connection as what it is. On an error the client's end is given back.
async fn any<Io>(core: &Rc<Core>, io: Io, key: RequestKey, protocol: Protocol) -> Result<(), Peeked<Io>>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut peeked = Peeked::new(io);
    let looked = match protocol {
        Protocol::Tcp | Protocol::Udp => Ok(First::Other),
        Protocol::Http | Protocol::Http2 => peeked.look(None).await,
        Protocol::Unknown => peeked.look(Some(FIRST_BYTES_MAX)).await,
    };
    let Ok(first) = looked else { return Err(peeked) };
    match (protocol, first) {
        // Requests are balanced one by one.
        (_, First::Http1) | (Protocol::Http | Protocol::Http2, First::Http2) => {
            http(core, peeked, Scope::Fixed(key)).await;
            Ok(())
        }
        // Nobody said that the application speaks HTTP/2: it gets what its client sends.
        (_, First::Http2 | First::Other | First::Undecided) => raw::relay(core, peeked, key).await.map_err(|(peeked, failure)| {
            tracing::debug!(reason = failure.reason(), error = %failure, "raw connection not carried");
            peeked
        }),
    }
}

/// Serves HTTP, whichever version, on a client's connection.
async fn http<Io>(core: &Rc<Core>, io: Io, scope: Scope)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let scope = Rc::new(scope);
    let service = service_fn(|request| {
        let (core, scope) = (Rc::clone(core), Rc::clone(&scope));
        async move { Ok::<_, Infallible>(outbound::handle(&core, &scope, request).await) }
    });
    let builder = server();
    let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
    let drain = core.shared.drain.clone();
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = drain.started() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "client connection ended");
    }
}

/// How long a client whose service declares nothing may take to speak first; after that it is taken for one that waits for the server.
const FIRST_BYTES_MAX: Duration = Duration::from_millis(50);
