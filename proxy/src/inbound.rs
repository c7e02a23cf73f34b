//! Sessions of other workloads: who calls is proved by TLS, what it may have is decided for each stream, and the application is told the
//! caller's identity in one header that nobody else can set.
//!
//! Invariant: streams of another trust domain are decided again at each new snapshot, and end when they are no longer allowed.

mod plaintext;
pub(crate) mod raw;

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt;
use http::{HeaderValue, Request, StatusCode};
use mesh_names::{AppPort, Protocol};
use mesh_topology::{ExportName, RefusedDelivery};
use mesh_transport::identity::life_left;
use mesh_transport::session::{self, Incoming, Kind, Limits, RecvBody, Responder, Served, StreamTarget, head};
use mesh_trust::{VerifiedPeer, policy};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::exchange::{Exchange, Line};
use crate::headers::{self, PEER, peer_value};
use crate::metrics::{self, Direction};
use crate::outbound::{grpc_content, to_plain};
use crate::plain::{PlainError, Spoken};
use crate::worker::Core;

use plaintext::Admitted;
pub use plaintext::Plaintext;

/// Who calls, and the header that says so.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    peer: Arc<VerifiedPeer>,
    value: Option<HeaderValue>,
}

/// Serves a session from its handshake to its end.
pub(crate) async fn session(core: &Rc<Core>, stream: TcpStream) {
    let shared = &core.shared;
    let (tls, peer) = match shared.acceptor.accept(stream).await {
        Ok(accepted) => accepted,
        // A refused peer was counted by the verifier.
        Err(error) => return tracing::debug!(error = crate::failure::chain(&error), "session refused"),
    };
    let peer = Arc::new(peer);
    let caller = Caller { value: peer_value(peer.id()), peer: Arc::clone(&peer) };
    let revoked = CancellationToken::new();
    let served = Served {
        life: life_left(&shared.identity.svid(), &peer, SystemTime::now()),
        peer,
        limits: Limits::default(),
        drain: shared.drain.clone(),
        revoked: revoked.clone(),
    };
    let handler = |incoming: Incoming| handle(Rc::clone(core), caller.clone(), incoming);
    let serving = session::serve(tls, served, handler);
    let watching = end_when_untrusted(core, &caller, &revoked);
    let ended = tokio::select! {
        ended = serving => ended,
        never = watching => match never {},
    };
    if let Err(error) = ended {
        tracing::debug!(error = crate::failure::chain(&error), peer = %caller.peer.id(), "session ended");
    }
}

/// A plain connection to the workload that the kernel redirected: from someone without a proxy, so with nobody's identity.
pub(crate) async fn unmeshed(core: &Rc<Core>, stream: TcpStream) {
    match mesh_transport::tcp::original_destination(&stream).ok().and_then(|original| AppPort::try_from(original.port()).ok()) {
        Some(port) if !core.shared.own_ports.contains(&port.get()) => match core.shared.plaintext.admits(port) {
            Admitted::Everything => raw::plain(core, stream, port).await,
            Admitted::Only(probes) => raw::probed(core, stream, port, probes).await,
            Admitted::Nothing => {
                core.shared.denied.count(plaintext::REFUSED);
                mesh_transport::tcp::abort(stream);
            }
        },
        Some(_) | None => mesh_transport::tcp::abort(stream),
    }
}

/// Ends the session when its peer's trust domain is not trusted any more.
async fn end_when_untrusted(core: &Core, caller: &Caller, revoked: &CancellationToken) -> std::convert::Infallible {
    let mut changed = core.shared.changed.clone();
    loop {
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if core.shared.identity.bundles().get(caller.peer.id().trust_domain()).is_none() {
            core.shared.denied.count("trust-withdrawn");
            revoked.cancel();
        }
    }
}

/// Serves one stream.
async fn handle(core: Rc<Core>, caller: Caller, incoming: Incoming) {
    let Incoming { target, kind, .. } = incoming;
    let kind_of = if matches!(kind, Kind::Raw(_)) { metrics::Kind::raw } else { metrics::Kind::http };
    let mut exchange = Exchange::begin(&core, Direction::inbound, kind_of);
    exchange.describe(|| Line {
        to: target.as_ref().map(ToString::to_string).unwrap_or_default(),
        peer: caller.peer.id().to_string(),
        ..Line::default()
    });
    let decided = target.as_ref().ok_or(NO_TARGET).and_then(|target| allow(&core, &caller, target));
    let port = match decided {
        Ok(port) => port,
        Err(reason) => {
            core.shared.denied.count(reason);
            exchange.refused();
            return match kind {
                Kind::Request(_, responder) => responder.refuse(StatusCode::FORBIDDEN, reason),
                Kind::Raw(offer) => offer.refuse(StatusCode::FORBIDDEN, reason),
            };
        }
    };
    let own = caller.peer.id().trust_domain() == core.shared.identity.svid().id().trust_domain();
    let serving = async {
        match kind {
            Kind::Request(request, responder) => answer(&core, &caller, port, request, responder, exchange).await,
            // Boxed, so that a request does not carry the room that a raw connection needs.
            Kind::Raw(offer) => raw::accept(&core, &caller, port, offer, exchange).boxed_local().await,
        }
    };
    if own {
        return serving.await;
    }
    let revoked = until_denied(&core, &caller, target.as_ref(), port);
    tokio::select! {
        () = serving => {}
        reason = revoked => {
            core.shared.denied.count(reason);
            tracing::info!(peer = %caller.peer.id(), reason, "stream ended: no longer allowed");
        }
    }
}

/// The application's port that `caller` may reach with `target`.
fn allow(core: &Core, caller: &Caller, target: &StreamTarget) -> Result<AppPort, &'static str> {
    let snapshot = core.shared.snapshot.load();
    let own = &snapshot.own().trust_domain;
    let (asked, cluster) = match target {
        StreamTarget::Port(port) => (policy::Target::Port(*port), None),
        StreamTarget::Export { cluster, service, port } => {
            (policy::Target::Export { service: service.clone(), port: *port }, Some(cluster.clone()))
        }
    };
    let port = policy::decide(own, &caller.peer, &asked, |peer, service, port| {
        let export = ExportName { cluster: cluster?, service: service.clone(), port };
        snapshot.inbound_export(peer, core.shared.address, &export).ok()
    })
    .map_err(policy::Denied::reason)?;
    if core.shared.own_ports.contains(&port.get()) { Err(OWN_PORT) } else { Ok(port) }
}

/// Whether a stream to `port` may go on. A workload that left the listing, because it ends, finishes what it has: that is no matter of
/// permission.
fn still_allowed(core: &Core, caller: &Caller, target: &StreamTarget, port: AppPort) -> Result<(), &'static str> {
    let StreamTarget::Export { cluster, service, port: asked } = target else { return allow(core, caller, target).map(drop) };
    let export = ExportName { cluster: cluster.clone(), service: service.clone(), port: *asked };
    match core.shared.snapshot.load().inbound_export(caller.peer.id().trust_domain(), core.shared.address, &export) {
        Ok(now) if now == port => Ok(()),
        Ok(_) => Err(EXPORT_MOVED),
        Err(RefusedDelivery::NoEndpoint) => Ok(()),
        Err(RefusedDelivery::UnknownPeer | RefusedDelivery::NotExportedOrUnknown) => Err(policy::Denied::NotExported.reason()),
    }
}

/// Returns when the stream is no longer allowed, or leads elsewhere now.
async fn until_denied(core: &Core, caller: &Caller, target: Option<&StreamTarget>, port: AppPort) -> &'static str {
    let mut changed = core.shared.changed.clone();
    loop {
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if let Some(target) = target
            && let Err(reason) = still_allowed(core, caller, target, port)
        {
            return reason;
        }
    }
}

/// Hands a request to the application and its answer back.
async fn answer(
    core: &Rc<Core>,
    caller: &Caller,
    port: AppPort,
    request: Request<RecvBody>,
    mut responder: Responder,
    mut exchange: Exchange,
) {
    let (parts, body) = request.into_parts();
    let grpc = grpc_content(&parts.headers);
    let spoken = if grpc || protocol_of(core, port) == Protocol::Http2 { Spoken::Http2 } else { Spoken::Http1 };
    let request = Request::from_parts(parts, Body::from(body));
    let answered = tokio::select! {
        answered = to_application(core, Some(caller), port, spoken, request) => answered,
        // Nobody waits any more: the application's work would be for nobody, and its stream would never be free again.
        () = responder.gone() => return,
    };
    match answered {
        Ok(response) => {
            exchange.answered(response.status().as_u16(), None);
            if let Err(error) = responder.send(response.map(|body| body.measured(exchange))).await {
                tracing::debug!(error = crate::failure::chain(&error), "answer not sent to its end");
            }
        }
        Err(error @ PlainError::Connect { .. }) => {
            tracing::debug!(error = crate::failure::chain(&error), "application not reached");
            exchange.broke();
            responder.refuse(StatusCode::SERVICE_UNAVAILABLE, APP_UNREACHABLE);
        }
        Err(error) => {
            tracing::debug!(error = crate::failure::chain(&error), "application broke off");
            exchange.broke();
            responder.reset();
        }
    }
}

/// Sends a request to the application, with the caller's identity and nothing that only a proxy may say.
pub(crate) async fn to_application(
    core: &Rc<Core>,
    caller: Option<&Caller>,
    port: AppPort,
    spoken: Spoken,
    request: Request<Body>,
) -> Result<http::Response<Body>, PlainError> {
    let (mut parts, body) = request.into_parts();
    headers::strip_claims(&mut parts.headers);
    to_plain(&mut parts, spoken);
    if let Some(value) = caller.and_then(|caller| caller.value.clone()) {
        parts.headers.insert(PEER, value);
    }
    let address = std::net::SocketAddr::new(core.shared.app, port.get());
    let mut response = core.plain.send(address, spoken, Request::from_parts(parts, body)).await?;
    head::strip_own(response.headers_mut());
    Ok(response)
}

/// What the cluster says is spoken on a port of this workload.
pub(crate) fn protocol_of(core: &Core, port: AppPort) -> Protocol {
    core.shared.snapshot.load().protocol_at(core.shared.address, port)
}

/// The word for an application that does not accept connections: nothing was sent to it, so another endpoint may be tried.
pub(crate) const APP_UNREACHABLE: &str = "app-unreachable";
const NO_TARGET: &str = "no-target";
const EXPORT_MOVED: &str = "export-moved";
const OWN_PORT: &str = "proxy-port";
