//! Answers one question from one [`Snapshot`]. Pure.
//!
//! Invariants: a name exists or not whatever its type (NODATA and NXDOMAIN are never mixed up, RFC 2308); for a mirrored service only our own
//! addresses are answered (cluster-set IP, mirror IP, stand-in IP); before the first complete snapshot nothing is denied, the answer is
//! SERVFAIL. Headless and per-cluster names follow the link's data-path health; a cluster-set IP is answered while its import exists.

use std::collections::BTreeSet;
use std::net::IpAddr;

use mesh_names::{ClusterId, ClusterName, Label, PortName, Protocol, ServiceId, ServicePort};
use mesh_topology::{Endpoint, Import, ImportKind, LinkHealth, Port, Remote, RemoteEndpoint, Service, Snapshot};

use crate::name::{Asked, Transport, Zone, read};

/// The type of record that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Ports and targets.
    Srv,
    /// Text.
    Txt,
    /// The zone's start of authority.
    Soa,
    /// The zone's name servers.
    Ns,
    /// Every other type.
    Other,
}

/// How a question ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The name exists; there may be no record of the type.
    NoError,
    /// The name does not exist.
    NxDomain,
    /// The name lies in no zone of the mesh.
    Refused,
    /// Nothing is known yet.
    ServFail,
}

/// The data of one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// An A or AAAA record, by the address's family.
    Address(IpAddr),
    /// A service's port at a target name.
    Srv {
        /// 100 divided by the number of records, at least 1.
        weight: u16,
        /// The port that answers there.
        port: u16,
        /// The name whose address is the endpoint's, without a trailing dot.
        target: String,
    },
    /// One string.
    Text(String),
    /// Start of authority; serve fills in the rest.
    Soa,
    /// The name server.
    Ns,
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it ends.
    pub code: Code,
    /// The zone it lies in, whose SOA goes with a negative answer.
    pub origin: Option<String>,
    /// Records of the asked name, with their time to live in seconds.
    pub records: Vec<(Data, u32)>,
}

/// Answers the question for `name` (lower case, no trailing dot).
#[must_use]
pub fn answer(snapshot: &Snapshot, name: &str, kind: Kind) -> Answer {
    let Some((zone, asked)) = read(name) else {
        return Answer { code: Code::Refused, origin: None, records: Vec::new() };
    };
    let of = |code, records| Answer { code, origin: Some(zone.origin()), records };
    let known = match &zone {
        Zone::ClusterSet => true,
        Zone::Cluster(cluster) => *cluster == snapshot.own().cluster || snapshot.link(cluster).is_some(),
    };
    if asked == Asked::Version {
        return of(Code::NoError, if kind == Kind::Txt { vec![(Data::Text(VERSION.to_owned()), VERSION_TTL)] } else { Vec::new() });
    }
    if !snapshot.is_complete() {
        return of(Code::ServFail, Vec::new());
    }
    if !known {
        return Answer { code: Code::Refused, origin: None, records: Vec::new() };
    }
    match found(snapshot, &zone, &asked, name) {
        None => of(Code::NxDomain, Vec::new()),
        Some(found) => of(Code::NoError, found.records(kind)),
    }
}

/// What exists under a name, whatever type is asked.
#[derive(Default)]
struct Found {
    apex: bool,
    addresses: BTreeSet<IpAddr>,
    /// Port and target.
    services: BTreeSet<(u16, String)>,
}

impl Found {
    fn records(self, kind: Kind) -> Vec<(Data, u32)> {
        let addresses = |wanted: fn(&IpAddr) -> bool| {
            self.addresses.iter().copied().filter(wanted).take(ADDRESSES_MAX).map(|ip| (Data::Address(ip), ADDRESS_TTL)).collect()
        };
        match kind {
            Kind::A => addresses(IpAddr::is_ipv4),
            Kind::Aaaa => addresses(IpAddr::is_ipv6),
            Kind::Srv => {
                let weight = u16::try_from(100 / self.services.len().max(1)).unwrap_or(1).max(1);
                let record = |(port, target)| (Data::Srv { weight, port, target }, SRV_TTL);
                self.services.into_iter().take(ADDRESSES_MAX).map(record).collect()
            }
            Kind::Soa if self.apex => vec![(Data::Soa, ADDRESS_TTL)],
            Kind::Ns if self.apex => vec![(Data::Ns, ADDRESS_TTL)],
            Kind::Txt | Kind::Soa | Kind::Ns | Kind::Other => Vec::new(),
        }
    }
}

/// `None` when the name does not exist.
fn found(snapshot: &Snapshot, zone: &Zone, asked: &Asked, name: &str) -> Option<Found> {
    match asked {
        Asked::Apex => Some(Found { apex: true, ..Found::default() }),
        Asked::Services => Some(Found::default()),
        Asked::Namespace(namespace) => has_namespace(snapshot, zone, namespace).then(Found::default),
        Asked::Service(service) => {
            let view = View::of(snapshot, zone, service)?;
            let all = view.found(None, &view.name());
            (view.cluster_ip() || !all.addresses.is_empty()).then_some(all)
        }
        Asked::Transport(service, transport) => {
            let view = View::of(snapshot, zone, service)?;
            view.ports().iter().any(|port| carried(port) == *transport && port.name.is_some()).then(Found::default)
        }
        Asked::Port(service, transport, port) => {
            let view = View::of(snapshot, zone, service)?;
            let wanted: PortName = port.parse().ok()?;
            let port = view.ports().iter().find(|port| port.name.as_ref() == Some(&wanted) && carried(port) == *transport)?;
            let all = view.found(Some(port.number), &view.name());
            (!all.services.is_empty()).then(|| Found { services: all.services, ..Found::default() })
        }
        Asked::Endpoint(service, cluster, hostname) => {
            let view = View::of(snapshot, zone, service)?;
            let addresses = view.endpoint(cluster.as_ref(), hostname);
            let ports = view.ports().iter().map(|port| (port.number.get(), name.to_owned())).collect();
            (!addresses.is_empty()).then_some(Found { addresses, services: ports, apex: false })
        }
        Asked::Version | Asked::Nothing => None,
    }
}

fn has_namespace(snapshot: &Snapshot, zone: &Zone, namespace: &Label) -> bool {
    match zone {
        Zone::ClusterSet => snapshot.imports().any(|import| import.id.namespace() == namespace),
        Zone::Cluster(cluster) if *cluster == snapshot.own().cluster => {
            snapshot.services().any(|service| service.id.namespace() == namespace)
        }
        Zone::Cluster(cluster) => snapshot.remotes().any(|remote| remote.link == *cluster && remote.service.namespace() == namespace),
    }
}

fn carried(port: &Port) -> Transport {
    if port.protocol == Protocol::Udp { Transport::Udp } else { Transport::Tcp }
}

/// One service as one zone shows it.
enum View<'a> {
    Set { snapshot: &'a Snapshot, import: &'a Import },
    Own { snapshot: &'a Snapshot, service: &'a Service },
    Remote { snapshot: &'a Snapshot, cluster: &'a ClusterName, remote: &'a Remote },
}

impl<'a> View<'a> {
    fn of(snapshot: &'a Snapshot, zone: &'a Zone, service: &ServiceId) -> Option<Self> {
        match zone {
            Zone::ClusterSet => snapshot.import(service).map(|import| Self::Set { snapshot, import }),
            Zone::Cluster(cluster) if *cluster == snapshot.own().cluster => {
                snapshot.service(service).map(|service| Self::Own { snapshot, service })
            }
            Zone::Cluster(cluster) => {
                let remote = snapshot.remote(cluster, service)?;
                Some(Self::Remote { snapshot, cluster, remote })
            }
        }
    }

    fn name(&self) -> String {
        let (service, zone) = match self {
            Self::Set { import, .. } => (&import.id, Zone::ClusterSet.origin()),
            Self::Own { snapshot, service } => (&service.id, Zone::Cluster(snapshot.own().cluster.clone()).origin()),
            Self::Remote { cluster, remote, .. } => (&remote.service, Zone::Cluster((*cluster).clone()).origin()),
        };
        format!("{}.{}.svc.{zone}", service.name(), service.namespace())
    }

    fn ports(&self) -> &[Port] {
        match self {
            Self::Set { import, .. } => &import.ports,
            Self::Own { service, .. } => &service.ports,
            Self::Remote { remote, .. } => &remote.ports,
        }
    }

    /// Whether the service stands behind addresses of its own, which are answered as long as it exists.
    fn cluster_ip(&self) -> bool {
        match self {
            Self::Set { import, .. } => import.kind == ImportKind::ClusterSetIp,
            Self::Own { service, .. } => !service.addresses.is_empty(),
            Self::Remote { snapshot, cluster, remote } => !remote.addresses.is_empty() && alive(snapshot, cluster),
        }
    }

    /// Addresses and SRV data of the service's own name, for one port or all.
    fn found(&self, port: Option<ServicePort>, name: &str) -> Found {
        let ports = || self.ports().iter().map(|port| port.number).filter(|number| port.is_none_or(|wanted| wanted == *number));
        if self.cluster_ip() {
            let addresses = match self {
                Self::Set { import, .. } => &import.addresses,
                Self::Own { service, .. } => &service.addresses,
                Self::Remote { remote, .. } => &remote.addresses,
            };
            let services = ports().map(|port| (port.get(), name.to_owned())).collect();
            return Found { addresses: addresses.iter().copied().collect(), services, apex: false };
        }
        let endpoints = self.endpoints();
        let services = endpoints.iter().flat_map(|at| ports().map(|port| (port.get(), format!("{}.{name}", at.label)))).collect();
        Found { addresses: endpoints.iter().map(|at| at.address).collect(), services, apex: false }
    }

    /// The ready endpoints of a headless service, with the labels that stand for them before the service's name.
    fn endpoints(&self) -> Vec<At> {
        match self {
            Self::Own { service, .. } => own_endpoints(service, None),
            Self::Remote { snapshot, cluster, remote } => {
                if alive(snapshot, cluster) {
                    remote_endpoints(remote, None)
                } else {
                    Vec::new()
                }
            }
            Self::Set { snapshot, import } => {
                let own = snapshot.service(&import.id).filter(|_| import.own);
                let mut all = own.map_or_else(Vec::new, |service| own_endpoints(service, snapshot.own().id.as_ref()));
                for cluster in import.clusters.iter().filter(|cluster| alive(snapshot, cluster)) {
                    let remote = snapshot.remote(cluster, &import.id);
                    let id = snapshot.link(cluster).map(|link| &link.id);
                    all.extend(remote.map_or_else(Vec::new, |remote| remote_endpoints(remote, id)));
                }
                all
            }
        }
    }

    fn endpoint(&self, cluster: Option<&ClusterId>, hostname: &Label) -> BTreeSet<IpAddr> {
        let wanted = label_of(hostname.as_str(), cluster);
        self.endpoints().into_iter().filter(|at| at.label == wanted && !self.cluster_ip()).map(|at| at.address).collect()
    }
}

struct At {
    label: String,
    address: IpAddr,
}

fn own_endpoints(service: &Service, cluster: Option<&ClusterId>) -> Vec<At> {
    let at = |endpoint: &Endpoint| At {
        label: label_of(&endpoint.hostname.as_ref().map_or_else(|| dashed(endpoint.address), ToString::to_string), cluster),
        address: endpoint.address,
    };
    service.endpoints.iter().filter(|endpoint| endpoint.ready).map(|endpoint| at(endpoint)).collect()
}

fn remote_endpoints(remote: &Remote, cluster: Option<&ClusterId>) -> Vec<At> {
    let at = |endpoint: &RemoteEndpoint| {
        let address = endpoint.stand_in?;
        let hostname = endpoint.hostname.as_ref().map_or_else(|| dashed(address), ToString::to_string);
        Some(At { label: label_of(&hostname, cluster), address })
    };
    remote.endpoints.iter().filter(|endpoint| endpoint.ready).filter_map(|endpoint| at(endpoint)).collect()
}

fn label_of(hostname: &str, cluster: Option<&ClusterId>) -> String {
    cluster.map_or_else(|| hostname.to_owned(), |cluster| format!("{hostname}.{cluster}"))
}

/// An endpoint without a hostname is named by its address (KEP-1645).
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn alive(snapshot: &Snapshot, cluster: &ClusterName) -> bool {
    snapshot.link(cluster).is_some_and(|link| !matches!(link.health, LinkHealth::Unreachable | LinkHealth::Drained))
}

/// The version of the DNS specification for multi-cluster services that is followed, and its time to live.
const VERSION: &str = "1.0.0";
const VERSION_TTL: u32 = 28_800;
/// Short, so that a withdrawn name is forgotten quickly.
const ADDRESS_TTL: u32 = 5;
const SRV_TTL: u32 = 5;
/// More records than this are never sent: a client needs a subset, and the answer stays small.
const ADDRESSES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use mesh_topology::{Change, Link, Mesh, Own};

    use super::*;

    /// west, linked to east: `web` and headless `stock` come from east, `cart` from both, `solo` is west's own.
    fn west(health: LinkHealth) -> Snapshot {
        let own = Own { cluster: name("west"), id: None, trust_domain: "west.mesh".parse().unwrap(), ranges: Vec::new() };
        let id = |text: &str| text.parse::<ServiceId>().unwrap();
        let link = Link {
            name: name("east"),
            id: "e1".parse().unwrap(),
            trust_domain: "east.mesh".parse().unwrap(),
            gateways: Vec::new(),
            health,
            priority: 0,
        };
        let import = |text: &str, address: Option<&str>, own| Import {
            id: id(text),
            addresses: address.iter().map(|address| address.parse().unwrap()).collect(),
            kind: if address.is_some() { ImportKind::ClusterSetIp } else { ImportKind::Headless },
            ports: ports(),
            own,
            clusters: vec![name("east")],
        };
        let remote = |text: &str, address: Option<&str>, stand_ins: &[(&str, &str)]| Remote {
            link: name("east"),
            service: id(text),
            ports: ports(),
            identities: Vec::new(),
            addresses: address.iter().map(|address| address.parse().unwrap()).collect(),
            endpoints: stand_ins.iter().map(|(hostname, address)| Arc::new(stand_in(hostname, address))).collect(),
            handles_valid: true,
            proxyless: false,
        };
        Snapshot::empty(own).with([
            Change::Link(name("east"), Some(link)),
            Change::Service(id("shop/solo"), Some(service("shop/solo", &["127.1.128.9"], &[]))),
            Change::Service(id("shop/stock"), Some(service("shop/stock", &[], &[("stock-0", "127.1.64.7")]))),
            Change::Import(id("shop/web"), Some(import("shop/web", Some("127.1.128.1"), false))),
            Change::Import(id("shop/stock"), Some(import("shop/stock", None, true))),
            Change::Remote(name("east"), id("shop/web"), Some(remote("shop/web", Some("127.1.128.2"), &[]))),
            Change::Remote(
                name("east"),
                id("shop/stock"),
                Some(remote("shop/stock", None, &[("stock-0", "127.1.128.3"), ("stock-1", "127.1.128.4")])),
            ),
            Change::Complete("w1".parse().unwrap()),
        ])
    }

    fn name(text: &str) -> ClusterName {
        text.parse().unwrap()
    }

    fn ports() -> Vec<Port> {
        let port =
            |name: &str, number: u16, protocol| Port { name: Some(name.parse().unwrap()), number: number.try_into().unwrap(), protocol };
        vec![port("http", 80, Protocol::Http), port("dns", 53, Protocol::Udp)]
    }

    fn service(text: &str, addresses: &[&str], endpoints: &[(&str, &str)]) -> Service {
        let endpoint = |(hostname, address): &(&str, &str)| {
            Arc::new(Endpoint {
                name: (*hostname).parse().unwrap(),
                handle: "abcdefgh".parse().unwrap(),
                address: address.parse().unwrap(),
                ports: BTreeMap::new(),
                hostname: Some((*hostname).parse().unwrap()),
                identity: "spiffe://west.mesh/ns/shop/sa/stock".parse().unwrap(),
                mesh: Mesh::Plain,
                ready: true,
                zone: None,
                weight: 1,
            })
        };
        Service {
            id: text.parse().unwrap(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ports: ports(),
            identities: Vec::new(),
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    fn stand_in(hostname: &str, address: &str) -> RemoteEndpoint {
        RemoteEndpoint {
            handle: "abcdefgh".parse().unwrap(),
            hostname: Some(hostname.parse().unwrap()),
            ready: true,
            weight: 1,
            stand_in: Some(address.parse().unwrap()),
        }
    }

    fn check(kind: Kind, name: &str, expected: &str) {
        check_in(&west(LinkHealth::Healthy), kind, name, expected);
    }

    fn check_in(snapshot: &Snapshot, kind: Kind, name: &str, expected: &str) {
        let answer = answer(snapshot, name, kind);
        let record = |(data, _): &(Data, u32)| match data {
            Data::Address(ip) => ip.to_string(),
            Data::Srv { weight, port, target } => format!("{weight} {port} {target}"),
            other => format!("{other:?}"),
        };
        let records: Vec<String> = answer.records.iter().map(record).collect();
        assert_eq!(format!("{:?} {}", answer.code, records.join(", ")).trim(), expected, "{kind:?} {name}");
    }

    #[test]
    fn a_cluster_set_ip_is_answered_while_its_import_exists_whatever_the_link_does() {
        check(Kind::A, "web.shop.svc.clusterset.local", "NoError 127.1.128.1");
        check_in(&west(LinkHealth::Unreachable), Kind::A, "web.shop.svc.clusterset.local", "NoError 127.1.128.1");
    }

    #[test]
    fn per_cluster_and_headless_names_follow_data_path_health() {
        check(Kind::A, "web.shop.svc.east.mesh", "NoError 127.1.128.2");
        check_in(&west(LinkHealth::Unreachable), Kind::A, "web.shop.svc.east.mesh", "NxDomain");
        check(Kind::A, "stock.shop.svc.clusterset.local", "NoError 127.1.64.7, 127.1.128.3, 127.1.128.4");
        check_in(&west(LinkHealth::Unreachable), Kind::A, "stock.shop.svc.clusterset.local", "NoError 127.1.64.7");
    }

    #[test]
    fn a_pod_is_found_by_hostname_and_cluster_id() {
        check(Kind::A, "stock-0.e1.stock.shop.svc.clusterset.local", "NoError 127.1.128.3");
        check(Kind::A, "stock-0.w1.stock.shop.svc.clusterset.local", "NoError 127.1.64.7");
        check(Kind::A, "stock-1.stock.shop.svc.east.mesh", "NoError 127.1.128.4");
        check(Kind::A, "stock-9.e1.stock.shop.svc.clusterset.local", "NxDomain");
        check(Kind::A, "e1.stock.shop.svc.clusterset.local", "NxDomain");
    }

    #[test]
    fn srv_names_one_record_for_an_address_and_one_per_endpoint_when_headless() {
        check(Kind::Srv, "_http._tcp.web.shop.svc.clusterset.local", "NoError 100 80 web.shop.svc.clusterset.local");
        check(Kind::Srv, "_dns._udp.web.shop.svc.clusterset.local", "NoError 100 53 web.shop.svc.clusterset.local");
        check(Kind::Srv, "_http._udp.web.shop.svc.clusterset.local", "NxDomain");
        check(
            Kind::Srv,
            "_http._tcp.stock.shop.svc.east.mesh",
            "NoError 50 80 stock-0.stock.shop.svc.east.mesh, 50 80 stock-1.stock.shop.svc.east.mesh",
        );
    }

    #[test]
    fn a_name_exists_or_not_whatever_its_type() {
        check(Kind::Aaaa, "web.shop.svc.clusterset.local", "NoError");
        check(Kind::Txt, "shop.svc.clusterset.local", "NoError");
        check(Kind::A, "svc.clusterset.local", "NoError");
        check(Kind::A, "none.shop.svc.clusterset.local", "NxDomain");
        check(Kind::A, "elsewhere.svc.clusterset.local", "NxDomain");
        check(Kind::Soa, "clusterset.local", "NoError Soa");
        check(Kind::Txt, "dns-version.clusterset.local", "NoError Text(\"1.0.0\")");
    }

    #[test]
    fn other_zones_and_unknown_clusters_are_refused() {
        check(Kind::A, "example.com", "Refused");
        check(Kind::A, "web.shop.svc.north.mesh", "Refused");
    }

    #[test]
    fn before_the_first_complete_snapshot_nothing_is_denied() {
        let own = Own { cluster: name("west"), id: None, trust_domain: "west.mesh".parse().unwrap(), ranges: Vec::new() };
        check_in(&Snapshot::empty(own), Kind::A, "web.shop.svc.clusterset.local", "ServFail");
    }
}
