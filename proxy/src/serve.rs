//! The proxy as a whole: bind, then run. Every socket is open and every start-up error known before it becomes anybody.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_api::client::identity::{Bootstrap, BootstrapError};
use mesh_api::client::{BootstrapFlags, Follow, discovery};
use mesh_runtime::admin::{Admin, AdminError};
use mesh_runtime::denied::Denied;
use mesh_runtime::drain::Drain;
use mesh_runtime::ready::Readiness;
use mesh_runtime::tasks::Tasks;
use mesh_runtime::workers::{self, Workers};
use mesh_topology::{Own, Snapshot};
use mesh_transport::{Acceptor, Gateways, Identity, SESSION_ALPN};
use mesh_trust::Refusals;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::accept::{self, Door, ListenError};
use crate::config::{Config, DataConfig};
use crate::metrics::Metrics;
use crate::worker::{self, Entrance, Shared};

/// A proxy whose sockets are open.
#[derive(Debug)]
pub struct Proxy {
    bootstrap: BootstrapFlags,
    readiness: Readiness,
    registry: Registry,
    plane: Plane,
}

/// The part of a proxy that carries traffic.
#[derive(Debug)]
pub struct Plane {
    config: DataConfig,
    doors: Vec<Door>,
    metrics: Metrics,
    denied: Denied,
}

/// What a proxy has to know to carry traffic. All of it changes while it runs.
#[derive(Clone, Debug)]
pub struct Knowledge {
    /// Who it is and whom it believes.
    pub identity: Identity,
    /// Where things are.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Changes after each new snapshot.
    pub changed: watch::Receiver<u64>,
}

/// Why a proxy did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// An address is taken.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin port is taken.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// It became nobody.
    #[error(transparent)]
    Identity(#[from] BootstrapError),
    /// A worker's thread did not start.
    #[error("could not start the workers")]
    Workers(#[source] std::io::Error),
}

impl Proxy {
    /// Opens every socket but the admin port, which comes with [`Proxy::run`]'s drain.
    ///
    /// # Errors
    /// When an address is taken.
    pub async fn bind(config: Config) -> Result<Self, ProxyError> {
        let mut registry = Registry::default();
        let plane = Plane::bind(config.data, &mut registry)?;
        Ok(Self { bootstrap: config.bootstrap, readiness: Readiness::new(), registry, plane })
    }

    /// The part that carries traffic, to ask where it listens.
    #[must_use]
    pub fn plane(&self) -> &Plane {
        &self.plane
    }

    /// Becomes who it is, learns the mesh (from disk when no control answers), and carries traffic until it has drained.
    ///
    /// # Errors
    /// When it can never start: the admin port is taken, or its own bundle cannot be read.
    pub async fn run(self, drain: Drain) -> Result<(), ProxyError> {
        let Self { bootstrap, readiness, registry, plane } = self;
        let (identified, discovered) = (readiness.gate("identity"), readiness.gate("discovery"));
        let admin = Admin::bind(bootstrap.admin, registry, readiness, drain.clone()).await?;
        let mut tasks = Tasks::new();
        tasks.spawn(admin.run());
        let verifier_denials = plane.denied.of("handshake");
        let refusals = Refusals::observed(move |refused| verifier_denials.count(refused.reason()));
        let obtaining = Bootstrap::own(bootstrap.clone(), refusals)?.obtain();
        let (credentials, renewal) = tokio::select! {
            obtained = obtaining => obtained?,
            _ = drain.started() => return Ok(()),
        };
        identified.open();
        tasks.spawn(renewal.run(drain.clone()));
        let own = Own { cluster: bootstrap.cluster.clone(), id: None, trust_domain: bootstrap.trust_domain.clone(), ranges: Vec::new() };
        let (mut found, follower) = discovery::follow(Follow {
            control: bootstrap.control.clone(),
            connector: credentials.control_connector(),
            kinds: Vec::new(),
            own,
            bundles: Arc::clone(&credentials.bundles),
            state_dir: Some(bootstrap.state_dir.clone()),
        });
        tasks.spawn(follower.run(drain.clone()));
        tokio::select! {
            () = found.complete() => {}
            _ = drain.started() => return Ok(()),
        }
        let identity = Identity::new(Arc::clone(&credentials.svid), credentials.verifier.clone());
        let knowledge = Knowledge { identity, snapshot: Arc::clone(&found.snapshot), changed: found.changed.clone() };
        discovered.open();
        tracing::info!(outbound = ?plane.address(Entrance::Outbound), inbound = ?plane.address(Entrance::Inbound), "proxy ready");
        let ran = plane.run(knowledge, drain.clone()).await;
        drop(tasks);
        ran
    }
}

impl Plane {
    /// Opens the data plane's listeners.
    ///
    /// # Errors
    /// When an address is taken.
    pub fn bind(config: DataConfig, registry: &mut Registry) -> Result<Self, ProxyError> {
        let doors = accept::open(&config)?;
        Ok(Self { config, doors, metrics: Metrics::register(registry), denied: Denied::register(registry, "inbound") })
    }

    /// Where the HTTP proxy for the workload listens.
    #[must_use]
    pub fn outbound(&self) -> Option<SocketAddr> {
        self.address(Entrance::Outbound)
    }

    /// Where sessions arrive.
    #[must_use]
    pub fn inbound(&self) -> Option<SocketAddr> {
        self.address(Entrance::Inbound)
    }

    /// Where the listener of a service is, by its place in the configuration.
    #[must_use]
    pub fn service(&self, listener: usize) -> Option<SocketAddr> {
        self.address(Entrance::Service(listener))
    }

    /// Where redirected outgoing connections arrive.
    #[must_use]
    pub fn transparent_outbound(&self) -> Option<SocketAddr> {
        self.address(Entrance::TransparentOutbound)
    }

    /// Where redirected plain connections to the workload arrive.
    #[must_use]
    pub fn transparent_inbound(&self) -> Option<SocketAddr> {
        self.address(Entrance::TransparentInbound)
    }

    /// What inbound has refused, by reason. Clones see later refusals too.
    #[must_use]
    pub fn denied(&self) -> Denied {
        self.denied.clone()
    }

    fn address(&self, at: Entrance) -> Option<SocketAddr> {
        self.doors.iter().find(|door| door.at == at).map(|door| door.address)
    }

    /// Carries traffic until it has drained.
    ///
    /// # Errors
    /// When a worker does not start.
    pub async fn run(self, knowledge: Knowledge, drain: Drain) -> Result<(), ProxyError> {
        let (gateways, watcher) = Gateways::new();
        let own_addresses: Vec<SocketAddr> = self.doors.iter().map(|door| door.address).collect();
        let mut own_ports = self.config.own_ports;
        own_ports.extend(own_addresses.iter().map(SocketAddr::port));
        let shared = Arc::new(Shared {
            snapshot: knowledge.snapshot,
            changed: knowledge.changed,
            acceptor: Acceptor::new(knowledge.identity.clone(), SESSION_ALPN),
            identity: knowledge.identity,
            gateways,
            metrics: self.metrics,
            denied: self.denied,
            app: self.config.app,
            address: self.config.address,
            plaintext: self.config.plaintext,
            own_ports,
            own_addresses,
            listeners: self.config.listeners,
            access_log: self.config.access_log,
            drain: drain.clone(),
        });
        let handed = Arc::clone(&shared);
        let workers = workers::spawn(self.config.workers, "worker", &drain, move |own| worker::run(Arc::clone(&handed), own))
            .map_err(ProxyError::Workers)?;
        let mut tasks = Tasks::new();
        let dark = shared.metrics.dark_gateways.clone();
        let on_dark = move |count| {
            dark.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        tasks.spawn(watcher.run(shared.identity.clone(), Arc::clone(&shared.snapshot), on_dark, drain.clone()));
        accept_all(self.doors, &workers, &drain).await;
        workers.join().await;
        Ok(())
    }
}

/// Accepts on every listener until the drain ends that.
async fn accept_all(doors: Vec<Door>, workers: &Workers<worker::Accepted>, drain: &Drain) {
    let all = futures_util::future::join_all(doors.into_iter().map(|door| door.run(workers, drain)));
    tokio::select! {
        _ = all => {}
        () = workers.adapt() => {}
    }
}
