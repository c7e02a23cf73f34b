//! How much each peer has open here. Counted over all workers; a peer's replicas count together.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_names::TrustDomain;
use parking_lot::Mutex;

use crate::config::Limits;

/// The counts of one gateway.
#[derive(Debug)]
pub(crate) struct Quota {
    limits: Limits,
    total: Arc<AtomicUsize>,
    /// Streams that a drain waits for: joined tunnels and the way out, not `watch`.
    joined: Arc<AtomicUsize>,
    peers: Mutex<HashMap<TrustDomain, Arc<AtomicUsize>>>,
}

/// One unit of a count, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Quota {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, total: Arc::default(), joined: Arc::default(), peers: Mutex::default() }
    }

    /// Room for one more connection, whoever it is from.
    pub(crate) fn connection(&self) -> Option<Permit> {
        take(&self.total, self.limits.total)
    }

    /// Room for one more tunnel of `peer`. Only trust domains that were verified get here, so there are few.
    pub(crate) fn tunnel(&self, peer: &TrustDomain) -> Option<Permit> {
        let count = Arc::clone(self.peers.lock().entry(peer.clone()).or_default());
        take(&count, self.limits.per_peer)
    }

    /// Something that a drain waits for.
    pub(crate) fn joined(&self) -> Permit {
        self.joined.fetch_add(1, Ordering::Relaxed);
        Permit(Arc::clone(&self.joined))
    }

    /// What a drain still waits for.
    pub(crate) fn in_use(&self) -> usize {
        self.joined.load(Ordering::Relaxed)
    }
}

fn take(count: &Arc<AtomicUsize>, max: usize) -> Option<Permit> {
    let taken = count.fetch_add(1, Ordering::Relaxed);
    let permit = Permit(Arc::clone(count));
    (taken < max).then_some(permit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_past_its_quota_leaves_room_for_others() {
        let quota = Quota::new(Limits { per_peer: 2, ..Limits::default() });
        let (west, north) = ("west.mesh".parse().unwrap(), "north.mesh".parse().unwrap());
        let held = [quota.tunnel(&west), quota.tunnel(&west)];
        assert!(held.iter().all(Option::is_some));
        assert!(quota.tunnel(&west).is_none());
        assert!(quota.tunnel(&north).is_some());
        drop(held);
        assert!(quota.tunnel(&west).is_some());
    }
}
