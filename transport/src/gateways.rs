//! One `watch` tunnel to each gateway in use: a process's own evidence of which gateways live.
//!
//! A gateway that refuses connections, or misses three pings, is dark and passed over by every worker at once; one that drains gets no new
//! tunnels. Nothing here says that the other cluster is down, only that it is not reached from here.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use mesh_runtime::clock;
use mesh_runtime::drain::Drain;
use mesh_runtime::tasks::Tasks;
use mesh_topology::{Evidence, Gateway, GatewayProbe, ProbeState, Snapshot, health};
use tokio::sync::{mpsc, watch};

use crate::Identity;
use crate::tunnel::watch::Watch;
use crate::tunnel::{self, Target, Timeouts, Tunnel, TunnelError, TunnelRequest};

/// What a process has seen of gateways, and where its workers report the ones that they use.
#[derive(Debug)]
pub struct Gateways {
    evidence: ArcSwap<Evidence>,
    used: mpsc::Sender<Gateway>,
}

/// Watches the gateways that are reported.
#[derive(Debug)]
pub struct Watcher {
    gateways: Arc<Gateways>,
    reported: mpsc::Receiver<Gateway>,
}

/// What one worker has reported lately.
#[derive(Debug, Default)]
pub struct InUse(RefCell<HashMap<SocketAddr, Instant>>);

impl Gateways {
    /// Nothing seen yet. The watcher is to be run.
    #[must_use]
    pub fn new() -> (Arc<Self>, Watcher) {
        let (used, reported) = mpsc::channel(USED_MAX);
        let gateways = Arc::new(Self { evidence: ArcSwap::default(), used });
        (Arc::clone(&gateways), Watcher { gateways, reported })
    }

    /// What was seen so far.
    #[must_use]
    pub fn evidence(&self) -> Guard<Arc<Evidence>> {
        self.evidence.load()
    }
}

impl InUse {
    /// Tells the watcher that this gateway is in use, now and then.
    pub fn report(&self, gateways: &Gateways, gateway: &Gateway) {
        let now = clock::now();
        let mut reported = self.0.borrow_mut();
        if reported.get(&gateway.address).is_some_and(|at| now.saturating_duration_since(*at) < REPORT_EVERY) {
            return;
        }
        // A full queue means that the watcher is told a little later.
        if gateways.used.try_send(gateway.clone()).is_ok() {
            reported.insert(gateway.address, now);
        }
    }

    /// Forgets what would be reported again anyway.
    pub fn sweep(&self) {
        let now = clock::now();
        self.0.borrow_mut().retain(|_, at| now.saturating_duration_since(*at) < REPORT_EVERY);
    }
}

/// What all watches of a process share.
struct Shared {
    gateways: Arc<Gateways>,
    identity: Identity,
    snapshot: Arc<ArcSwap<Snapshot>>,
    on_dark: Box<dyn Fn(usize) + Send + Sync>,
}

impl Watcher {
    /// Watches as `identity` until the drain has ended. `on_dark` hears how many gateways of the links in `snapshot` do not answer, at
    /// each change.
    pub async fn run(
        mut self,
        identity: Identity,
        snapshot: Arc<ArcSwap<Snapshot>>,
        on_dark: impl Fn(usize) + Send + Sync + 'static,
        drain: Drain,
    ) {
        let shared = Arc::new(Shared { gateways: self.gateways, identity, snapshot, on_dark: Box::new(on_dark) });
        let mut watched: HashMap<Gateway, watch::Sender<Instant>> = HashMap::new();
        let mut tasks = Tasks::new();
        loop {
            tokio::select! {
                () = drain.ended() => return,
                gateway = self.reported.recv() => {
                    let Some(gateway) = gateway else { return };
                    watched.retain(|_, used| !used.is_closed());
                    match watched.get(&gateway) {
                        Some(used) => { used.send_replace(clock::now()); }
                        None if watched.len() >= WATCHED_MAX => tracing::warn!(gateway = %gateway.address, "too many gateways in use to watch them all"),
                        None => {
                            let (sender, in_use) = watch::channel(clock::now());
                            watched.insert(gateway.clone(), sender);
                            tasks.spawn(one(Arc::clone(&shared), gateway, in_use));
                        }
                    }
                }
                () = tasks.ended(), if !tasks.is_empty() => {}
            }
        }
    }
}

/// Watches one gateway as long as it is used and a link has it.
async fn one(shared: Arc<Shared>, gateway: Gateway, in_use: watch::Receiver<Instant>) {
    let mut watcher = Watched { shared: &shared, gateway: &gateway, probe: GatewayProbe::new(clock::now()), draining: false };
    while watcher.is_needed(&in_use) && is_linked(&shared, &gateway) {
        let next = tokio::time::Instant::now() + clock::jittered(health::INTERVAL, 0.2);
        match watcher.connect().await {
            Ok(tunnel) => watcher.follow(tunnel, &in_use).await,
            Err(error) => watcher.on_failed(&error),
        }
        tokio::time::sleep_until(next).await;
    }
    shared.gateways.evidence.rcu(|seen| seen.with_state(gateway.address, ProbeState::Unknown).with_draining(gateway.address, false));
    count_dark(&shared);
}

struct Watched<'a> {
    shared: &'a Shared,
    gateway: &'a Gateway,
    probe: GatewayProbe,
    draining: bool,
}

impl Watched<'_> {
    /// A dark gateway is never chosen, so nobody reports it as used: it is watched until it is back.
    fn is_needed(&self, in_use: &watch::Receiver<Instant>) -> bool {
        in_use.borrow().elapsed() < UNUSED_MAX || self.probe.state() == ProbeState::Dark
    }

    /// Opens the tunnel, which takes several round trips and has limits of its own; each interval without it is a ping without an answer.
    async fn connect(&mut self) -> Result<Tunnel, TunnelError> {
        let (identity, request) = (self.shared.identity.clone(), TunnelRequest::new(Target::Watch));
        let limits = Timeouts::default();
        let mut opening = std::pin::pin!(tunnel::connect(&identity, self.gateway, &request, &limits));
        loop {
            match tokio::time::timeout(health::INTERVAL, &mut opening).await {
                Ok(opened) => return opened.map(|(_, tunnel)| tunnel),
                Err(_) => self.says(|probe| probe.on_missed(clock::now())),
            }
        }
    }

    /// Pings until the tunnel breaks, the gateway has drained, or it is used no more.
    async fn follow(&mut self, tunnel: Tunnel, in_use: &watch::Receiver<Instant>) {
        let mut watch = Watch::new(tunnel);
        self.drains(false);
        while self.is_needed(in_use) {
            let begun = tokio::time::Instant::now();
            let result = watch.ping(health::INTERVAL).await;
            self.drains(watch.draining().is_some());
            match result {
                Ok(_) => self.says(|probe| probe.on_pong(0)),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    self.says(|probe| probe.on_missed(clock::now()));
                    // A connection that lost its way may take minutes to find it again; another is there as soon as the way is.
                    if self.probe.state() == ProbeState::Dark {
                        return;
                    }
                    continue;
                }
                Err(error) => {
                    tracing::debug!(gateway = %self.gateway.address, %error, "watch ended");
                    return self.says(|probe| probe.on_missed(clock::now()));
                }
            }
            // While it is coming back, it is asked twice in a row and not a second later.
            let pause = if self.probe.state() == ProbeState::Dark { health::INTERVAL / 10 } else { health::INTERVAL };
            let result = watch.listen(begun + pause).await;
            self.drains(watch.draining().is_some());
            if result.is_err() {
                return self.says(|probe| probe.on_missed(clock::now()));
            }
        }
    }

    fn on_failed(&mut self, error: &TunnelError) {
        let refused = matches!(error, TunnelError::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused);
        tracing::debug!(gateway = %self.gateway.address, error = error as &dyn std::error::Error, "no watch tunnel");
        let now = clock::now();
        self.says(|probe| if refused { probe.on_refused(now) } else { probe.on_missed(now) });
    }

    fn says(&mut self, heard: impl FnOnce(&mut GatewayProbe)) {
        let before = self.probe.state();
        heard(&mut self.probe);
        let state = self.probe.state();
        if before != state {
            tracing::info!(gateway = %self.gateway.address, ?state, "gateway seen");
            self.shared.gateways.evidence.rcu(|seen| seen.with_state(self.gateway.address, state));
            count_dark(self.shared);
        }
    }

    fn drains(&mut self, draining: bool) {
        if self.draining != draining {
            self.draining = draining;
            tracing::info!(gateway = %self.gateway.address, draining, "gateway seen");
            self.shared.gateways.evidence.rcu(|seen| seen.with_draining(self.gateway.address, draining));
        }
    }
}

fn is_linked(shared: &Shared, gateway: &Gateway) -> bool {
    shared.snapshot.load().links().any(|link| link.gateways.contains(gateway))
}

fn count_dark(shared: &Shared) {
    let seen = shared.gateways.evidence.load();
    let snapshot = shared.snapshot.load();
    let gateways: BTreeSet<SocketAddr> = snapshot.links().flat_map(|link| &link.gateways).map(|gateway| gateway.address).collect();
    (shared.on_dark)(gateways.iter().filter(|gateway| seen.is_dark(**gateway)).count());
}

/// How often the watcher is told again that a gateway is in use.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// A gateway that no worker has used for this long is not watched any more.
const UNUSED_MAX: Duration = Duration::from_secs(4 * REPORT_EVERY.as_secs());
/// Gateways watched at a time; the ones past it are judged by the requests that use them.
const WATCHED_MAX: usize = 1024;
/// Reports that wait for the watcher; past it a report is made again later.
const USED_MAX: usize = 256;
