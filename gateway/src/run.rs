//! A gateway as a process: opens its sockets, becomes somebody, learns what is where, and then serves until it has drained.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_api::client::identity::BootstrapError;
use mesh_api::client::{Bootstrap, Credentials, Discovery, Follow, discovery};
use mesh_runtime::admin::{Admin, AdminError};
use mesh_runtime::drain::{self, Drain};
use mesh_runtime::ready::{Gate, Readiness};
use mesh_runtime::tasks::Tasks;
use mesh_runtime::{process, telemetry};
use mesh_topology::Own;
use mesh_transport::{Identity, tcp};
use mesh_trust::Refusals;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{Config, Flags};
use crate::metrics::Metrics;
use crate::serve::{self, Parts};

/// A gateway whose sockets are open.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    admin: Admin,
    metrics: Metrics,
    bootstrap: Bootstrap,
    identity_held: Gate,
    snapshot_held: Gate,
}

/// Why a gateway did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The tunnel listener.
    #[error("could not listen for tunnels on {address}: is another process using it?")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The admin listener.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// It cannot become anybody.
    #[error("could not obtain an identity")]
    Bootstrap(#[from] BootstrapError),
    /// Its threads.
    #[error("could not start the workers")]
    Workers(#[source] io::Error),
}

/// Runs a gateway as a process until it has drained.
///
/// # Errors
/// When it cannot start.
pub fn main(flags: Flags) -> anyhow::Result<()> {
    process::die_with_parent()?;
    telemetry::init(&flags.log)?;
    mesh_transport::install_crypto();
    let (trigger, drain) = drain::channel(flags.drain.0);
    let config = Config::try_from(flags)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Tasks::new();
        signals.spawn(trigger.on_signals()?);
        Ok(Gateway::bind(config).await?.run(drain).await?)
    })
}

impl Gateway {
    /// Opens every socket and reads every file that it starts from.
    ///
    /// # Errors
    /// When an address is taken, or the bundle file can't be used.
    pub async fn bind(config: Config) -> Result<Self, GatewayError> {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let readiness = Readiness::new();
        let (identity_held, snapshot_held) = (readiness.gate("identity"), readiness.gate("discovery"));
        let error = |source| GatewayError::Listen { address: config.listen, source };
        let listener = tcp::listen(config.listen).map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        let admin = Admin::bind(config.bootstrap.admin, registry, readiness, Drain::never()).await?;
        let denied = metrics.denied.clone();
        let bootstrap = Bootstrap::own(config.bootstrap.clone(), Refusals::observed(move |refused| denied.count(refused.reason())))?;
        Ok(Self { config, listener, address, admin, metrics, bootstrap, identity_held, snapshot_held })
    }

    /// Where it accepts tunnels.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it has drained.
    ///
    /// # Errors
    /// When it can never become anybody, or its threads can't be started.
    pub async fn run(self, drain: Drain) -> Result<(), GatewayError> {
        let mut tasks = Tasks::new();
        tasks.spawn(self.admin.following(drain.clone()).run());
        let (credentials, renewal) = tokio::select! {
            obtained = self.bootstrap.obtain() => obtained?,
            _ = drain.started() => return Ok(()),
        };
        self.identity_held.open();
        tasks.spawn(renewal.run(drain.clone()));
        let (mut discovery, follower) = follow(&self.config, &credentials);
        tasks.spawn(follower.run(drain.clone()));
        let egress = second_identity(&self.config, &credentials, &drain, &mut tasks)?;
        tokio::select! {
            () = discovery.complete() => self.snapshot_held.open(),
            _ = drain.started() => return Ok(()),
        }
        tracing::info!(address = %self.address, "accepting tunnels");
        let parts = Parts {
            identity: Identity::new(credentials.svid, credentials.verifier),
            egress,
            snapshot: discovery.snapshot,
            changed: discovery.changed,
            settings: self.config.settings,
            metrics: self.metrics,
        };
        serve::serve(self.listener, parts, drain).await.map_err(GatewayError::Workers)
    }
}

fn follow(config: &Config, credentials: &Credentials) -> (Discovery, discovery::Follower) {
    let flags = &config.bootstrap;
    discovery::follow(Follow {
        control: flags.control.clone(),
        connector: credentials.control_connector(),
        kinds: Vec::new(),
        own: Own { cluster: flags.cluster.clone(), id: None, trust_domain: flags.trust_domain.clone(), ranges: Vec::new() },
        bundles: Arc::clone(&credentials.bundles),
        state_dir: Some(flags.state_dir.clone()),
    })
}

/// Obtains the identity of the way out beside everything else: tunnels do not wait for it.
fn second_identity(
    config: &Config,
    credentials: &Credentials,
    drain: &Drain,
    tasks: &mut Tasks,
) -> Result<watch::Receiver<Option<Identity>>, GatewayError> {
    let bootstrap = Bootstrap::egress(config.bootstrap.clone(), credentials)?;
    let (held, receiver) = watch::channel(None);
    let drain = drain.clone();
    tasks.spawn(async move {
        match bootstrap.obtain().await {
            Ok((credentials, renewal)) => {
                held.send_replace(Some(Identity::new(credentials.svid, credentials.verifier)));
                renewal.run(drain).await;
            }
            Err(error) => tracing::error!(%error, "no way out without an identity for it"),
        }
    });
    Ok(receiver)
}
