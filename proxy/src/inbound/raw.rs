//! Raw streams to the application.
//!
//! The first bytes are looked at, whatever the port declares, so that nobody writes `x-mesh-peer` by sending HTTP in a raw stream: HTTP
//! found there is served as HTTP. A port that declares HTTP gets nothing else. Elsewhere the server may speak first, and what its client
//! says then must not be HTTP.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_api::inject::Probe;
use mesh_names::AppPort;
use mesh_transport::session::{RawOffer, head};
use mesh_transport::splice::copy_bidirectional;
use mesh_transport::tcp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::plaintext::{REFUSED, is_asked};
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
    let well = if protocol_of(core, port).is_http() {
        let Ok(stream) = offer.accept() else { return };
        exchange.answered(0, None);
        requests(core, stream, port, Some(caller)).await
    } else {
        // Dialled before the stream is accepted, so that its caller learns what happened.
        let Ok(application) = dial(core, port).await else {
            exchange.broke();
            return offer.refuse(StatusCode::SERVICE_UNAVAILABLE, APP_UNREACHABLE);
        };
        let Ok(stream) = offer.accept() else { return };
        exchange.answered(0, None);
        bytes(core, stream, application, port, Some(caller)).await
    };
    if well { exchange.finished() } else { exchange.broke() }
}

/// Serves a plain connection to `port`, from nobody that is known.
pub(crate) async fn plain(core: &Rc<Core>, stream: TcpStream, port: AppPort) {
    if protocol_of(core, port).is_http() {
        requests(core, stream, port, None).await;
        return;
    }
    match dial(core, port).await {
        Ok(application) => drop(bytes(core, stream, application, port, None).await),
        Err(error) => {
            tracing::debug!(%error, "application not reached");
            tcp::abort(stream);
        }
    }
}

async fn dial(core: &Core, port: AppPort) -> std::io::Result<TcpStream> {
    tcp::connect(SocketAddr::new(core.shared.app, port.get()), CONNECT_MAX).await
}

/// A port that declares HTTP: what is none is refused, by breaking the connection. Returns whether it was served.
async fn requests<Io>(core: &Rc<Core>, io: Io, port: AppPort, caller: Option<&Caller>) -> bool
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut client = Peeked::new(io);
    match client.look(None).await {
        Ok(First::Http1 | First::Http2) => http(core, client, port, caller).await,
        Ok(First::Other | First::Undecided) => {
            core.shared.denied.count(NOT_HTTP);
            return false;
        }
        Err(error) => {
            tracing::debug!(%error, "raw stream broke");
            return false;
        }
    }
    true
}

/// Serves a plain connection on which only `probes` are answered.
pub(crate) async fn probed(core: &Rc<Core>, stream: TcpStream, port: AppPort, probes: Vec<Probe>) {
    let mut client = Peeked::new(stream);
    match client.look(Some(PROBE_WITHIN)).await {
        Ok(First::Http1 | First::Http2) => http_only(core, client, port, None, Some(probes.into())).await,
        Ok(First::Other | First::Undecided) | Err(_) => {
            core.shared.denied.count(REFUSED);
            tcp::abort(client.into_inner());
        }
    }
}

/// Any other port: whoever speaks first tells what is spoken. Returns whether it ended well.
async fn bytes<Io>(core: &Rc<Core>, io: Io, mut application: TcpStream, port: AppPort, caller: Option<&Caller>) -> bool
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut client = Peeked::new(io);
    let mut byte = [0; 1];
    let heard = tokio::select! {
        heard = client.hear() => heard.map(|()| true),
        _ = application.peek(&mut byte) => Ok(false),
    };
    let first = match heard {
        Ok(true) => client.look(Some(FIRST_LINE_MAX)).await,
        Ok(false) => Ok(First::Undecided),
        Err(error) => Err(error),
    };
    match first {
        Ok(First::Http1 | First::Http2) => {
            drop(application);
            http(core, client, port, caller).await;
            true
        }
        Ok(First::Other) => splice(&mut client, &mut application).await,
        Ok(First::Undecided) => splice(&mut client.guarded(), &mut application).await,
        Err(error) => {
            tracing::debug!(%error, "raw stream broke");
            false
        }
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
    http_only(core, io, port, caller, None).await;
}

/// The same, with nothing but these questions answered, if there are any.
async fn http_only<Io>(core: &Rc<Core>, io: Io, port: AppPort, caller: Option<&Caller>, only: Option<Rc<[Probe]>>)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let upgraded = Upgrade::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (core, caller, upgraded, only) = (Rc::clone(core), caller.cloned(), Rc::clone(&upgraded), only.clone());
        async move {
            if only.is_some_and(|only| !is_asked(&request, &only)) {
                core.shared.denied.count(REFUSED);
                return Ok::<_, Infallible>(no_plaintext());
            }
            Ok(answer(&core, caller.as_ref(), port, request, &upgraded).await)
        }
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
        return tracing::debug!(%error, "connection ended");
    }
    // Carried here and in no task of its own, so that it ends with what allowed it.
    if let Some((client, application)) = upgraded.take() {
        match tokio::try_join!(client, application) {
            Ok((client, application)) => drop(copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(application)).await),
            Err(error) => tracing::debug!(%error, "upgrade failed"),
        }
    }
}

/// Both ends of a connection that has become bytes.
type Upgrade = Rc<Cell<Option<(OnUpgrade, OnUpgrade)>>>;

async fn answer(core: &Rc<Core>, caller: Option<&Caller>, port: AppPort, request: Request<Incoming>, upgraded: &Upgrade) -> Response<Body> {
    if request.headers().contains_key(UPGRADE) && request.version() < http::Version::HTTP_2 {
        return upgrade(core, caller, port, request, upgraded).await;
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
async fn upgrade(
    core: &Rc<Core>,
    caller: Option<&Caller>,
    port: AppPort,
    mut request: Request<Incoming>,
    upgraded: &Upgrade,
) -> Response<Body> {
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
    upgraded.set(Some((client, hyper::upgrade::on(&mut response))));
    response.map(|_| Body::default())
}

fn no_plaintext() -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

fn unreachable(error: PlainError) -> Response<Body> {
    let failure = match error {
        PlainError::Connect { .. } => crate::failure::Failure::AppUnreachable,
        broken @ PlainError::Broken(_) => crate::failure::Failure::Plain(broken),
    };
    failure.response("", false)
}

/// How long a first line that a client has begun may take; after that it must not turn out to be HTTP.
const FIRST_LINE_MAX: Duration = Duration::from_millis(50);
const NOT_HTTP: &str = "not-http";
/// How long the kubelet may take to ask.
const PROBE_WITHIN: Duration = Duration::from_secs(10);
