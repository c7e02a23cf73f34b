//! A worker: one thread with its own sessions, plain connections, table of loads and retry budget. What workers share is read by pointer.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mesh_runtime::denied::Denied;
use mesh_runtime::drain::Drain;
use mesh_runtime::tasks::Tasks;
use mesh_runtime::workers::{Handed, Worker};
use mesh_topology::{Draw, Loads, NoRoute, RequestKey, Route, Snapshot};
use mesh_transport::gateways::{Gateways, InUse};
use mesh_transport::{Acceptor, Identity, Pool};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::config::{Plaintext, ServiceListener};
use crate::metrics::Metrics;
use crate::outbound::budget::Budget;
use crate::plain::Plain;
use crate::{capture, inbound};

/// What all workers read.
pub(crate) struct Shared {
    /// The mesh as last told.
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    /// Changes after each new snapshot.
    pub(crate) changed: watch::Receiver<u64>,
    /// Who we are and whom we believe.
    pub(crate) identity: Identity,
    /// Accepts sessions.
    pub(crate) acceptor: Acceptor,
    /// What was seen of gateways.
    pub(crate) gateways: Arc<Gateways>,
    /// The counters.
    pub(crate) metrics: Metrics,
    /// Counts what inbound refuses.
    pub(crate) denied: Denied,
    /// The application's address.
    pub(crate) app: IpAddr,
    /// The workload's own address, as the cluster knows it.
    pub(crate) address: IpAddr,
    /// What is let in without an identity.
    pub(crate) plaintext: Plaintext,
    /// Ports of the workload that are ours.
    pub(crate) own_ports: Vec<u16>,
    /// Our own listeners: a connection that was meant for one of them is no traffic of the workload.
    pub(crate) own_addresses: Vec<SocketAddr>,
    /// The addresses that stand for one service each.
    pub(crate) listeners: Vec<ServiceListener>,
    /// Whether each exchange is logged.
    pub(crate) access_log: bool,
    /// When to stop.
    pub(crate) drain: Drain,
}

impl Shared {
    /// Whether an address is one of our own listeners. One that listens everywhere is met at the workload's address and on the loopback.
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let here = ip == self.address || ip.is_loopback();
        let same = |own: &SocketAddr| own.ip().to_canonical() == ip || (own.ip().is_unspecified() && here);
        self.own_addresses.iter().any(|own| own.port() == address.port() && same(own))
    }
}

/// A connection on its way to a worker.
pub(crate) struct Accepted {
    /// The connection, not yet known to a runtime.
    pub(crate) stream: std::net::TcpStream,
    /// Which listener it came to.
    pub(crate) at: Entrance,
}

/// A kind of listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// The HTTP proxy for the workload.
    Outbound,
    /// An address that stands for one service.
    Service(usize),
    /// Redirected outgoing connections.
    TransparentOutbound,
    /// Sessions.
    Inbound,
    /// Redirected plain connections to the workload.
    TransparentInbound,
}

/// What one worker owns.
pub(crate) struct Core {
    /// What it shares with the others.
    pub(crate) shared: Arc<Shared>,
    /// Its sessions.
    pub(crate) pool: Pool,
    /// Its plain connections.
    pub(crate) plain: Plain,
    /// What it measured.
    pub(crate) loads: RefCell<Loads>,
    /// How often it may send again.
    pub(crate) budget: RefCell<Budget>,
    /// Tasks that outlive the request that started them: upgraded connections.
    pub(crate) upgraded: RefCell<Tasks>,
    in_use: InUse,
}

impl Core {
    /// A worker's own everything.
    pub(crate) fn new(shared: &Arc<Shared>) -> Rc<Self> {
        let mut hasher = DefaultHasher::new();
        (shared.address, shared.identity.svid().id()).hash(&mut hasher);
        Rc::new(Self {
            pool: Pool::new(shared.identity.clone(), mesh_transport::pool::Settings::default()),
            plain: Plain::default(),
            loads: RefCell::new(Loads::new(hasher.finish())),
            budget: RefCell::new(Budget::new(Instant::now())),
            upgraded: RefCell::default(),
            in_use: InUse::default(),
            shared: Arc::clone(shared),
        })
    }

    /// Where the next attempt at `key` goes.
    pub(crate) fn route(&self, key: &RequestKey) -> Result<Route, NoRoute> {
        let mut loads = self.loads.borrow_mut();
        loads.see(&self.shared.gateways.evidence());
        let route = self.shared.snapshot.load().route(key, &loads, Draw::new(Instant::now(), rand::random()))?;
        if let Route::Remote(remote) = &route {
            self.in_use.report(&self.shared.gateways, remote.gateway());
        }
        Ok(route)
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.plain.sweep(now);
        self.loads.borrow_mut().sweep(now);
        self.in_use.sweep();
    }
}

/// Serves what is handed to this worker until it drains and all has ended.
pub(crate) async fn run(shared: Arc<Shared>, mut worker: Worker<Accepted>) {
    let core = Core::new(&shared);
    let mut connections = Tasks::new();
    let maintenance = core.pool.clone();
    let mut upkeep = Tasks::new();
    upkeep.spawn_local(async move { maintenance.maintain().await });
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            handed = worker.mailbox.recv() => match handed {
                None => break,
                Some(handed) => {
                    let core = Rc::clone(&core);
                    connections.spawn_local(serve(core, handed));
                }
            },
            () = connections.ended(), if !connections.is_empty() => {}
            _ = sweep.tick() => core.sweep(),
            () = worker.drain.ended() => break,
        }
    }
    // The mailbox is closed: what is left ends by itself, or at the deadline.
    let left = async {
        while !connections.is_empty() {
            connections.ended().await;
        }
        let mut upgraded = std::mem::take(&mut *core.upgraded.borrow_mut());
        while !upgraded.is_empty() {
            upgraded.ended().await;
        }
    };
    tokio::select! {
        () = left => {}
        () = worker.drain.ended() => {}
    }
}

async fn serve(core: Rc<Core>, handed: Handed<Accepted>) {
    let Handed { value: Accepted { stream, at }, held } = handed;
    let stream = match TcpStream::from_std(stream).and_then(|stream| mesh_transport::tcp::prepare(&stream).map(|()| stream)) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "accepted connection was gone"),
    };
    match at {
        Entrance::Outbound => capture::explicit(&core, stream).await,
        Entrance::Service(listener) => capture::service(&core, stream, listener).await,
        Entrance::TransparentOutbound => capture::transparent(&core, stream).await,
        Entrance::Inbound => inbound::session(&core, stream).await,
        Entrance::TransparentInbound => inbound::unmeshed(&core, stream).await,
    }
    drop(held);
}

const SWEEP_EVERY: Duration = Duration::from_secs(2);
