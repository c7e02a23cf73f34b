//! Reads the cluster: one list-and-watch per kind, each into its table of [`Observed`].
//!
//! A watch goes on from where it broke; only when the API server has forgotten that place is the kind listed again, and each listing is
//! told apart by the uid of `kube-system` that the same server answers with. Nothing is taken away because a watch broke. A server that is
//! only silent, as one whose machine has lost its power is, has broken it too: see `bounded`.

mod read;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt as _};
use mesh_api::client::causes::Causes;
use mesh_api::crd;
use mesh_api::well_known::{BUNDLE, FACTS, HANDLES, ISSUER, SYSTEM_NAMESPACE};
use mesh_names::ClusterId;
use mesh_runtime::clock;
use mesh_runtime::tasks::Tasks;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::observed::{Listing, ObjectName, Objects, Observed, Seen};
pub(crate) use read::HANDLE_KEY;

/// What the watches have seen, shared by those who read it.
#[derive(Clone, Debug)]
pub struct Observer {
    observed: Arc<Mutex<Observed>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Default for Observer {
    fn default() -> Self {
        Self { observed: Arc::new(Mutex::new(Observed::nothing())), changed: Arc::new(watch::channel(0).0) }
    }
}

impl Observer {
    /// One that has seen this already.
    #[cfg(test)]
    pub(crate) fn of(observed: Observed) -> Self {
        Self { observed: Arc::new(Mutex::new(observed)), ..Self::default() }
    }

    /// The state of this moment.
    #[must_use]
    pub fn now(&self) -> Observed {
        self.observed.lock().clone()
    }

    /// Wakes whoever waits at each change; the number is only a counter.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Starts every watch.
    pub fn follow(&self, client: &Client, tasks: &mut Tasks) {
        let system = |name: &str| (Api::namespaced(client.clone(), SYSTEM_NAMESPACE), named(name));
        let (facts, one) = system(FACTS);
        self.spawn(tasks, client, facts, one, read::facts, |seen| &mut seen.facts);
        let (bundle, one) = system(BUNDLE);
        self.spawn(tasks, client, bundle, one, read::bundle, |seen| &mut seen.bundle);
        let secret = |name: &str| (Api::namespaced(client.clone(), SYSTEM_NAMESPACE), named(name));
        let (issuer, one) = secret(ISSUER);
        self.spawn(tasks, client, issuer, one, read::issuer, |seen| &mut seen.issuer);
        let (handles, one) = secret(HANDLES);
        self.spawn(tasks, client, handles, one, read::handles, |seen| &mut seen.handles);
        let all = everything;
        self.spawn::<core::Service, _>(tasks, client, Api::all(client.clone()), all(), read::service, |seen| &mut seen.services);
        self.spawn::<EndpointSlice, _>(tasks, client, Api::all(client.clone()), all(), read::slice, |seen| &mut seen.slices);
        self.spawn::<core::Pod, _>(tasks, client, Api::all(client.clone()), all(), read::pod, |seen| &mut seen.pods);
        self.spawn::<core::Namespace, _>(tasks, client, Api::all(client.clone()), all(), read::namespace, |seen| &mut seen.namespaces);
        self.spawn::<crd::ServiceExport, _>(tasks, client, Api::all(client.clone()), all(), read::export, |seen| &mut seen.exports);
        self.spawn::<crd::ServiceImport, _>(tasks, client, Api::all(client.clone()), all(), read::import, |seen| &mut seen.imports);
        self.spawn::<crd::Link, _>(tasks, client, Api::all(client.clone()), all(), read::link, |seen| &mut seen.links);
        self.spawn::<crd::Peer, _>(tasks, client, Api::all(client.clone()), all(), read::peer, |seen| &mut seen.peers);
    }

    fn spawn<K, T>(
        &self,
        tasks: &mut Tasks,
        client: &Client,
        api: Api<K>,
        params: WatchParams,
        read: fn(K) -> Option<T>,
        table: fn(&mut Observed) -> &mut Seen<T>,
    ) where
        K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        T: Send + Sync + 'static,
    {
        let follower = Follower { client: client.clone(), api, params, read, table, observer: self.clone() };
        tasks.spawn(follower.run());
    }

    fn change(&self, change: impl FnOnce(&mut Observed)) {
        change(&mut self.observed.lock());
        self.changed.send_modify(|count| *count += 1);
    }
}

/// A configuration whose client gives a silent server up: no answer to a request, nor anything of a watch, for this long.
pub(crate) fn bounded(mut config: kube::Config, silence: Duration) -> kube::Config {
    (config.read_timeout, config.reset_reader_on_write) = (Some(silence), true);
    config
}

fn everything() -> WatchParams {
    WatchParams::default().timeout(WATCH_SECONDS)
}

fn named(name: &str) -> WatchParams {
    everything().fields(&format!("metadata.name={name}"))
}

/// The list-and-watch of one kind.
struct Follower<K, T> {
    client: Client,
    api: Api<K>,
    params: WatchParams,
    read: fn(K) -> Option<T>,
    table: fn(&mut Observed) -> &mut Seen<T>,
    observer: Observer,
}

/// Why a watch ended.
enum Ended {
    /// It goes on from this version.
    At(String),
    /// The server has forgotten that version: list again.
    Forgotten,
}

impl<K, T> Follower<K, T>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    async fn run(self) {
        let kind = K::plural(&());
        let mut failures = 0;
        loop {
            match self.list().await {
                Ok(mut version) => {
                    failures = 0;
                    while let Ended::At(reached) = self.watch(version).await {
                        version = reached;
                        tokio::time::sleep(pause(0)).await;
                    }
                }
                Err(error) => {
                    if failures % TOLD_EVERY == 0 {
                        tracing::warn!(%kind, error = brief(&error), failures, "could not list");
                    }
                    failures += 1;
                }
            }
            tokio::time::sleep(pause(failures)).await;
        }
    }

    async fn list(&self) -> Result<String, kube::Error> {
        let mut fresh = Listing::from(Objects::new());
        let mut params = ListParams { field_selector: self.params.field_selector.clone(), ..ListParams::default() }.limit(PAGE);
        let version = loop {
            let page = self.api.list(&params).await?;
            for object in page.items {
                let name = name_of(&object);
                fresh.versions.changed = fresh.versions.changed.max(number(object.resource_version().as_deref()));
                match (self.read)(object) {
                    Some(read) => drop(fresh.objects.insert(name, Arc::new(read))),
                    None => fresh.unreadable.push(name),
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break page.metadata.resource_version.unwrap_or_default(),
            }
        };
        fresh.versions.read_to = number(Some(&version)).max(fresh.versions.changed);
        let from = cluster_id(&self.client).await?;
        self.observer.change(|observed| {
            let own = observed.cluster_id.clone();
            let table = (self.table)(observed);
            table.on_listed(own.as_ref(), &from, fresh);
            if let Some(why) = table.held() {
                tracing::error!(kind = %K::plural(&()), %why, "a fresh listing is held: restart control to accept it");
            }
            observed.cluster_id.get_or_insert(from);
        });
        Ok(version)
    }

    async fn watch(&self, mut version: String) -> Ended {
        let kind = K::plural(&());
        let mut events = match self.api.watch(&self.params, &version).await {
            Ok(events) => events.boxed(),
            Err(kube::Error::Api(status)) if status.code == GONE => return Ended::Forgotten,
            Err(error) => {
                tracing::debug!(%kind, error = brief(&error), "could not watch");
                tokio::time::sleep(pause(3)).await;
                return Ended::At(version);
            }
        };
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    version = object.resource_version().unwrap_or(version);
                    self.set(object, &version);
                }
                Ok(WatchEvent::Deleted(object)) => {
                    version = object.resource_version().unwrap_or(version);
                    self.gone(&name_of(&object), &version);
                }
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    version = bookmark.metadata.resource_version;
                    self.observer.change(|observed| (self.table)(observed).on_read(number(Some(&version))));
                }
                Ok(WatchEvent::Error(status)) if status.code == GONE => return Ended::Forgotten,
                Ok(WatchEvent::Error(status)) => {
                    tracing::warn!(%kind, message = %status.message, "watch failed");
                    return Ended::Forgotten;
                }
                Err(error) => {
                    tracing::debug!(%kind, %error, "watch broke");
                    return Ended::At(version);
                }
            }
        }
        Ended::At(version)
    }

    fn set(&self, object: K, version: &str) {
        let name = name_of(&object);
        let read = (self.read)(object);
        self.observer.change(|observed| {
            let own = observed.cluster_id.clone();
            match read {
                Some(read) => (self.table)(observed).on_set(own.as_ref(), name, read),
                None => (self.table)(observed).on_unreadable(own.as_ref(), &name),
            }
            (self.table)(observed).on_changed(number(Some(version)));
        });
    }

    fn gone(&self, name: &ObjectName, version: &str) {
        self.observer.change(|observed| {
            let own = observed.cluster_id.clone();
            (self.table)(observed).on_gone(own.as_ref(), name);
            (self.table)(observed).on_changed(number(Some(version)));
        });
    }
}

/// A resourceVersion, which is a number that rises; zero for what is none, of which nothing is said.
fn number(version: Option<&str>) -> u64 {
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}

fn name_of<K: kube::Resource>(object: &K) -> ObjectName {
    let meta = object.meta();
    ObjectName { namespace: meta.namespace.as_deref().unwrap_or_default().into(), name: meta.name.as_deref().unwrap_or_default().into() }
}

/// The uid of `kube-system`.
async fn cluster_id(client: &Client) -> Result<ClusterId, kube::Error> {
    let namespaces: Api<core::Namespace> = Api::all(client.clone());
    let system = namespaces.get_metadata("kube-system").await?;
    let uid = system.metadata.uid.unwrap_or_default();
    uid.parse().map_err(|error: mesh_names::ParseError| kube::Error::Service(error.into()))
}

/// What went wrong, in one line.
pub(crate) fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => Causes(other).to_string(),
    }
}

/// How long to wait after this many failures in a row.
pub(crate) fn pause(failures: u32) -> Duration {
    clock::jittered((PAUSE_FIRST * 2_u32.saturating_pow(failures.min(8))).min(PAUSE_LONGEST), 0.5)
}

/// Of failures in a row, one in so many is told.
pub(crate) const TOLD_EVERY: u32 = 16;
/// How long a server may say nothing: every watch of it has ended by then.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);
/// After this time the server ends a watch, which goes on as another one.
const WATCH_SECONDS: u32 = 60;
const PAGE: u32 = 500;
const GONE: u16 = 410;
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
