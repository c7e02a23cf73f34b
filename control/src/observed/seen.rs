//! One kind of object, as its watch has seen it.
//!
//! Invariant: a fresh listing that comes from another cluster, or that lost more than half of what was known, is held: the last state
//! stays, events go on to be applied to the held one, and it takes over once it may. A person accepts it by restarting control. Pods and
//! slices have generated names, and others replace them all the time: of these, only what nothing has replaced is lost. What people write
//! by hand and have broken is not what they have withdrawn: its last readable value stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::client::hold::{self, Hold};
use mesh_names::ClusterId;

/// Which object of its kind: namespace (empty for cluster-scoped kinds) and name, as Kubernetes has them. Only ever compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
}

/// The objects of one kind.
pub type Objects<T> = BTreeMap<ObjectName, Arc<T>>;

/// One kind of object, as its watch has seen it.
#[derive(Debug)]
pub struct Seen<T> {
    names: Names,
    broken: Broken,
    objects: Arc<Objects<T>>,
    versions: Versions,
    held: Option<Held<T>>,
    complete: bool,
}

/// Who names the objects of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Names {
    /// People: an object that is not listed any more is lost.
    #[default]
    Chosen,
    /// Controllers, which replace one by another: only fewer objects are a loss.
    Generated,
}

/// What an object that can't be read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Broken {
    /// Not there: it is none of the mesh's, or cannot be broken by hand.
    #[default]
    Gone,
    /// What it was when it could be read.
    Kept,
}

/// resourceVersions of one kind; zero when none is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// That of the newest change.
    pub changed: u64,
    /// That up to which everything was read.
    pub read_to: u64,
}

/// A whole listing.
#[derive(Debug)]
pub struct Listing<T> {
    /// What could be read.
    pub objects: Objects<T>,
    /// What could not.
    pub unreadable: Vec<ObjectName>,
    /// How new it is.
    pub versions: Versions,
}

impl<T> From<Objects<T>> for Listing<T> {
    fn from(objects: Objects<T>) -> Self {
        Self { objects, unreadable: Vec::new(), versions: Versions::default() }
    }
}

impl<T> Clone for Listing<T> {
    fn clone(&self) -> Self {
        Self { objects: self.objects.clone(), unreadable: self.unreadable.clone(), versions: self.versions }
    }
}

#[derive(Debug)]
struct Held<T> {
    from: ClusterId,
    listing: Listing<T>,
    why: Hold,
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self { from: self.from.clone(), listing: self.listing.clone(), why: self.why.clone() }
    }
}

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        let (objects, held) = (Arc::clone(&self.objects), self.held.clone());
        Self { names: self.names, broken: self.broken, objects, versions: self.versions, held, complete: self.complete }
    }
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        let (names, broken, versions) = (Names::Chosen, Broken::Gone, Versions::default());
        Self { names, broken, objects: Arc::default(), versions, held: None, complete: false }
    }
}

impl<T> Seen<T> {
    /// Nothing seen yet of a kind whose names are generated.
    pub(super) fn of_generated_names() -> Self {
        Self { names: Names::Generated, ..Self::default() }
    }

    /// Nothing seen yet of a kind that people write by hand.
    pub(super) fn written_by_hand() -> Self {
        Self { broken: Broken::Kept, ..Self::default() }
    }

    /// A whole listing by the cluster `from`, of a state of the cluster `own` (none before the first).
    pub fn on_listed(&mut self, own: Option<&ClusterId>, from: &ClusterId, fresh: impl Into<Listing<T>>) {
        let mut listing = fresh.into();
        if self.broken == Broken::Kept {
            for name in &listing.unreadable {
                if let Some(known) = self.objects.get(name) {
                    listing.objects.entry(name.clone()).or_insert_with(|| Arc::clone(known));
                }
            }
        }
        let fresh = &listing.objects;
        let gone = self.objects.keys().filter(|known| !fresh.contains_key(*known)).count();
        let missing = match self.names {
            Names::Chosen => gone,
            Names::Generated => self.objects.len().saturating_sub(fresh.len()),
        };
        let versions = &mut listing.versions;
        // When what is gone went is not known, only that it had by now; what went earlier was seen to go.
        versions.changed = if gone > 0 { versions.read_to } else { versions.changed.max(self.versions.changed.min(versions.read_to)) };
        match hold::check(own, from, self.objects.len(), missing) {
            Ok(()) => {
                (self.objects, self.versions, self.held, self.complete) = (Arc::new(listing.objects), listing.versions, None, true);
            }
            Err(why) => self.held = Some(Held { from: from.clone(), listing, why }),
        }
    }

    /// An object is there, or has changed.
    pub fn on_set(&mut self, own: Option<&ClusterId>, name: ObjectName, object: T) {
        match &mut self.held {
            None => {
                Arc::make_mut(&mut self.objects).insert(name, Arc::new(object));
            }
            Some(held) => {
                held.listing.objects.insert(name, Arc::new(object));
                self.reconsider(own);
            }
        }
    }

    /// An object is there, and can't be read.
    pub fn on_unreadable(&mut self, own: Option<&ClusterId>, name: &ObjectName) {
        match self.broken {
            Broken::Gone => self.on_gone(own, name),
            Broken::Kept => {}
        }
    }

    /// An object is gone.
    pub fn on_gone(&mut self, own: Option<&ClusterId>, name: &ObjectName) {
        match &mut self.held {
            None if self.objects.contains_key(name) => {
                Arc::make_mut(&mut self.objects).remove(name);
            }
            None => {}
            Some(held) => {
                held.listing.objects.remove(name);
                self.reconsider(own);
            }
        }
    }

    /// What was set, gone or unreadable last had this version.
    pub fn on_changed(&mut self, version: u64) {
        self.on_read(version);
        let versions = self.current();
        versions.changed = versions.changed.max(version);
    }

    /// Everything up to this version was read.
    pub fn on_read(&mut self, version: u64) {
        let versions = self.current();
        versions.read_to = versions.read_to.max(version);
    }

    /// The versions of the objects that are used.
    #[must_use]
    pub fn versions(&self) -> Versions {
        self.versions
    }

    fn current(&mut self) -> &mut Versions {
        self.held.as_mut().map_or(&mut self.versions, |held| &mut held.listing.versions)
    }

    /// The objects.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.objects.values()
    }

    /// The objects and their names.
    pub fn entries(&self) -> impl Iterator<Item = (&ObjectName, &Arc<T>)> {
        self.objects.iter()
    }

    /// One object.
    #[must_use]
    pub fn get(&self, name: &ObjectName) -> Option<&Arc<T>> {
        self.objects.get(name)
    }

    /// The only object, for kinds that are watched by name.
    #[must_use]
    pub fn only(&self) -> Option<&Arc<T>> {
        self.objects.values().next()
    }

    /// Whether a first listing has ended.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Why the latest listing is held, if it is.
    #[must_use]
    pub fn held(&self) -> Option<&Hold> {
        self.held.as_ref().map(|held| &held.why)
    }

    fn reconsider(&mut self, own: Option<&ClusterId>) {
        if let Some(held) = self.held.take() {
            self.on_listed(own, &held.from, held.listing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> ObjectName {
        ObjectName { namespace: "shop".into(), name: name.into() }
    }

    fn listing(names: std::ops::Range<usize>) -> Objects<usize> {
        names.map(|index| (named(&index.to_string()), Arc::new(index))).collect()
    }

    fn seen(own: &ClusterId, names: std::ops::Range<usize>) -> Seen<usize> {
        let mut seen = Seen::default();
        assert!(!seen.is_complete());
        seen.on_listed(None, own, listing(names));
        assert!(seen.is_complete());
        seen
    }

    #[test]
    fn a_fresh_listing_that_lost_more_than_half_is_held_until_it_has_recovered() {
        let own: ClusterId = "a".parse().unwrap();
        let mut seen = seen(&own, 0..10);
        seen.on_listed(Some(&own), &own, listing(0..4));
        assert!(matches!(seen.held(), Some(Hold::LostMoreThanHalf { known: 10, missing: 6 })));
        assert_eq!(seen.iter().count(), 10, "the last state stays");
        seen.on_gone(Some(&own), &named("0"));
        assert_eq!(seen.iter().count(), 10, "events of a held listing change nothing");
        seen.on_set(Some(&own), named("7"), 7);
        seen.on_set(Some(&own), named("8"), 8);
        assert_eq!((seen.iter().count(), seen.held()), (5, None), "enough has come back");
    }

    #[test]
    fn a_listing_of_another_cluster_is_held_until_the_own_one_answers_again() {
        let (own, other): (ClusterId, ClusterId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut seen = seen(&own, 0..3);
        seen.on_listed(Some(&own), &other, listing(0..3));
        assert!(matches!(seen.held(), Some(Hold::OtherCluster { .. })));
        seen.on_listed(Some(&own), &own, listing(0..2));
        assert_eq!((seen.iter().count(), seen.held()), (2, None));
    }

    #[test]
    fn pods_that_others_have_replaced_are_not_lost_and_pods_that_nothing_has_replaced_are() {
        let own: ClusterId = "a".parse().unwrap();
        let mut pods: Seen<usize> = Seen::of_generated_names();
        pods.on_listed(None, &own, listing(0..12));
        pods.on_listed(Some(&own), &own, listing(12..20));
        assert_eq!((pods.iter().count(), pods.held()), (8, None));
        pods.on_listed(Some(&own), &own, listing(20..32));
        pods.on_listed(Some(&own), &own, listing(20..24));
        assert!(pods.held().is_some());
    }

    #[test]
    fn what_people_write_and_break_stays_as_it_was_until_it_is_deleted() {
        let own: ClusterId = "a".parse().unwrap();
        let mut links: Seen<usize> = Seen::written_by_hand();
        links.on_listed(None, &own, listing(0..3));
        links.on_unreadable(Some(&own), &named("0"));
        assert_eq!(links.get(&named("0")).map(|index| **index), Some(0));
        links.on_listed(Some(&own), &own, Listing { unreadable: vec![named("0"), named("9")], ..listing(2..3).into() });
        assert_eq!(links.iter().map(|index| **index).collect::<Vec<_>>(), [0, 2], "one that could never be read is not there");
        links.on_gone(Some(&own), &named("0"));
        assert_eq!(links.iter().count(), 1);
        let mut services = seen(&own, 0..3);
        services.on_unreadable(Some(&own), &named("0"));
        assert_eq!(services.iter().count(), 2, "a Service that has become an ExternalName");
    }

    #[test]
    fn the_newest_change_is_told_apart_from_how_far_was_read() {
        let own: ClusterId = "a".parse().unwrap();
        let at = |names, changed, read_to| Listing { versions: Versions { changed, read_to }, ..listing(names).into() };
        let mut seen: Seen<usize> = Seen::default();
        let check = |seen: &Seen<usize>, changed, read_to| assert_eq!(seen.versions(), Versions { changed, read_to });
        seen.on_listed(None, &own, at(0..12, 5, 20));
        check(&seen, 5, 20);
        seen.on_read(30);
        check(&seen, 5, 30);
        seen.on_gone(Some(&own), &named("0"));
        seen.on_changed(33);
        check(&seen, 33, 33);
        seen.on_listed(Some(&own), &own, at(1..12, 5, 40));
        check(&seen, 33, 40);
        seen.on_listed(Some(&own), &own, at(2..12, 5, 50));
        check(&seen, 50, 50);
        seen.on_listed(Some(&own), &own, at(11..12, 5, 60));
        seen.on_changed(61);
        check(&seen, 50, 50);
    }

    #[test]
    fn deletions_one_by_one_are_believed() {
        let own: ClusterId = "a".parse().unwrap();
        let mut seen = seen(&own, 0..12);
        for index in 0..12 {
            seen.on_gone(Some(&own), &named(&index.to_string()));
        }
        assert_eq!((seen.iter().count(), seen.held()), (0, None));
    }
}
