//! The way out for clients without a proxy: one listener per imported service and port, on the gateway's own address, as the snapshot
//! says. It routes like an outbound proxy: each connection is a raw stream of a session under the gateway's second identity.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::sync::Arc;
use std::time::Duration;

use mesh_names::TunnelPort;
use mesh_runtime::clock;
use mesh_runtime::workers::Workers;
use mesh_topology::{Egress, Outcome, RequestKey, Route, Stage, Target};
use mesh_transport::session::RawStream;
use mesh_transport::{Plan, Pool, splice, tcp};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::accept::{Job, Local};
use crate::serve::{Shared, hand};

/// Keeps exactly the listeners that the snapshot names, for ever.
pub(crate) async fn listen(shared: &Arc<Shared>, workers: &Arc<Workers<Job>>) {
    let mut listeners: HashMap<TunnelPort, AbortOnDropHandle<()>> = HashMap::new();
    let mut changed = shared.parts.changed.clone();
    loop {
        changed.borrow_and_update();
        let snapshot = shared.parts.snapshot.load_full();
        listeners.retain(|port, _| snapshot.egress_at(*port).is_some());
        for egress in snapshot.egress().filter(|egress| !listeners.contains_key(&egress.port)).cloned().collect::<Vec<_>>() {
            let address = SocketAddr::new(shared.parts.settings.egress_address, egress.port.get());
            match tcp::listen(address) {
                Ok(listener) => {
                    let accepting = accept_all(listener, egress.port, Arc::clone(shared), Arc::clone(workers));
                    listeners.insert(egress.port, AbortOnDropHandle::new(tokio::spawn(accepting)));
                }
                Err(error) => tracing::warn!(%address, service = %egress.service, %error, "no way out to this service"),
            }
        }
        tokio::select! {
            Ok(()) = changed.changed() => {}
            // An address that was taken may be free by now.
            () = tokio::time::sleep(AGAIN_AFTER) => {}
        }
    }
}

async fn accept_all(listener: TcpListener, port: TunnelPort, shared: Arc<Shared>, workers: Arc<Workers<Job>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => hand(&shared, &workers, stream.into_std().map(|stream| Job::Egress(stream, port))),
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Carries one connection of a client without a proxy.
pub(crate) async fn handle(local: &Local, client: StdTcpStream, port: TunnelPort) {
    let parts = &local.shared.parts;
    let Ok(mut client) = TcpStream::from_std(client) else { return };
    // A socket that takes no options is gone; reading it will say so.
    let _ = tcp::prepare(&client);
    let Some(egress) = parts.snapshot.load().egress_at(port).cloned() else { return tcp::abort(client) };
    let service = egress.service.to_string();
    let _joined = local.shared.quota.joined();
    let opened = match local.pool() {
        Some(pool) => open(local, pool, &egress).await,
        None => Err("no_identity"),
    };
    let copied = match opened {
        Ok(Way::Session(mut stream)) => carry(&mut client, &mut stream).await,
        Ok(Way::Plain(mut stream)) => carry(&mut client, &mut stream).await,
        Err(outcome) => {
            parts.metrics.egress(&service, outcome);
            return tcp::abort(client);
        }
    };
    match copied {
        Ok(()) => parts.metrics.egress(&service, "carried"),
        Err(error) => {
            tracing::debug!(%error, "connection broke");
            parts.metrics.egress(&service, "broken");
            tcp::abort(client);
        }
    }
}

async fn carry<Io: AsyncRead + AsyncWrite + Unpin>(client: &mut TcpStream, stream: &mut Io) -> Result<(), splice::SpliceError> {
    splice::copy_bidirectional(client, stream).await.result
}

/// What a connection is carried by.
enum Way {
    /// A session.
    Session(RawStream),
    /// An endpoint of the own cluster that is known to have no proxy.
    Plain(TcpStream),
}

/// Opens a stream to an endpoint of the service. Nothing has been sent yet, so each failure may be tried again elsewhere.
async fn open(local: &Local, pool: &Pool, egress: &Egress) -> Result<Way, &'static str> {
    let target = match &egress.cluster {
        Some(cluster) => Target::In { cluster: cluster.clone(), service: egress.service.clone() },
        None => Target::ClusterSet(egress.service.clone()),
    };
    let mut request = RequestKey::new(target, egress.service_port);
    for _ in 0..ATTEMPTS_MAX {
        let route = {
            let snapshot = local.shared.parts.snapshot.load();
            let mut loads = local.loads.borrow_mut();
            loads.see(&local.shared.gateways.evidence());
            snapshot.route(&request, &loads, Local::draw()).map_err(|no_route| no_route.reason())?
        };
        if let Route::Remote(remote) = &route {
            local.in_use.report(&local.shared.gateways, remote.gateway());
        }
        match charged(local, &route, attempt(pool, &route, local.shared.parts.settings.limits.dial)).await {
            Ok(way) => return Ok(way),
            Err(stage) => request.avoid(&route, stage == Stage::Gateway),
        }
    }
    Err("unreachable")
}

async fn attempt(pool: &Pool, route: &Route, limit: Duration) -> Result<Way, Stage> {
    let plan = match (Plan::of(route), route) {
        (Ok(plan), _) => plan,
        (Err(_), Route::Local(local)) => {
            return tcp::connect(local.app_address(), limit).await.map(Way::Plain).map_err(|_| Stage::Dial);
        }
        (Err(_), Route::Remote(_)) => return Err(Stage::Session),
    };
    let lease = pool.checkout(&plan).await.map_err(|error| {
        tracing::debug!(%error, "no session for the way out");
        error.stage
    })?;
    match lease.raw().await {
        Ok(stream) => Ok(Way::Session(stream)),
        // A warm session may have been closed by its peer a moment ago: that is nobody's fault.
        Err(error) if lease.is_reused() && error.is_unprocessed() => {
            let lease = pool.checkout(&plan).await.map_err(|error| error.stage)?;
            lease.raw().await.map(Way::Session).map_err(|_| Stage::Response)
        }
        Err(error) => {
            tracing::debug!(%error, "no stream for the way out");
            Err(Stage::Response)
        }
    }
}

/// Charges what `attempt` came to, and the time that it took, to the endpoint and the gateway on the way.
async fn charged(local: &Local, route: &Route, attempt: impl Future<Output = Result<Way, Stage>>) -> Result<Way, Stage> {
    let keys = [Some(route.endpoint_key()), route.gateway_key().filter(|gateway| *gateway != route.endpoint_key())];
    let begun = clock::now();
    for key in keys.iter().flatten() {
        local.loads.borrow_mut().on_started(key, begun);
    }
    let ended = attempt.await;
    let outcome = match &ended {
        Ok(_) => Outcome::Answered,
        Err(stage) => Outcome::Failed(*stage),
    };
    let now = clock::now();
    for key in keys.iter().flatten() {
        local.loads.borrow_mut().on_finished(key, now - begun, outcome, now);
    }
    ended
}

/// Ways that are tried for one connection.
const ATTEMPTS_MAX: usize = 5;

/// When a listener could not be opened.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
