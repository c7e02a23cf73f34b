//! Reads a question's name: which zone it lies in and what of that zone it asks for.
//!
//! Follows the DNS section of KEP-1645 for `clusterset.local`, and the same shape with one label less for `<cluster>.mesh`.

use mesh_names::{ClusterId, ClusterName, Label, ServiceId};

/// A zone that this server may be asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Zone {
    /// `clusterset.local`: every linked cluster.
    ClusterSet,
    /// `<cluster>.mesh`: one cluster.
    Cluster(ClusterName),
}

impl Zone {
    /// The zone's own name, without a trailing dot.
    #[must_use]
    pub fn origin(&self) -> String {
        match self {
            Self::ClusterSet => "clusterset.local".to_owned(),
            Self::Cluster(name) => format!("{name}.mesh"),
        }
    }
}

/// What a name asks for inside its zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The zone itself.
    Apex,
    /// `dns-version`: the version of the specification (cluster set only).
    Version,
    /// `svc`: an empty non-terminal.
    Services,
    /// `<ns>.svc`: an empty non-terminal while the namespace has a service.
    Namespace(Label),
    /// `<svc>.<ns>.svc`.
    Service(ServiceId),
    /// `_<proto>.<svc>.<ns>.svc`: an empty non-terminal above the SRV names.
    Transport(ServiceId, Transport),
    /// `_<port>._<proto>.<svc>.<ns>.svc`.
    Port(ServiceId, Transport, String),
    /// `<hostname>.<clusterid>.<svc>.<ns>.svc` in the cluster set, `<hostname>.<svc>.<ns>.svc` in one cluster.
    Endpoint(ServiceId, Option<ClusterId>, Label),
    /// Nothing that can exist.
    Nothing,
}

/// The transport label of an SRV name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `_tcp`.
    Tcp,
    /// `_udp`.
    Udp,
}

/// Zone and question of `name` (lower case, no trailing dot); `None` when it lies in no zone of the mesh.
#[must_use]
pub fn read(name: &str) -> Option<(Zone, Asked)> {
    let labels: Vec<&str> = name.split('.').collect();
    let (zone, inside) = match labels.as_slice() {
        [inside @ .., "clusterset", "local"] => (Zone::ClusterSet, inside),
        [inside @ .., cluster, "mesh"] => (Zone::Cluster(cluster.parse().ok()?), inside),
        _ => return None,
    };
    let asked = inside_of(&zone, inside).unwrap_or(Asked::Nothing);
    Some((zone, asked))
}

fn inside_of(zone: &Zone, labels: &[&str]) -> Option<Asked> {
    let before = match labels {
        [] => return Some(Asked::Apex),
        ["dns-version"] if *zone == Zone::ClusterSet => return Some(Asked::Version),
        [before @ .., "svc"] => before,
        _ => return None,
    };
    let (front, service) = match before {
        [] => return Some(Asked::Services),
        [namespace] => return Some(Asked::Namespace(namespace.parse().ok()?)),
        [front @ .., name, namespace] => (front, ServiceId::parse(namespace, name).ok()?),
    };
    match front {
        [] => Some(Asked::Service(service)),
        [transport] if transport.starts_with('_') => Some(Asked::Transport(service, transport_of(transport)?)),
        [port, transport] if transport.starts_with('_') => {
            Some(Asked::Port(service, transport_of(transport)?, port.strip_prefix('_')?.to_owned()))
        }
        [hostname] if *zone != Zone::ClusterSet => Some(Asked::Endpoint(service, None, hostname.parse().ok()?)),
        [hostname, cluster @ ..] if *zone == Zone::ClusterSet && !cluster.is_empty() => {
            Some(Asked::Endpoint(service, Some(cluster.join(".").parse().ok()?), hostname.parse().ok()?))
        }
        _ => None,
    }
}

fn transport_of(label: &str) -> Option<Transport> {
    match label {
        "_tcp" => Some(Transport::Tcp),
        "_udp" => Some(Transport::Udp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: &str) {
        assert_eq!(format!("{:?}", read(name).map(|(_, asked)| asked)), expected, "{name}");
    }

    #[test]
    fn names_outside_the_mesh_are_not_ours() {
        for other in ["example.com", "local", "mesh", "cluster.local", ""] {
            check(other, "None");
        }
    }

    #[test]
    fn a_cluster_id_in_front_of_a_service_names_nothing() {
        check("4f7a.web.shop.svc.clusterset.local", "Some(Nothing)");
    }

    #[test]
    fn every_kind_of_name_is_read() {
        check("clusterset.local", "Some(Apex)");
        check("dns-version.clusterset.local", "Some(Version)");
        check("dns-version.east.mesh", "Some(Nothing)");
        check("svc.east.mesh", "Some(Services)");
        check("shop.svc.clusterset.local", "Some(Namespace(Label(\"shop\")))");
        assert!(matches!(read("web.shop.svc.east.mesh"), Some((Zone::Cluster(_), Asked::Service(_)))));
        assert!(matches!(read("_tcp.web.shop.svc.east.mesh"), Some((_, Asked::Transport(_, Transport::Tcp)))));
        assert!(
            matches!(read("_http._tcp.web.shop.svc.clusterset.local"), Some((_, Asked::Port(_, Transport::Tcp, port))) if port == "http")
        );
        assert!(matches!(read("stock-0.4f7a.stock.shop.svc.clusterset.local"), Some((_, Asked::Endpoint(_, Some(_), _)))));
        assert!(matches!(read("stock-0.stock.shop.svc.east.mesh"), Some((_, Asked::Endpoint(_, None, _)))));
    }
}
