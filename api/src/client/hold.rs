//! When a fresh listing is not believed: it may be another cluster, or one whose data was lost.
//!
//! A held listing changes nothing: the last state stays until a listing comes that may replace it, or a person decides.

use std::collections::HashMap;

use mesh_names::ClusterId;

/// What was read after a first listing had ended, so that absent means gone and never "not seen yet". Made by the clients of this crate
/// and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complete<T>(T);

impl<T> Complete<T> {
    pub(super) fn listed(of: T) -> Self {
        Self(of)
    }

    /// What was listed.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// Why a fresh listing is held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hold {
    /// It comes from another cluster.
    #[error("the listing comes from cluster {found}, not from {known}: if the cluster was replaced, link it again")]
    OtherCluster {
        /// Whose state is held.
        known: ClusterId,
        /// Who answers now.
        found: ClusterId,
    },
    /// It misses more than half of what was known.
    #[error(
        "the listing misses {missing} of {known} known objects: if they were deleted on purpose, replace the pod that says this to accept it"
    )]
    LostMoreThanHalf {
        /// How many objects were known.
        known: usize,
        /// How many of them are not in it.
        missing: usize,
    },
    /// It was built from older data than what is held.
    #[error(
        "the listing is older than what is known already: {kind} at {found}, known at {known}; if its cluster was restored from a copy, replace the pod that says this to accept it"
    )]
    Older {
        /// The kind of object.
        kind: String,
        /// The resourceVersion that is held.
        known: u64,
        /// The resourceVersion that was said.
        found: u64,
    },
}

/// Whether a fresh listing by `found` may replace one by `known`, of `objects` objects, of which it misses `missing`.
///
/// # Errors
/// When it is held.
pub fn check(known: Option<&ClusterId>, found: &ClusterId, objects: usize, missing: usize) -> Result<(), Hold> {
    if let Some(known) = known.filter(|known| *known != found) {
        return Err(Hold::OtherCluster { known: known.clone(), found: found.clone() });
    }
    if objects >= KNOWN_MIN && missing * 2 > objects {
        return Err(Hold::LostMoreThanHalf { known: objects, missing });
    }
    Ok(())
}

/// How old a state is, by kind of object. The newest change in it is what a later state must have read, and no more: that the sender has
/// read further without finding a change makes no state older.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Age {
    changed: HashMap<String, u64>,
    read_to: HashMap<String, u64>,
}

impl Age {
    /// Takes what an update says: `built_from`, and `read_to`.
    pub(super) fn take(&mut self, changed: HashMap<String, String>, read_to: HashMap<String, String>) {
        let read = |said: HashMap<String, String>| said.into_iter().filter_map(|(kind, version)| Some((kind, version.parse().ok()?)));
        self.changed.extend(read(changed));
        self.read_to.extend(read(read_to));
    }

    /// What `take` reads back.
    pub(super) fn said(&self) -> (HashMap<String, String>, HashMap<String, String>) {
        let said = |of: &HashMap<String, u64>| of.iter().map(|(kind, version)| (kind.clone(), version.to_string())).collect();
        (said(&self.changed), said(&self.read_to))
    }

    /// Whether a state of the age `next` may replace one of this age. A sender that does not say how far it has read is as old as its
    /// newest change; of a kind that it does not name nothing is known.
    ///
    /// # Errors
    /// When it is older.
    pub(super) fn check(&self, next: &Self) -> Result<(), Hold> {
        for (kind, known) in &self.changed {
            let reached = next.read_to.get(kind).or_else(|| next.changed.get(kind));
            if let Some(found) = reached.filter(|found| *found < known) {
                return Err(Hold::Older { kind: kind.clone(), known: *known, found: *found });
            }
        }
        Ok(())
    }
}

/// Below this many objects any number may go at once.
const KNOWN_MIN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn held(known: Option<&str>, objects: usize, missing: usize) -> bool {
        let known = known.map(|id| id.parse().unwrap());
        check(known.as_ref(), &"a".parse().unwrap(), objects, missing).is_err()
    }

    #[test]
    fn a_state_is_older_when_it_was_read_up_to_less_than_a_change_that_is_known() {
        let said = |version: Option<u64>| version.map(|version| ("links".to_owned(), version.to_string())).into_iter().collect();
        let age = |changed, read_to| {
            let mut age = Age::default();
            age.take(said(changed), said(read_to));
            age
        };
        let known = age(Some(7), Some(90));
        let check =
            |changed, read_to, expected| assert_eq!(known.check(&age(changed, read_to)).is_ok(), expected, "{changed:?} {read_to:?}");
        check(Some(7), Some(80), true);
        check(Some(3), Some(7), true);
        check(Some(3), Some(6), false);
        check(Some(7), None, true);
        check(Some(6), None, false);
        check(None, None, true);
        let mut again = Age::default();
        let (changed, read_to) = known.said();
        again.take(changed, read_to);
        assert_eq!(again, known);
    }

    #[test]
    fn a_listing_of_another_cluster_or_one_that_lost_more_than_half_is_held() {
        assert!(!held(None, 0, 0));
        assert!(!held(Some("a"), 9, 9));
        assert!(!held(Some("a"), 10, 5));
        assert!(held(Some("a"), 10, 6));
        assert!(held(Some("b"), 1, 0));
    }
}
