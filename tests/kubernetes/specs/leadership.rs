//! Of two mirror controllers one acts, and the other takes over.

use anyhow::{Context as _, ensure};

use crate::eventually::eventually;
use crate::mesh::{Installed, mesh};

/// Who holds the Lease, and how often it changed hands.
fn lease(installed: &Installed) -> anyhow::Result<(String, i64)> {
    let lease = installed.cluster.json(&["get", "lease", "mesh-mirror-controller", "--namespace=isthmus-system"])?;
    let holder = lease["spec"]["holderIdentity"].as_str().context("nobody holds it")?.to_owned();
    Ok((holder, lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default()))
}

#[test]
fn a_mirror_controller_takes_over_within_the_lease_when_the_one_that_acts_is_killed() {
    let west = &mesh().west;
    let ((leader, replica, transitions), _) = eventually("a replica leads", || {
        let (leader, transitions) = lease(west)?;
        let replica = west.replica_called(&leader)?;
        Ok((leader, replica, transitions))
    });
    west.kill_mirror(replica);
    let (took, within) = eventually("the other replica leads", || {
        let (now, changes) = lease(west)?;
        ensure!(now != leader, "{now} still holds the Lease");
        ensure!(changes == transitions + 1, "the Lease changed hands {} times", changes - transitions);
        west.replica_called(&now)
    });
    assert_ne!(took, replica);
    // The lease's 10 s, a look every 2 s, and one for the write.
    assert!(within.as_secs() < 15, "it took {within:?}");
    west.start_mirror(replica).unwrap();
}
