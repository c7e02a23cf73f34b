//! Start and end of the process: bind, then run the loops until told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use mesh_api::client::imports::{self, Imports};
use mesh_api::connect::{CONTROL_ALPN, Connector};
use mesh_api::well_known::{MIRROR_ACCOUNT, SYSTEM_NAMESPACE};
use mesh_names::{Label, SpiffeId};
use mesh_runtime::admin::{Admin, AdminError};
use mesh_runtime::clock;
use mesh_runtime::drain::{self, Drain};
use mesh_runtime::ready::{Gate, Readiness};
use mesh_runtime::tasks::Tasks;
use mesh_runtime::{process, telemetry};
use mesh_trust::{Bundles, Expected, Issuer, Jitter, Refusals, Rotation, SharedBundles, Step, Timing, Verifier, client_config};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::accept::{self, Acceptor, Limits, OwnSvid};
use crate::apply;
use crate::build::build;
use crate::config::{ClusterAccess, Config, Flags};
use crate::inject::{Injector, InjectorConfig, Registration};
use crate::issue::{Authority, Registrar};
use crate::metrics::Metrics;
use crate::observe::{Observer, SILENCE_MAX, bounded};
use crate::publish::Publisher;
use crate::serve::Services;

/// A control whose sockets are open.
pub struct Control {
    config: Config,
    client: Client,
    listener: TcpListener,
    webhook: Option<(InjectorConfig, TcpListener)>,
    admin: Admin,
    admin_drain: drain::Trigger,
    readiness: Readiness,
    metrics: Metrics,
}

/// Why control could not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The gRPC address is taken.
    #[error("could not listen on {address}: is another process using it?")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The admin address is taken.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The kubeconfig can't be used.
    #[error("kubeconfig {} can't be used", .file.display())]
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// There is no cluster around.
    #[error("this is no pod of a cluster: pass --kubeconfig")]
    InCluster(#[source] Box<kube::config::InClusterError>),
    /// The client can't be made.
    #[error("no client of the Kubernetes API can be made")]
    Client(#[source] Box<kube::Error>),
}

impl Control {
    /// Opens every socket. The Kubernetes API need not answer yet.
    ///
    /// # Errors
    /// When an address is taken or the cluster's access is not usable.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        mesh_transport::install_crypto();
        let client = client(&config.cluster).await?;
        let listener = mesh_transport::tcp::listen(config.listen).map_err(|source| BindError::Listen { address: config.listen, source })?;
        let webhook = match &config.injector {
            None => None,
            Some(injector) => {
                let address = injector.listen;
                let listener = mesh_transport::tcp::listen(address).map_err(|source| BindError::Listen { address, source })?;
                Some((injector.clone(), listener))
            }
        };
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let readiness = Readiness::new();
        let (admin_drain, watched) = drain::channel(config.drain);
        let admin = Admin::bind(config.admin, registry, readiness.clone(), watched).await?;
        Ok(Self { config, client, listener, webhook, admin, admin_drain, readiness, metrics })
    }

    /// Where gRPC is served.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where the admin port is.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Runs until the drain has started and streams have ended, at the latest when it has ended.
    pub async fn run(self, drain: Drain) {
        let mut tasks = Tasks::new();
        let (observer, own) = (Observer::default(), OwnSvid::from(ArcSwapOption::empty()));
        let denied = self.metrics.denied.clone();
        let bundles: SharedBundles = Bundles::default().shared();
        let verifier = Verifier::new(Arc::clone(&bundles), Refusals::observed(move |refused| denied.count(refused.reason())));
        let publisher = Arc::new(Publisher::new(uuid::Uuid::new_v4().to_string()));
        observer.follow(&self.client, &mut tasks);
        tasks.spawn(apply::make_handle_key(self.client.clone(), observer.clone()));
        tasks.spawn(apply::keep_peer_status(self.client.clone(), observer.clone(), Arc::clone(&publisher)));
        let (born, mut has_svid) = watch::channel(false);
        let identity = OwnIdentity {
            observer: observer.clone(),
            own: Arc::clone(&own),
            bundles: Arc::clone(&bundles),
            gate: self.readiness.gate("identity"),
            born,
        };
        tasks.spawn(identity.run());
        let (imports, follower) = imports::follow(self.config.imports.clone(), connector(Arc::clone(&own), verifier.clone()));
        if !self.config.imports.is_empty() {
            let until = drain.clone();
            tasks.spawn(async move {
                if has_svid.wait_for(|born| *born).await.is_ok() {
                    follower.run(until).await;
                }
            });
        }
        let building = Building {
            observer: observer.clone(),
            imports,
            wait_for_imports: !self.config.imports.is_empty(),
            publisher: Arc::clone(&publisher),
            bundles,
            metrics: self.metrics.clone(),
            gate: self.readiness.gate("cluster"),
        };
        tasks.spawn(building.run());
        tasks.spawn(self.admin.run());
        if let Some(webhook) = self.webhook {
            tasks.spawn(injector(webhook, &self.client, &observer, &self.readiness).run(drain.clone()));
        }
        let (connections, incoming) = mpsc::channel(ACCEPTED_MAX);
        let (denied, limits) = (self.metrics.denied.clone(), Limits::default());
        tasks.spawn(accept::accept(self.listener, Acceptor { own, verifier, denied, to: connections, limits }, drain.clone()));
        let registrar = Arc::new(Registrar::new(self.client, self.config.token_audience));
        let services = Services { observer, registrar, publisher, metrics: self.metrics, drain: drain.clone() };
        tokio::select! {
            served = services.serve(ReceiverStream::new(incoming)) => {
                if let Err(error) = served {
                    tracing::error!(%error, "serving failed");
                }
            }
            () = async {
                drain.started().await;
                self.admin_drain.start();
                drain.ended().await;
            } => {}
        }
    }
}

fn injector((config, listener): (InjectorConfig, TcpListener), client: &Client, observer: &Observer, readiness: &Readiness) -> Injector {
    let registration = Registration::new(client.clone());
    Injector { config, listener, registration, observer: observer.clone(), gate: readiness.gate("webhook") }
}

/// Runs control with these flags until a signal ends it.
///
/// # Errors
/// When it can't start.
pub fn main(mut flags: Flags) -> anyhow::Result<()> {
    process::die_with_parent()?;
    // Failures of the client are told, with their kind, by the watch that met them.
    flags.log.filter.push_str(",kube_client=off");
    telemetry::init(&flags.log)?;
    let config = Config::try_from(flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    runtime.block_on(async {
        let (trigger, drain) = drain::channel(config.drain);
        let control = Control::bind(config).await?;
        tracing::info!(address = %control.address()?, admin = %control.admin_address(), "control starts");
        let signals = trigger.on_signals()?;
        tokio::select! {
            () = control.run(drain) => {}
            () = signals => {}
        }
        anyhow::Ok(())
    })
}

async fn client(access: &ClusterAccess) -> Result<Client, BindError> {
    let mut config = match access {
        ClusterAccess::InCluster => kube::Config::incluster().map_err(|error| BindError::InCluster(Box::new(error)))?,
        ClusterAccess::Kubeconfig { file, context } => {
            let unusable = |source| BindError::Kubeconfig { file: file.clone(), source: Box::new(source) };
            let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            let kubeconfig = Kubeconfig::read_from(file).map_err(unusable)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(unusable)?
        }
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(bounded(config, SILENCE_MAX)).map_err(|error| BindError::Client(Box::new(error)))
}

/// To the mirror controllers of the own cluster, and nobody else.
fn connector(own: OwnSvid, verifier: Verifier) -> Connector {
    let expected = |svid: &mesh_trust::Svid| {
        let system: Label = SYSTEM_NAMESPACE.parse().ok()?;
        SpiffeId::workload(svid.id().trust_domain(), &system, MIRROR_ACCOUNT).ok()
    };
    Connector::tls(move || {
        let svid = own.load_full();
        let ids = svid.as_deref().and_then(expected);
        client_config(svid.as_deref(), &verifier, ids.into_iter().collect::<Expected>(), &[CONTROL_ALPN])
    })
}

/// Keeps control's own SVID: issued by itself, anew when it is due and when the issuer is another.
struct OwnIdentity {
    observer: Observer,
    own: OwnSvid,
    bundles: SharedBundles,
    gate: Gate,
    /// Told once there is an SVID.
    born: watch::Sender<bool>,
}

impl OwnIdentity {
    async fn run(self) {
        let mut changes = self.observer.changes();
        let mut rotation = Rotation::new(Timing::default());
        let mut issued_by: Option<Arc<Issuer>> = None;
        loop {
            changes.borrow_and_update();
            let now = clock::wall();
            if let Some(authority) = Authority::of(&self.observer.now()) {
                let other = issued_by.as_ref().is_none_or(|issuer| issuer.chain() != authority.issuer.chain());
                if other || rotation.step(now) == Step::Request {
                    self.renew(&authority, &mut rotation);
                    issued_by = Some(authority.issuer);
                }
            }
            let pause = match rotation.step(now) {
                Step::WaitUntil(due) => due.duration_since(now).unwrap_or_default(),
                Step::Request => IDLE,
            };
            tokio::select! {
                () = tokio::time::sleep(pause.min(IDLE)) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    fn renew(&self, authority: &Authority, rotation: &mut Rotation) {
        let (now, jitter) = (clock::wall(), Jitter(clock::draw()));
        match authority.own_svid(now) {
            Ok(svid) => {
                rotation.on_issued(&svid, jitter);
                self.bundles.rcu(|held| Bundles::clone(held).with(authority.bundle.clone()));
                tracing::info!(id = %svid.id(), "issued to itself");
                self.own.store(Some(Arc::new(svid)));
                self.gate.open();
                self.born.send_replace(true);
            }
            Err(error) => {
                tracing::error!(%error, "control could not issue its own SVID");
                rotation.on_refused(now, jitter);
            }
        }
    }
}

/// The loop from what was observed to what is published.
struct Building {
    observer: Observer,
    imports: watch::Receiver<Arc<Imports>>,
    wait_for_imports: bool,
    publisher: Arc<Publisher>,
    bundles: SharedBundles,
    metrics: Metrics,
    gate: Gate,
}

impl Building {
    async fn run(mut self) {
        let mut changes = self.observer.changes();
        loop {
            changes.borrow_and_update();
            let observed = self.observer.now();
            self.metrics.held.set(observed.holds().len().try_into().unwrap_or(i64::MAX));
            if let Some(complete) = observed.complete() {
                if std::mem::take(&mut self.wait_for_imports) && complete.seen.links.iter().next().is_some() {
                    // Readers who come with handles keep them through a restart of control; past the limit they do without.
                    let _ = tokio::time::timeout(IMPORTS_PATIENCE, self.imports.changed()).await;
                }
                let imports = Arc::clone(&self.imports.borrow_and_update());
                let built = build(&complete, &imports);
                self.bundles.store(Arc::new(built.bundles.clone()));
                self.publisher.publish(&built);
                self.metrics.built.inc();
                self.gate.open();
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                Ok(()) = self.imports.changed() => {}
            }
            // What changes together is published together.
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Accepted connections that wait for the server; past it accepting waits.
const ACCEPTED_MAX: usize = 64;
const THREADS: usize = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long changes are gathered before they are published.
const GATHER: Duration = Duration::from_millis(20);
/// The longest sleep between two looks at the own SVID: a clock that was set is noticed.
const IDLE: Duration = Duration::from_secs(60);
/// How long the first state waits for the mirror controller.
const IMPORTS_PATIENCE: Duration = Duration::from_secs(2);
