//! What the node sees of its cluster: a watch per kind, kept while the API is away, and what it wrote itself a moment ago.
//!
//! Invariant: nothing is decided before every kind was listed once, and what this node wrote counts at once, although the watch brings it
//! later; otherwise a second look would create a pod twice.

use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{self, Store, store::Writer};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use mesh_runtime::tasks::Tasks;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

/// Everything that is decided from, as of one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) namespaces: Vec<Arc<Namespace>>,
    pub(crate) pods: Vec<Arc<Pod>>,
    pub(crate) deployments: Vec<Arc<Deployment>>,
    pub(crate) stateful_sets: Vec<Arc<StatefulSet>>,
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) slices: Vec<Arc<EndpointSlice>>,
    pub(crate) accounts: Vec<Arc<ServiceAccount>>,
}

/// The running watches.
#[derive(Debug)]
pub(crate) struct Watches {
    namespaces: Store<Namespace>,
    pods: Store<Pod>,
    deployments: Store<Deployment>,
    stateful_sets: Store<StatefulSet>,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    accounts: Store<ServiceAccount>,
    _tasks: Tasks,
}

impl Watches {
    /// Starts a watch per kind; `changed` is told whenever one brings something.
    pub(crate) fn start(client: &Client, changed: &Arc<Notify>) -> Self {
        let mut tasks = Tasks::new();
        Self {
            namespaces: watch(client, changed, &mut tasks),
            pods: watch(client, changed, &mut tasks),
            deployments: watch(client, changed, &mut tasks),
            stateful_sets: watch(client, changed, &mut tasks),
            services: watch(client, changed, &mut tasks),
            slices: watch(client, changed, &mut tasks),
            accounts: watch(client, changed, &mut tasks),
            _tasks: tasks,
        }
    }

    /// Returns once every kind was listed.
    pub(crate) async fn listed(&self) {
        // A store fails to become ready only when its writer is gone, and its writer lives as long as `_tasks`.
        let _ = tokio::join!(
            self.namespaces.wait_until_ready(),
            self.pods.wait_until_ready(),
            self.deployments.wait_until_ready(),
            self.stateful_sets.wait_until_ready(),
            self.services.wait_until_ready(),
            self.slices.wait_until_ready(),
            self.accounts.wait_until_ready(),
        );
    }

    /// What is seen now, with the node's own recent `writes`.
    pub(crate) fn seen(&self, writes: &mut Writes, now: Instant) -> Seen {
        let mut pods = self.pods.state();
        writes.overlay(&mut pods, now);
        Seen {
            namespaces: self.namespaces.state(),
            pods,
            deployments: self.deployments.state(),
            stateful_sets: self.stateful_sets.state(),
            services: self.services.state(),
            slices: self.slices.state(),
            accounts: self.accounts.state(),
        }
    }
}

fn watch<K>(client: &Client, changed: &Arc<Notify>, tasks: &mut Tasks) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let writer = Writer::default();
    let store = writer.as_reader();
    let api = Api::<K>::all(client.clone());
    let changed = Arc::clone(changed);
    tasks.spawn(async move {
        let mut events = pin!(reflector::reflector(writer, watcher(api, watcher::Config::default())));
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => changed.notify_one(),
                Err(error) => {
                    tracing::debug!(%error, kind = %K::kind(&()), "watch broke");
                    tokio::time::sleep(WATCH_AGAIN).await;
                }
            }
        }
    });
    store
}

/// Pods that this node created or deleted and that its watch has not shown so yet.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    created: HashMap<String, (Arc<Pod>, Instant)>,
    deleted: HashMap<String, Instant>,
}

impl Writes {
    /// The API accepted this pod.
    pub(crate) fn on_created(&mut self, pod: Pod, now: Instant) {
        if let Some(uid) = pod.metadata.uid.clone() {
            self.created.insert(uid, (Arc::new(pod), now));
        }
    }

    /// The API accepted this pod's deletion.
    pub(crate) fn on_deleted(&mut self, uid: &str, now: Instant) {
        self.deleted.insert(uid.to_owned(), now);
    }

    /// Adds what was created and is not seen, and drops what was deleted and is still seen as if it lived.
    fn overlay(&mut self, pods: &mut Vec<Arc<Pod>>, now: Instant) {
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < WRITE_SEEN_WITHIN;
        self.deleted.retain(|_, at| fresh(at));
        self.created.retain(|uid, (_, at)| fresh(at) && !pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid)));
        pods.extend(self.created.values().map(|(pod, _)| Arc::clone(pod)));
        for pod in pods.iter_mut() {
            let deleted = pod.metadata.uid.as_ref().is_some_and(|uid| self.deleted.contains_key(uid));
            if deleted && pod.metadata.deletion_timestamp.is_none() {
                Arc::make_mut(pod).metadata.deletion_timestamp = Some(super::status::time(std::time::SystemTime::UNIX_EPOCH));
            }
        }
    }
}

/// Whether the node's own overlay, and not the API, says that this pod is being deleted.
pub(crate) fn deleted_by_overlay_only(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.as_ref().is_some_and(|at| at.0.as_second() == 0)
}

/// Pause after a watch broke; the API server of a demo is back within seconds.
const WATCH_AGAIN: Duration = Duration::from_millis(500);

/// A write that no watch has shown after this time has been undone by someone else.
const WRITE_SEEN_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::plan::testing::pod;

    #[test]
    fn a_pod_just_created_counts_until_the_watch_shows_it() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        writes.on_created(pod("shop/cart-1"), now);
        let mut seen = vec![];
        writes.overlay(&mut seen, now);
        assert_eq!(seen.len(), 1);
        let mut seen = vec![Arc::new(pod("shop/cart-1"))];
        writes.overlay(&mut seen, now);
        assert_eq!(seen.len(), 1);
        let mut gone = vec![];
        writes.overlay(&mut gone, now);
        assert!(gone.is_empty(), "once it was seen, its absence means that it is gone");
    }

    #[test]
    fn a_pod_just_deleted_counts_as_terminating() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        let mut seen = vec![Arc::new(pod("shop/cart-1"))];
        writes.on_deleted(seen[0].metadata.uid.as_deref().unwrap(), now);
        writes.overlay(&mut seen, now);
        assert!(deleted_by_overlay_only(&seen[0]));
    }
}
