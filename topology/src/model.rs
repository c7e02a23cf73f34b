//! The plain values that a snapshot is made of. Each is immutable and shared; equality is by value, so that a writer can tell
//! whether anything changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use mesh_names::{
    AppPort, ClusterId, ClusterName, EndpointName, Handle, Label, PortName, Protocol, ServiceId, ServicePort, SpiffeId, TrustDomain,
    TunnelPort, Zone,
};

/// The cluster that this process runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its name.
    pub cluster: ClusterName,
    /// Its id, once discovery has said it.
    pub id: Option<ClusterId>,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// The ranges of its pods, Services and cluster-set addresses: inside them nothing passes in plain text unless it is known to be
    /// without a proxy.
    pub ranges: Vec<IpNet>,
}

/// A port that a service is called on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Its name, when it has one.
    pub name: Option<PortName>,
    /// Its number, as callers name it.
    pub number: ServicePort,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// A service of the own cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub id: ServiceId,
    /// Its cluster IPs; none when it is headless.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// The service accounts behind it: the only identities that a caller accepts.
    pub identities: Vec<SpiffeId>,
    /// What serves it.
    pub endpoints: Vec<std::sync::Arc<Endpoint>>,
}

/// One pod (or other address) that serves a service of the own cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name inside the cluster.
    pub name: EndpointName,
    /// Its name outside the cluster.
    pub handle: Handle,
    /// Its address.
    pub address: IpAddr,
    /// Its own port for each port of the service.
    pub ports: BTreeMap<ServicePort, AppPort>,
    /// Its DNS label, for pods called by name.
    pub hostname: Option<Label>,
    /// Who it proves to be.
    pub identity: SpiffeId,
    /// Whether a proxy stands before it.
    pub mesh: Mesh,
    /// Whether it wants requests.
    pub ready: bool,
    /// Its zone, when known.
    pub zone: Option<Zone>,
    /// Its share of requests within its service; 0 means none.
    pub weight: u32,
}

/// Whether a proxy stands before an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mesh {
    /// Its inbound proxy accepts sessions on this port.
    Proxy(TunnelPort),
    /// It has none, which the control plane knows for sure.
    Plain,
}

/// A service of the cluster set: `<svc>.<ns>.svc.clusterset.local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its name, the same in every cluster.
    pub id: ServiceId,
    /// Its cluster-set IPs.
    pub addresses: Vec<IpAddr>,
    /// Whether it has one address or one per endpoint.
    pub kind: ImportKind,
    /// The merged ports of all clusters that export it. What lost its name to an older export is not among them, and can be called too.
    pub ports: Vec<Port>,
    /// Whether the own cluster exports it too.
    pub own: bool,
    /// The links whose clusters export it.
    pub clusters: Vec<ClusterName>,
}

/// The two kinds of a ServiceImport (KEP-1645).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImportKind {
    /// One address for all endpoints.
    ClusterSetIp,
    /// One address for each endpoint.
    Headless,
}

/// A service as one linked cluster exports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The link that it comes over.
    pub link: ClusterName,
    /// Its name there.
    pub service: ServiceId,
    /// Its ports.
    pub ports: Vec<Port>,
    /// The identities that serve it: the only ones that a caller accepts at the end of the tunnel.
    pub identities: Vec<SpiffeId>,
    /// The addresses that stand for it in this cluster (its mirror Service's).
    pub addresses: Vec<IpAddr>,
    /// Its endpoints by handle, as last told.
    pub endpoints: Vec<std::sync::Arc<RemoteEndpoint>>,
    /// Whether the handles' lease runs; without it the gateway chooses.
    pub handles_valid: bool,
    /// Whether its endpoints have no proxy, so that the peer's gateway ends the session under its own identity.
    pub proxyless: bool,
}

/// One endpoint of a linked cluster's service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteEndpoint {
    /// Its opaque name.
    pub handle: Handle,
    /// Its DNS label, for pods called by name.
    pub hostname: Option<Label>,
    /// Whether it wants requests.
    pub ready: bool,
    /// Its share of requests within its cluster's service; 0 means none.
    pub weight: u32,
    /// The address that stands for it in this cluster.
    pub stand_in: Option<IpAddr>,
}

/// One direction of a connection between clusters: this cluster imports from that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The other cluster's name, which is the link's too.
    pub name: ClusterName,
    /// The other cluster's id.
    pub id: ClusterId,
    /// The other cluster's trust domain.
    pub trust_domain: TrustDomain,
    /// Its gateways.
    pub gateways: Vec<Gateway>,
    /// What the probes of the mirror controller say.
    pub health: LinkHealth,
    /// Which links are used before others: the lowest first; equal ones share.
    pub priority: u32,
}

/// A gateway of a linked cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// Where its tunnel listener is.
    pub address: SocketAddr,
    /// Who it proves to be.
    pub identity: SpiffeId,
}

/// Whether a link carries requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkHealth {
    /// Its gateways answer.
    Healthy,
    /// Some of its gateways answer.
    Degraded,
    /// None of its gateways answers from here.
    Unreachable,
    /// A person took it out.
    Drained,
    /// Nobody has looked yet: routing stays as it was.
    #[default]
    Unknown,
}

/// The other side of a link, as the exporter sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The other cluster's name.
    pub name: ClusterName,
    /// The other cluster's id.
    pub id: ClusterId,
    /// The other cluster's trust domain.
    pub trust_domain: TrustDomain,
    /// Which exports it may have.
    pub grant: Grant,
    /// The one identity there that may call control services.
    pub control_caller: SpiffeId,
}

/// Which exports a peer may have. Namespaces and labels are already resolved to services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Every export.
    All,
    /// These services' exports.
    Services(BTreeSet<ServiceId>),
}

/// A service that peers may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The service.
    pub service: ServiceId,
    /// The ports that are exported.
    pub ports: Vec<ServicePort>,
    /// To whom.
    pub peers: PeersAllowed,
    /// Whether endpoints without a proxy are served too, by the gateway.
    pub allow_unmeshed: bool,
}

/// The peers that an export is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeersAllowed {
    /// Every peer, as far as its grant goes.
    All,
    /// Peers of these trust domains.
    Only(BTreeSet<TrustDomain>),
}

/// One listener of the gateways' way out, for clients without a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The port that every gateway listens on.
    pub port: TunnelPort,
    /// The service that is reached there.
    pub service: ServiceId,
    /// The one cluster that is asked; none means the cluster set.
    pub cluster: Option<ClusterName>,
    /// The service's port.
    pub service_port: ServicePort,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// What an address stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AddressOwner {
    /// A cluster IP of a service of the own cluster.
    Service(ServiceId),
    /// A cluster-set IP.
    Import(ServiceId),
    /// The address that stands for a linked cluster's service.
    Remote(ClusterName, ServiceId),
    /// An endpoint of a service of the own cluster.
    Endpoint(ServiceId, EndpointName),
    /// The address that stands for one endpoint of a linked cluster's service.
    RemoteEndpoint(ClusterName, ServiceId, Handle),
}

impl Service {
    /// The port for streams with this number.
    #[must_use]
    pub fn port(&self, number: ServicePort) -> Option<&Port> {
        stream_port(&self.ports, number)
    }

    /// Whether it has no address of its own, only its endpoints'.
    #[must_use]
    pub fn headless(&self) -> bool {
        self.addresses.is_empty()
    }
}

impl Remote {
    /// The port for streams with this number.
    #[must_use]
    pub fn port(&self, number: ServicePort) -> Option<&Port> {
        stream_port(&self.ports, number)
    }
}

impl Import {
    /// The port for streams with this number.
    #[must_use]
    pub fn port(&self, number: ServicePort) -> Option<&Port> {
        stream_port(&self.ports, number)
    }
}

impl Peer {
    /// Whether this peer may have `export`.
    #[must_use]
    pub fn may_have(&self, export: &Export) -> bool {
        let granted = match &self.grant {
            Grant::All => true,
            Grant::Services(services) => services.contains(&export.service),
        };
        let allowed = match &export.peers {
            PeersAllowed::All => true,
            PeersAllowed::Only(domains) => domains.contains(&self.trust_domain),
        };
        granted && allowed
    }
}

/// A number may stand for two ports, one for streams and one for datagrams: who exposes the one need not expose the other.
fn stream_port(ports: &[Port], number: ServicePort) -> Option<&Port> {
    ports.iter().find(|port| port.number == number && port.protocol != Protocol::Udp)
}
