//! The Node object and its lease: the node says that it is there, and renews that.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use mesh_runtime::clock;
use serde_json::{Value, json};

use super::config::Config;
use super::status;

/// Keeps the node registered for ever.
pub(crate) async fn keep(client: &Client, config: &Config) {
    loop {
        let pause = match renew(client, config).await {
            Ok(()) => RENEW_EVERY,
            Err(error) => {
                tracing::debug!(%error, "node not registered");
                AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew(client: &Client, config: &Config) -> kube::Result<()> {
    let (parameters, merge) = (PostParams::default(), PatchParams::default());
    let nodes = Api::<Node>::all(client.clone());
    let leases = Api::<Lease>::namespaced(client.clone(), LEASES);
    let lease = lease(config);
    match nodes.patch_status(&config.node, &merge, &Patch::Merge(json!({ "status": node_status(config) }))).await {
        Err(kube::Error::Api(said)) if said.code == 404 => {
            exists(nodes.create(&parameters, &from(node(config))?).await)?;
            nodes.patch_status(&config.node, &merge, &Patch::Merge(json!({ "status": node_status(config) }))).await.map(drop)?;
        }
        written => drop(written?),
    }
    match leases.patch(&config.node, &merge, &Patch::Merge(&lease)).await {
        Err(kube::Error::Api(said)) if said.code == 404 => {
            let namespaces = Api::<Namespace>::all(client.clone());
            exists(namespaces.create(&parameters, &from(json!({ "metadata": { "name": LEASES } }))?).await)?;
            exists(leases.create(&parameters, &from(lease)?).await)
        }
        written => written.map(drop),
    }
}

/// An object that somebody else created meanwhile is as good.
fn exists<T>(created: kube::Result<T>) -> kube::Result<()> {
    match created {
        Err(kube::Error::Api(said)) if said.code == 409 => Ok(()),
        created => created.map(drop),
    }
}

fn from<K: serde::de::DeserializeOwned>(value: Value) -> kube::Result<K> {
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}

fn node(config: &Config) -> Value {
    json!({
        "metadata": {
            "name": config.node,
            "labels": { "kubernetes.io/hostname": config.node, "kubernetes.io/os": "linux", "kubernetes.io/arch": std::env::consts::ARCH },
        },
        "spec": { "podCIDR": config.pod_cidr.to_string() },
    })
}

fn node_status(config: &Config) -> Value {
    let capacity = json!({ "pods": PODS_MAX });
    json!({
        "addresses": [{ "type": "InternalIP", "address": config.address.to_string() }, { "type": "Hostname", "address": config.node }],
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "the demo's node runs pods as processes",
            "lastHeartbeatTime": status::time(clock::wall()),
        }],
        "nodeInfo": {
            "architecture": std::env::consts::ARCH, "operatingSystem": "linux", "kubeletVersion": concat!("v", env!("CARGO_PKG_VERSION"), "-isthmus"),
            "bootID": "", "containerRuntimeVersion": "process://1", "kernelVersion": "", "kubeProxyVersion": "", "machineID": "",
            "osImage": "mesh demo", "systemUUID": "",
        },
    })
}

fn lease(config: &Config) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": config.node, "namespace": LEASES },
        "spec": {
            "holderIdentity": config.node,
            "leaseDurationSeconds": 40,
            "renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(status::time(clock::wall()).0),
        },
    })
}

const LEASES: &str = "kube-node-lease";
const PODS_MAX: &str = "500";
const RENEW_EVERY: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(1);
