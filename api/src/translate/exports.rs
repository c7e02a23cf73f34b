//! Exports: other people's statements. Everything is parsed and bounded; whether it is *believed* is the mirror controller's plan.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use mesh_names::{Handle, Label, PortName, Protocol, ServiceId, ServicePort, SpiffeId};

use super::metadata::{ANNOTATIONS_MAX, LABELS_MAX, PAIRS_MAX, is_qualified, travelling_annotations, travelling_labels};
use super::{
    ENDPOINTS_MAX, IDENTITIES_MAX, Invalid, PORTS_MAX, bounded, each, name, name_if_any, number, service_id, service_ref, text_if_any,
    texts,
};
use crate::proto;

/// A service as its cluster exports it to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Its name.
    pub id: ServiceId,
    /// Whether each endpoint is called by itself.
    pub headless: bool,
    /// Its ports.
    pub ports: Vec<ExportedPort>,
    /// The ids that serve it.
    pub identities: Vec<SpiffeId>,
    /// Its endpoints.
    pub endpoints: Vec<ExportedEndpoint>,
    /// When its ServiceExport was made, seconds since 1970: the oldest wins.
    pub created_at: i64,
    /// Whether its endpoints have no proxy, so that the peer's gateway ends the session under its own identity.
    pub proxyless: bool,
    /// Whether endpoints without a proxy are served.
    pub allow_unmeshed: bool,
    /// The rest of what the Multi-Cluster Services API merges.
    pub properties: ExportedProperties,
}

/// What the Multi-Cluster Services API merges beside ports: the oldest export's wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportedProperties {
    /// Whether a client stays with an endpoint.
    pub session_affinity: SessionAffinity,
    /// Which endpoints a node's clients may use.
    pub internal_traffic_policy: TrafficPolicy,
    /// As on Services, when it is set.
    pub traffic_distribution: Option<String>,
    /// The families of its addresses, the first one first; none when the exporter did not say.
    pub ip_families: Vec<IpFamily>,
    /// `spec.exportedLabels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.exportedAnnotations`.
    pub annotations: BTreeMap<String, String>,
}

/// Whether a client stays with an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionAffinity {
    /// It does not.
    #[default]
    None,
    /// It does, as known by its address.
    ClientIp {
        /// For how long; 0 when that was not said.
        seconds: u32,
    },
}

impl SessionAffinity {
    /// As Kubernetes writes it; what is not known is none.
    #[must_use]
    pub fn read(text: &str, seconds: u32) -> Self {
        if text == "ClientIP" { Self::ClientIp { seconds: seconds.min(AFFINITY_SECONDS_MAX) } } else { Self::None }
    }

    /// As Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::ClientIp { .. } => "ClientIP",
        }
    }

    /// For how long; none when that was not said.
    #[must_use]
    pub fn seconds(self) -> Option<u32> {
        match self {
            Self::None | Self::ClientIp { seconds: 0 } => None,
            Self::ClientIp { seconds } => Some(seconds),
        }
    }
}

/// Which endpoints a node's clients may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All.
    #[default]
    Cluster,
    /// Those of the same node.
    Local,
}

impl TrafficPolicy {
    /// As Kubernetes writes it; what is not known is the default.
    #[must_use]
    pub fn read(text: &str) -> Self {
        if text == "Local" { Self::Local } else { Self::Cluster }
    }

    /// As Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        }
    }
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv6() { Self::V6 } else { Self::V4 }
    }

    /// As Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// As Kubernetes writes a list of them: what is not known, or comes twice, is passed over.
    #[must_use]
    pub fn read(of: &[String]) -> Vec<Self> {
        let mut families = Vec::new();
        for text in of {
            let known = [Self::V4, Self::V6].into_iter().find(|family| family.as_str() == text);
            families.extend(known.filter(|family| !families.contains(family)));
        }
        families
    }
}

/// A port of an exported service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExportedPort {
    /// Its name, when it has one.
    pub name: Option<PortName>,
    /// Its number.
    pub number: ServicePort,
    /// TCP, UDP or SCTP.
    pub transport: Transport,
    /// What is spoken on it, as the Service says.
    pub app_protocol: Option<String>,
}

impl ExportedPort {
    /// What is spoken on it, as far as was told.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        Protocol::declared(Some(self.transport.as_str()), self.app_protocol.as_deref(), self.name.as_ref().map(PortName::as_str))
    }
}

/// A transport of Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// As Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// As Kubernetes writes it; empty is TCP.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// An endpoint of an exported service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExportedEndpoint {
    /// Its opaque name.
    pub handle: Handle,
    /// Its DNS label, for pods called by name.
    pub hostname: Option<Label>,
    /// Whether it wants requests.
    pub ready: bool,
    /// Its share of requests within its cluster's service; 0 means none.
    pub weight: u32,
}

impl From<&Exported> for proto::ExportedService {
    fn from(of: &Exported) -> Self {
        let port = |port: &ExportedPort| proto::ExportedPort {
            name: text_if_any(port.name.as_ref()),
            number: port.number.get().into(),
            transport: port.transport.as_str().to_owned(),
            app_protocol: port.app_protocol.clone().unwrap_or_default(),
        };
        let endpoint = |endpoint: &ExportedEndpoint| proto::ExportedEndpoint {
            handle: endpoint.handle.to_string(),
            hostname: text_if_any(endpoint.hostname.as_ref()),
            ready: endpoint.ready,
            weight: endpoint.weight,
        };
        Self {
            id: Some(service_ref(&of.id)),
            headless: of.headless,
            ports: of.ports.iter().map(port).collect(),
            identities: texts(&of.identities),
            endpoints: of.endpoints.iter().map(endpoint).collect(),
            created_at: of.created_at,
            proxyless: of.proxyless,
            allow_unmeshed: of.allow_unmeshed,
            session_affinity: of.properties.session_affinity.as_str().to_owned(),
            session_affinity_timeout: of.properties.session_affinity.seconds().unwrap_or_default(),
            internal_traffic_policy: of.properties.internal_traffic_policy.as_str().to_owned(),
            traffic_distribution: of.properties.traffic_distribution.clone().unwrap_or_default(),
            ip_families: of.properties.ip_families.iter().map(|family| family.as_str().to_owned()).collect(),
            labels: of.properties.labels.clone().into_iter().collect(),
            annotations: of.properties.annotations.clone().into_iter().collect(),
        }
    }
}

impl TryFrom<&proto::ExportedService> for Exported {
    type Error = Invalid;

    fn try_from(of: &proto::ExportedService) -> Result<Self, Invalid> {
        Ok(Self {
            id: service_id("exported.id", of.id.as_ref())?,
            headless: of.headless,
            ports: each("exported.ports", PORTS_MAX, &of.ports, port)?,
            identities: each("exported.identities", IDENTITIES_MAX, &of.identities, |id| name("exported.identities", id))?,
            endpoints: each("exported.endpoints", ENDPOINTS_MAX, &of.endpoints, endpoint)?,
            created_at: of.created_at,
            proxyless: of.proxyless,
            allow_unmeshed: of.allow_unmeshed,
            properties: of.try_into()?,
        })
    }
}

impl TryFrom<&proto::ExportedService> for ExportedProperties {
    type Error = Invalid;

    fn try_from(of: &proto::ExportedService) -> Result<Self, Invalid> {
        let distribution = word("exported.traffic_distribution", &of.traffic_distribution)?;
        bounded("exported.ip_families", of.ip_families.len(), FAMILIES_MAX)?;
        bounded_pairs("exported.labels", LABELS_MAX, &of.labels)?;
        bounded_pairs("exported.annotations", ANNOTATIONS_MAX, &of.annotations)?;
        Ok(Self {
            session_affinity: SessionAffinity::read(&word("exported.session_affinity", &of.session_affinity)?, of.session_affinity_timeout),
            internal_traffic_policy: TrafficPolicy::read(&word("exported.internal_traffic_policy", &of.internal_traffic_policy)?),
            traffic_distribution: if distribution.is_empty() { None } else { Some(distribution) },
            ip_families: IpFamily::read(&of.ip_families),
            labels: travelling_labels(of.labels.iter(), LABELS_MAX),
            annotations: travelling_annotations(of.annotations.iter(), ANNOTATIONS_MAX),
        })
    }
}

fn port(of: &proto::ExportedPort) -> Result<ExportedPort, Invalid> {
    let transport = Transport::read(&of.transport).ok_or(Invalid::Missing { field: "exported.ports.transport" })?;
    let app_protocol = word("exported.ports.app_protocol", &of.app_protocol)?;
    Ok(ExportedPort {
        name: name_if_any("exported.ports.name", &of.name)?,
        number: number("exported.ports.number", of.number)?,
        transport,
        app_protocol: Some(app_protocol).filter(|protocol| is_qualified(protocol)),
    })
}

fn endpoint(of: &proto::ExportedEndpoint) -> Result<ExportedEndpoint, Invalid> {
    Ok(ExportedEndpoint {
        handle: name("exported.endpoints.handle", &of.handle)?,
        hostname: name_if_any("exported.endpoints.hostname", &of.hostname)?,
        ready: of.ready,
        weight: of.weight,
    })
}

fn word(field: &'static str, text: &str) -> Result<String, Invalid> {
    bounded(field, text.len(), WORD_MAX)?;
    Ok(text.to_owned())
}

fn bounded_pairs(field: &'static str, bytes_max: usize, of: &HashMap<String, String>) -> Result<(), Invalid> {
    bounded(field, of.len(), PAIRS_MAX)?;
    bounded(field, of.iter().map(|(key, value)| key.len() + value.len()).sum(), bytes_max)
}

/// Kubernetes' own limit for an application protocol (a qualified name).
const WORD_MAX: usize = 317;
/// There are two.
const FAMILIES_MAX: usize = 2;
/// Kubernetes' own limit: a day.
const AFFINITY_SECONDS_MAX: u32 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_comes_back_as_it_was_said() {
        let port = ExportedPort {
            name: Some("http".parse().unwrap()),
            number: "80".parse().unwrap(),
            transport: Transport::Tcp,
            app_protocol: Some("kubernetes.io/h2c".into()),
        };
        assert_eq!(port.protocol(), Protocol::Http2);
        let exported = Exported {
            id: "shop/stock".parse().unwrap(),
            headless: true,
            ports: vec![port],
            identities: vec!["spiffe://east.mesh/ns/shop/sa/stock".parse().unwrap()],
            endpoints: vec![ExportedEndpoint {
                handle: "0123456789".parse().unwrap(),
                hostname: Some("stock-0".parse().unwrap()),
                ready: true,
                weight: 3,
            }],
            created_at: 17,
            proxyless: false,
            allow_unmeshed: true,
            properties: ExportedProperties { session_affinity: SessionAffinity::ClientIp { seconds: 7 }, ..ExportedProperties::default() },
        };
        let said = proto::ExportedService::from(&exported);
        assert_eq!(Exported::try_from(&said).unwrap(), exported);
    }

    #[test]
    fn labels_past_their_limit_are_refused() {
        let labels = (0..65).map(|n| (format!("l{n}"), String::new())).collect();
        let said = proto::ExportedService {
            id: Some(proto::ServiceRef { namespace: "shop".into(), name: "web".into() }),
            labels,
            ..proto::ExportedService::default()
        };
        assert!(matches!(Exported::try_from(&said), Err(Invalid::TooMuch { field: "exported.labels", .. })));
    }
}
