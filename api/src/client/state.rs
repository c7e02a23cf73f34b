//! What a discovery stream has told so far, and which snapshot that makes. Pure.
//!
//! Invariant: what is published was complete. A full state is gathered beside the published one and replaces it whole, when it is complete
//! and not held (see [`super::hold`]); deltas that arrive while it is gathered or held go into it. One wrong resource is passed over
//! and never spoils the rest.

use std::collections::BTreeMap;

use mesh_names::{ClusterId, TrustDomain};
use mesh_topology::{Change, Own, Snapshot};
use mesh_trust::{Bundle, Bundles};

use super::hold::{self, Age, Hold};
use crate::proto;
use crate::translate::{self, Invalid, Told};

/// The state of one subscription.
#[derive(Debug)]
pub(super) struct State {
    kept: Known,
    coming: Option<Known>,
}

/// What one update led to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The published state is another one now.
    pub(super) changed: bool,
    /// A complete state is held, for this reason.
    pub(super) held: Option<Hold>,
    /// What was passed over.
    pub(super) invalid: Vec<Invalid>,
}

#[derive(Clone, Debug)]
struct Known {
    snapshot: Snapshot,
    bundles: BTreeMap<TrustDomain, Bundle>,
    age: Age,
    version: Option<proto::Version>,
    complete: Option<ClusterId>,
}

impl State {
    /// Nothing known, in the cluster `own`.
    pub(super) fn new(own: Own) -> Self {
        Self { kept: Known::nothing(own), coming: None }
    }

    /// The published snapshot.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.kept.snapshot
    }

    /// What to resume at: nothing while a full state is still gathered or held.
    pub(super) fn resume(&self) -> Option<proto::Version> {
        if self.coming.is_none() { self.kept.version.clone() } else { None }
    }

    /// The stream ended: a full state that was only half told is forgotten.
    pub(super) fn on_disconnect(&mut self) {
        self.coming = None;
    }

    /// Takes one update.
    pub(super) fn on_update(&mut self, update: proto::DiscoveryUpdate) -> Outcome {
        if update.full {
            self.coming = Some(Known::nothing(self.kept.snapshot.own().clone()));
        }
        let mut invalid = Vec::new();
        let complete = update.complete.clone();
        let into = self.coming.as_mut().unwrap_or(&mut self.kept);
        let changed = into.take(update, &mut invalid);
        if let Some(complete) = complete {
            match complete.cluster_id.parse::<ClusterId>() {
                Ok(id) => into.complete(id),
                Err(source) => invalid.push(Invalid::Name { field: "complete.cluster_id", source }),
            }
        }
        let Some(coming) = self.coming.take_if(|coming| coming.complete.is_some()) else {
            return Outcome { changed: changed && self.coming.is_none(), held: None, invalid };
        };
        match self.kept.replaceable_by(&coming) {
            Ok(()) => {
                self.kept = coming;
                Outcome { changed: true, held: None, invalid }
            }
            Err(why) => {
                self.coming = Some(coming);
                Outcome { changed: false, held: Some(why), invalid }
            }
        }
    }

    /// The published state as one full update, for the copy on disk; `None` before there is one.
    pub(super) fn to_copy(&self) -> Option<proto::DiscoveryUpdate> {
        let id = self.kept.complete.as_ref()?;
        let mut upserts = translate::said(&self.kept.snapshot);
        upserts.extend(self.kept.bundles.values().map(translate::bundle_said));
        let (built_from, read_to) = self.kept.age.said();
        Some(proto::DiscoveryUpdate {
            version: self.kept.version.clone(),
            full: true,
            upserts,
            removals: Vec::new(),
            own: Some(self.kept.snapshot.own().into()),
            complete: Some(proto::Complete { cluster_id: id.to_string() }),
            built_from,
            read_to,
        })
    }

    /// The bundles to trust from now on: those told, and the held one of the own trust domain.
    pub(super) fn bundles(&self, held: &Bundles) -> Bundles {
        let own = &self.kept.snapshot.own().trust_domain;
        let gone =
            held.iter().map(|bundle| bundle.trust_domain()).filter(|domain| *domain != own && !self.kept.bundles.contains_key(domain));
        let rest = gone.fold(held.clone(), |rest, domain| rest.without(domain));
        self.kept.bundles.values().cloned().fold(rest, Bundles::with)
    }
}

impl Known {
    fn nothing(own: Own) -> Self {
        let snapshot = Snapshot::empty(own);
        Self { snapshot, bundles: BTreeMap::new(), age: Age::default(), version: None, complete: None }
    }

    fn complete(&mut self, id: ClusterId) {
        self.snapshot = self.snapshot.with([Change::Complete(id.clone())]);
        self.complete = Some(id);
    }

    /// Applies what an update tells; says whether it told anything.
    fn take(&mut self, update: proto::DiscoveryUpdate, invalid: &mut Vec<Invalid>) -> bool {
        let mut changes = Vec::new();
        let mut bundles_changed = false;
        if let Some(own) = &update.own {
            match translate::own(own) {
                Ok(own) => changes.push(Change::Ranges(own.ranges)),
                Err(error) => invalid.push(error),
            }
        }
        let upserts = update.upserts.iter().map(translate::told);
        for told in upserts.chain(update.removals.iter().map(translate::told_removed)) {
            match told {
                Ok(Some(Told::Change(change))) => changes.push(change),
                Ok(Some(Told::Bundle(domain, bundle))) => {
                    bundles_changed = true;
                    match bundle {
                        Some(bundle) => self.bundles.insert(domain, bundle),
                        None => self.bundles.remove(&domain),
                    };
                }
                Ok(None) => {}
                Err(error) => invalid.push(error),
            }
        }
        let changed = bundles_changed || !changes.is_empty();
        self.snapshot = self.snapshot.with(changes);
        self.age.take(update.built_from, update.read_to);
        self.version = update.version.or(self.version.take());
        changed
    }

    fn replaceable_by(&self, coming: &Self) -> Result<(), Hold> {
        let Some(found) = &coming.complete else { return Ok(()) };
        let (objects, missing) = compare(&self.snapshot, &coming.snapshot);
        hold::check(self.complete.as_ref(), found, objects, missing)?;
        self.age.check(&coming.age)
    }
}

/// How many objects `old` has, and how many of them `new` misses.
fn compare(old: &Snapshot, new: &Snapshot) -> (usize, usize) {
    let mut counted = (0, 0);
    let mut count = |present: bool| {
        counted.0 += 1;
        counted.1 += usize::from(!present);
    };
    old.services().for_each(|it| count(new.service(&it.id).is_some()));
    old.imports().for_each(|it| count(new.import(&it.id).is_some()));
    old.remotes().for_each(|it| count(new.remote(&it.link, &it.service).is_some()));
    old.links().for_each(|it| count(new.link(&it.name).is_some()));
    old.peers().for_each(|it| count(new.peer(&it.trust_domain).is_some()));
    old.exports().for_each(|it| count(new.export(&it.service).is_some()));
    old.egress().for_each(|it| count(new.egress_at(it.port).is_some()));
    counted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::resource::Resource as R;
    use expect_test::{Expect, expect};

    fn state() -> State {
        State::new(Own { cluster: "west".parse().unwrap(), id: None, trust_domain: "west.mesh".parse().unwrap(), ranges: Vec::new() })
    }

    fn exports(names: impl IntoIterator<Item = usize>) -> Vec<proto::Resource> {
        let export = |n| proto::Export {
            service: Some(proto::ServiceRef { namespace: "shop".into(), name: format!("s{n}") }),
            all_peers: true,
            ..proto::Export::default()
        };
        names.into_iter().map(|n| proto::Resource { resource: Some(R::Export(export(n))) }).collect()
    }

    fn full(names: impl IntoIterator<Item = usize>, id: &str, built_from: u64) -> proto::DiscoveryUpdate {
        proto::DiscoveryUpdate {
            full: true,
            version: Some(proto::Version { replica: "a".into(), counter: 1 }),
            upserts: exports(names),
            complete: Some(proto::Complete { cluster_id: id.into() }),
            built_from: [("Service".to_owned(), built_from.to_string())].into(),
            ..proto::DiscoveryUpdate::default()
        }
    }

    fn delta(upserts: Vec<proto::Resource>, removals: Vec<proto::Resource>) -> proto::DiscoveryUpdate {
        let removals = removals.iter().filter_map(translate::key_of).collect();
        proto::DiscoveryUpdate { upserts, removals, ..proto::DiscoveryUpdate::default() }
    }

    fn check(state: &mut State, update: proto::DiscoveryUpdate, expected: Expect) {
        let outcome = state.on_update(update);
        let mut names: Vec<_> = state.snapshot().exports().map(|export| export.service.name().to_string()).collect();
        names.sort();
        let held = outcome.held.map(|why| format!("held: {why}")).unwrap_or_default();
        expected.assert_eq(&format!("changed: {}; {}; {held}", outcome.changed, names.join(" ")));
    }

    #[test]
    fn nothing_is_published_before_it_is_complete() {
        let mut state = state();
        let part = proto::DiscoveryUpdate { complete: None, ..full([1], "id", 1) };
        check(&mut state, part, expect!["changed: false; ; "]);
        assert!(!state.snapshot().is_complete());
        let rest = proto::DiscoveryUpdate { full: false, ..full([2], "id", 1) };
        check(&mut state, rest, expect!["changed: true; s1 s2; "]);
        assert!(state.snapshot().is_complete());
        check(&mut state, delta(exports([3]), exports([1])), expect!["changed: true; s2 s3; "]);
        check(&mut state, delta(Vec::new(), Vec::new()), expect!["changed: false; s2 s3; "]);
    }

    #[test]
    fn another_replica_s_full_state_replaces() {
        let mut state = state();
        state.on_update(full([1, 2], "id", 1));
        check(&mut state, full([2, 3], "id", 1), expect!["changed: true; s2 s3; "]);
    }

    #[test]
    fn a_broken_stream_forgets_half_a_state_and_keeps_the_last() {
        let mut state = state();
        state.on_update(full([1], "id", 1));
        state.on_update(proto::DiscoveryUpdate { complete: None, ..full([2], "id", 1) });
        assert_eq!(state.resume(), None);
        state.on_disconnect();
        assert!(state.resume().is_some());
        check(&mut state, delta(Vec::new(), Vec::new()), expect!["changed: false; s1; "]);
    }

    #[test]
    fn another_cluster_s_listing_is_held() {
        let mut state = state();
        state.on_update(full([1], "id", 1));
        check(
            &mut state,
            full([], "other", 2),
            expect![
                "changed: false; s1; held: the listing comes from cluster other, not from id: if the cluster was replaced, link it again"
            ],
        );
    }

    #[test]
    fn a_listing_that_lost_more_than_half_is_held_until_it_is_whole_again() {
        let mut state = state();
        state.on_update(full(0..10, "id", 1));
        check(
            &mut state,
            full(0..4, "id", 2),
            expect![
                "changed: false; s0 s1 s2 s3 s4 s5 s6 s7 s8 s9; held: the listing misses 6 of 10 known objects: if they were deleted on purpose, replace the pod that says this to accept it"
            ],
        );
        check(&mut state, delta(exports([4]), Vec::new()), expect!["changed: true; s0 s1 s2 s3 s4; "]);
    }

    #[test]
    fn deletions_one_by_one_are_never_held() {
        let mut state = state();
        state.on_update(full(0..10, "id", 1));
        check(&mut state, delta(Vec::new(), exports(0..9)), expect!["changed: true; s9; "]);
    }

    #[test]
    fn an_older_listing_is_held() {
        let mut state = state();
        state.on_update(full([1], "id", 7));
        check(
            &mut state,
            full([2], "id", 6),
            expect![
                "changed: false; s1; held: the listing is older than what is known already: Service at 6, known at 7; if its cluster was restored from a copy, replace the pod that says this to accept it"
            ],
        );
        let read_further = proto::DiscoveryUpdate { read_to: [("Service".to_owned(), "7".to_owned())].into(), ..full([2], "id", 6) };
        check(&mut state, read_further, expect!["changed: true; s2; "]);
    }

    #[test]
    fn a_wrong_resource_spoils_nothing_else() {
        let mut state = state();
        let mut update = full([1], "id", 1);
        update.upserts.push(proto::Resource { resource: Some(R::Link(proto::Link::default())) });
        let outcome = state.on_update(update);
        assert_eq!((outcome.changed, outcome.invalid.len()), (true, 1));
    }

    #[test]
    fn the_copy_on_disk_gives_the_same_state_back() {
        let mut first = state();
        first.on_update(full(0..3, "id", 7));
        let mut second = state();
        assert!(second.on_update(first.to_copy().unwrap()).changed);
        assert_eq!(second.snapshot(), first.snapshot());
        assert_eq!(second.resume(), first.resume());
    }
}
