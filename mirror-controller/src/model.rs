//! The plain values that the controller decides on: what was seen of this cluster, and the objects that it keeps there.
//!
//! Equality is by value: an object that is seen as it is wanted is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesh_api::translate::{ExportedPort, ExportedProperties, IpFamily, Transport};
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
    /// The families that Services of this cluster have addresses of.
    pub families: BTreeSet<IpFamily>,
    /// This cluster's ServiceExports.
    pub exports: BTreeMap<ServiceId, OwnExport>,
    /// Names of Services and ServiceImports that are not ours.
    pub taken: BTreeSet<(Kind, ServiceId)>,
    /// What serves this cluster's headless Services.
    pub pods: BTreeMap<ServiceId, OwnPods>,
    /// Our objects, by what they are.
    pub objects: BTreeMap<ObjectId, Found>,
    /// The cluster's properties; none before they were listed.
    pub properties: Option<Properties>,
    /// Whether a Link or a Peer ties it to another cluster; none while that is not known.
    pub member: Option<bool>,
}

/// What serves a headless Service of this cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnPods {
    /// The ready ones: addresses and hostnames.
    pub endpoints: BTreeSet<(IpAddr, Option<Label>)>,
    /// Their ports, by the name that the Service has for them.
    pub ports: Vec<SlicePort>,
}

/// ClusterProperties by name.
pub type Properties = BTreeMap<String, FoundProperty>;

/// A ClusterProperty as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundProperty {
    /// What it says.
    pub value: String,
    /// Its uid: what a deletion must still find.
    pub uid: String,
    /// Whether the mesh wrote it.
    pub ours: bool,
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
    /// An EndpointSlice of a headless service of the cluster set.
    Headless(HeadlessSlice),
    /// A ServiceImport.
    Import(Import),
}

/// An EndpointSlice that shows the endpoints which one cluster contributes to a headless service of the cluster set. It belongs to no
/// Service: who reads it looks for the standard's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadlessSlice {
    /// Its namespace.
    pub namespace: Label,
    /// Its name.
    pub name: String,
    /// The imported service.
    pub service: Label,
    /// The ServiceImport's uid: what the slice is owned by.
    pub uid: String,
    /// The cluster, as a label's value.
    pub source: String,
    /// Whether its addresses are IPv6.
    pub v6: bool,
    /// Addresses and hostnames: of pods in their own cluster, of stand-ins elsewhere.
    pub endpoints: BTreeSet<(IpAddr, Option<Label>)>,
    /// The ports at those addresses.
    pub ports: Vec<SlicePort>,
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
    /// The families to have addresses of, the first one first; never compared, they stay as they were made.
    pub families: Wish<Vec<IpFamily>>,
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
    /// What it is there for.
    pub of: SliceOf,
    /// Whether its addresses are IPv6.
    pub v6: bool,
    /// Our gateways.
    pub addresses: BTreeSet<IpAddr>,
    /// For each port of the Service, by name, the gateways' port.
    pub ports: Vec<SlicePort>,
}

/// What a slice is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceOf {
    /// The mirror of one link's service.
    Link(Owner),
    /// What one cluster contributes to a service of the cluster set: the ports that it exposes, and no others.
    Import {
        /// The imported service.
        service: Label,
        /// The ServiceImport's uid: what the slice is owned by.
        uid: String,
        /// The cluster, as a label's value.
        source: String,
    },
}

impl SliceOf {
    /// The Link that it belongs to.
    #[must_use]
    pub fn link(&self) -> Option<&Owner> {
        match self {
            Self::Link(owner) => Some(owner),
            Self::Import { .. } => None,
        }
    }

    /// The uid of the ServiceImport that it belongs to.
    #[must_use]
    pub fn import_uid(&self) -> Option<&str> {
        match self {
            Self::Link(_) => None,
            Self::Import { uid, .. } => Some(uid),
        }
    }
}

/// A cluster's id as a label's value, which is shorter than an id may be.
#[must_use]
pub fn source_of(cluster: &ClusterId) -> String {
    let cut: String = cluster.as_str().chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
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
    /// Where the slice's addresses listen for it.
    pub number: u16,
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
    /// What the oldest export says; the families are those of the addresses.
    pub properties: ExportedProperties,
    /// Whether it can be used.
    pub ready: bool,
    /// Why it can't be; never compared.
    pub pending: Wish<&'static str>,
}

impl Object {
    /// What the object is.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Service(it) => ObjectId::service(&it.id),
            Self::Slice(it) => ObjectId { kind: Kind::Slice, namespace: it.namespace.clone(), name: it.name.clone() },
            Self::Headless(it) => ObjectId { kind: Kind::Slice, namespace: it.namespace.clone(), name: it.name.clone() },
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
