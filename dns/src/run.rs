//! Starting and stopping: open the sockets, become somebody, follow discovery, answer.
//!
//! Between becoming somebody and the first complete state the answer is SERVFAIL, so that a resolver asks another replica; after a restart
//! the copy on disk makes both immediate, with or without a control plane.

use std::sync::Arc;

use anyhow::Context as _;
use mesh_api::client::discovery::{Follow, Kind, follow};
use mesh_api::client::identity::Bootstrap;
use mesh_runtime::admin::Admin;
use mesh_runtime::denied::Denied;
use mesh_runtime::drain::{self, Drain};
use mesh_runtime::ready::Readiness;
use mesh_runtime::telemetry;
use mesh_topology::Own;
use mesh_trust::Refusals;
use prometheus_client::registry::Registry;

use crate::config::{Flags, GRACE};
use crate::serve::{Bound, Queries};

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When a socket can't be opened or a file that it needs can't be read.
pub fn main(flags: &Flags) -> anyhow::Result<()> {
    telemetry::init(&flags.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (trigger, drain) = drain::channel(GRACE);
        let server = DnsServer::bind(flags, &drain).await?;
        tokio::select! {
            () = trigger.on_signals()? => Ok(()),
            ended = server.run(drain) => ended,
        }
    })
}

/// Every socket open, nothing answered yet.
struct DnsServer<'a> {
    flags: &'a Flags,
    sockets: Bound,
    admin: Admin,
    queries: Queries,
    readiness: Readiness,
    denied: Denied,
}

impl<'a> DnsServer<'a> {
    async fn bind(flags: &'a Flags, drain: &Drain) -> anyhow::Result<Self> {
        let mut registry = Registry::default();
        let queries = Queries::register(&mut registry);
        let denied = Denied::register(&mut registry, "dns");
        let readiness = Readiness::new();
        let sockets = Bound::bind(flags.listen).await.with_context(|| format!("could not listen on {}", flags.listen))?;
        let admin = Admin::bind(flags.bootstrap.admin, registry, readiness.clone(), drain.clone()).await?;
        Ok(Self { flags, sockets, admin, queries, readiness, denied })
    }

    async fn run(self, drain: Drain) -> anyhow::Result<()> {
        let gate = self.readiness.gate("discovery");
        let bootstrap = &self.flags.bootstrap;
        let denied = self.denied.clone();
        let refusals = Refusals::observed(move |refused| denied.count(refused.reason()));
        let admin = self.admin.run();
        let serving = async {
            let (credentials, renewal) = Bootstrap::own(bootstrap.clone(), refusals)?.obtain().await?;
            let own =
                Own { cluster: bootstrap.cluster.clone(), id: None, trust_domain: bootstrap.trust_domain.clone(), ranges: Vec::new() };
            let (mut discovery, follower) = follow(Follow {
                control: bootstrap.control.clone(),
                connector: credentials.control_connector(),
                kinds: vec![Kind::Service, Kind::Import, Kind::Remote, Kind::Link],
                own,
                bundles: Arc::clone(&credentials.bundles),
                state_dir: Some(bootstrap.state_dir.clone()),
            });
            let snapshot = Arc::clone(&discovery.snapshot);
            let opened = async {
                discovery.complete().await;
                gate.open();
                std::future::pending::<()>().await;
            };
            let stop = drain.clone();
            tokio::select! {
                ended = self.sockets.serve(snapshot, self.queries, async move { _ = stop.started().await }) => ended,
                () = follower.run(drain.clone()) => Ok(()),
                () = renewal_only(renewal, drain.clone()) => Ok(()),
                () = opened => Ok(()),
            }
        };
        tokio::select! {
            () = admin => Ok(()),
            ended = serving => ended,
            () = drain.ended() => Ok(()),
        }
    }
}

/// The renewal ends when the drain starts; answering goes on until it has ended.
async fn renewal_only(renewal: mesh_api::client::identity::Renewal, drain: Drain) {
    renewal.run(drain).await;
    std::future::pending::<()>().await;
}
