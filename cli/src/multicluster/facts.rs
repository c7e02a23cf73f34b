//! What linking needs to know of a cluster, read from its API.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::api::Api;
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
        let port = ports.iter().find(|port| port.name.as_deref() == Some(TUNNEL_PORT)).and_then(|port| u16::try_from(port.port).ok());
        let port = port.ok_or_else(|| self.lacks("Service isthmus-system/mesh-gateway", "a port named tunnel"))?;
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
