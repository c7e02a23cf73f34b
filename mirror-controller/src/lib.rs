//! Brings home what linked clusters export: Kubernetes objects for what people see, `Imports` for what proxies need, probes of the links.
//!
//! One loop, `observe → plan → apply`, in the one replica that holds the Lease ([`lead`]); the others keep their caches warm. Invariants: only objects that are ours are written; nothing is deleted before a link's first
//! listing is complete, or because a stream broke; nothing but Kubernetes objects is kept, so a restart finds everything there.

pub mod apply;
pub mod config;
pub mod elect;
pub mod lead;
pub mod linked;
pub mod metrics;
pub mod model;
pub mod observe;
pub mod plan;
pub mod probe;
pub mod reconcile;
pub mod serve;
pub mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use mesh_api::client::{Bootstrap, Credentials};
use mesh_runtime::admin::Admin;
use mesh_runtime::clock;
use mesh_runtime::denied::Denied;
use mesh_runtime::drain::{self, Drain};
use mesh_runtime::ready::{Gate, Readiness};
use mesh_runtime::tasks::Tasks;
use mesh_runtime::telemetry;
use mesh_transport::{Acceptor, Identity, SESSION_ALPN};
use mesh_trust::Refusals;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, oneshot, watch};

pub use config::{Config, Flags};
pub use plan::EgressRange;

use elect::{Elector, Lead};
use lead::Standing;
use metrics::Metrics;
use observe::{Client, World};
use reconcile::Reconciler;
use serve::{Published, Serve};

/// A mirror controller with its sockets open.
pub struct MirrorController {
    config: Config,
    client: Client,
    admin: Admin,
    serve: Serve,
    published: watch::Sender<Option<Arc<Published>>>,
    bootstrap: Bootstrap,
    gate: Gate,
    metrics: Metrics,
}

impl MirrorController {
    /// Opens the sockets and reads what the start needs. `drain` is what `/ready` shows.
    ///
    /// # Errors
    /// When an address can't be listened on, or the kubeconfig or the bundle can't be used.
    pub async fn bind(config: Config, drain: Drain) -> anyhow::Result<Self> {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let denied = Denied::register(&mut registry, "mirror-controller");
        let refusals = Refusals::observed(move |refused| denied.count(refused.reason()));
        let bootstrap = Bootstrap::own(config.bootstrap.clone(), refusals)?;
        let client = observe::client(config.kubeconfig.as_ref()).await?;
        let (serve, published) = Serve::bind(config.listen).with_context(|| format!("could not listen on {}", config.listen))?;
        let readiness = Readiness::new();
        let gate = readiness.gate("first-reconcile");
        let admin = Admin::bind(config.bootstrap.admin, registry, readiness, drain).await?;
        Ok(Self { config, client, admin, serve, published, bootstrap, gate, metrics })
    }

    /// Where `Imports` is served.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.serve.address()
    }

    /// Runs until the drain starts: what it keeps is in the Kubernetes API, so there is nothing to finish.
    ///
    /// # Errors
    /// When no SVID can ever be had.
    pub async fn run(self, drain: Drain) -> anyhow::Result<()> {
        let mut tasks = Tasks::new();
        tasks.spawn(self.admin.run());
        let (credentials, renewal) = tokio::select! {
            _ = drain.started() => return Ok(()),
            obtained = self.bootstrap.obtain() => obtained?,
        };
        tasks.spawn(renewal.run(drain.clone()));
        let Credentials { svid, bundles, verifier, .. } = credentials;
        let identity = Identity::new(svid, verifier);
        let changed = Arc::new(Notify::new());
        let flags = &self.config.bootstrap;
        let world = World::watch(flags.trust_domain.clone(), &self.client, &changed, &mut tasks);

        let (elector, mut lead) = Elector::new(self.client.clone(), elect::name(&flags.state_dir)?);
        let (acts, ended) = oneshot::channel();
        let mut election = Tasks::new();
        election.spawn(elector.run(ended));
        tokio::select! {
            _ = drain.started() => return Ok(()),
            () = stand_by(&self.serve, &self.gate, lead.clone()) => {}
        }

        let acceptor = Acceptor::new(identity.clone(), SESSION_ALPN);
        tasks.spawn(self.serve.run(acceptor, self.config.control.clone(), drain.clone()));
        let reconciler = Reconciler {
            world,
            client: self.client,
            lead: lead.clone(),
            links: linked::Links::new(identity, Arc::clone(&changed)),
            bundles,
            published: self.published,
            egress_ports: self.config.egress_ports,
            changed,
            gate: self.gate,
            metrics: self.metrics,
            begun: clock::now(),
        };
        tokio::select! {
            () = reconciler.run(drain) => {}
            () = lead.stands(Standing::Lost) => anyhow::bail!("another replica holds the Lease: this one ends, and waits for its turn when it is started again"),
        }
        drop(acts);
        election.finish((clock::now() + lead::EVERY).into()).await;
        Ok(())
    }
}

/// Waits for the Lease. Controls that call meanwhile are turned away, since they would learn nothing here; they find the one that acts.
async fn stand_by(serve: &Serve, gate: &Gate, mut lead: Lead) {
    let mut leads = lead.clone();
    let ready = async {
        lead.known().await;
        if lead.standing() == Standing::Waits {
            // There is one that acts, and this one is there to follow it.
            gate.open();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = leads.stands(Standing::Leads) => {}
        () = ready => {}
        () = serve.turn_away() => {}
    }
}

/// Runs a mirror controller until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't start.
pub fn main(flags: Flags) -> anyhow::Result<()> {
    telemetry::init(&flags.log)?;
    mesh_transport::install_crypto();
    let config = Config::try_from(flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    runtime.block_on(async {
        let (trigger, drain) = drain::channel(config.drain);
        let mut signals = Tasks::new();
        signals.spawn(trigger.on_signals()?);
        MirrorController::bind(config, drain.clone()).await?.run(drain).await
    })
}

/// Sessions, probes and the loop: little work, much waiting.
const WORKERS: usize = 2;
