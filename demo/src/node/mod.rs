//! The demo's node: kubelet, workload controllers and kube-proxy in miniature. It runs the pods of its cluster as processes, each at an
//! address of its own, gives the meshed ones their sidecar, and keeps Pods and EndpointSlices true.
//!
//! What should be is decided in `plan`, `slices`, `status`, `container`, `sidecar` and `balance::table`, which are pure; `run` is the loop.

mod addresses;
mod apply;
mod balance;
mod config;
mod container;
mod kubelet;
mod observe;
mod observed;
mod plan;
mod pod;
mod probe;
mod process;
mod registration;
mod run;
mod sidecar;
mod slices;
mod status;
mod token;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use mesh_runtime::{drain, telemetry};
use tokio::sync::{Notify, watch};

pub use config::{ConfigError, Flags};
pub(crate) use kubelet::{REPORT, Reported};
pub(crate) use process::write_private;

/// Runs the node until SIGTERM. Call it from the main thread: its processes die with the thread that started them.
///
/// # Errors
/// When the kubeconfig cannot be read, or the node's directory cannot be made.
pub fn main(flags: Flags) -> anyhow::Result<()> {
    let _dropped = telemetry::init(&flags.log)?;
    let config = Arc::new(config::Config::try_from(flags)?);
    std::fs::create_dir_all(&config.state_dir).with_context(|| format!("could not make {}", config.state_dir.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (trigger, drain) = drain::channel(GRACE);
        let signals = trigger.on_signals()?;
        let client = client(&config).await?;
        let changed = Arc::new(Notify::new());
        let (tables, told) = watch::channel(balance::Table::new());
        balance::spawn(told, drain.clone())?;
        let node = pod::Node { config: Arc::clone(&config), client: client.clone(), changed: Arc::clone(&changed) };
        let running = run::Loop {
            config: Arc::clone(&config),
            watches: observe::Watches::start(&client, &changed),
            writer: apply::Writer::new(client.clone()),
            kubelet: kubelet::Kubelet::new(node),
            tables,
            changed,
            writes: observe::Writes::default(),
            told: HashMap::new(),
        };
        tokio::select! {
            () = running.run(drain) => {}
            () = registration::keep(&client, &config) => {}
            () = signals => {}
        }
        Ok(())
    })
}

async fn client(config: &config::Config) -> anyhow::Result<Client> {
    let file = &config.kubeconfig;
    let kubeconfig = Kubeconfig::read_from(file).with_context(|| format!("could not read kubeconfig {}", file.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("kubeconfig {} names no cluster to talk to", file.display()))?;
    Ok(Client::try_from(config)?)
}

/// Whether a GET of `path` (or, at a proxy, of a whole URL) is answered well at `address`.
pub(crate) async fn probe(address: SocketAddr, path: &str) -> bool {
    probe::get(address, path).await.is_ok()
}

/// How long pods may take to end with the node.
const GRACE: Duration = Duration::from_secs(5);
