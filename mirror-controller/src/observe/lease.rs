//! The Lease of the replica that acts, as the API has it at this moment: no cache, since a version that is old can't be built on.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use mesh_api::well_known;

use super::Client;
use crate::lead::Record;

/// Reads it; `None` when there is none.
///
/// # Errors
/// When the API does not answer, or refuses.
pub async fn read(client: &Client) -> Result<Option<Record>, kube::Error> {
    let leases = Api::<Lease>::namespaced(client.clone(), well_known::SYSTEM_NAMESPACE);
    Ok(leases.get_opt(well_known::MIRROR_LEASE).await?.map(record))
}

fn record(lease: Lease) -> Record {
    let spec = lease.spec.unwrap_or_default();
    // One that says nothing, or nonsense, is given the time that ours have.
    let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        lasts: lasts.map_or(crate::lead::LEASE, |seconds| Duration::from_secs(seconds.min(LASTS_MAX))),
        transitions: spec.lease_transitions.unwrap_or_default(),
        version: lease.metadata.resource_version.unwrap_or_default(),
    }
}

/// Whoever writes a longer one does not stop us for longer.
const LASTS_MAX: u64 = 60;
