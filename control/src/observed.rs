//! What control knows of its cluster, as plain values: no Kubernetes type gets past here.
//!
//! Each kind is a table that its watch writes and everybody else reads. Invariant: absent means "not there" only in a [`Complete`].

mod seen;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_api::client::hold::Hold;
use mesh_api::inject::Inbound;
use mesh_api::translate::{ExportedPort, ExportedProperties};
use mesh_names::{
    AppPort, ClusterId, ClusterName, EndpointName, Handle, Label, Protocol, ServiceId, SpiffeId, TrustDomain, TunnelPort, Zone,
};
use mesh_topology::ImportKind;
use mesh_trust::{Bundle, Issuer};

pub use self::seen::{Listing, ObjectName, Objects, Seen, Versions};
use crate::handles::Handles;

/// Everything that the watches have seen. Clones share the tables.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The uid of `kube-system` at the first listing; what comes from another cluster is held.
    pub cluster_id: Option<ClusterId>,
    /// ConfigMap `isthmus`.
    pub facts: Seen<Facts>,
    /// ConfigMap `isthmus-bundle`.
    pub bundle: Seen<BundleText>,
    /// Secret `isthmus-issuer`.
    pub issuer: Seen<Issuer>,
    /// Secret `isthmus-handles`.
    pub handles: Seen<Handles>,
    /// Services, mirrors included.
    pub services: Seen<Service>,
    /// EndpointSlices.
    pub slices: Seen<Slice>,
    /// Pods.
    pub pods: Seen<Pod>,
    /// Namespaces.
    pub namespaces: Seen<Namespace>,
    /// ServiceExports.
    pub exports: Seen<ServiceExport>,
    /// ServiceImports.
    pub imports: Seen<ServiceImport>,
    /// Links.
    pub links: Seen<Link>,
    /// Peers.
    pub peers: Seen<Peer>,
}

/// An [`Observed`] whose first listings have ended, so absent means not there.
#[derive(Clone, Debug)]
pub struct Complete {
    /// What was seen.
    pub seen: Observed,
    /// The cluster's id.
    pub id: ClusterId,
    /// The cluster's facts.
    pub facts: Arc<Facts>,
    /// What names endpoints outside the cluster.
    pub handles: Arc<Handles>,
    /// The cluster's own bundle.
    pub bundle: Bundle,
}

impl Observed {
    /// Nothing seen yet.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            slices: Seen::of_generated_names(),
            pods: Seen::of_generated_names(),
            facts: Seen::written_by_hand(),
            bundle: Seen::written_by_hand(),
            issuer: Seen::written_by_hand(),
            handles: Seen::written_by_hand(),
            links: Seen::written_by_hand(),
            peers: Seen::written_by_hand(),
            ..Self::default()
        }
    }

    /// This state as a complete one, if it is.
    #[must_use]
    pub fn complete(&self) -> Option<Complete> {
        let listed = [
            self.services.is_complete(),
            self.slices.is_complete(),
            self.pods.is_complete(),
            self.namespaces.is_complete(),
            self.exports.is_complete(),
            self.imports.is_complete(),
            self.links.is_complete(),
            self.peers.is_complete(),
        ];
        if listed.contains(&false) {
            return None;
        }
        let facts = Arc::clone(self.facts.only()?);
        let bundle = self.own_bundle()?;
        Some(Complete { id: self.cluster_id.clone()?, handles: Arc::clone(self.handles.only()?), seen: self.clone(), facts, bundle })
    }

    /// The own bundle, once facts and bundle have been seen and fit together.
    #[must_use]
    pub fn own_bundle(&self) -> Option<Bundle> {
        let (facts, text) = (self.facts.only()?, self.bundle.only()?);
        Bundle::from_spiffe_json(facts.trust_domain.clone(), text.0.as_bytes()).ok()
    }

    /// How new what was seen of each kind is.
    #[must_use]
    pub fn versions(&self) -> BTreeMap<&'static str, Versions> {
        BTreeMap::from([
            ("services", self.services.versions()),
            ("endpointslices", self.slices.versions()),
            ("pods", self.pods.versions()),
            ("namespaces", self.namespaces.versions()),
            ("serviceexports", self.exports.versions()),
            ("serviceimports", self.imports.versions()),
            ("links", self.links.versions()),
            ("peers", self.peers.versions()),
            ("facts", self.facts.versions()),
            ("bundle", self.bundle.versions()),
            ("handles", self.handles.versions()),
        ])
    }

    /// The kinds whose latest listing is held, and why.
    #[must_use]
    pub fn holds(&self) -> Vec<(&'static str, &Hold)> {
        let all = [
            ("services", self.services.held()),
            ("endpointslices", self.slices.held()),
            ("pods", self.pods.held()),
            ("namespaces", self.namespaces.held()),
            ("serviceexports", self.exports.held()),
            ("serviceimports", self.imports.held()),
            ("links", self.links.held()),
            ("peers", self.peers.held()),
            ("facts", self.facts.held()),
            ("bundle", self.bundle.held()),
            ("issuer", self.issuer.held()),
            ("handles", self.handles.held()),
        ];
        all.into_iter().filter_map(|(kind, why)| why.map(|why| (kind, why))).collect()
    }
}

/// What a cluster was installed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// The ranges of its pods, Services and cluster-set addresses.
    pub ranges: Vec<IpNet>,
    /// Whether endpoints without a proxy are served unless an export or a namespace says otherwise.
    pub allow_unmeshed: bool,
    /// Whether plaintext is let in unless a namespace says otherwise.
    pub inbound: Inbound,
}

/// The own bundle as it lies in its ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleText(pub String);

/// A Service of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub id: ServiceId,
    /// Its cluster IPs; none when it is headless.
    pub addresses: Vec<IpAddr>,
    /// Whether it is to have none.
    pub headless: bool,
    /// Its ports.
    pub ports: Vec<ExportedPort>,
    /// What of a remote service it stands for; none for a service of this cluster.
    pub mirror: Option<Mirror>,
    /// What exports carry beside ports.
    pub properties: ExportedProperties,
}

/// What a mirror object stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mirror {
    /// One linked cluster's service.
    Cluster {
        /// The link.
        link: ClusterName,
        /// The service.
        service: ServiceId,
        /// The ids that serve it, as the mirror controller wrote them.
        identities: Vec<SpiffeId>,
        /// Whether its endpoints have no proxy.
        proxyless: bool,
    },
    /// A service of the cluster set.
    ClusterSet(ServiceId),
    /// One endpoint of a linked cluster's headless service.
    StandIn {
        /// The link.
        link: ClusterName,
        /// The service.
        service: ServiceId,
        /// The endpoint's hostname.
        hostname: Option<Label>,
        /// The endpoint's handle.
        handle: Handle,
    },
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The Service that it belongs to.
    pub service: ServiceId,
    /// Its ports.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A port of an EndpointSlice; its name is the Service's port's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Empty when the Service's port has none.
    pub name: Box<str>,
    /// Where endpoints listen.
    pub number: AppPort,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its first address.
    pub address: IpAddr,
    /// Whether it wants requests.
    pub ready: bool,
    /// Its DNS label.
    pub hostname: Option<Label>,
    /// Its zone.
    pub zone: Option<Zone>,
    /// The pod that it is.
    pub pod: Option<PodRef>,
}

/// Which pod an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Its name.
    pub name: ObjectName,
    /// Its uid, when the slice says it: a pod of the same name that came later is another.
    pub uid: Option<EndpointName>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its uid.
    pub uid: EndpointName,
    /// Its service account.
    pub account: Box<str>,
    /// The addresses that are its own: none when it shares its node's, or has ended.
    pub addresses: Vec<IpAddr>,
    /// Where its inbound proxy listens; none when it has no proxy.
    pub inbound: Option<TunnelPort>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// What it says of endpoints without a proxy.
    pub allow_unmeshed: Option<bool>,
    /// What it says of plaintext.
    pub inbound: Option<Inbound>,
}

/// A ServiceExport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceExport {
    /// The service.
    pub id: ServiceId,
    /// Its labels, which grants select by.
    pub labels: BTreeMap<String, String>,
    /// What it says of endpoints without a proxy.
    pub allow_unmeshed: Option<bool>,
    /// When it was made, seconds since 1970.
    pub created_at: i64,
    /// Labels that travel to the import.
    pub exported_labels: BTreeMap<String, String>,
    /// Annotations that travel to the import.
    pub exported_annotations: BTreeMap<String, String>,
}

/// A ServiceImport, as the mirror controller merged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceImport {
    /// The service.
    pub id: ServiceId,
    /// Its cluster-set addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it has one address or one per endpoint.
    pub kind: ImportKind,
    /// Its ports.
    pub ports: Vec<mesh_topology::Port>,
    /// The clusters that contribute.
    pub clusters: Vec<ClusterId>,
}

/// A Link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What topology knows of it; its health is not in the Kubernetes API.
    pub link: mesh_topology::Link,
    /// The other cluster's bundle.
    pub bundle: Bundle,
}

/// A Peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The other cluster's name.
    pub name: ClusterName,
    /// The other cluster's id.
    pub id: ClusterId,
    /// The other cluster's trust domain.
    pub trust_domain: TrustDomain,
    /// The one identity that may call control services.
    pub caller: SpiffeId,
    /// The other cluster's bundle.
    pub bundle: Bundle,
    /// The namespaces whose exports it may have; `*` is all.
    pub namespaces: Vec<String>,
    /// The labels that those exports must have.
    pub selector: Option<Selector>,
    /// How many exports it has, as its status says.
    pub told: Option<i32>,
}

/// A label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The label has one of these values.
    In(String, Vec<String>),
    /// The label is missing, or has none of these values.
    NotIn(String, Vec<String>),
    /// The label is there.
    Exists(String),
    /// The label is not there.
    Missing(String),
    /// Something that this release does not know: it fits nothing.
    Unknown,
}

impl Selector {
    /// Whether `labels` fit.
    #[must_use]
    pub fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Missing(key) => !labels.contains_key(key),
            Requirement::Unknown => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_reads_as_kubernetes_has_it() {
        let labels = BTreeMap::from([("tier".to_owned(), "gold".to_owned())]);
        let check = |requirement, expected| assert_eq!(Selector(vec![requirement]).fits(&labels), expected);
        check(Requirement::In("tier".into(), vec!["gold".into()]), true);
        check(Requirement::In("none".into(), vec!["gold".into()]), false);
        check(Requirement::NotIn("none".into(), vec!["gold".into()]), true);
        check(Requirement::NotIn("tier".into(), vec!["gold".into()]), false);
        check(Requirement::Exists("tier".into()), true);
        check(Requirement::Missing("tier".into()), false);
        check(Requirement::Unknown, false);
    }
}
