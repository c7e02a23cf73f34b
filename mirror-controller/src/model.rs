//! The plain values that the controller decides on: what was seen of this cluster, and the objects that it keeps there.
//!
//! Equality is by value: an object that is seen as it is wanted is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesh_api::translate::{ExportedPort, ExportedProperties, Transport};
use mesh_names::{ClusterId, ClusterName, Handle, Label, PortName, ServiceId, SpiffeId, TrustDomain};
use mesh_topology::{Gateway, ImportKind};
use mesh_trust::Bundle;

/// What this cluster's API says. Made when every listing was complete, so absent means deleted.
#[derive(Clone, Debug)]
pub struct Seen {
    /// This cluster's id.
    pub id: ClusterId,
    /// Every Link; one whose spec can't be used says why.
    pub links: BTreeMap<ClusterName, Result<SeenLink, String>>,
    /// The namespaces that exist and are not being deleted.
    pub namespaces: BTreeSet<Label>,
    /// The addresses of this cluster's own gateways.
    pub gateways: BTreeSet<IpAddr>,
    /// This cluster's ServiceExports.
    pub exports: BTreeMap<ServiceId, OwnExport>,
    /// Names of Services and ServiceImports that are not ours.
    pub taken: BTreeSet<(Kind, ServiceId)>,
    /// Our objects, by what they are.
    pub objects: BTreeMap<ObjectId, Found>,
}

/// A Link whose spec can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenLink {
    /// The peer's name.
    pub name: ClusterName,
    /// The Link object's own uid: what its objects are owned by.
    pub uid: String,
    /// The peer's id.
    pub id: ClusterId,
    /// The peer's trust domain.
    pub trust_domain: TrustDomain,
    /// The peer's gateways.
    pub gateways: Vec<Gateway>,
    /// The id of the peer's control.
    pub control: SpiffeId,
    /// The peer's bundle.
    pub bundle: Bundle,
    /// Which namespaces may receive imports.
    pub grant: Namespaces,
    /// Which namespaces' services merge with this cluster's.
    pub sameness: Namespaces,
}

/// A choice of namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// Every one.
    All,
    /// These.
    Only(BTreeSet<Label>),
}

impl Namespaces {
    /// Whether the namespace was chosen.
    #[must_use]
    pub fn contains(&self, namespace: &Label) -> bool {
        match self {
            Self::All => true,
            Self::Only(chosen) => chosen.contains(namespace),
        }
    }
}

/// A ServiceExport of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnExport {
    /// When it was made, seconds since 1970.
    pub created_at: i64,
    /// The Service that it exports, or why it exports none.
    pub service: Result<OwnService, NotExported>,
}

/// The Service behind an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnService {
    /// Whether each endpoint is called by itself.
    pub headless: bool,
    /// Its ports.
    pub ports: Vec<ExportedPort>,
    /// The rest of what is merged.
    pub properties: ExportedProperties,
}

/// Why a ServiceExport exports nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotExported {
    /// There is no such Service.
    NoService,
    /// It is an ExternalName.
    InvalidServiceType,
}

impl NotExported {
    /// The reason in the `Valid` condition (KEP-1645).
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoService => "NoService",
            Self::InvalidServiceType => "InvalidServiceType",
        }
    }
}

/// The kinds of object that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A selectorless Service.
    Service,
    /// An EndpointSlice that names our own gateways.
    Slice,
    /// A ServiceImport.
    Import,
}

/// An object of ours: its kind, namespace and name. A slice's name need not be a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Label,
    /// Its name.
    pub name: String,
}

/// An object of ours as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its uid: what a deletion must still find.
    pub uid: String,
    /// The Link that it belongs to; none for an object of the cluster set.
    pub link: Option<ClusterName>,
    /// What it says; none when it can't be read, which makes it be written anew.
    pub object: Option<Object>,
    /// The cluster IPs of a Service.
    pub addresses: Vec<IpAddr>,
}

/// What an object of ours says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service.
    Service(MirrorService),
    /// An EndpointSlice.
    Slice(MirrorSlice),
    /// A ServiceImport.
    Import(Import),
}

/// A selectorless Service that stands for something of another cluster, or of the cluster set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorService {
    /// Its own name.
    pub id: ServiceId,
    /// What it stands for.
    pub stands_for: StandsFor,
    /// Its ports; each has a name when there are several.
    pub ports: Vec<ExportedPort>,
    /// The ids that serve it; of a per-cluster mirror only.
    pub identities: Vec<SpiffeId>,
    /// Its endpoints have no proxy; of a per-cluster mirror only.
    pub proxyless: bool,
    /// The address to have again, of one that was deleted behind our back; never compared, an address can't change.
    pub address: Wish<IpAddr>,
}

/// What a mirror Service stands for. The imported service lies in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandsFor {
    /// One cluster's service.
    Cluster {
        /// The link to it.
        link: Owner,
        /// The service's name there.
        service: Label,
    },
    /// The service of the cluster set.
    ClusterSet {
        /// The service's name.
        service: Label,
    },
    /// One endpoint of one cluster's headless service.
    Endpoint {
        /// The link to it.
        link: Owner,
        /// The service's name there.
        service: Label,
        /// The endpoint's hostname, or what stands for it.
        hostname: Label,
        /// The endpoint's opaque name.
        handle: Handle,
    },
}

impl StandsFor {
    /// The Link that it belongs to; none for the cluster set's.
    #[must_use]
    pub fn link(&self) -> Option<&Owner> {
        match self {
            Self::Cluster { link, .. } | Self::Endpoint { link, .. } => Some(link),
            Self::ClusterSet { .. } => None,
        }
    }
}

/// The Link that an object is owned by: deleted with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The link's name.
    pub name: ClusterName,
    /// The Link object's uid.
    pub uid: String,
}

/// A value that counts when something is made and not when it is compared.
#[derive(Clone, Debug, Default)]
pub struct Wish<T>(pub Option<T>);

impl<T> PartialEq for Wish<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Wish<T> {}

/// An EndpointSlice of a mirror Service: our own gateways, at the ports of their way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSlice {
    /// Its namespace.
    pub namespace: Label,
    /// Its name.
    pub name: String,
    /// The mirror Service that it belongs to.
    pub service: Label,
    /// The Link that it belongs to; none for the cluster set's.
    pub link: Option<Owner>,
    /// Whether its addresses are IPv6.
    pub v6: bool,
    /// Our gateways.
    pub addresses: BTreeSet<IpAddr>,
    /// For each port of the Service, by name, the gateways' port.
    pub ports: Vec<SlicePort>,
}

/// One port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the Service's port; none when it has one that is unnamed.
    pub name: Option<PortName>,
    /// Its transport.
    pub transport: Transport,
    /// What is spoken on it.
    pub app_protocol: Option<String>,
    /// Where the gateways listen for it.
    pub egress: u16,
}

/// A ServiceImport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its name.
    pub id: ServiceId,
    /// Whether it has one address or one per endpoint.
    pub kind: ImportKind,
    /// The union of the ports.
    pub ports: Vec<ExportedPort>,
    /// The cluster-set addresses.
    pub ips: Vec<IpAddr>,
    /// Who contributes.
    pub clusters: BTreeSet<ClusterId>,
    /// What the oldest export says.
    pub properties: ExportedProperties,
}

impl Object {
    /// What the object is.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Service(it) => ObjectId::service(&it.id),
            Self::Slice(it) => ObjectId { kind: Kind::Slice, namespace: it.namespace.clone(), name: it.name.clone() },
            Self::Import(it) => ObjectId { kind: Kind::Import, ..ObjectId::service(&it.id) },
        }
    }
}

impl ObjectId {
    /// The Service of this name.
    #[must_use]
    pub fn service(of: &ServiceId) -> Self {
        Self { kind: Kind::Service, namespace: of.namespace().clone(), name: of.name().to_string() }
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Service => "Service",
            Kind::Slice => "EndpointSlice",
            Kind::Import => "ServiceImport",
        };
        write!(f, "{kind} {}/{}", self.namespace, self.name)
    }
}
