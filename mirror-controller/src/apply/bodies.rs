//! How an object of ours is written. The reading half is `observe/objects`; what one writes the other reads back unchanged.

use std::collections::BTreeMap;

use mesh_api::translate::ExportedPort;
use mesh_api::well_known::{
    HANDLE, HOSTNAME, IDENTITIES, LINK, MANAGED_BY, MANAGED_BY_ISTHMUS, MIRROR, MIRROR_CLUSTER, MIRROR_CLUSTER_SET, MIRROR_STAND_IN,
    MIRRORED_SERVICE, PROXYLESS,
};
use mesh_topology::ImportKind;
use serde_json::{Value, json};

use crate::model::{Import, MirrorService, MirrorSlice, Owner, SlicePort, StandsFor};

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
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec })
}

/// A slice that names our own gateways.
pub(super) fn slice(of: &MirrorSlice) -> Value {
    let kind = if of.link.is_some() { MIRROR_CLUSTER } else { MIRROR_CLUSTER_SET };
    let mut metadata = metadata(of.namespace.as_str(), &of.name, kind, of.link.as_ref());
    metadata["labels"]["kubernetes.io/service-name"] = json!(of.service);
    metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = json!("isthmus.dev");
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

/// A ServiceImport, its status aside. Every optional field is named, so that a merge patch takes away what is not wanted any more.
pub(super) fn import(of: &Import) -> Value {
    let properties = &of.properties;
    let mut metadata = metadata(of.id.namespace().as_str(), of.id.name().as_str(), MIRROR_CLUSTER_SET, None);
    let labels = properties.labels.iter().map(|(key, value)| (key.clone(), json!(value)));
    if let Some(all) = metadata["labels"].as_object_mut() {
        all.extend(labels);
    }
    metadata["annotations"] = json!(properties.annotations);
    let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    let affinity = match properties.session_affinity_timeout {
        0 => Value::Null,
        seconds => json!({ "clientIP": { "timeoutSeconds": seconds } }),
    };
    let family = |ip: &std::net::IpAddr| if ip.is_ipv6() { "IPv6" } else { "IPv4" };
    json!({
        "apiVersion": "multicluster.x-k8s.io/v1beta1",
        "kind": "ServiceImport",
        "metadata": metadata,
        "spec": {
            "type": match of.kind {
                ImportKind::ClusterSetIp => "ClusterSetIP",
                ImportKind::Headless => "Headless",
            },
            "ports": of.ports.iter().map(service_port).collect::<Vec<_>>(),
            "ips": of.ips,
            "ipFamilies": of.ips.iter().map(family).collect::<Vec<_>>(),
            "sessionAffinity": text(&properties.session_affinity),
            "sessionAffinityConfig": affinity,
            "internalTrafficPolicy": text(&properties.internal_traffic_policy),
            "trafficDistribution": text(&properties.traffic_distribution),
        },
    })
}

/// Names what `held` has under `metadata.<field>` and `body` has not, so that a merge patch takes it away. What others give a meaning stays.
pub(super) fn forget(body: &mut Value, field: &str, held: &BTreeMap<String, String>) {
    let reserved = |key: &str| ["kubernetes.io/", "k8s.io/", "isthmus.dev/"].iter().any(|ours| key.contains(ours));
    let Some(all) = body["metadata"][field].as_object_mut() else { return };
    for key in held.keys().filter(|key| !reserved(key)) {
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
        json!({ "port": of.egress, "protocol": of.transport.as_str(), "name": of.name.as_ref().map_or("", |name| name.as_str()) });
    optional(&mut port, "appProtocol", of.app_protocol.as_deref());
    port
}

fn optional(into: &mut Value, field: &str, value: Option<&str>) {
    if let Some(value) = value {
        into[field] = json!(value);
    }
}

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
            Object::Import(it) => {
                let mut body = import(it);
                let clusters: Vec<Value> = it.clusters.iter().map(|id| json!({ "cluster": id })).collect();
                body["status"] = json!({ "clusters": clusters });
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
