//! A gateway that is somebody and knows what is where: accepts, hands to workers, and ends when it has drained.
//!
//! A drain is announced on every `watch` tunnel. New tunnels are answered `draining` from then on, so the door stays open until what is
//! joined has finished, or the deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_runtime::drain::Drain;
use mesh_runtime::tasks::Tasks;
use mesh_runtime::workers::{self, Workers};
use mesh_topology::Snapshot;
use mesh_transport::Identity;
use mesh_transport::gateways::{Gateways, Watcher};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::accept::{self, Job};
use crate::config::Settings;
use crate::egress;
use crate::metrics::Metrics;
use crate::quota::Quota;

/// What a gateway serves from.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Who it proves to be to peers, and whom it believes.
    pub identity: Identity,
    /// Who it is to the endpoints that clients without a proxy reach; there is no way out while there is none.
    pub egress: watch::Receiver<Option<Identity>>,
    /// What is where, and who may have what.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Changes after each new snapshot.
    pub changed: watch::Receiver<u64>,
    /// How it serves.
    pub settings: Settings,
    /// What it counts.
    pub metrics: Metrics,
}

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) parts: Parts,
    pub(crate) quota: Quota,
    /// What the way out has seen of other clusters' gateways.
    pub(crate) gateways: Arc<Gateways>,
    pub(crate) drain: Drain,
}

/// Serves tunnels from `listener`, and the way out, until it has drained.
///
/// # Errors
/// When the workers can't be started.
pub async fn serve(listener: TcpListener, parts: Parts, drain: Drain) -> io::Result<()> {
    let count = parts.settings.workers;
    let quota = Quota::new(parts.settings.limits);
    let (gateways, watcher) = Gateways::new();
    let shared = Arc::new(Shared { parts, quota, gateways, drain: drain.clone() });
    let given = Arc::clone(&shared);
    let workers = Arc::new(workers::spawn(count, "gateway", &drain, move |worker| accept::work(Arc::clone(&given), worker))?);
    let mut tasks = Tasks::new();
    tasks.spawn(watch_gateways(Arc::clone(&shared), watcher));
    tokio::select! {
        () = accept_all(&listener, &shared, &workers) => {}
        () = egress::listen(&shared, &workers) => {}
        () = workers.adapt() => {}
        () = drained(&shared) => {}
    }
    drop(listener);
    if let Some(workers) = Arc::into_inner(workers) {
        workers.join().await;
    }
    Ok(())
}

/// Watches the gateways that the way out uses, as soon as it has an identity.
async fn watch_gateways(shared: Arc<Shared>, watcher: Watcher) {
    let mut egress = shared.parts.egress.clone();
    let identity = match egress.wait_for(Option::is_some).await {
        Ok(identity) => identity.clone(),
        // There will be none.
        Err(_) => return,
    };
    if let Some(identity) = identity {
        watcher.run(identity, Arc::clone(&shared.parts.snapshot), |_| {}, shared.drain.clone()).await;
    }
}

async fn accept_all(listener: &TcpListener, shared: &Shared, workers: &Workers<Job>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match shared.quota.connection() {
                Some(permit) => hand(shared, workers, stream.into_std().map(|stream| Job::Tunnel(stream, permit))),
                None => shared.parts.metrics.denied.count("too-many-connections"),
            },
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hands a connection to a worker; when all are full it is closed and counted, and the kernel's backlog pushes back.
pub(crate) fn hand(shared: &Shared, workers: &Workers<Job>, job: io::Result<Job>) {
    // A socket that cannot be taken over is gone already.
    if let Ok(job) = job
        && workers.hand(job).is_err()
    {
        shared.parts.metrics.denied.count("workers-full");
    }
}

/// Returns when a drain has started and nothing is joined any more, or at its deadline.
async fn drained(shared: &Shared) {
    shared.drain.started().await;
    let told = Instant::now();
    loop {
        if shared.quota.in_use() == 0 && told.elapsed() >= LINGER {
            return;
        }
        tokio::select! {
            () = shared.drain.ended() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// How long a drain lasts at least, so that peers hear of it before the door is gone.
const LINGER: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// After a failed accept (no file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
