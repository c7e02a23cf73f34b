//! What lies beyond the own cluster: imports, remote services, links, peers, exports and the gateways' way out.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_names::TunnelPort;
use mesh_topology::{Egress, Export, Gateway, Grant, Import, ImportKind, Link, LinkHealth, Peer, PeersAllowed, Remote, RemoteEndpoint};

use super::service::{ports, protocol, protocol_said};
use super::{
    ENDPOINTS_MAX, IDENTITIES_MAX, Invalid, PORTS_MAX, address, addresses, each, name, name_if_any, number, service_id, service_ref,
    text_if_any, texts,
};
use crate::proto;

impl From<&Import> for proto::Import {
    fn from(of: &Import) -> Self {
        let kind = match of.kind {
            ImportKind::ClusterSetIp => proto::ImportKind::ClusterSetIp,
            ImportKind::Headless => proto::ImportKind::Headless,
        };
        Self {
            id: Some(service_ref(&of.id)),
            addresses: texts(&of.addresses),
            kind: kind.into(),
            ports: of.ports.iter().map(Into::into).collect(),
            own: of.own,
            clusters: texts(&of.clusters),
        }
    }
}

impl TryFrom<&proto::Import> for Import {
    type Error = Invalid;

    fn try_from(of: &proto::Import) -> Result<Self, Invalid> {
        Ok(Self {
            id: service_id("import.id", of.id.as_ref())?,
            addresses: addresses("import.addresses", &of.addresses)?,
            kind: match of.kind() {
                proto::ImportKind::ClusterSetIp => ImportKind::ClusterSetIp,
                proto::ImportKind::Headless => ImportKind::Headless,
            },
            ports: ports("import.ports", &of.ports)?,
            own: of.own,
            clusters: each("import.clusters", CLUSTERS_MAX, &of.clusters, |cluster| name("import.clusters", cluster))?,
        })
    }
}

impl From<&Remote> for proto::Remote {
    fn from(of: &Remote) -> Self {
        Self {
            link: of.link.to_string(),
            service: Some(service_ref(&of.service)),
            ports: of.ports.iter().map(Into::into).collect(),
            identities: texts(&of.identities),
            addresses: texts(&of.addresses),
            endpoints: of.endpoints.iter().map(|endpoint| endpoint.as_ref().into()).collect(),
            handles_valid: of.handles_valid,
            proxyless: of.proxyless,
        }
    }
}

impl TryFrom<&proto::Remote> for Remote {
    type Error = Invalid;

    fn try_from(of: &proto::Remote) -> Result<Self, Invalid> {
        Ok(Self {
            link: name("remote.link", &of.link)?,
            service: service_id("remote.service", of.service.as_ref())?,
            ports: ports("remote.ports", &of.ports)?,
            identities: each("remote.identities", IDENTITIES_MAX, &of.identities, |id| name("remote.identities", id))?,
            addresses: addresses("remote.addresses", &of.addresses)?,
            endpoints: each("remote.endpoints", ENDPOINTS_MAX, &of.endpoints, |endpoint| endpoint.try_into().map(Arc::new))?,
            handles_valid: of.handles_valid,
            proxyless: of.proxyless,
        })
    }
}

impl From<&RemoteEndpoint> for proto::RemoteEndpoint {
    fn from(of: &RemoteEndpoint) -> Self {
        Self {
            handle: of.handle.to_string(),
            hostname: text_if_any(of.hostname.as_ref()),
            ready: of.ready,
            weight: of.weight,
            stand_in: text_if_any(of.stand_in.as_ref()),
        }
    }
}

impl TryFrom<&proto::RemoteEndpoint> for RemoteEndpoint {
    type Error = Invalid;

    fn try_from(of: &proto::RemoteEndpoint) -> Result<Self, Invalid> {
        Ok(Self {
            handle: name("remote.endpoints.handle", &of.handle)?,
            hostname: name_if_any("remote.endpoints.hostname", &of.hostname)?,
            ready: of.ready,
            weight: of.weight,
            stand_in: if of.stand_in.is_empty() { None } else { Some(address("remote.endpoints.stand_in", &of.stand_in)?) },
        })
    }
}

impl From<&Link> for proto::Link {
    fn from(of: &Link) -> Self {
        Self {
            name: of.name.to_string(),
            cluster_id: of.id.to_string(),
            trust_domain: of.trust_domain.to_string(),
            gateways: of.gateways.iter().map(Into::into).collect(),
            health: proto::LinkHealth::from(of.health).into(),
            priority: of.priority,
        }
    }
}

impl TryFrom<&proto::Link> for Link {
    type Error = Invalid;

    fn try_from(of: &proto::Link) -> Result<Self, Invalid> {
        Ok(Self {
            name: name("link.name", &of.name)?,
            id: name("link.cluster_id", &of.cluster_id)?,
            trust_domain: name("link.trust_domain", &of.trust_domain)?,
            gateways: each("link.gateways", GATEWAYS_MAX, &of.gateways, |gateway| gateway.try_into())?,
            health: of.health().into(),
            priority: of.priority,
        })
    }
}

impl From<LinkHealth> for proto::LinkHealth {
    fn from(of: LinkHealth) -> Self {
        match of {
            LinkHealth::Healthy => Self::Healthy,
            LinkHealth::Degraded => Self::Degraded,
            LinkHealth::Unreachable => Self::Unreachable,
            LinkHealth::Drained => Self::Drained,
            LinkHealth::Unknown => Self::Unknown,
        }
    }
}

impl From<proto::LinkHealth> for LinkHealth {
    fn from(of: proto::LinkHealth) -> Self {
        match of {
            proto::LinkHealth::Healthy => Self::Healthy,
            proto::LinkHealth::Degraded => Self::Degraded,
            proto::LinkHealth::Unreachable => Self::Unreachable,
            proto::LinkHealth::Drained => Self::Drained,
            proto::LinkHealth::Unknown => Self::Unknown,
        }
    }
}

impl From<&Gateway> for proto::Gateway {
    fn from(of: &Gateway) -> Self {
        Self { address: of.address.ip().to_string(), port: of.address.port().into(), identity: of.identity.to_string() }
    }
}

impl TryFrom<&proto::Gateway> for Gateway {
    type Error = Invalid;

    fn try_from(of: &proto::Gateway) -> Result<Self, Invalid> {
        let port: TunnelPort = number("link.gateways.port", of.port)?;
        Ok(Self {
            address: SocketAddr::new(address("link.gateways.address", &of.address)?, port.get()),
            identity: name("link.gateways.identity", &of.identity)?,
        })
    }
}

impl From<&Peer> for proto::Peer {
    fn from(of: &Peer) -> Self {
        let services = match &of.grant {
            Grant::All => Vec::new(),
            Grant::Services(services) => services.iter().map(service_ref).collect(),
        };
        Self {
            name: of.name.to_string(),
            cluster_id: of.id.to_string(),
            trust_domain: of.trust_domain.to_string(),
            all: of.grant == Grant::All,
            services,
            caller: of.control_caller.to_string(),
        }
    }
}

impl TryFrom<&proto::Peer> for Peer {
    type Error = Invalid;

    fn try_from(of: &proto::Peer) -> Result<Self, Invalid> {
        let services = each("peer.services", SERVICES_MAX, &of.services, |service| service_id("peer.services", Some(service)))?;
        Ok(Self {
            name: name("peer.name", &of.name)?,
            id: name("peer.cluster_id", &of.cluster_id)?,
            trust_domain: name("peer.trust_domain", &of.trust_domain)?,
            grant: if of.all { Grant::All } else { Grant::Services(services.into_iter().collect()) },
            control_caller: name("peer.caller", &of.caller)?,
        })
    }
}

impl From<&Export> for proto::Export {
    fn from(of: &Export) -> Self {
        let trust_domains = match &of.peers {
            PeersAllowed::All => Vec::new(),
            PeersAllowed::Only(domains) => texts(domains),
        };
        Self {
            service: Some(service_ref(&of.service)),
            ports: of.ports.iter().map(|port| port.get().into()).collect(),
            all_peers: of.peers == PeersAllowed::All,
            trust_domains,
            allow_unmeshed: of.allow_unmeshed,
        }
    }
}

impl TryFrom<&proto::Export> for Export {
    type Error = Invalid;

    fn try_from(of: &proto::Export) -> Result<Self, Invalid> {
        let domains = each("export.trust_domains", CLUSTERS_MAX, &of.trust_domains, |domain| name("export.trust_domains", domain))?;
        Ok(Self {
            service: service_id("export.service", of.service.as_ref())?,
            ports: each("export.ports", PORTS_MAX, &of.ports, |port| number("export.ports", *port))?,
            peers: if of.all_peers { PeersAllowed::All } else { PeersAllowed::Only(domains.into_iter().collect()) },
            allow_unmeshed: of.allow_unmeshed,
        })
    }
}

impl From<&Egress> for proto::Egress {
    fn from(of: &Egress) -> Self {
        Self {
            port: of.port.get().into(),
            service: Some(service_ref(&of.service)),
            cluster: text_if_any(of.cluster.as_ref()),
            service_port: of.service_port.get().into(),
            protocol: protocol_said(of.protocol),
        }
    }
}

impl TryFrom<&proto::Egress> for Egress {
    type Error = Invalid;

    fn try_from(of: &proto::Egress) -> Result<Self, Invalid> {
        Ok(Self {
            port: number("egress.port", of.port)?,
            service: service_id("egress.service", of.service.as_ref())?,
            cluster: name_if_any("egress.cluster", &of.cluster)?,
            service_port: number("egress.service_port", of.service_port)?,
            protocol: protocol(of.protocol),
        })
    }
}

const CLUSTERS_MAX: usize = 1024;
const GATEWAYS_MAX: usize = 64;
const SERVICES_MAX: usize = 100_000;
