//! Exports: other people's statements. Everything is parsed and bounded; whether it is *believed* is the mirror controller's plan.

use std::collections::BTreeMap;

use mesh_names::{Handle, Label, PortName, Protocol, ServiceId, ServicePort, SpiffeId};

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

/// What the Multi-Cluster Services API merges beside ports: the oldest export's wins. Empty text means not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportedProperties {
    /// `None` or `ClientIP`.
    pub session_affinity: String,
    /// Seconds; 0 when not set.
    pub session_affinity_timeout: u32,
    /// `Cluster` or `Local`.
    pub internal_traffic_policy: String,
    /// As on Services.
    pub traffic_distribution: String,
    /// `spec.exportedLabels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.exportedAnnotations`.
    pub annotations: BTreeMap<String, String>,
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
            session_affinity: of.properties.session_affinity.clone(),
            session_affinity_timeout: of.properties.session_affinity_timeout,
            internal_traffic_policy: of.properties.internal_traffic_policy.clone(),
            traffic_distribution: of.properties.traffic_distribution.clone(),
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
            properties: ExportedProperties {
                session_affinity: word("exported.session_affinity", &of.session_affinity)?,
                session_affinity_timeout: of.session_affinity_timeout,
                internal_traffic_policy: word("exported.internal_traffic_policy", &of.internal_traffic_policy)?,
                traffic_distribution: word("exported.traffic_distribution", &of.traffic_distribution)?,
                labels: metadata("exported.labels", LABELS_MAX, &of.labels)?,
                annotations: metadata("exported.annotations", ANNOTATIONS_MAX, &of.annotations)?,
            },
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
        app_protocol: if app_protocol.is_empty() { None } else { Some(app_protocol) },
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

fn metadata(
    field: &'static str,
    bytes_max: usize,
    of: &std::collections::HashMap<String, String>,
) -> Result<BTreeMap<String, String>, Invalid> {
    bounded(field, of.len(), PAIRS_MAX)?;
    bounded(field, of.iter().map(|(key, value)| key.len() + value.len()).sum(), bytes_max)?;
    Ok(of.clone().into_iter().collect())
}

/// Kubernetes' own limit for an application protocol (a qualified name).
const WORD_MAX: usize = 317;
const PAIRS_MAX: usize = 64;
const LABELS_MAX: usize = 16 * 1024;
const ANNOTATIONS_MAX: usize = 64 * 1024;

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
            properties: ExportedProperties { session_affinity: "ClientIP".into(), ..ExportedProperties::default() },
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
