//! Probes of a link's data path: a `watch` tunnel to each gateway of the peer, pinged every second under the link's own identity.
//!
//! What a probe says is decided by [`mesh_topology::health`]; here it is asked and told.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use mesh_runtime::clock;
use mesh_runtime::tasks::Tasks;
use mesh_topology::health::{INTERVAL, LinkProbe, ProbeStep};
use mesh_topology::{Gateway, LinkHealth, ProbeState};
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
        let mut watching = Watching::Not;
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

    async fn ping(&self, number: u64, watching: &mut Watching) {
        let answered = tokio::time::timeout(INTERVAL, self.ask(watching)).await;
        match answered {
            Ok(Ok(())) => {
                if let Some(probe) = self.shared.probe.lock().gateway(self.gateway.address) {
                    probe.on_pong(number);
                }
                self.shared.publish();
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                self.on_missed();
                // A connection that lost its way may take minutes to find it again; another is there as soon as the way is.
                if self.is_dark() {
                    *watching = Watching::Not;
                }
            }
            Ok(Err(error)) => {
                *watching = Watching::Not;
                tracing::debug!(gateway = %self.gateway.address, %error, "gateway did not answer");
                if is_refused(&error) { self.on_refused() } else { self.on_missed() }
            }
            // Opening takes several round trips and has limits of its own: it goes on.
            Err(_) => self.on_missed(),
        }
    }

    async fn ask(&self, watching: &mut Watching) -> io::Result<()> {
        loop {
            match watching {
                Watching::Not => {
                    *watching = Watching::Opening(Box::pin(open(self.identity.clone(), self.gateway.clone())));
                }
                Watching::Opening(opening) => *watching = Watching::Open(Box::new(opening.await.map_err(io::Error::other)?)),
                Watching::Open(watch) => return watch.ping(INTERVAL).await.map(drop),
            }
        }
    }

    fn is_dark(&self) -> bool {
        self.shared.probe.lock().gateway(self.gateway.address).is_some_and(|probe| probe.state() == ProbeState::Dark)
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

/// The tunnel that a prober asks in.
enum Watching {
    Not,
    Opening(Pin<Box<dyn Future<Output = Result<Watch<Tunnel>, TunnelError>> + Send>>),
    Open(Box<Watch<Tunnel>>),
}

async fn open(identity: Identity, gateway: Gateway) -> Result<Watch<Tunnel>, TunnelError> {
    let (_, tunnel) = tunnel::connect(&identity, &gateway, &TunnelRequest::new(Target::Watch), &Timeouts::default()).await?;
    Ok(Watch::new(tunnel))
}

/// Whether nobody listens there.
fn is_refused(error: &io::Error) -> bool {
    let tunnel = error.get_ref().and_then(|error| error.downcast_ref::<TunnelError>());
    matches!(tunnel, Some(TunnelError::Connect { source, .. }) if source.kind() == io::ErrorKind::ConnectionRefused)
}
