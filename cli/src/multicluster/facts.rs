//! What linking needs to know of a cluster, read from its API.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Service, ServicePort};
use kube::api::{Api, ListParams};
use kube::config::Kubeconfig;
use kube::{Client, ResourceExt as _};
use mesh_api::well_known::{BUNDLE, BUNDLE_KEY, FACTS, GATEWAY_SERVICE, SYSTEM_NAMESPACE, TUNNEL_PORT};
use mesh_names::{ClusterId, ClusterName, ParseError, SpiffeId, TrustDomain};
use mesh_trust::{Bundle, BundleError};

use crate::clusters;

/// A cluster of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The context that leads to it.
    pub(crate) context: String,
    /// Its name.
    pub(crate) name: ClusterName,
    /// Its id.
    pub(crate) id: ClusterId,
    /// Its trust domain.
    pub(crate) trust_domain: TrustDomain,
    /// Its bundle, as it publishes it.
    pub(crate) bundle: String,
    /// Where peers dial its gateways; none when nobody has given them an address yet.
    pub(crate) gateways: Vec<SocketAddr>,
    /// The host names that its load balancer has given them, as some clouds do.
    pub(crate) gateway_hosts: Vec<String>,
}

/// Why a cluster could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FactsError {
    #[error("could not read {object} of cluster {context}")]
    Read {
        context: String,
        object: &'static str,
        #[source]
        source: kube::Error,
    },
    #[error("cluster {context} has no {object}: the mesh is not installed there")]
    NotInstalled { context: String, object: &'static str },
    #[error("{object} of cluster {context} lacks {field}: install the mesh there again")]
    Incomplete { context: String, object: &'static str, field: &'static str },
    #[error("{object} of cluster {context} says something that is no name")]
    Name {
        context: String,
        object: &'static str,
        #[source]
        source: ParseError,
    },
    #[error("the bundle of cluster {context} can't be used: see mesh trust show --context {context}")]
    Bundle {
        context: String,
        #[source]
        source: BundleError,
    },
    #[error(transparent)]
    Context(#[from] anyhow::Error),
}

impl Facts {
    /// Reads the cluster behind `context`.
    pub(crate) async fn read(kubeconfig: &Kubeconfig, context: &str) -> Result<(Self, Client), FactsError> {
        let client = clusters::client(kubeconfig, context).await?;
        let of = Reader { context, client: &client };
        let facts = of.facts().await?;
        Ok((facts, client))
    }

    /// The id of a component of this cluster.
    pub(crate) fn component(&self, account: &str) -> Result<SpiffeId, ParseError> {
        SpiffeId::workload(&self.trust_domain, &SYSTEM_NAMESPACE.parse()?, account)
    }
}

struct Reader<'a> {
    context: &'a str,
    client: &'a Client,
}

impl Reader<'_> {
    async fn facts(&self) -> Result<Facts, FactsError> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let facts = self.data(&maps, FACTS, "ConfigMap isthmus-system/isthmus").await?;
        let bundles = self.data(&maps, BUNDLE, "ConfigMap isthmus-system/isthmus-bundle").await?;
        let trust_domain: TrustDomain = self.name("ConfigMap isthmus-system/isthmus", "trustDomain", facts.get("trustDomain"))?;
        let bundle = bundles.get(BUNDLE_KEY).cloned().ok_or_else(|| self.lacks("ConfigMap isthmus-system/isthmus-bundle", BUNDLE_KEY))?;
        Bundle::from_spiffe_json(trust_domain.clone(), bundle.as_bytes())
            .map_err(|source| FactsError::Bundle { context: self.context.to_owned(), source })?;
        let (gateways, gateway_hosts) = self.gateways().await?;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let system = namespaces.get("kube-system").await.map_err(|source| self.failed("namespace kube-system", source))?;
        Ok(Facts {
            context: self.context.to_owned(),
            name: self.name("ConfigMap isthmus-system/isthmus", "cluster", facts.get("cluster"))?,
            id: self.name("namespace kube-system", "uid", system.uid().as_ref())?,
            trust_domain,
            bundle,
            gateways,
            gateway_hosts,
        })
    }

    async fn gateways(&self) -> Result<(Vec<SocketAddr>, Vec<String>), FactsError> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let service = services.get(GATEWAY_SERVICE).await.map_err(|source| self.failed("Service isthmus-system/mesh-gateway", source))?;
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let tunnel = ports.iter().find(|port| port.name.as_deref() == Some(TUNNEL_PORT));
        let tunnel = tunnel.ok_or_else(|| self.lacks("Service isthmus-system/mesh-gateway", "a port named tunnel"))?;
        if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("NodePort") {
            let nodes: Api<Node> = Api::all(self.client.clone());
            let nodes = nodes.list(&ListParams::default()).await.map_err(|source| self.failed("nodes", source))?.items;
            return Ok((node_gateways(&nodes, tunnel), Vec::new()));
        }
        let port = u16::try_from(tunnel.port).map_err(|_| self.lacks("Service isthmus-system/mesh-gateway", "a port that is one"))?;
        let ingress = service.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress).unwrap_or_default();
        let addresses = ingress.iter().filter_map(|point| point.ip.as_deref()?.parse::<IpAddr>().ok());
        let hosts = ingress.iter().filter_map(|point| point.hostname.clone()).filter(|host| !host.is_empty());
        Ok((addresses.map(|address| SocketAddr::new(address, port)).collect(), hosts.collect()))
    }

    async fn data(
        &self,
        maps: &Api<ConfigMap>,
        name: &str,
        object: &'static str,
    ) -> Result<std::collections::BTreeMap<String, String>, FactsError> {
        let map = maps.get(name).await.map_err(|source| self.failed(object, source))?;
        Ok(map.data.unwrap_or_default())
    }

    fn failed(&self, object: &'static str, source: kube::Error) -> FactsError {
        let context = self.context.to_owned();
        match &source {
            kube::Error::Api(status) if status.code == 404 => FactsError::NotInstalled { context, object },
            _ => FactsError::Read { context, object, source },
        }
    }

    fn lacks(&self, object: &'static str, field: &'static str) -> FactsError {
        FactsError::Incomplete { context: self.context.to_owned(), object, field }
    }

    fn name<T: std::str::FromStr<Err = ParseError>>(
        &self,
        object: &'static str,
        field: &'static str,
        text: Option<&String>,
    ) -> Result<T, FactsError> {
        let text = text.ok_or_else(|| self.lacks(object, field))?;
        text.parse().map_err(|source| FactsError::Name { context: self.context.to_owned(), object, source })
    }
}

/// Where a port of every node leads to the gateways: at each node's external address, or its internal one where it has no other. Pure.
fn node_gateways(nodes: &[Node], tunnel: &ServicePort) -> Vec<SocketAddr> {
    let Some(port) = tunnel.node_port.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    let of = |node: &Node, kind: &str| {
        let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        addresses.iter().filter(|address| address.type_ == kind).find_map(|address| address.address.parse::<IpAddr>().ok())
    };
    let addresses = nodes.iter().filter_map(|node| of(node, "ExternalIP").or_else(|| of(node, "InternalIP")));
    addresses.take(NODES_MAX).map(|address| SocketAddr::new(address, port)).collect()
}

/// Nodes that a Link names: every node leads to every gateway, so a few are as good as all.
const NODES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn node(addresses: &[(&str, &str)]) -> Node {
        let addresses: Vec<_> = addresses.iter().map(|(kind, address)| serde_json::json!({ "type": kind, "address": address })).collect();
        serde_json::from_value(serde_json::json!({ "metadata": {}, "status": { "addresses": addresses } })).unwrap()
    }

    #[test]
    fn gateways_behind_a_port_of_the_nodes_are_dialled_at_their_external_addresses_first() {
        let tunnel = ServicePort { port: 4143, node_port: Some(31_443), ..ServicePort::default() };
        let nodes = [
            node(&[("Hostname", "east-1"), ("InternalIP", "172.30.0.11")]),
            node(&[("InternalIP", "172.30.0.12"), ("ExternalIP", "203.0.113.7")]),
            node(&[("Hostname", "east-3")]),
        ];
        let expected: Vec<SocketAddr> = vec!["172.30.0.11:31443".parse().unwrap(), "203.0.113.7:31443".parse().unwrap()];
        assert_eq!(node_gateways(&nodes, &tunnel), expected);
    }

    #[test]
    fn a_node_port_that_nobody_has_given_yet_leads_nowhere() {
        let tunnel = ServicePort { port: 4143, ..ServicePort::default() };
        assert!(node_gateways(&[node(&[("InternalIP", "172.30.0.11")])], &tunnel).is_empty());
    }
}
