//! How an object of ours is written. The reading half is `observe/objects`; what one writes the other reads back unchanged.

use std::collections::BTreeMap;

use mesh_api::translate::{ExportedPort, SessionAffinity, travels};
use mesh_api::well_known::{
    HANDLE, HOSTNAME, IDENTITIES, LINK, MANAGED_BY, MANAGED_BY_ISTHMUS, MCS_SERVICE_NAME, MCS_SOURCE_CLUSTER, MIRROR, MIRROR_CLUSTER,
    MIRROR_CLUSTER_SET, MIRROR_STAND_IN, MIRRORED_SERVICE, PROXYLESS,
};
use mesh_topology::ImportKind;
use serde_json::{Value, json};

use crate::model::{HeadlessSlice, Import, MirrorService, MirrorSlice, Owner, SliceOf, SlicePort, StandsFor};

/// A mirror Service.
pub(super) fn service(of: &MirrorService) -> Value {
    let (kind, service, link) = match &of.stands_for {
        StandsFor::Cluster { link, service } => (MIRROR_CLUSTER, service, Some(link)),
        StandsFor::ClusterSet { service } => (MIRROR_CLUSTER_SET, service, None),
        StandsFor::Endpoint { link, service, .. } => (MIRROR_STAND_IN, service, Some(link)),
    };
    let mut metadata = metadata(of.id.namespace().as_str(), of.id.name().as_str(), kind, link);
    metadata["labels"][MIRRORED_SERVICE] = json!(service);
    match &of.stands_for {
        StandsFor::Cluster { .. } => {
            let identities: Vec<&str> = of.identities.iter().map(mesh_names::SpiffeId::as_str).collect();
            metadata["annotations"] = json!({ IDENTITIES: identities.join(","), PROXYLESS: of.proxyless.to_string() });
        }
        StandsFor::ClusterSet { .. } => {}
        StandsFor::Endpoint { hostname, handle, .. } => {
            metadata["labels"][HOSTNAME] = json!(hostname);
            metadata["annotations"] = json!({ HANDLE: handle });
        }
    }
    let mut spec = json!({ "type": "ClusterIP", "ports": of.ports.iter().map(service_port).collect::<Vec<_>>() });
    if let Some(address) = of.address.0 {
        spec["clusterIP"] = json!(address);
    }
    if let Some(families) = of.families.0.as_ref().filter(|families| !families.is_empty()) {
        spec["ipFamilies"] = families.iter().map(|family| family.as_str()).collect();
        spec["ipFamilyPolicy"] = json!(if families.len() > 1 { "PreferDualStack" } else { "SingleStack" });
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec })
}

/// A slice that names our own gateways.
pub(super) fn slice(of: &MirrorSlice) -> Value {
    let mut metadata = match &of.of {
        SliceOf::Link(link) => metadata(of.namespace.as_str(), &of.name, MIRROR_CLUSTER, Some(link)),
        SliceOf::Import { service, uid, source } => owned_by_import(of.namespace.as_str(), &of.name, (service, uid, source)),
    };
    metadata["labels"]["kubernetes.io/service-name"] = json!(of.service);
    metadata["labels"][SLICE_MANAGED_BY] = json!(SLICE_MANAGER);
    let endpoints: Vec<Value> =
        of.addresses.iter().map(|address| json!({ "addresses": [address], "conditions": { "ready": true } })).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": if of.v6 { "IPv6" } else { "IPv4" },
        "endpoints": endpoints,
        "ports": of.ports.iter().map(slice_port).collect::<Vec<_>>(),
    })
}

/// A slice of a headless service of the cluster set.
pub(super) fn headless(of: &HeadlessSlice) -> Value {
    let mut metadata = owned_by_import(of.namespace.as_str(), &of.name, (&of.service, &of.uid, &of.source));
    metadata["labels"][SLICE_MANAGED_BY] = json!(SLICE_MANAGER);
    let endpoint = |(address, hostname): &(std::net::IpAddr, Option<mesh_names::Label>)| {
        let mut endpoint = json!({ "addresses": [address] });
        optional(&mut endpoint, "hostname", hostname.as_ref().map(|hostname| hostname.as_str()));
        endpoint
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": if of.v6 { "IPv6" } else { "IPv4" },
        "endpoints": of.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": of.ports.iter().map(slice_port).collect::<Vec<_>>(),
    })
}

/// The metadata of a slice that belongs to a ServiceImport: its service, the import's uid, the exporting cluster.
fn owned_by_import(namespace: &str, name: &str, (service, uid, source): (&mesh_names::Label, &str, &str)) -> Value {
    let mut metadata = metadata(namespace, name, MIRROR_CLUSTER_SET, None);
    metadata["labels"][MCS_SERVICE_NAME] = json!(service);
    metadata["labels"][MCS_SOURCE_CLUSTER] = json!(source);
    metadata["ownerReferences"] = json!([{ "apiVersion": IMPORT_VERSION, "kind": "ServiceImport", "name": service, "uid": uid }]);
    metadata
}

/// A ServiceImport, its status aside. Every optional field is named, so that a merge patch takes away what is not wanted any more.
pub(super) fn import(of: &Import) -> Value {
    let properties = &of.properties;
    let mut metadata = metadata(of.id.namespace().as_str(), of.id.name().as_str(), MIRROR_CLUSTER_SET, None);
    // What travelled never replaces what is ours.
    if let Some(all) = metadata["labels"].as_object_mut() {
        for (key, value) in &properties.labels {
            all.entry(key.clone()).or_insert_with(|| json!(value));
        }
    }
    metadata["annotations"] = json!(properties.annotations);
    let headless = of.kind == ImportKind::Headless;
    let affinity = Some(properties.session_affinity).filter(|_| !headless);
    let seconds = affinity.and_then(SessionAffinity::seconds);
    json!({
        "apiVersion": IMPORT_VERSION,
        "kind": "ServiceImport",
        "metadata": metadata,
        "spec": {
            "type": if headless { "Headless" } else { "ClusterSetIP" },
            "ports": of.ports.iter().map(service_port).collect::<Vec<_>>(),
            "ips": of.ips,
            "ipFamilies": properties.ip_families.iter().map(|family| family.as_str()).collect::<Vec<_>>(),
            "sessionAffinity": affinity.map(SessionAffinity::as_str),
            "sessionAffinityConfig": seconds.map(|seconds| json!({ "clientIP": { "timeoutSeconds": seconds } })),
            "internalTrafficPolicy": properties.internal_traffic_policy.as_str(),
            "trafficDistribution": properties.traffic_distribution,
        },
    })
}

/// Names what `held` has under `metadata.<field>` and `body` has not, so that a merge patch takes it away. What never travels stays.
pub(super) fn forget(body: &mut Value, field: &str, held: &BTreeMap<String, String>) {
    let Some(all) = body["metadata"][field].as_object_mut() else { return };
    for key in held.keys().filter(|key| travels(key)) {
        all.entry(key.clone()).or_insert(Value::Null);
    }
}

fn metadata(namespace: &str, name: &str, mirror: &str, link: Option<&Owner>) -> Value {
    let mut metadata = json!({
        "namespace": namespace,
        "name": name,
        "labels": { MANAGED_BY: MANAGED_BY_ISTHMUS, MIRROR: mirror },
    });
    if let Some(link) = link {
        metadata["labels"][LINK] = json!(link.name);
        metadata["ownerReferences"] = json!([{ "apiVersion": "isthmus.dev/v1alpha1", "kind": "Link", "name": link.name, "uid": link.uid }]);
    }
    metadata
}

fn service_port(of: &ExportedPort) -> Value {
    let mut port = json!({ "port": of.number, "protocol": of.transport.as_str() });
    optional(&mut port, "name", of.name.as_ref().map(|name| name.as_str()));
    optional(&mut port, "appProtocol", of.app_protocol.as_deref());
    port
}

fn slice_port(of: &SlicePort) -> Value {
    let mut port =
        json!({ "port": of.number, "protocol": of.transport.as_str(), "name": of.name.as_ref().map_or("", |name| name.as_str()) });
    optional(&mut port, "appProtocol", of.app_protocol.as_deref());
    port
}

fn optional(into: &mut Value, field: &str, value: Option<&str>) {
    if let Some(value) = value {
        into[field] = json!(value);
    }
}

const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Any value but the one of Kubernetes' own controller, which would delete the slice.
const SLICE_MANAGER: &str = "isthmus.dev";
const IMPORT_VERSION: &str = "multicluster.x-k8s.io/v1beta1";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::model::{Found, Object, ObjectId};
    use crate::observe::objects;
    use crate::plan::tests::world;
    use crate::plan::{Change, EgressRange, plan};
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use mesh_api::crd::ServiceImport;

    fn read_back(object: &Object) -> Option<(ObjectId, Found)> {
        match object {
            Object::Service(it) => objects::service(&serde_json::from_value::<Service>(service(it)).unwrap()),
            Object::Slice(it) => objects::slice(&serde_json::from_value::<EndpointSlice>(slice(it)).unwrap()),
            Object::Headless(it) => objects::slice(&serde_json::from_value::<EndpointSlice>(headless(it)).unwrap()),
            Object::Import(it) => {
                let mut body = import(it);
                let clusters: Vec<Value> = it.clusters.iter().map(|id| json!({ "cluster": id })).collect();
                let ready = json!({ "type": "Ready", "status": if it.ready { "True" } else { "False" }, "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" });
                body["status"] = json!({ "clusters": clusters, "conditions": [ready] });
                objects::import(&serde_json::from_value::<ServiceImport>(body).unwrap())
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back_unchanged() {
        let mut labelled = world::exported("east", "shop/web");
        labelled.labels = [("team".to_owned(), "a".to_owned())].into();
        labelled.session_affinity = "ClientIP".into();
        labelled.session_affinity_timeout = 60;
        labelled.ports.push(mesh_api::proto::ExportedPort {
            name: String::new(),
            number: 53,
            transport: "UDP".into(),
            app_protocol: "x".into(),
        });
        let services = vec![labelled, world::exported("east", "shop/stock~")];
        let told = BTreeMap::from([("east".parse().unwrap(), world::listed_as("east", services))]);
        let changes = plan(&world::west(&["east"]), &told, EgressRange::default()).changes;
        assert!(changes.len() > 6, "{changes:?}");
        for change in changes {
            let Change::Create(object) = change else { panic!("{change:?}") };
            let (id, found) = read_back(&object).unwrap();
            assert_eq!((&id, found.object.as_ref()), (&object.id(), Some(&object)));
        }
    }

    #[test]
    fn a_label_that_is_not_exported_any_more_is_taken_away_and_others_stay() {
        let mut body = json!({ "metadata": { "labels": { "new": "1" } } });
        let held = ["old", "new", "app.kubernetes.io/managed-by"].map(|key| (key.to_owned(), "1".to_owned()));
        forget(&mut body, "labels", &held.into());
        assert_eq!(body, json!({ "metadata": { "labels": { "new": "1", "old": null } } }));
    }
}
