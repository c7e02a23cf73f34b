//! The loop: observe → plan → apply, level-triggered. Each round reads all that it needs, so rounds may be skipped, repeated or cut short.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_api::client::causes::Causes;
use mesh_api::translate::Transport;
use mesh_names::{ClusterName, ServiceId};
use mesh_runtime::clock;
use mesh_runtime::drain::Drain;
use mesh_runtime::ready::Gate;
use mesh_topology::{Port, Remote, RemoteEndpoint};
use mesh_trust::{Bundle, Bundles, SharedBundles};
use tokio::sync::{Notify, watch};

use crate::elect::Lead;
use crate::lead::Standing;
use crate::linked::{LinkTold, Links};
use crate::metrics::Metrics;
use crate::model::{Seen, SeenLink};
use crate::observe::{Client, World};
use crate::plan::{Believed, EgressRange, Plan, Told, plan};
use crate::serve::Published;
use crate::{apply, status};

/// What the loop works with.
pub struct Reconciler {
    /// This cluster, as it is.
    pub world: World,
    /// To write to it.
    pub client: Client,
    /// Whether this replica may write.
    pub lead: Lead,
    /// The links that run.
    pub links: Links,
    /// Whom this process trusts: follows the Links.
    pub bundles: SharedBundles,
    /// What this cluster's controls read.
    pub published: watch::Sender<Option<Arc<Published>>>,
    /// Ports of the gateways' way out.
    pub egress_ports: EgressRange,
    /// Says that something changed.
    pub changed: Arc<Notify>,
    /// Opened after the first round.
    pub gate: Gate,
    /// What is counted.
    pub metrics: Metrics,
    /// When the process began.
    pub begun: Instant,
}

impl Reconciler {
    /// Runs until the drain starts.
    pub async fn run(mut self, drain: Drain) {
        tokio::select! {
            _ = drain.started() => return,
            () = self.world.listed() => {}
        }
        loop {
            let failed = self.round().await;
            self.gate.open();
            let pause = if failed { RETRY } else { RESYNC };
            tokio::select! {
                _ = drain.started() => return,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            // What changed together is looked at together.
            tokio::time::sleep(GATHER).await;
        }
    }

    /// One round; says whether something is to be tried again soon.
    async fn round(&mut self) -> bool {
        let seen = match self.world.seen() {
            Ok(seen) => seen,
            Err(why) => {
                tracing::error!(%why, "nothing is reconciled");
                return true;
            }
        };
        self.trust(&seen);
        self.links.follow(seen.links.values().flatten());
        let told: BTreeMap<ClusterName, LinkTold> = seen.links.keys().map(|name| (name.clone(), self.links.told(name))).collect();
        let complete: Told = told.iter().filter_map(|(name, told)| Some((name.clone(), told.exports.clone()?))).collect();
        let mut plan = plan(&seen, &complete, self.egress_ports);
        self.metrics.show(&plan);
        // After a restart controls go on with the handles that they have until every link has spoken, or had its time.
        let spoken = seen.links.iter().all(|(name, link)| link.is_err() || complete.contains_key(name));
        if spoken || self.begun.elapsed() > SILENT_MAX {
            self.publish(&seen, &told, &plan);
        }
        if self.lead.standing() != Standing::Leads {
            return true;
        }
        let changes = std::mem::take(&mut plan.changes);
        self.metrics.writes.inc_by(u64::try_from(changes.len()).unwrap_or(u64::MAX));
        let mut failed = apply::apply(&self.client, changes).await;
        failed.extend(apply::properties(&self.client, std::mem::take(&mut plan.properties)).await);
        failed.extend(self.bundles_of_peers(&seen, &complete).await);
        failed.extend(self.statuses(&seen, &told, &plan).await);
        self.metrics.failed.inc_by(u64::try_from(failed.len()).unwrap_or(u64::MAX));
        for error in &failed {
            tracing::warn!(error = %Causes(error), "not applied");
        }
        !failed.is_empty()
    }

    /// Trusts the own trust domain and each Link's; a Link that is gone is trusted no more.
    fn trust(&self, seen: &Seen) {
        let own = self.world.bundle();
        let links: Vec<&SeenLink> = seen.links.values().flatten().collect();
        // A Link whose spec can't be used keeps what it had: what is broken is not what is withdrawn.
        let all_usable = seen.links.values().all(Result::is_ok);
        self.bundles.rcu(|held| {
            let domains: Vec<_> = held.iter().map(|bundle| bundle.trust_domain().clone()).collect();
            let stays = |domain: &mesh_names::TrustDomain| {
                !all_usable || links.iter().any(|link| link.trust_domain == *domain) || self.world.is_own(domain)
            };
            let rest = domains.iter().filter(|domain| !stays(domain)).fold(Bundles::clone(held), Bundles::without);
            links.iter().map(|link| link.bundle.clone()).chain(own.clone()).fold(rest, Bundles::with)
        });
    }

    fn publish(&self, seen: &Seen, told: &BTreeMap<ClusterName, LinkTold>, plan: &Plan) {
        let now = clock::now();
        let mut next = Published::default();
        for (name, services) in &plan.believed {
            let valid = told.get(name).is_some_and(|told| told.handles_valid(now));
            for (id, one) in services {
                next.remotes.insert((name.clone(), id.clone()), Arc::new(remote(name, id, one, valid)));
            }
        }
        next.links = seen.links.keys().map(|name| (name.clone(), self.links.health(name))).collect();
        self.published.send_if_modified(|held| {
            let changed = held.as_deref() != Some(&next);
            if changed {
                *held = Some(Arc::new(next));
            }
            changed
        });
    }

    /// Gives each Link the newer bundle that its peer's control, which proved its id under the one before, says it has.
    async fn bundles_of_peers(&self, seen: &Seen, complete: &Told) -> Vec<apply::NotApplied> {
        let mut failed = Vec::new();
        for link in seen.links.values().flatten() {
            let Some(exports) = complete.get(&link.name) else { continue };
            let said = Bundle::from_spiffe_json(link.trust_domain.clone(), &exports.get().bundle);
            let Some(newer) = said.ok().filter(|bundle| bundle.sequence() > link.bundle.sequence()) else { continue };
            if let Err(error) = apply::link_bundle(&self.client, &link.name, &newer.to_spiffe_json()).await {
                failed.push(error);
            }
        }
        failed
    }

    async fn statuses(&self, seen: &Seen, told: &BTreeMap<ClusterName, LinkTold>, plan: &Plan) -> Vec<apply::NotApplied> {
        let unknown = LinkTold::default();
        let says = seen.links.iter().map(|(name, link)| {
            let says = match link {
                Err(why) => status::of_unusable(why),
                Ok(link) => {
                    let imported = plan.believed.get(name).map(BTreeMap::len);
                    status::of_link(link, told.get(name).unwrap_or(&unknown), self.links.health(name), imported, plan.refused.get(name))
                }
            };
            (name.clone(), says)
        });
        let mut failed = apply::link_statuses(&self.client, &self.world.links(), &says.collect()).await;
        let exports = plan.exports.iter().map(|(id, says)| (id.clone(), status::of_export(says))).collect();
        failed.extend(apply::export_statuses(&self.client, &self.world.exports(), &exports).await);
        failed
    }
}

fn remote(link: &ClusterName, id: &ServiceId, one: &Believed, handles_valid: bool) -> Remote {
    let exported = &one.exported;
    let port = |port: &mesh_api::translate::ExportedPort| Port { name: port.name.clone(), number: port.number, protocol: port.protocol() };
    let endpoint = |endpoint: &mesh_api::translate::ExportedEndpoint| {
        Arc::new(RemoteEndpoint {
            handle: endpoint.handle.clone(),
            hostname: endpoint.hostname.clone(),
            ready: endpoint.ready,
            weight: endpoint.weight,
            stand_in: None,
        })
    };
    Remote {
        link: link.clone(),
        service: id.clone(),
        ports: exported.ports.iter().filter(|port| port.transport != Transport::Sctp).map(port).collect(),
        identities: one.identities.clone(),
        addresses: Vec::new(),
        endpoints: exported.endpoints.iter().map(endpoint).collect(),
        handles_valid,
        proxyless: exported.proxyless,
    }
}

/// Without any event: leases lapse, and what failed silently is seen again.
const RESYNC: Duration = Duration::from_secs(5);
/// How long after the start controls wait for a link that says nothing.
const SILENT_MAX: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);
const GATHER: Duration = Duration::from_millis(20);
