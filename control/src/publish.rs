//! What control says, kept so that each reader gets what it lacks: the latest value per key, and a cursor per reader.
//!
//! A reader that is slow skips states and never holds anything up. A version is (this replica, counter) and means something here only:
//! whoever comes from elsewhere, or was away for so long that removals were forgotten, gets a full state.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use mesh_api::proto;
use mesh_api::translate;
use mesh_names::{ServiceId, SpiffeId, TrustDomain};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::build::Built;
use crate::observed::Versions;

/// Latest value per key, in the order of their changes.
#[derive(Debug)]
pub struct Log<K, V> {
    counter: u64,
    values: HashMap<K, Entry<V>>,
    order: BTreeMap<u64, K>,
    /// Removals up to here are forgotten: a cursor before it needs a full state.
    forgotten: u64,
    removals: usize,
}

#[derive(Debug)]
struct Entry<V> {
    at: u64,
    /// None is a removal that readers may not have heard of.
    value: Option<Arc<V>>,
}

/// What a reader lacks.
#[derive(Debug, PartialEq, Eq)]
pub struct Delta<K, V> {
    /// Whether it replaces everything.
    pub full: bool,
    /// The counter that the reader is at afterwards.
    pub counter: u64,
    /// Values that are new or have changed.
    pub upserts: Vec<Arc<V>>,
    /// Keys that are gone.
    pub removals: Vec<K>,
}

impl<K, V> Default for Log<K, V> {
    fn default() -> Self {
        Self { counter: 0, values: HashMap::new(), order: BTreeMap::new(), forgotten: 0, removals: 0 }
    }
}

impl<K: Clone + Eq + Hash, V: PartialEq> Log<K, V> {
    /// Makes `next` the state. Says whether anything has changed.
    pub fn replace(&mut self, next: HashMap<K, V>) -> bool {
        let gone: Vec<K> = self.live().filter(|key| !next.contains_key(*key)).cloned().collect();
        let changed: Vec<(K, V)> =
            next.into_iter().filter(|(key, value)| self.values.get(key).and_then(|entry| entry.value.as_deref()) != Some(value)).collect();
        if gone.is_empty() && changed.is_empty() {
            return false;
        }
        for key in gone {
            self.write(key, None);
        }
        for (key, value) in changed {
            self.write(key, Some(Arc::new(value)));
        }
        self.forget();
        true
    }

    /// What a reader at `cursor` lacks; `None` is a reader that has nothing, and gets everything.
    #[must_use]
    pub fn since(&self, cursor: Option<u64>) -> Delta<K, V> {
        let from = cursor.filter(|cursor| (self.forgotten..=self.counter).contains(cursor));
        let mut delta = Delta { full: from.is_none(), counter: self.counter, upserts: Vec::new(), removals: Vec::new() };
        for key in self.order.range(from.map_or(0, |from| from + 1)..).map(|(_, key)| key) {
            match self.values.get(key).and_then(|entry| entry.value.as_ref()) {
                Some(value) => delta.upserts.push(Arc::clone(value)),
                None if !delta.full => delta.removals.push(key.clone()),
                None => {}
            }
        }
        delta
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() - self.removals
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn live(&self) -> impl Iterator<Item = &K> {
        self.values.iter().filter(|(_, entry)| entry.value.is_some()).map(|(key, _)| key)
    }

    fn write(&mut self, key: K, value: Option<Arc<V>>) {
        self.counter += 1;
        self.removals += usize::from(value.is_none());
        if let Some(old) = self.values.insert(key.clone(), Entry { at: self.counter, value }) {
            self.order.remove(&old.at);
            self.removals -= usize::from(old.value.is_none());
        }
        self.order.insert(self.counter, key);
    }

    fn forget(&mut self) {
        if self.removals <= REMOVALS_MAX {
            return;
        }
        let removed: Vec<(u64, K)> = self
            .order
            .iter()
            .filter(|(_, key)| self.values.get(*key).is_some_and(|entry| entry.value.is_none()))
            .map(|(at, key)| (*at, key.clone()))
            .take(self.removals - REMOVALS_MAX / 2)
            .collect();
        for (at, key) in removed {
            self.values.remove(&key);
            self.order.remove(&at);
            self.removals -= 1;
            self.forgotten = at;
        }
    }
}

/// What the own cluster's readers are told.
pub type Resources = Log<proto::ResourceKey, proto::Resource>;
/// What one peer is told.
pub type ExportLog = Log<proto::ServiceRef, proto::ExportedService>;

/// Everything that is published.
#[derive(Debug)]
pub struct Publisher {
    replica: String,
    published: Mutex<Option<Published>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Published {
    own: proto::Own,
    trust_domain: TrustDomain,
    resources: Resources,
    bundle: Vec<u8>,
    peers: BTreeMap<TrustDomain, PeerLog>,
    age: Arc<Age>,
    exports_age: Arc<Age>,
}

/// How new a state is, by kind, as the wire has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Age {
    /// The resourceVersions of the newest changes.
    pub built_from: HashMap<String, String>,
    /// The resourceVersions up to which everything was read.
    pub read_to: HashMap<String, String>,
}

impl Age {
    fn of<'a>(versions: impl Iterator<Item = (&'a &'static str, &'a Versions)> + Clone) -> Self {
        let said = |of: fn(&Versions) -> u64| {
            let known = versions.clone().map(|(kind, versions)| ((*kind).to_owned(), of(versions))).filter(|(_, version)| *version > 0);
            known.map(|(kind, version)| (kind, version.to_string())).collect()
        };
        Self { built_from: said(|versions| versions.changed), read_to: said(|versions| versions.read_to) }
    }
}

#[derive(Debug)]
struct PeerLog {
    caller: SpiffeId,
    exported: ExportLog,
}

/// What a reader of Discovery lacks.
#[derive(Debug)]
pub struct Told {
    /// The own cluster.
    pub own: proto::Own,
    /// How new it is.
    pub age: Arc<Age>,
    /// The delta.
    pub delta: Delta<proto::ResourceKey, proto::Resource>,
}

/// What a reader of Exports lacks.
#[derive(Debug)]
pub struct ToldPeer {
    /// The own cluster's id.
    pub cluster_id: String,
    /// The own bundle, SPIFFE JSON.
    pub bundle: Vec<u8>,
    /// How new it is.
    pub age: Arc<Age>,
    /// The delta.
    pub delta: Delta<proto::ServiceRef, proto::ExportedService>,
}

impl Publisher {
    /// Nothing is published yet. `replica` names this run of this process, and no other.
    #[must_use]
    pub fn new(replica: String) -> Self {
        Self { replica, published: Mutex::new(None), changed: watch::channel(0).0 }
    }

    /// Makes `built` what readers are told.
    pub fn publish(&self, built: &Built) {
        let keyed = translate::said(&built.snapshot).into_iter().chain(built.bundles.iter().map(|bundle| translate::bundle_said(bundle)));
        let resources = keyed.filter_map(|resource| Some((translate::key_of(&resource)?, resource))).collect();
        let own = built.snapshot.own();
        let bundle = built.bundles.get(&own.trust_domain).map(|bundle| bundle.to_spiffe_json().into_bytes()).unwrap_or_default();
        let mut published = self.published.lock();
        let mut next = published.take().unwrap_or_else(|| Published {
            own: own.into(),
            trust_domain: own.trust_domain.clone(),
            resources: Resources::default(),
            bundle: Vec::new(),
            peers: BTreeMap::new(),
            age: Arc::default(),
            exports_age: Arc::default(),
        });
        next.age = Arc::new(Age::of(built.versions.iter()));
        next.exports_age = Arc::new(Age::of(built.versions.iter().filter(|(kind, _)| EXPORTS_OF.contains(kind))));
        (next.own, next.trust_domain, next.bundle) = (own.into(), own.trust_domain.clone(), bundle);
        next.resources.replace(resources);
        next.peers.retain(|domain, _| built.views.contains_key(domain));
        for (domain, view) in &built.views {
            let log = next.peers.entry(domain.clone()).or_insert_with(|| PeerLog { caller: view.caller.clone(), exported: Log::default() });
            log.caller = view.caller.clone();
            log.exported.replace(view.exported.iter().map(|(id, exported)| (service_ref(id), exported.as_ref().into())).collect());
        }
        *published = Some(next);
        drop(published);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Wakes readers at each change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many services each peer is told of.
    #[must_use]
    pub fn told(&self) -> BTreeMap<TrustDomain, usize> {
        let published = self.published.lock();
        let peers = published.iter().flat_map(|published| &published.peers);
        peers.map(|(domain, log)| (domain.clone(), log.exported.len())).collect()
    }

    /// The own trust domain; none while nothing is published.
    #[must_use]
    pub fn trust_domain(&self) -> Option<TrustDomain> {
        self.published.lock().as_ref().map(|published| published.trust_domain.clone())
    }

    /// The version at `counter`.
    #[must_use]
    pub fn version(&self, counter: u64) -> proto::Version {
        proto::Version { replica: self.replica.clone(), counter }
    }

    /// The cursor of a reader that holds `version`: none unless it was told here.
    #[must_use]
    pub fn cursor(&self, version: Option<&proto::Version>) -> Option<u64> {
        version.filter(|version| version.replica == self.replica).map(|version| version.counter)
    }

    /// What a reader of the own cluster lacks; none while nothing is published.
    #[must_use]
    pub fn discovery(&self, cursor: Option<u64>) -> Option<Told> {
        let published = self.published.lock();
        let published = published.as_ref()?;
        Some(Told { own: published.own.clone(), age: Arc::clone(&published.age), delta: published.resources.since(cursor) })
    }

    /// What `caller` lacks; none when it is not the one identity that a peer names, or no longer.
    #[must_use]
    pub fn exports(&self, caller: &SpiffeId, cursor: Option<u64>) -> Option<ToldPeer> {
        let published = self.published.lock();
        let published = published.as_ref()?;
        let peer = published.peers.get(caller.trust_domain()).filter(|peer| peer.caller == *caller)?;
        Some(ToldPeer {
            cluster_id: published.own.cluster_id.clone(),
            bundle: published.bundle.clone(),
            age: Arc::clone(&published.exports_age),
            delta: peer.exported.since(cursor),
        })
    }
}

fn service_ref(of: &ServiceId) -> proto::ServiceRef {
    proto::ServiceRef { namespace: of.namespace().to_string(), name: of.name().to_string() }
}

/// What the exports of a cluster are built from: a peer is told of nothing else.
const EXPORTS_OF: [&str; 6] = ["services", "endpointslices", "pods", "namespaces", "serviceexports", "peers"];
/// Removals that are remembered for readers who were away; past it the older half is forgotten, and they get a full state.
const REMOVALS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pairs: &[(&'static str, u32)]) -> HashMap<&'static str, u32> {
        pairs.iter().copied().collect()
    }

    fn check(log: &Log<&'static str, u32>, cursor: Option<u64>, full: bool, upserts: &[u32], removals: &[&str]) {
        let mut delta = log.since(cursor);
        delta.upserts.sort();
        delta.removals.sort_unstable();
        assert_eq!((delta.full, delta.upserts.iter().map(|value| **value).collect::<Vec<_>>()), (full, upserts.to_vec()));
        assert_eq!(delta.removals, removals);
        assert_eq!(delta.counter, log.counter);
    }

    #[test]
    fn a_reader_gets_what_it_lacks_and_skips_states() {
        let mut log = Log::default();
        assert!(log.replace(state(&[("a", 1), ("b", 1)])));
        let early = log.counter;
        check(&log, None, true, &[1, 1], &[]);
        assert!(log.replace(state(&[("a", 2), ("b", 1)])));
        assert!(log.replace(state(&[("a", 3)])));
        check(&log, Some(early), false, &[3], &["b"]);
        check(&log, Some(log.counter), false, &[], &[]);
        check(&log, None, true, &[3], &[]);
        assert_eq!(log.len(), 1);
    }

    #[test]
    fn an_equal_state_is_no_change() {
        let mut log = Log::default();
        log.replace(state(&[("a", 1)]));
        let counter = log.counter;
        assert!(!log.replace(state(&[("a", 1)])));
        assert_eq!(log.counter, counter);
    }

    #[test]
    fn a_cursor_of_the_future_gets_everything() {
        let mut log = Log::default();
        log.replace(state(&[("a", 1)]));
        check(&log, Some(99), true, &[1], &[]);
    }

    #[test]
    fn forgotten_removals_cost_a_full_state_and_lose_nothing() {
        let mut log: Log<usize, u32> = Log::default();
        let everything: HashMap<usize, u32> = (0..=REMOVALS_MAX + 1).map(|key| (key, 0)).collect();
        log.replace(everything);
        let early = log.counter;
        log.replace(HashMap::from([(0, 0)]));
        assert!(log.since(Some(early)).full);
        assert!(log.removals <= REMOVALS_MAX);
        assert_eq!(log.since(None).upserts.len(), 1);
        assert!(!log.since(Some(log.counter)).full);
    }

    #[test]
    fn a_version_of_another_replica_resumes_nothing() {
        let publisher = Publisher::new("one".to_owned());
        assert_eq!(publisher.cursor(Some(&publisher.version(7))), Some(7));
        assert_eq!(publisher.cursor(Some(&proto::Version { replica: "two".to_owned(), counter: 7 })), None);
        assert_eq!(publisher.cursor(None), None);
    }
}
