//! The names that applications call: what of them the mesh answers for, and how they are read.
//!
//! `<svc>.<ns>.svc.clusterset.local` is served by every linked cluster (KEP-1645), `<svc>.<ns>.svc.<cluster>.mesh` by one cluster, and
//! `<svc>.<ns>.svc.cluster.local` by the caller's own. In front of the first two may stand an endpoint: `<hostname>.<clusterid>.` in the
//! cluster set, `<hostname>.` in one cluster. Case does not matter and one trailing dot is allowed (RFC 4343, RFC 1034).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{ClusterId, ClusterName, Label, ServiceId};

/// A host as a client names it, in lower case and without its trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Arc<str>);

/// Why text is no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host name: it must be 1 to 253 characters of a-z, 0-9, '-', '_' and '.', or an IP address")]
pub struct HostError(String);

impl Host {
    /// The host as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What of the mesh this host names; `None` for every other host.
    #[must_use]
    pub fn mesh_name(&self) -> Option<MeshName> {
        MeshName::of_labels(&self.0)
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let error = || HostError(text.chars().take(80).collect());
        let bare = text.strip_suffix('.').unwrap_or(text);
        let address = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(bare);
        if address.parse::<std::net::IpAddr>().is_ok() {
            return Ok(Self(address.to_ascii_lowercase().into()));
        }
        let label_ok = |label: &str| {
            (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if bare.is_empty() || bare.len() > 253 || !bare.split('.').all(label_ok) {
            return Err(error());
        }
        Ok(Self(bare.to_ascii_lowercase().into()))
    }
}

crate::text_identifier!(Host);

/// A name that the mesh answers for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MeshName {
    /// `<svc>.<ns>.svc.clusterset.local`: every cluster that serves it.
    ClusterSet(ServiceId),
    /// `<hostname>.<clusterid>.<svc>.<ns>.svc.clusterset.local`: one endpoint of a headless service.
    ClusterSetEndpoint {
        /// The endpoint's hostname.
        hostname: Label,
        /// The cluster it runs in.
        cluster: ClusterId,
        /// The headless service.
        service: ServiceId,
    },
    /// `<svc>.<ns>.svc.<cluster>.mesh`: that cluster's service only.
    InCluster {
        /// The service.
        service: ServiceId,
        /// The one cluster that is asked.
        cluster: ClusterName,
    },
    /// `<hostname>.<svc>.<ns>.svc.<cluster>.mesh`: one endpoint of a headless service of that cluster.
    InClusterEndpoint {
        /// The endpoint's hostname.
        hostname: Label,
        /// The headless service.
        service: ServiceId,
        /// The one cluster that is asked.
        cluster: ClusterName,
    },
    /// `<svc>.<ns>.svc.cluster.local` (or `<svc>.<ns>.svc`): the caller's own cluster.
    Own(ServiceId),
    /// `<hostname>.<svc>.<ns>.svc.cluster.local`: one endpoint of a headless service of the caller's own cluster.
    OwnEndpoint {
        /// The endpoint's hostname.
        hostname: Label,
        /// The headless service.
        service: ServiceId,
    },
}

impl MeshName {
    /// The service that the name is about.
    #[must_use]
    pub fn service(&self) -> &ServiceId {
        match self {
            Self::ClusterSet(service) | Self::Own(service) => service,
            Self::ClusterSetEndpoint { service, .. }
            | Self::InCluster { service, .. }
            | Self::InClusterEndpoint { service, .. }
            | Self::OwnEndpoint { service, .. } => service,
        }
    }

    fn of_labels(name: &str) -> Option<Self> {
        let labels: Vec<&str> = name.split('.').collect();
        let svc = labels.iter().rposition(|label| *label == "svc")?;
        let (before, zone) = (&labels[..svc], &labels[svc + 1..]);
        let (front, service) = match before {
            [front @ .., name, namespace] => (front, ServiceId::parse(namespace, name).ok()?),
            _ => return None,
        };
        let label = |text: &&str| text.parse::<Label>().ok();
        match (zone, front) {
            (["clusterset", "local"], []) => Some(Self::ClusterSet(service)),
            (["clusterset", "local"], [hostname, cluster @ ..]) if !cluster.is_empty() => {
                Some(Self::ClusterSetEndpoint { hostname: label(hostname)?, cluster: cluster.join(".").parse().ok()?, service })
            }
            ([cluster, "mesh"], []) => Some(Self::InCluster { service, cluster: cluster.parse().ok()? }),
            ([cluster, "mesh"], [hostname]) => {
                Some(Self::InClusterEndpoint { hostname: label(hostname)?, service, cluster: cluster.parse().ok()? })
            }
            (["cluster", "local"] | [], []) => Some(Self::Own(service)),
            (["cluster", "local"] | [], [hostname]) => Some(Self::OwnEndpoint { hostname: label(hostname)?, service }),
            _ => None,
        }
    }
}

impl fmt::Display for MeshName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |service: &ServiceId| format!("{}.{}.svc", service.name(), service.namespace());
        match self {
            Self::ClusterSet(service) => write!(f, "{}.clusterset.local", of(service)),
            Self::ClusterSetEndpoint { hostname, cluster, service } => {
                write!(f, "{hostname}.{cluster}.{}.clusterset.local", of(service))
            }
            Self::InCluster { service, cluster } => write!(f, "{}.{cluster}.mesh", of(service)),
            Self::InClusterEndpoint { hostname, service, cluster } => write!(f, "{hostname}.{}.{cluster}.mesh", of(service)),
            Self::Own(service) => write!(f, "{}.cluster.local", of(service)),
            Self::OwnEndpoint { hostname, service } => write!(f, "{hostname}.{}.cluster.local", of(service)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(host: &str, expected: Option<&str>) {
        let name = host.parse::<Host>().unwrap().mesh_name().map(|name| format!("{name:?}"));
        match expected {
            None => assert_eq!(name, None, "{host}"),
            Some(start) => assert!(name.as_deref().unwrap_or("nothing").starts_with(start), "{host}: {name:?}"),
        }
    }

    #[test]
    fn the_names_of_the_mesh_are_read() {
        check("web.shop.svc.clusterset.local", Some("ClusterSet("));
        check("WEB.Shop.svc.ClusterSet.Local.", Some("ClusterSet("));
        check("stock-0.4f7a-b.stock.shop.svc.clusterset.local", Some("ClusterSetEndpoint"));
        check("web.shop.svc.east.mesh", Some("InCluster {"));
        check("stock-0.stock.shop.svc.east.mesh", Some("InClusterEndpoint"));
        check("web.shop.svc.cluster.local", Some("Own("));
        check("web.shop.svc", Some("Own("));
        check("stock-0.stock.shop.svc.cluster.local", Some("OwnEndpoint"));
    }

    #[test]
    fn other_names_are_not_ours() {
        for other in ["example.com", "svc", "shop.svc.clusterset.local", "east.web.shop.svc.clusterset.local", "127.0.0.1", "[::1]"] {
            check(other, None);
        }
    }

    #[test]
    fn a_service_called_svc_is_read_from_the_right() {
        check("svc.svc.svc.clusterset.local", Some("ClusterSet("));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,300}") {
            if let Ok(host) = text.parse::<Host>() {
                let _ = host.mesh_name();
            }
        }

        #[test]
        fn a_mesh_name_reads_back_what_it_prints(name in "[a-z]{1,8}", ns in "[a-z]{1,8}", cluster in "[a-z]{1,8}") {
            let service = ServiceId::parse(&ns, &name).unwrap();
            let mesh = MeshName::InCluster { service, cluster: cluster.parse().unwrap() };
            prop_assert_eq!(mesh.to_string().parse::<Host>().unwrap().mesh_name(), Some(mesh));
        }
    }
}
