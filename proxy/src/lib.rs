//! The data plane beside a workload: outbound (routes, balances, retries, encrypts) and inbound (authenticates, authorises, hands over).
//!
//! Follow a request: `accept` → `worker` → `capture` → `outbound` → `mesh_topology`'s route → `mesh_transport`'s pool ⇒ `inbound` →
//! the application. Nothing on that path takes a lock or waits for another thread.

mod accept;
mod body;
mod capture;
mod config;
mod detect;
mod exchange;
mod failure;
mod headers;
mod inbound;
mod local;
mod metrics;
mod outbound;
mod plain;
pub mod redirect;
mod serve;
mod worker;

pub use accept::ListenError;
pub use config::{Config, ConfigError, DataConfig, Flags, ListenerError, Plaintext, ServiceListener};
pub use serve::{Knowledge, Plane, Proxy, ProxyError};

use mesh_runtime::{drain, process, telemetry};

/// Runs a proxy until SIGTERM or SIGINT has drained it.
///
/// # Errors
/// When it cannot start.
pub fn main(flags: Flags) -> anyhow::Result<()> {
    process::die_with_parent()?;
    telemetry::init(&flags.log)?;
    mesh_transport::install_crypto();
    let config = Config::try_from(flags)?;
    let (trigger, drain) = drain::channel(config.drain);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = mesh_runtime::tasks::Tasks::new();
        tasks.spawn(trigger.on_signals()?);
        Proxy::bind(config).await?.run(drain).await?;
        Ok(())
    })
}
