//! One tunnel from its handshake to its end: authenticate, read, decide, dial, answer, copy.
//!
//! While it is open it is checked again at each new snapshot, and it ends with its peer's SVID at the latest.

use std::net::TcpStream as StdTcpStream;
use std::time::{Instant, SystemTime};

use mesh_api::connect::ControlAddress;
use mesh_names::ServiceId;
use mesh_runtime::clock;
use mesh_topology::{EndpointKey, Outcome, Snapshot, Stage};
use mesh_transport::identity::life_left;
use mesh_transport::tunnel::{self, Pending, Status, Target, TunnelError, TunnelReply, TunnelRequest, watch};
use mesh_transport::{TlsError, splice, tcp};
use mesh_trust::VerifiedPeer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::accept::Local;
use crate::metrics::Tunnel;
use crate::plan::{self, Asker, Held, Join, Refusal, Verdict};
use crate::quota::Permit;

type Outer = TlsStream<TcpStream>;

/// Serves one connection to the tunnel listener.
pub(crate) async fn handle(local: &Local, stream: StdTcpStream, connection: Permit) {
    let parts = &local.shared.parts;
    let denied = &parts.metrics.denied;
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    // A socket that takes no options is gone; the handshake will say so.
    let _ = tcp::prepare(&stream);
    let (io, peer) = match local.acceptor.accept(stream).await {
        Ok(accepted) => accepted,
        Err(error) => return denied_handshake(local, &error),
    };
    let snapshot = parts.snapshot.load_full();
    let Some(asker) = Asker::of(&snapshot, peer.id()) else { return denied.count("unknown-peer") };
    let (request, pending) = match tunnel::accept(io, parts.settings.limits.request).await {
        Ok(accepted) => accepted,
        Err(error) => return denied.count(reason_of(&error)),
    };
    let mut tunnel = Tunnel::asked(&parts.metrics, source(&asker), destination(&snapshot, &request.target));
    // `watch` is how peers see that we live: it must be answered above all when everything else is not.
    let quota = if request.target == Target::Watch { None } else { Some(local.shared.quota.tunnel(peer.id().trust_domain())) };
    if let Some(None) = quota {
        let busy = Refusal { status: Status::Busy, reason: "quota" };
        return refuse(local, pending, &mut tunnel, busy).await;
    }
    let verdict = decide(local, &snapshot, &asker, &peer, &request);
    match verdict {
        Verdict::Refuse(refusal) => refuse(local, pending, &mut tunnel, refusal).await,
        Verdict::Watch => watched(local, pending, &mut tunnel, &peer).await,
        Verdict::Control => to_control(local, pending, &mut tunnel, &peer).await,
        Verdict::Join(join) => joined(local, pending, &mut tunnel, (&peer, &asker, &request), join).await,
    }
    drop((quota, connection));
}

fn decide(local: &Local, snapshot: &Snapshot, asker: &Asker, peer: &VerifiedPeer, request: &TunnelRequest) -> Verdict {
    let chance = (&*local.loads.borrow(), Local::draw());
    plan::decide(snapshot, (asker, peer.id()), request, local.shared.drain.is_started(), chance)
}

async fn refuse(local: &Local, pending: Pending<Outer>, tunnel: &mut Tunnel, refusal: Refusal) {
    local.shared.parts.metrics.denied.count(refusal.reason);
    tunnel.answered(refusal.status);
    let reply = TunnelReply::new(refusal.status, "");
    // The answer is a courtesy: a peer that does not take it is closed all the same.
    let _ = tokio::time::timeout(local.shared.parts.settings.limits.dial, pending.refuse(&reply)).await;
}

async fn watched(local: &Local, pending: Pending<Outer>, tunnel: &mut Tunnel, peer: &VerifiedPeer) {
    tunnel.answered(Status::Accepted);
    let Ok(io) = pending.accept(&TunnelReply::accepted(None)).await else { return };
    // Who asks may leave in any way it likes.
    let _ = hold(local, peer, &Held::Watch, watch::serve(io, &local.shared.drain)).await;
}

async fn to_control(local: &Local, pending: Pending<Outer>, tunnel: &mut Tunnel, peer: &VerifiedPeer) {
    let joined = local.shared.quota.joined();
    let Some(control) = dial_control(local).await else {
        return refuse(local, pending, tunnel, Refusal { status: Status::NoEndpoint, reason: "control-unreachable" }).await;
    };
    tunnel.answered(Status::Accepted);
    let Ok(io) = pending.accept(&TunnelReply::accepted(None)).await else { return };
    copy(local, peer, &Held::Control, (io, control), tunnel).await;
    drop(joined);
}

/// The replicas of control are tried in an order that differs from tunnel to tunnel.
async fn dial_control(local: &Local) -> Option<TcpStream> {
    let settings = &local.shared.parts.settings;
    let mut order: Vec<&ControlAddress> = settings.control.iter().collect();
    if !order.is_empty() {
        let first = rand::random_range(0..order.len());
        order.rotate_left(first);
    }
    for address in order {
        let connecting = TcpStream::connect(address.to_string());
        match tokio::time::timeout(settings.limits.dial, connecting).await {
            Ok(Ok(stream)) if tcp::prepare(&stream).is_ok() => return Some(stream),
            Ok(Ok(_)) | Err(_) => tracing::debug!(%address, "control did not answer"),
            Ok(Err(error)) => tracing::debug!(%address, %error, "control not reached"),
        }
    }
    None
}

/// Dials until one endpoint answers: when the peer named one, only that; else others are tried.
async fn joined(
    local: &Local,
    pending: Pending<Outer>,
    tunnel: &mut Tunnel,
    (peer, asker, request): (&VerifiedPeer, &Asker, &TunnelRequest),
    mut join: Join,
) {
    let named = matches!(&request.target, Target::Export(export) if export.handle.is_some());
    let waited_for = local.shared.quota.joined();
    for attempt in 1.. {
        let load = EndpointKey::Local(join.endpoint.clone());
        let begun = clock::now();
        local.loads.borrow_mut().on_started(&load, begun);
        let load = Load { local, key: load, begun };
        match tcp::connect(join.address, local.shared.parts.settings.limits.dial).await {
            Ok(inbound) => {
                let load = load.reached();
                tunnel.answered(Status::Accepted);
                let reply = TunnelReply::accepted(Some(join.handle.clone()));
                let Ok(io) = pending.accept(&reply).await else { return };
                copy(local, peer, &Held::Export(Box::new(join)), (io, inbound), tunnel).await;
                drop((load, waited_for));
                return;
            }
            Err(error) => {
                tracing::debug!(endpoint = %join.endpoint, address = %join.address, %error, "endpoint not reached");
                load.failed();
            }
        }
        let snapshot = local.shared.parts.snapshot.load();
        let next = if named || attempt >= DIALS_MAX { None } else { Some(decide(local, &snapshot, asker, peer, request)) };
        match next {
            Some(Verdict::Join(other)) => join = other,
            Some(Verdict::Refuse(refusal)) => return refuse(local, pending, tunnel, refusal).await,
            Some(Verdict::Control | Verdict::Watch) | None => {
                let refusal = Refusal { status: Status::NoEndpoint, reason: "endpoint-unreachable" };
                return refuse(local, pending, tunnel, refusal).await;
            }
        }
    }
}

async fn copy<Io>(local: &Local, peer: &VerifiedPeer, held: &Held, (mut outer, mut inner): (Io, TcpStream), tunnel: &Tunnel)
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    if let Some(spliced) = hold(local, peer, held, splice::copy_bidirectional(&mut outer, &mut inner)).await {
        tunnel.copied(spliced.forward, spliced.back);
        if let Err(error) = spliced.result {
            tracing::debug!(%error, "tunnel broke");
            tcp::abort(inner);
        }
        return;
    }
    tcp::abort(inner);
}

/// Runs `work` as long as the tunnel may be open: none when it was ended.
async fn hold<T>(local: &Local, peer: &VerifiedPeer, held: &Held, work: impl Future<Output = T>) -> Option<T> {
    let denied = &local.shared.parts.metrics.denied;
    let life = life_left(&local.shared.parts.identity.svid(), peer, SystemTime::now());
    tokio::select! {
        done = work => Some(done),
        reason = revoked(local, peer, held) => {
            tracing::info!(peer = %peer.id(), reason, "tunnel ended: no longer allowed");
            denied.count("revoked");
            None
        }
        () = tokio::time::sleep(life) => {
            denied.count("svid-ended");
            None
        }
        () = local.shared.drain.ended() => None,
    }
}

/// Returns why, when a new snapshot no longer allows the tunnel.
async fn revoked(local: &Local, peer: &VerifiedPeer, held: &Held) -> &'static str {
    let parts = &local.shared.parts;
    let mut changed = parts.changed.clone();
    loop {
        changed.borrow_and_update();
        if let Err(reason) = plan::still_allowed(&parts.snapshot.load(), peer.id(), held) {
            return reason;
        }
        if changed.changed().await.is_err() {
            // Nobody follows discovery any more: what was last known stays.
            std::future::pending::<()>().await;
        }
    }
}

/// What an endpoint is charged with: the time that it took to answer, as long as the tunnel lives.
struct Load<'a> {
    local: &'a Local,
    key: EndpointKey,
    begun: Instant,
}

impl<'a> Load<'a> {
    fn failed(self) {
        self.finish(Outcome::Failed(Stage::Dial));
    }

    fn reached(self) -> Reached<'a> {
        Reached { took: self.begun.elapsed(), load: self }
    }

    fn finish(self, outcome: Outcome) {
        let now = clock::now();
        self.local.loads.borrow_mut().on_finished(&self.key, now - self.begun, outcome, now);
    }
}

struct Reached<'a> {
    load: Load<'a>,
    took: std::time::Duration,
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        self.load.local.loads.borrow_mut().on_finished(&self.load.key, self.took, Outcome::Answered, clock::now());
    }
}

fn denied_handshake(local: &Local, error: &TlsError) {
    let denied = &local.shared.parts.metrics.denied;
    match error {
        // The verifier has counted it, by its own reason.
        TlsError::Refused(_) => {}
        TlsError::TooSlow => denied.count("handshake-timeout"),
        TlsError::Broken(_) => denied.count("handshake-failed"),
        TlsError::Protocol { .. } => denied.count("alpn"),
    }
    tracing::debug!(%error, "tunnel handshake failed");
}

fn reason_of(error: &TunnelError) -> &'static str {
    match error {
        TunnelError::TooSlow(_) => "request-timeout",
        TunnelError::Malformed(_) => "request-malformed",
        TunnelError::Broken(_) | TunnelError::Connect { .. } | TunnelError::Tls { .. } | TunnelError::Refused(_) => "request-broken",
    }
}

fn source(asker: &Asker) -> &str {
    match asker {
        Asker::Own => "own",
        Asker::Peer(peer) => peer.name.as_str(),
    }
}

/// The destination as a label: a name of the snapshot, or a constant.
fn destination(snapshot: &Snapshot, target: &Target) -> String {
    match target {
        Target::Watch => "watch".to_owned(),
        Target::Control(_) => "control".to_owned(),
        Target::Export(export) => {
            snapshot.export(&export.service).map(|export| &export.service).map_or_else(|| "other".to_owned(), ServiceId::to_string)
        }
    }
}

/// Endpoints that are tried for one request that names none.
const DIALS_MAX: u32 = 3;
