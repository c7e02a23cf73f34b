//! Reads what the checks are about from one cluster, into plain values.

use std::collections::BTreeSet;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use mesh_api::crd::{Link, Peer};
use mesh_api::well_known;

use crate::trust::ClusterTrust;

/// One cluster, as the checks see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) authorities_until: Option<SystemTime>,
    pub(super) issuer_until: SystemTime,
    pub(super) issuer_fits: bool,
    pub(super) controls_ready: usize,
    pub(super) gateway_addresses: Vec<String>,
    pub(super) gateways_ready: usize,
    pub(super) links: Vec<LinkSeen>,
    pub(super) peers: BTreeSet<String>,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkSeen {
    pub(super) name: String,
    /// Type, status and message of each condition.
    pub(super) conditions: Vec<(String, String, String)>,
}

/// Reads a cluster.
pub(super) async fn observe(client: &Client) -> anyhow::Result<Seen> {
    let trust = ClusterTrust::read(client).await?;
    let services = Api::<Service>::namespaced(client.clone(), well_known::SYSTEM_NAMESPACE);
    let gateway = services.get_opt(well_known::GATEWAY_SERVICE).await?;
    let links = Api::<Link>::all(client.clone()).list(&ListParams::default()).await?;
    let peers = Api::<Peer>::all(client.clone()).list(&ListParams::default()).await?;
    let authority = trust.issuer.bundle_authority();
    let fits = trust.bundle.authorities().iter().any(|held| held.der() == authority)
        && trust.issuer.trust_domain().is_none_or(|domain| domain == trust.bundle.trust_domain());
    Ok(Seen {
        authorities_until: trust.bundle.authorities().iter().map(mesh_trust::bundle::Authority::not_after).min(),
        issuer_until: trust.issuer.expires_at(),
        issuer_fits: fits,
        controls_ready: ready(client, CONTROL_SERVICE).await?,
        gateway_addresses: gateway.as_ref().map(addresses).unwrap_or_default(),
        gateways_ready: ready(client, well_known::GATEWAY_SERVICE).await?,
        links: links.iter().map(link).collect(),
        peers: peers.iter().map(kube::ResourceExt::name_any).collect(),
    })
}

/// Where peers dial the gateways: the load balancer's addresses, or a port of every node.
fn addresses(service: &Service) -> Vec<String> {
    if let Some(spec) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("NodePort")) {
        let ports = spec.ports.iter().flatten().filter(|port| port.name.as_deref() == Some(well_known::TUNNEL_PORT));
        return ports.filter_map(|port| port.node_port).map(|port| format!("port {port} of every node")).collect();
    }
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten()).filter_map(|ingress| ingress.ip.clone()).collect()
}

async fn ready(client: &Client, service: &str) -> kube::Result<usize> {
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), well_known::SYSTEM_NAMESPACE);
    let slices = slices.list(&ListParams::default().labels(&format!("kubernetes.io/service-name={service}"))).await?;
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    Ok(endpoints.filter(|endpoint| endpoint.conditions.as_ref().is_none_or(|said| said.ready != Some(false))).count())
}

fn link(link: &Link) -> LinkSeen {
    let conditions = link.status.iter().flat_map(|status| &status.conditions);
    let said = conditions.map(|condition| (condition.type_.clone(), condition.status.clone(), condition.message.clone()));
    LinkSeen { name: link.name_any(), conditions: said.collect() }
}

const CONTROL_SERVICE: &str = "mesh-control";

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: serde_json::Value, status: serde_json::Value) -> Service {
        serde_json::from_value(serde_json::json!({ "metadata": {}, "spec": spec, "status": status })).unwrap()
    }

    #[test]
    fn gateways_are_reached_at_a_port_of_every_node_or_at_their_load_balancer() {
        let ports = serde_json::json!([{ "name": "tunnel", "port": 4143, "nodePort": 31_443 }]);
        let given = serde_json::json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.7" }] } });
        let of = |kind: &str, status| addresses(&service(serde_json::json!({ "type": kind, "ports": ports }), status));
        assert_eq!(of("NodePort", serde_json::json!({})), ["port 31443 of every node"]);
        assert_eq!(of("LoadBalancer", given), ["203.0.113.7"]);
        assert!(of("LoadBalancer", serde_json::json!({})).is_empty());
    }
}
