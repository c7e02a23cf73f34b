//! Probes of a link's data path: a `watch` tunnel to each gateway of the peer, pinged every second under the link's own identity.
//!
//! What a probe says is decided by [`mesh_topology::health`]; here it is asked and told.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use mesh_runtime::clock;
use mesh_runtime::tasks::Tasks;
use mesh_topology::health::{INTERVAL, LinkProbe, ProbeStep};
use mesh_topology::{Gateway, LinkHealth};
use mesh_transport::Identity;
use mesh_transport::tunnel::watch::Watch;
use mesh_transport::tunnel::{self, Target, Timeouts, Tunnel, TunnelError, TunnelRequest};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::model::SeenLink;

/// Probes the gateways that `link` names for as long as it is polled, and says in `health` what comes of it.
pub async fn run(identity: Identity, mut link: watch::Receiver<SeenLink>, health: watch::Sender<LinkHealth>, changed: Arc<Notify>) {
    let shared = Arc::new(Shared { probe: Mutex::default(), health, changed });
    loop {
        let gateways = link.borrow_and_update().gateways.clone();
        shared.probe.lock().follow(&gateways.iter().map(|gateway| gateway.address).collect::<BTreeSet<_>>(), clock::now());
        shared.publish();
        let mut tasks = Tasks::new();
        for gateway in gateways.iter().cloned() {
            tasks.spawn(Prober { identity: identity.clone(), gateway, shared: Arc::clone(&shared) }.run());
        }
        loop {
            if link.changed().await.is_err() {
                return;
            }
            if link.borrow().gateways != gateways {
                break;
            }
        }
    }
}

struct Shared {
    probe: Mutex<LinkProbe>,
    health: watch::Sender<LinkHealth>,
    changed: Arc<Notify>,
}

impl Shared {
    fn publish(&self) {
        let now = self.probe.lock().health();
        let changed = self.health.send_if_modified(|held| std::mem::replace(held, now) != now);
        if changed {
            tracing::info!(health = ?now, "link health changed");
            self.changed.notify_one();
        }
    }
}

/// Probes one gateway.
struct Prober {
    identity: Identity,
    gateway: Gateway,
    shared: Arc<Shared>,
}

impl Prober {
    async fn run(self) {
        let mut watching: Option<Watch<Tunnel>> = None;
        loop {
            let step = self.shared.probe.lock().gateway(self.gateway.address).map(|probe| probe.step(clock::now()));
            match step {
                None => return,
                Some(ProbeStep::WaitUntil(then)) => tokio::time::sleep_until(then.into()).await,
                Some(ProbeStep::Missed) => self.on_missed(),
                Some(ProbeStep::Ping(number)) => {
                    if let Some(probe) = self.shared.probe.lock().gateway(self.gateway.address) {
                        probe.on_pinged(number, clock::now());
                    }
                    self.ping(number, &mut watching).await;
                }
            }
        }
    }

    async fn ping(&self, number: u64, watching: &mut Option<Watch<Tunnel>>) {
        let answered = tokio::time::timeout(INTERVAL, self.ask(watching)).await;
        match answered {
            Ok(Ok(())) => {
                if let Some(probe) = self.shared.probe.lock().gateway(self.gateway.address) {
                    probe.on_pong(number);
                }
                self.shared.publish();
            }
            Ok(Err(error)) => {
                *watching = None;
                tracing::debug!(gateway = %self.gateway.address, %error, "gateway did not answer");
                if is_refused(&error) { self.on_refused() } else { self.on_missed() }
            }
            Err(_) => {
                *watching = None;
                self.on_missed();
            }
        }
    }

    async fn ask(&self, watching: &mut Option<Watch<Tunnel>>) -> io::Result<()> {
        let watch = match watching {
            Some(watch) => watch,
            None => watching.insert(self.open().await.map_err(io::Error::other)?),
        };
        watch.ping(INTERVAL).await.map(drop)
    }

    async fn open(&self) -> Result<Watch<Tunnel>, TunnelError> {
        let (_, tunnel) = tunnel::connect(&self.identity, &self.gateway, &TunnelRequest::new(Target::Watch), &Timeouts::default()).await?;
        Ok(Watch::new(tunnel))
    }

    fn on_missed(&self) {
        if let Some(probe) = self.shared.probe.lock().gateway(self.gateway.address) {
            probe.on_missed(clock::now());
        }
        self.shared.publish();
    }

    fn on_refused(&self) {
        if let Some(probe) = self.shared.probe.lock().gateway(self.gateway.address) {
            probe.on_refused(clock::now());
        }
        self.shared.publish();
    }
}

/// Whether nobody listens there.
fn is_refused(error: &io::Error) -> bool {
    let tunnel = error.get_ref().and_then(|error| error.downcast_ref::<TunnelError>());
    matches!(tunnel, Some(TunnelError::Connect { source, .. }) if source.kind() == io::ErrorKind::ConnectionRefused)
}
