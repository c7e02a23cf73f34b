//! Reads this cluster's API into plain values. The only readers of Kubernetes objects are this folder's files.
//!
//! Invariant: [`World::seen`] gives nothing before every listing is complete, and nothing of a cluster whose id is another than before.

pub mod lease;
pub(crate) mod objects;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource, ResourceExt as _};
use mesh_api::client::causes::Causes;
use mesh_api::crd::{ClusterProperty, Link, Peer, ServiceExport, ServiceImport};
use mesh_api::well_known;
use mesh_names::{ClusterId, ClusterName, Label, ServiceId, TrustDomain};
use mesh_runtime::tasks::Tasks;
use mesh_trust::Bundle;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::model::{Kind, ObjectId, Seen};

pub use kube::Client;

/// A client of this cluster's API: of a kubeconfig and its context, else as a pod has it.
///
/// # Errors
/// When the kubeconfig can't be used, or there is none and this is no pod.
pub async fn client(kubeconfig: Option<&(PathBuf, Option<String>)>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        None => kube::Config::incluster().context("no --kubeconfig was given, and this is no pod")?,
        Some((path, context)) => {
            let unusable = || format!("kubeconfig {} can't be used", path.display());
            let read = Kubeconfig::read_from(path).with_context(unusable)?;
            let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            kube::Config::from_custom_kubeconfig(read, &options).await.with_context(unusable)?
        }
    };
    // A server that is only silent, as one whose machine has lost its power is, would hold a round up for ever.
    (config.read_timeout, config.reset_reader_on_write) = (Some(SILENCE_MAX), true);
    Client::try_from(config).context("the Kubernetes client can't be made")
}

/// Caches of what the controller reads, kept current by watches.
#[derive(Clone)]
pub struct World {
    trust_domain: TrustDomain,
    id: Arc<OnceLock<ClusterId>>,
    links: Store<Link>,
    namespaces: Store<Namespace>,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    gateways: Store<EndpointSlice>,
    exports: Store<ServiceExport>,
    imports: Store<ServiceImport>,
    bundle: Store<ConfigMap>,
    headless: Store<EndpointSlice>,
    properties: Store<ClusterProperty>,
    peers: Store<Peer>,
}

/// Why there is nothing to decide on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSeen {
    /// The API does not show `kube-system`.
    #[error("the cluster has no namespace kube-system, whose uid is its id")]
    NoId,
    /// The API belongs to another cluster than before.
    #[error(
        "the API belongs to cluster {found}, not to {known} as before: nothing is changed; restart the mirror controller if this is meant"
    )]
    OtherCluster {
        /// Whose objects were seen first.
        known: ClusterId,
        /// Whose are seen now.
        found: ClusterId,
    },
}

impl World {
    /// Starts watching; `changed` is notified of each event.
    #[must_use]
    pub fn watch(trust_domain: TrustDomain, client: &Client, changed: &Arc<Notify>, tasks: &mut Tasks) -> Self {
        let system = || Api::namespaced(client.clone(), well_known::SYSTEM_NAMESPACE);
        let all = || watcher::Config::default().timeout(WATCH_SECONDS);
        let ours = format!("{}={}", well_known::MANAGED_BY, well_known::MANAGED_BY_ISTHMUS);
        let gateways = format!("{SERVICE_NAME}={}", well_known::GATEWAY_SERVICE);
        let bundle = format!("metadata.name={}", well_known::BUNDLE);
        Self {
            trust_domain,
            id: Arc::default(),
            links: watch(Api::all(client.clone()), all(), changed, tasks),
            namespaces: watch(Api::all(client.clone()), all(), changed, tasks),
            services: watch(Api::all(client.clone()), all(), changed, tasks),
            slices: watch(Api::all(client.clone()), all().labels(&ours), changed, tasks),
            gateways: watch(Api::namespaced(client.clone(), well_known::SYSTEM_NAMESPACE), all().labels(&gateways), changed, tasks),
            exports: watch(Api::all(client.clone()), all(), changed, tasks),
            imports: watch(Api::all(client.clone()), all(), changed, tasks),
            bundle: watch(system(), all().fields(&bundle), changed, tasks),
            headless: watch(Api::all(client.clone()), all().labels(HEADLESS), changed, tasks),
            properties: watch(Api::all(client.clone()), all(), changed, tasks),
            peers: watch(Api::all(client.clone()), all(), changed, tasks),
        }
    }

    /// Waits until every listing is complete that imports are decided on. A cluster may lack the About API.
    pub async fn listed(&self) {
        // A store whose writer is gone never gets ready, and nothing can be decided then.
        let listed = tokio::try_join!(
            self.links.wait_until_ready(),
            self.namespaces.wait_until_ready(),
            self.services.wait_until_ready(),
            self.slices.wait_until_ready(),
            self.gateways.wait_until_ready(),
            self.exports.wait_until_ready(),
            self.imports.wait_until_ready(),
            self.bundle.wait_until_ready(),
            self.headless.wait_until_ready(),
        );
        if listed.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Everything as plain values. To be asked after [`World::listed`].
    ///
    /// # Errors
    /// When the API shows no cluster, or another one than before.
    pub fn seen(&self) -> Result<Seen, NotSeen> {
        let id = self.cluster_id()?;
        let (objects, taken) = self.objects();
        let mut pods = BTreeMap::new();
        for slice in self.headless.state() {
            read::pods(&slice, &mut pods);
        }
        Ok(Seen {
            id,
            links: self.links.state().iter().filter_map(|link| Some((link.name_any().parse().ok()?, read::link(link)))).collect(),
            namespaces: self.namespaces.state().iter().filter_map(|namespace| read::namespace(namespace)).collect(),
            gateways: self.gateways.state().iter().flat_map(|slice| read::addresses(slice)).collect::<BTreeSet<IpAddr>>(),
            families: self.services.state().iter().flat_map(|service| read::families(service)).collect(),
            exports: self.own_exports(),
            taken,
            pods,
            objects,
            properties: is_listed(&self.properties).then(|| self.properties.state().iter().map(|one| read::property(one)).collect()),
            member: self.is_member(),
        })
    }

    fn is_member(&self) -> Option<bool> {
        if !self.links.state().is_empty() {
            return Some(true);
        }
        is_listed(&self.peers).then(|| !self.peers.state().is_empty())
    }

    /// The Link objects as they are, for their status.
    #[must_use]
    pub fn links(&self) -> BTreeMap<ClusterName, Arc<Link>> {
        self.links.state().into_iter().filter_map(|link| Some((link.name_any().parse().ok()?, link))).collect()
    }

    /// The ServiceExport objects as they are, for their status.
    #[must_use]
    pub fn exports(&self) -> BTreeMap<ServiceId, Arc<ServiceExport>> {
        self.exports.state().into_iter().filter_map(|export| Some((service_id(export.as_ref())?, export))).collect()
    }

    /// Whether this is the own trust domain.
    #[must_use]
    pub fn is_own(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain == *trust_domain
    }

    /// This trust domain's own bundle, as the API has it.
    #[must_use]
    pub fn bundle(&self) -> Option<Bundle> {
        let map = self.bundle.state().into_iter().next()?;
        let json = map.data.as_ref()?.get(well_known::BUNDLE_KEY)?;
        let bundle = Bundle::from_spiffe_json(self.trust_domain.clone(), json.as_bytes());
        bundle.inspect_err(|error| tracing::error!(error = %Causes(error), "own bundle not usable")).ok()
    }

    fn cluster_id(&self) -> Result<ClusterId, NotSeen> {
        let system = self.namespaces.find(|namespace| namespace.name_any() == "kube-system");
        let found: ClusterId = system.and_then(|namespace| namespace.uid()?.parse().ok()).ok_or(NotSeen::NoId)?;
        let known = self.id.get_or_init(|| found.clone());
        if *known == found { Ok(found) } else { Err(NotSeen::OtherCluster { known: known.clone(), found }) }
    }

    fn own_exports(&self) -> BTreeMap<ServiceId, crate::model::OwnExport> {
        let exports = self.exports.state();
        if exports.is_empty() {
            return BTreeMap::new();
        }
        let services: BTreeMap<ServiceId, Arc<Service>> =
            self.services.state().into_iter().filter_map(|service| Some((service_id(service.as_ref())?, service))).collect();
        let of = |export: &Arc<ServiceExport>| {
            let id = service_id(export.as_ref())?;
            let service = services.get(&id).map(AsRef::as_ref);
            Some((id, read::export(export, service)))
        };
        exports.iter().filter(|export| export.metadata.deletion_timestamp.is_none()).filter_map(of).collect()
    }

    fn objects(&self) -> (BTreeMap<ObjectId, crate::model::Found>, BTreeSet<(Kind, ServiceId)>) {
        let (mut ours, mut taken) = (BTreeMap::new(), BTreeSet::new());
        for service in self.services.state() {
            match objects::service(&service) {
                Some((id, found)) => {
                    ours.insert(id, found);
                }
                None => taken.extend(service_id(service.as_ref()).map(|id| (Kind::Service, id))),
            }
        }
        for import in self.imports.state() {
            match objects::import(&import) {
                Some((id, found)) => {
                    ours.insert(id, found);
                }
                None => taken.extend(service_id(import.as_ref()).map(|id| (Kind::Import, id))),
            }
        }
        ours.extend(self.slices.state().iter().filter_map(|slice| objects::slice(slice)));
        (ours, taken)
    }
}

/// Whether an object carries our label, and a mirror's.
fn is_ours(labels: &BTreeMap<String, String>) -> bool {
    labels.get(well_known::MANAGED_BY).is_some_and(|by| by == well_known::MANAGED_BY_ISTHMUS) && labels.contains_key(well_known::MIRROR)
}

fn is_listed<K>(store: &Store<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.wait_until_ready().now_or_never().is_some_and(|listed| listed.is_ok())
}

fn service_id<K: Resource>(object: &K) -> Option<ServiceId> {
    let namespace: Label = object.meta().namespace.as_deref()?.parse().ok()?;
    Some(ServiceId::new(namespace, object.meta().name.as_deref()?.parse().ok()?))
}

fn watch<K>(api: Api<K>, config: watcher::Config, changed: &Arc<Notify>, tasks: &mut Tasks) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash,
{
    let (store, writer) = reflector::store();
    let stream = reflector::reflector(writer, watcher(api, config)).backoff(Pause::default());
    let changed = Arc::clone(changed);
    tasks.spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(_) => changed.notify_one(),
                Err(error) => tracing::warn!(kind = %K::kind(&()), error = %Causes(&error), "watch interrupted"),
            }
        }
    });
    store
}

/// Pauses between attempts to watch. Short, because a restarted API server is to be followed again at once; jittered, because others
/// do the same.
#[derive(Debug, Default)]
struct Pause(u32);

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = (PAUSE_FIRST * 2_u32.pow(self.0.min(5))).min(PAUSE_LONGEST);
        self.0 = self.0.saturating_add(1);
        Some(mesh_runtime::clock::jittered(pause, 0.3))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// How long the API may say nothing: every watch of it has ended by then.
const SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);
/// After this time the API ends a watch, which goes on as another one.
const WATCH_SECONDS: u32 = 60;
/// The label of the slices of Services that have no address.
const HEADLESS: &str = "service.kubernetes.io/headless";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LONGEST: Duration = Duration::from_secs(3);
