//! Every object, its version, and the recent history that watches read.
//!
//! One lock, one writer: a request's whole read-decide-write runs inside [`Store::write`], and nothing awaits there. Objects are immutable
//! and shared, serialised once. Invariants: versions only grow; a write is in the journal before it is visible; an event reaches
//! every watcher in version order.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    crd,
    failure::Failure,
    journal::{Journal, JournalError, Record},
    kinds::Registry,
    object,
};

/// Where an object lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    /// `pods`, `deployments.apps`: versions of a kind share it.
    pub resource: Arc<str>,
    /// Empty for a cluster-scoped object.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its parts.
    pub(crate) fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }
}

/// An object as it was at one version.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Where it lies.
    pub key: Key,
    /// The version of the write that made it so.
    pub version: u64,
    /// The object.
    pub value: Arc<Value>,
    /// The object as JSON.
    pub json: Bytes,
}

/// What happened to an object.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// The version of the write.
    pub version: u64,
    /// The object before, if there was one.
    pub before: Option<Arc<Stored>>,
    /// The object after; for a deletion its last state, under the deletion's version.
    pub after: Arc<Stored>,
    /// Whether it is gone.
    pub deleted: bool,
}

/// The store; share it by `Arc`.
#[derive(Debug)]
pub(crate) struct Store(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    version: u64,
    objects: BTreeMap<Key, Arc<Stored>>,
    by_uid: HashMap<String, Key>,
    dependents: HashMap<String, BTreeSet<Key>>,
    history: VecDeque<Event>,
    forgotten: u64,
    watchers: Vec<Watcher>,
    journal: Journal,
    kinds: Arc<Registry>,
}

#[derive(Debug)]
struct Watcher {
    resource: Arc<str>,
    sender: mpsc::Sender<Event>,
}

/// A started watch: what to send first, then what follows.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Objects as they are now, when the watch begins with them.
    pub initial: Vec<Arc<Stored>>,
    /// Events since the version asked for.
    pub missed: Vec<Event>,
    /// The version up to which `initial` and `missed` go.
    pub version: u64,
    /// What comes later.
    pub receiver: mpsc::Receiver<Event>,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// With the objects that are there.
    Now,
    /// After that version.
    Version(u64),
}

impl Store {
    /// Opens the journal in a directory and replays it.
    pub(crate) fn open(directory: &Path) -> Result<Self, JournalError> {
        let (journal, records) = Journal::open(directory)?;
        let mut inner = Inner {
            version: 1,
            objects: BTreeMap::new(),
            by_uid: HashMap::new(),
            dependents: HashMap::new(),
            history: VecDeque::new(),
            forgotten: 0,
            watchers: Vec::new(),
            journal,
            kinds: Arc::new(Registry::new([])),
        };
        for Record { version, key, object } in records {
            inner.version = inner.version.max(version);
            match (key, object) {
                (Some(key), Some(object)) => inner.insert(stored(key, version, object)),
                (Some(key), None) => drop(inner.remove(&key)),
                (None, _) => {}
            }
        }
        inner.forgotten = inner.version;
        inner.rebuild_kinds();
        Ok(Self(Mutex::new(inner)))
    }

    /// The kinds served now.
    pub(crate) fn kinds(&self) -> Arc<Registry> {
        Arc::clone(&self.0.lock().kinds)
    }

    /// The newest version.
    pub(crate) fn version(&self) -> u64 {
        self.0.lock().version
    }

    /// One object.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.0.lock().objects.get(key).cloned()
    }

    /// The objects of a resource (in one namespace unless it is empty), in key order, and the version of that view.
    pub(crate) fn list(&self, resource: &str, namespace: &str) -> (u64, Vec<Arc<Stored>>) {
        let inner = self.0.lock();
        (inner.version, inner.list(resource, namespace))
    }

    /// Runs a read-decide-write under the writer's lock.
    pub(crate) fn write<T>(&self, mode: Mode, decide: impl FnOnce(&mut Tx<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut inner = self.0.lock();
        let result = decide(&mut Tx { inner: &mut inner, mode, changed: VecDeque::new() });
        if inner.journal.is_long() {
            inner.compact();
        }
        result
    }

    /// Starts a watch; 410 when history no longer reaches back to `since`.
    pub(crate) fn watch(&self, resource: &str, namespace: &str, since: Since) -> Result<Watch, Failure> {
        let mut inner = self.0.lock();
        let (initial, missed) = match since {
            Since::Now => (inner.list(resource, namespace), Vec::new()),
            Since::Version(version) if version < inner.forgotten => {
                return Err(Failure::expired(format!("too old resource version: {version} ({})", inner.forgotten + 1)));
            }
            Since::Version(version) => {
                let start = inner.history.partition_point(|event| event.version <= version);
                (Vec::new(), inner.history.range(start..).filter(|event| &*event.after.key.resource == resource).cloned().collect())
            }
        };
        let (sender, receiver) = mpsc::channel(WATCH_QUEUE);
        inner.watchers.push(Watcher { resource: resource.into(), sender });
        Ok(Watch { initial, missed, version: inner.version, receiver })
    }

    /// The newest version, if the watcher has read everything up to it: what a bookmark may say.
    pub(crate) fn bookmark(&self, receiver: &mpsc::Receiver<Event>) -> Option<u64> {
        let inner = self.0.lock();
        receiver.is_empty().then_some(inner.version)
    }

    /// Ends every watch, so that a server can stop.
    pub(crate) fn end_watches(&self) {
        self.0.lock().watchers.clear();
    }

    /// Whether history still reaches back to a version.
    pub(crate) fn remembers(&self, version: u64) -> bool {
        version >= self.0.lock().forgotten
    }
}

/// Whether writes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They are.
    Commit,
    /// `dryRun=All`: everything is decided, nothing is kept.
    DryRun,
}

/// The store inside [`Store::write`].
#[derive(Debug)]
pub(crate) struct Tx<'a> {
    inner: &'a mut Inner,
    mode: Mode,
    changed: VecDeque<Event>,
}

impl Tx<'_> {
    /// One object.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.inner.objects.get(key).cloned()
    }

    /// The object with a uid.
    pub(crate) fn by_uid(&self, uid: &str) -> Option<Arc<Stored>> {
        self.inner.objects.get(self.inner.by_uid.get(uid)?).cloned()
    }

    /// The objects that name `uid` as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Arc<Stored>> {
        let keys = self.inner.dependents.get(uid).into_iter().flatten();
        keys.filter_map(|key| self.inner.objects.get(key).cloned()).collect()
    }

    /// The objects of a resource, in one namespace unless it is empty.
    pub(crate) fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Stored>> {
        self.inner.list(resource, namespace)
    }

    /// Every object in a namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<Stored>> {
        self.inner.objects.values().filter(|stored| &*stored.key.namespace == namespace).cloned().collect()
    }

    /// Every object.
    pub(crate) fn all(&self) -> Vec<Arc<Stored>> {
        self.inner.objects.values().cloned().collect()
    }

    /// The kinds served now.
    pub(crate) fn kinds(&self) -> Arc<Registry> {
        Arc::clone(&self.inner.kinds)
    }

    /// The next change that the lifecycle has to look at.
    pub(crate) fn next_change(&mut self) -> Option<Event> {
        self.changed.pop_front()
    }

    /// Writes an object under a new version.
    pub(crate) fn put(&mut self, key: Key, mut value: Value) -> Result<Arc<Stored>, Failure> {
        let version = self.inner.version + 1;
        let before = self.get(&key);
        if self.mode == Mode::DryRun {
            return Ok(Arc::new(stored(key, version, Arc::new(value))));
        }
        object::metadata(&mut value).insert("resourceVersion".to_owned(), json!(version.to_string()));
        let value = Arc::new(value);
        let record = Record { version, key: Some(key.clone()), object: Some(Arc::clone(&value)) };
        self.inner.journal.append(&record).map_err(Failure::internal)?;
        let after = stored(key, version, value);
        self.inner.insert(after);
        let Some(after) = record.key.and_then(|key| self.get(&key)) else { return Err(Failure::internal("the object was not kept")) };
        self.commit(Event { version, before, after: Arc::clone(&after), deleted: false });
        Ok(after)
    }

    /// Removes an object; watchers see its last state under a new version.
    pub(crate) fn remove(&mut self, key: &Key) -> Result<(), Failure> {
        let Some(before) = self.get(key) else { return Ok(()) };
        if self.mode == Mode::DryRun {
            return Ok(());
        }
        let version = self.inner.version + 1;
        self.inner.journal.append(&Record { version, key: Some(key.clone()), object: None }).map_err(Failure::internal)?;
        self.inner.remove(key);
        let mut value = Value::clone(&before.value);
        object::metadata(&mut value).insert("resourceVersion".to_owned(), json!(version.to_string()));
        let after = Arc::new(stored(key.clone(), version, Arc::new(value)));
        self.commit(Event { version, before: Some(before), after, deleted: true });
        Ok(())
    }

    fn commit(&mut self, event: Event) {
        let inner = &mut *self.inner;
        inner.version = event.version;
        if &*event.after.key.resource == crd::RESOURCE {
            inner.rebuild_kinds();
        }
        // A watcher whose queue is full, or who went away, is cut: it resumes from history, or lists again after a 410.
        inner.watchers.retain(|watcher| {
            if watcher.resource == event.after.key.resource {
                watcher.sender.try_send(event.clone()).is_ok()
            } else {
                !watcher.sender.is_closed()
            }
        });
        inner.history.push_back(event.clone());
        if inner.history.len() > HISTORY
            && let Some(oldest) = inner.history.pop_front()
        {
            inner.forgotten = oldest.version;
        }
        self.changed.push_back(event);
    }
}

impl Inner {
    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Stored>> {
        let start = Key::new(resource, namespace, "");
        let here = |key: &Key| &*key.resource == resource && (namespace.is_empty() || &*key.namespace == namespace);
        self.objects.range(start..).take_while(|(key, _)| here(key)).map(|(_, stored)| Arc::clone(stored)).collect()
    }

    fn insert(&mut self, stored: Stored) {
        self.remove(&stored.key);
        self.by_uid.insert(object::uid(&stored.value).to_owned(), stored.key.clone());
        for owner in object::owners(&stored.value) {
            self.dependents.entry(object::text(owner, "uid").to_owned()).or_default().insert(stored.key.clone());
        }
        self.objects.insert(stored.key.clone(), Arc::new(stored));
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Stored>> {
        let stored = self.objects.remove(key)?;
        self.by_uid.remove(object::uid(&stored.value));
        for owner in object::owners(&stored.value) {
            let uid = object::text(owner, "uid");
            if let Some(keys) = self.dependents.get_mut(uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(uid);
                }
            }
        }
        Some(stored)
    }

    fn rebuild_kinds(&mut self) {
        let custom = self.list(crd::RESOURCE, "").iter().flat_map(|stored| crd::kinds(&stored.value)).collect::<Vec<_>>();
        self.kinds = Arc::new(Registry::new(custom));
    }

    fn compact(&mut self) {
        let record = |stored: &Arc<Stored>| Record {
            version: stored.version,
            key: Some(stored.key.clone()),
            object: Some(Arc::clone(&stored.value)),
        };
        if let Err(error) = self.journal.compact(self.version, self.objects.values().map(record)) {
            tracing::warn!(%error, "the journal could not be compacted and goes on growing");
        }
    }
}

fn stored(key: Key, version: u64, value: Arc<Value>) -> Stored {
    let json = Bytes::from(value.to_string());
    Stored { key, version, value, json }
}

/// Events that history holds; a watch from before them gets 410 and lists again.
const HISTORY: usize = 20_000;
/// Events that one watcher may lag behind; past them it is cut.
const WATCH_QUEUE: usize = 2_048;
