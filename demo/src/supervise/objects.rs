//! The objects of an installed mesh: what `isthmus-system` holds before anything runs. Pure.

use mesh_api::well_known;
use mesh_trust::{Bundle, Issuer};
use serde_json::{Value, json};

use super::layout::{AFTER_API, CONTROL_PORT, Cluster, Component, DNS_PORT, TUNNEL_PORT};

/// Everything but the definitions, in the order in which it is written.
pub(super) fn objects(cluster: &Cluster, issuer: &Issuer, bundle: &Bundle) -> Vec<Value> {
    let (chain, key) = issuer.to_pem();
    let mut objects = vec![json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": well_known::SYSTEM_NAMESPACE } })];
    let accounts = AFTER_API.iter().filter_map(|component| component.account()).chain([well_known::EGRESS_ACCOUNT]);
    objects.extend(accounts.map(|name| object("v1", "ServiceAccount", name, json!({}))));
    let ranges = [cluster.pods(), cluster.services()].join(",");
    let facts = json!({ "data": { "cluster": cluster.name, "trustDomain": cluster.trust_domain, "ranges": ranges } });
    objects.push(object("v1", "ConfigMap", well_known::FACTS, facts));
    objects.push(object("v1", "ConfigMap", well_known::BUNDLE, json!({ "data": { well_known::BUNDLE_KEY: bundle.to_spiffe_json() } })));
    let issuer = json!({ "type": "kubernetes.io/tls", "stringData": { "tls.crt": chain, "tls.key": *key } });
    objects.push(object("v1", "Secret", well_known::ISSUER, issuer));
    let tcp = |name: &str, port: u16| json!({ "name": name, "port": port, "targetPort": port, "protocol": "TCP" });
    let tunnel = json!([tcp(well_known::TUNNEL_PORT, TUNNEL_PORT)]);
    objects.push(object("v1", "Service", well_known::GATEWAY_SERVICE, json!({ "spec": { "type": "LoadBalancer", "ports": tunnel } })));
    objects.push(object("v1", "Service", "mesh-control", json!({ "spec": { "ports": [tcp("grpc", CONTROL_PORT)] } })));
    let dns = |protocol: &str| json!({ "name": format!("dns-{}", protocol.to_lowercase()), "port": 53, "targetPort": DNS_PORT, "protocol": protocol });
    objects.push(object("v1", "Service", "mesh-dns", json!({ "spec": { "ports": [dns("TCP"), dns("UDP")] } })));
    objects
}

/// The slices of the mesh's own Services; `is_ready` says which replicas are.
pub(super) fn slices(cluster: &Cluster, is_ready: impl Fn(Component, u8) -> bool) -> Vec<Value> {
    let slice = |component: Component, service: &str, ports: Value| {
        let endpoint = |replica| json!({ "addresses": [cluster.address(component, replica)], "conditions": { "ready": is_ready(component, replica) } });
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("{service}-demo"), "namespace": well_known::SYSTEM_NAMESPACE,
                "labels": { "kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "mesh-demo" },
            },
            "endpoints": (0..component.replicas()).map(endpoint).collect::<Vec<_>>(),
            "ports": ports,
        })
    };
    let port = |name: &str, number: u16, protocol: &str| json!({ "name": name, "port": number, "protocol": protocol });
    vec![
        slice(Component::Gateway, well_known::GATEWAY_SERVICE, json!([port(well_known::TUNNEL_PORT, TUNNEL_PORT, "TCP")])),
        slice(Component::Control, "mesh-control", json!([port("grpc", CONTROL_PORT, "TCP")])),
        slice(Component::Dns, "mesh-dns", json!([port("dns-tcp", DNS_PORT, "TCP"), port("dns-udp", DNS_PORT, "UDP")])),
    ]
}

/// The status of the gateways' Service, as a load balancer would write it: where peers dial.
pub(super) fn gateway_status(cluster: &Cluster) -> Value {
    let ingress: Vec<Value> = cluster.gateways().iter().map(|gateway| json!({ "ip": gateway.ip() })).collect();
    json!({ "status": { "loadBalancer": { "ingress": ingress } } })
}

fn object(version: &str, kind: &str, name: &str, mut rest: Value) -> Value {
    rest["apiVersion"] = json!(version);
    rest["kind"] = json!(kind);
    rest["metadata"] = json!({ "name": name, "namespace": well_known::SYSTEM_NAMESPACE });
    rest
}

/// The shop's manifests for a cluster: `deploy/demo`, as it was when this was built.
pub(super) fn shop(cluster: &str) -> &'static [&'static str] {
    match cluster {
        "east" => EAST,
        "west" => WEST,
        _ => ELSEWHERE,
    }
}

macro_rules! manifests {
    ($($file:literal),*) => { &[$(include_str!(concat!("../../../deploy/demo/", $file))),*] };
}

const EAST: &[&str] = manifests![
    "east/00-namespace.yaml",
    "east/catalog.yaml",
    "east/cart.yaml",
    "east/storefront.yaml",
    "east/ledger.yaml",
    "east/stock.yaml"
];
const WEST: &[&str] = manifests!["west/00-namespace.yaml", "west/cart.yaml", "west/storefront.yaml"];
/// Further clusters call, and serve nothing.
const ELSEWHERE: &[&str] = manifests!["west/00-namespace.yaml", "west/storefront.yaml"];

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(cluster: &str) -> Vec<String> {
        let documents = shop(cluster).iter().flat_map(|text| serde_saphyr::from_multiple::<Value>(text).unwrap());
        documents.map(|object| format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())).collect()
    }

    #[test]
    fn the_shop_is_where_the_guide_says_that_it_is() {
        let exported = |cluster| kinds(cluster).into_iter().filter(|kind| kind.starts_with("ServiceExport")).collect::<Vec<_>>();
        assert_eq!(exported("east"), ["ServiceExport catalog", "ServiceExport cart", "ServiceExport ledger", "ServiceExport stock"]);
        assert_eq!(exported("west"), ["ServiceExport cart"]);
        assert_eq!(kinds("north"), ["Namespace shop", "ServiceAccount storefront", "Deployment storefront", "Service storefront"]);
    }
}
