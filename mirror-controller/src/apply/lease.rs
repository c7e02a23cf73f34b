//! Writes the Lease of the replica that acts. Each write names the version that it builds on, so that of two replicas that claim at once
//! one is told.

use std::time::SystemTime;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use mesh_api::well_known;
use serde_json::json;

use super::NotApplied;
use crate::lead::{Claim, LEASE};

impl NotApplied {
    /// The Lease could not be read: nothing is written then.
    pub(crate) fn lease(source: kube::Error) -> Self {
        Self { what: "read", object: format!("Lease {}", well_known::MIRROR_LEASE), source }
    }
}

/// Writes `claim` for the replica `own`; says whether it holds, or another replica was faster.
///
/// # Errors
/// When the API does not answer, or refuses.
pub async fn claim(client: &Client, own: &str, claim: Claim, now: SystemTime) -> Result<bool, NotApplied> {
    let now = MicroTime(Timestamp::try_from(now).unwrap_or_default());
    let taken = json!({ "holderIdentity": own, "leaseDurationSeconds": LEASE.as_secs(), "acquireTime": now, "renewTime": now });
    let (leases, name) = (leases(client), well_known::MIRROR_LEASE);
    let done = match claim {
        Claim::Create => {
            let mut spec = taken;
            spec["leaseTransitions"] = json!(0);
            let labels = json!({ well_known::MANAGED_BY: well_known::MANAGED_BY_ISTHMUS });
            let lease = json!({ "metadata": { "name": name, "labels": labels }, "spec": spec });
            let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError).map_err(NotApplied::lease)?;
            leases.create(&PostParams::default(), &lease).await
        }
        Claim::Renew { version } => {
            let body = json!({ "metadata": { "resourceVersion": version }, "spec": { "renewTime": now } });
            leases.patch(name, &PatchParams::default(), &Patch::Merge(body)).await
        }
        Claim::Take { version, transitions } => {
            let mut spec = taken;
            spec["leaseTransitions"] = json!(transitions);
            let body = json!({ "metadata": { "resourceVersion": version }, "spec": spec });
            leases.patch(name, &PatchParams::default(), &Patch::Merge(body)).await
        }
    };
    match done {
        Ok(_) => Ok(true),
        // Another created it, took it or removed it: the next reading knows.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(source) => Err(NotApplied { what: "claim", object: format!("Lease {name}"), source }),
    }
}

/// Gives the Lease back, if it is still `own`'s: the next replica need not wait for its end.
///
/// # Errors
/// When the API does not answer, or refuses.
pub async fn give_back(client: &Client, own: &str) -> Result<(), NotApplied> {
    let leases = leases(client);
    let held = leases.get(well_known::MIRROR_LEASE).await.map_err(NotApplied::lease)?;
    if held.spec.and_then(|spec| spec.holder_identity).as_deref() != Some(own) {
        return Ok(());
    }
    let body = json!({ "metadata": { "resourceVersion": held.metadata.resource_version }, "spec": { "holderIdentity": "" } });
    let given = leases.patch(well_known::MIRROR_LEASE, &PatchParams::default(), &Patch::Merge(body)).await;
    given.map(drop).map_err(|source| NotApplied { what: "give back", object: format!("Lease {}", well_known::MIRROR_LEASE), source })
}

fn leases(client: &Client) -> Api<Lease> {
    Api::namespaced(client.clone(), well_known::SYSTEM_NAMESPACE)
}
