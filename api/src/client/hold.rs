//! When a fresh listing is not believed: it may be another cluster, or one whose data was lost.
//!
//! A held listing changes nothing: the last state stays until a listing comes that may replace it, or a person decides.

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
    #[error("the listing is older than what is known already: {kind} at {found}, known at {known}")]
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
    fn a_listing_of_another_cluster_or_one_that_lost_more_than_half_is_held() {
        assert!(!held(None, 0, 0));
        assert!(!held(Some("a"), 9, 9));
        assert!(!held(Some("a"), 10, 5));
        assert!(held(Some("a"), 10, 6));
        assert!(held(Some("b"), 1, 0));
    }
}
