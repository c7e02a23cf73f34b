//! Raw streams to the application.
//!
//! Where the port may speak HTTP, the first bytes are looked at, so that nobody writes `x-mesh-peer` by sending HTTP in a raw stream: HTTP
//! found there is served as HTTP. Where a server may speak first, it is let to, and what its client says then must not be HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_names::{AppPort, Protocol};
use mesh_transport::session::{RawOffer, head};
use mesh_transport::splice::copy_bidirectional;
use mesh_transport::tcp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{APP_UNREACHABLE, Caller, protocol_of, to_application};
use crate::body::Body;
use crate::detect::{First, Peeked};
use crate::exchange::Exchange;
use crate::headers::{self, PEER};
use crate::local::server;
use crate::outbound::{grpc_content, to_plain};
use crate::plain::{CONNECT_MAX, PlainError, Spoken};
use crate::worker::Core;

/// Serves a raw stream of a session.
pub(crate) async fn accept(core: &Rc<Core>, caller: &Caller, port: AppPort, offer: RawOffer, mut exchange: Exchange) {
    if protocol_of(core, port) == Protocol::Tcp {
        // Dialled before the stream is accepted, so that its caller learns what happened.
        let Ok(mut application) = tcp::connect(SocketAddr::new(core.shared.app, port.get()), CONNECT_MAX).await else {
            exchange.broke();
            return offer.refuse(StatusCode::SERVICE_UNAVAILABLE, APP_UNREACHABLE);
        };
        let Ok(mut stream) = offer.accept() else { return };
        exchange.answered(0, None);
        if splice(&mut stream, &mut application).await {
            exchange.finished()
        } else {
            exchange.broke()
        }
        return;
    }
    let Ok(stream) = offer.accept() else { return };
    exchange.answered(0, None);
    serve(core, stream, port, Some(caller)).await;
    exchange.finished();
}

/// Serves a byte stream to `port`, whatever is spoken in it.
pub(crate) async fn serve<Io>(core: &Rc<Core>, io: Io, port: AppPort, caller: Option<&Caller>)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut client = Peeked::new(io);
    let protocol = protocol_of(core, port);
    let limit = match protocol {
        Protocol::Http | Protocol::Http2 => None,
        Protocol::Tcp | Protocol::Udp | Protocol::Unknown => Some(FIRST_BYTES_MAX),
    };
    let looked = if protocol == Protocol::Tcp { Ok(First::Other) } else { client.look(limit).await };
    match looked {
        Ok(First::Http1 | First::Http2) => http(core, client, port, caller).await,
        Ok(First::Other) => bytes(core, client, port).await,
        Ok(First::Undecided) => undecided(core, client, port, caller).await,
        Err(error) => tracing::debug!(%error, "raw stream broke"),
    }
}

/// Nothing has told yet what is spoken: whoever speaks first does.
async fn undecided<Io>(core: &Rc<Core>, mut client: Peeked<Io>, port: AppPort, caller: Option<&Caller>)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(mut application) = tcp::connect(SocketAddr::new(core.shared.app, port.get()), CONNECT_MAX).await else { return };
    if !client.heard_something() {
        let mut byte = [0; 1];
        let first = tokio::select! {
            first = client.look(None) => first.ok(),
            _ = application.peek(&mut byte) => Some(First::Undecided),
        };
        match first {
            Some(First::Http1 | First::Http2) => return http(core, client, port, caller).await,
            Some(First::Other) => {
                splice(&mut client, &mut application).await;
                return;
            }
            Some(First::Undecided) => {}
            None => return,
        }
    }
    splice(&mut client.guarded(), &mut application).await;
}

async fn bytes<Io>(core: &Rc<Core>, mut client: Peeked<Io>, port: AppPort)
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    match tcp::connect(SocketAddr::new(core.shared.app, port.get()), CONNECT_MAX).await {
        Ok(mut application) => drop(splice(&mut client, &mut application).await),
        // Dropping a raw stream resets it.
        Err(error) => tracing::debug!(%error, "application not reached"),
    }
}

/// Copies until both have ended; returns whether both ended well. Otherwise the application's connection is reset.
async fn splice<Io>(client: &mut Io, application: &mut TcpStream) -> bool
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let spliced = copy_bidirectional(client, application).await;
    if let Err(error) = &spliced.result {
        tracing::debug!(%error, "raw stream broke");
        // Dropping it after this makes the kernel send a reset: what the application got is not all.
        let _ = socket2::SockRef::from(&*application).set_linger(Some(Duration::ZERO));
    }
    spliced.result.is_ok()
}

/// Serves HTTP that was found in a byte stream, in the version that its client speaks.
async fn http<Io>(core: &Rc<Core>, io: Io, port: AppPort, caller: Option<&Caller>)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (core, caller) = (Rc::clone(core), caller.cloned());
        async move { Ok::<_, Infallible>(answer(&core, caller.as_ref(), port, request).await) }
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
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer(core: &Rc<Core>, caller: Option<&Caller>, port: AppPort, request: Request<Incoming>) -> Response<Body> {
    if request.headers().contains_key(UPGRADE) && request.version() < http::Version::HTTP_2 {
        return upgrade(core, caller, port, request).await;
    }
    let http2 = request.version() == http::Version::HTTP_2 || grpc_content(request.headers());
    let spoken = if http2 { Spoken::Http2 } else { Spoken::Http1 };
    match to_application(core, caller, port, spoken, request.map(Body::from)).await {
        Ok(mut response) => {
            head::strip_hop(response.headers_mut());
            response
        }
        Err(error) => unreachable(error),
    }
}

/// A request that turns its connection into something else: both connections become bytes.
async fn upgrade(core: &Rc<Core>, caller: Option<&Caller>, port: AppPort, mut request: Request<Incoming>) -> Response<Body> {
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let wanted = parts.headers.get(UPGRADE).cloned();
    headers::strip_claims(&mut parts.headers);
    to_plain(&mut parts, Spoken::Http1);
    if let Some(wanted) = wanted {
        parts.headers.insert(UPGRADE, wanted);
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if let Some(value) = caller.and_then(|caller| caller.value.clone()) {
        parts.headers.insert(PEER, value);
    }
    let address = SocketAddr::new(core.shared.app, port.get());
    let sent = async {
        let stream = tcp::connect(address, CONNECT_MAX).await.map_err(|source| PlainError::Connect { address, source })?;
        let mut sender = core.plain.open(stream).await?;
        sender.send_request(Request::from_parts(parts, Body::from(body))).await.map_err(PlainError::Broken)
    };
    let mut response = match sent.await {
        Ok(response) => response,
        Err(error) => return unreachable(error),
    };
    head::strip_own(response.headers_mut());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        head::strip_hop(response.headers_mut());
        return response.map(Body::from);
    }
    let application = hyper::upgrade::on(&mut response);
    core.upgraded.borrow_mut().spawn_local(async move {
        match (client.await, application.await) {
            (Ok(client), Ok(application)) => {
                let (mut client, mut application) = (TokioIo::new(client), TokioIo::new(application));
                drop(copy_bidirectional(&mut client, &mut application).await);
            }
            (Err(error), _) | (_, Err(error)) => tracing::debug!(%error, "upgrade failed"),
        }
    });
    response.map(|_| Body::default())
}

fn unreachable(error: PlainError) -> Response<Body> {
    let failure = match error {
        PlainError::Connect { .. } => crate::failure::Failure::AppUnreachable,
        broken @ PlainError::Broken(_) => crate::failure::Failure::Plain(broken),
    };
    failure.response("", false)
}

/// How long a client of a port that declares nothing may take to speak first.
const FIRST_BYTES_MAX: Duration = Duration::from_millis(50);
