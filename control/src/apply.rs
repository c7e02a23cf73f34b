//! The only writes of control to the Kubernetes API: the key of the handles, once, and on each Peer how many services it is told of.
//!
//! Replicas do not agree on who writes: what one has written the others find, and equal values are not written again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use mesh_api::crd;
use mesh_api::well_known::{HANDLES, MANAGED_BY, MANAGED_BY_ISTHMUS, SYSTEM_NAMESPACE};
use serde_json::json;

use crate::handles::KEY_BYTES;
use crate::observe::{HANDLE_KEY, Observer, TOLD_EVERY, brief, pause};
use crate::publish::Publisher;

/// Makes the key of the handles once it is known to be missing. Whoever comes second finds it made.
pub(crate) async fn make_handle_key(client: Client, observer: Observer) {
    let mut changes = observer.changes();
    let secrets: Api<Secret> = Api::namespaced(client, SYSTEM_NAMESPACE);
    let mut failures = 0;
    loop {
        let handles = observer.now().handles;
        if !handles.is_complete() || handles.only().is_some() {
            match changes.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        match secrets.create(&PostParams::default(), &handle_key(rand::random())).await {
            Ok(_) => tracing::info!(secret = HANDLES, "made the key of endpoint handles"),
            Err(kube::Error::Api(status)) if status.code == CONFLICT => {}
            Err(error) => {
                if failures % TOLD_EVERY == 0 {
                    tracing::warn!(error = brief(&error), secret = HANDLES, "could not make the key of endpoint handles");
                }
                failures += 1;
            }
        }
        tokio::time::sleep(pause(failures.max(2))).await;
    }
}

/// Keeps `status.exportedServices` of each Peer.
pub(crate) async fn keep_peer_status(client: Client, observer: Observer, publisher: Arc<Publisher>) {
    let mut changes = publisher.changes();
    let peers: Api<crd::Peer> = Api::all(client);
    loop {
        // What could not be written is tried again, also when nothing changes.
        if let Ok(Err(_)) = tokio::time::timeout(STATUS_AGAIN, changes.changed()).await {
            return;
        }
        let told = publisher.told();
        for peer in observer.now().peers.iter() {
            let Some(count) = told.get(&peer.trust_domain).and_then(|count| i32::try_from(*count).ok()) else { continue };
            if peer.told == Some(count) {
                continue;
            }
            let patch = json!({ "status": { "exportedServices": count } });
            let written = peers.patch_status(peer.name.as_str(), &PatchParams::default(), &Patch::Merge(patch)).await;
            if let Err(error) = written {
                tracing::debug!(peer = %peer.name, error = brief(&error), "could not write the status of a peer");
            }
        }
        // A status is for people: a burst of changes is written once.
        tokio::time::sleep(STATUS_EVERY).await;
    }
}

fn handle_key(key: [u8; KEY_BYTES]) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(HANDLES.to_owned()),
            namespace: Some(SYSTEM_NAMESPACE.to_owned()),
            labels: Some(BTreeMap::from([(MANAGED_BY.to_owned(), MANAGED_BY_ISTHMUS.to_owned())])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(HANDLE_KEY.to_owned(), ByteString(key.to_vec()))])),
        ..Secret::default()
    }
}

const CONFLICT: u16 = 409;
const STATUS_EVERY: Duration = Duration::from_secs(1);
const STATUS_AGAIN: Duration = Duration::from_secs(30);
