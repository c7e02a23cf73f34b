//! Answers one question from one [`Snapshot`]. Pure.
//!
//! Invariants: a name exists or not whatever its type (NODATA and NXDOMAIN are never mixed up, RFC 2308); for a mirrored service only our own
//! addresses are answered (cluster-set IP, mirror IP, stand-in IP); before the first complete snapshot nothing is denied, the answer is
//! SERVFAIL. Headless and per-cluster names follow the link's data-path health; a cluster-set IP is answered while its import exists.

use std::collections::BTreeSet;
use std::net::IpAddr;

use mesh_names::{ClusterId, ClusterName, Label, PortName, Protocol, ServiceId};
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
            self.addresses.iter().copied().filter(wanted).map(|ip| (Data::Address(ip), ADDRESS_TTL)).collect()
        };
        match kind {
            Kind::A => addresses(IpAddr::is_ipv4),
            Kind::Aaaa => addresses(IpAddr::is_ipv6),
            Kind::Srv => {
                let sent = self.services.len().clamp(1, RECORDS_MAX);
                let weight = u16::try_from(100 / sent).unwrap_or(1).max(1);
                let record = |(port, target)| (Data::Srv { weight, port, target }, SRV_TTL);
                self.services.into_iter().take(RECORDS_MAX).map(record).collect()
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
            let mut named = view.ports().iter().filter(|port| carried(port) == *transport && port.name.is_some());
            named.any(|port| !view.found(Some(port), &view.name()).services.is_empty()).then(Found::default)
        }
        Asked::Port(service, transport, port) => {
            let view = View::of(snapshot, zone, service)?;
            let wanted: PortName = port.parse().ok()?;
            let port = view.ports().iter().find(|port| port.name.as_ref() == Some(&wanted) && carried(port) == *transport)?;
            let all = view.found(Some(port), &view.name());
            (!all.services.is_empty()).then(|| Found { services: all.services, ..Found::default() })
        }
        Asked::Endpoint(service, cluster, hostname) => {
            let view = View::of(snapshot, zone, service)?;
            let found = view.endpoint(cluster.as_ref(), hostname, name);
            (!found.addresses.is_empty()).then_some(found)
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
    fn found(&self, port: Option<&Port>, name: &str) -> Found {
        if self.cluster_ip() {
            let addresses = match self {
                Self::Set { import, .. } => &import.addresses,
                Self::Own { service, .. } => &service.addresses,
                Self::Remote { remote, .. } => &remote.addresses,
            };
            let services = numbers(self.ports(), port).map(|number| (number, name.to_owned())).collect();
            return Found { addresses: addresses.iter().copied().collect(), services, apex: false };
        }
        let endpoints = self.endpoints();
        let services = endpoints.iter().flat_map(|at| numbers(at.ports, port).map(move |number| (number, format!("{}.{name}", at.label))));
        Found { addresses: endpoints.iter().map(|at| at.address).collect(), services: services.collect(), apex: false }
    }

    /// Ready endpoints of a headless service, with the labels that stand for them before the service's name: at most as many as one answer
    /// has records. Whatever type is asked for, they are the same ones.
    fn endpoints(&self) -> Vec<At<'a>> {
        let mut all = self.all_endpoints();
        all.sort_by(|a, b| (&a.label, a.address).cmp(&(&b.label, b.address)));
        let last = all.iter().map(|at| &at.label).collect::<BTreeSet<_>>().into_iter().nth(RECORDS_MAX).cloned();
        all.retain(|at| last.as_ref().is_none_or(|last| at.label < *last));
        all
    }

    fn all_endpoints(&self) -> Vec<At<'a>> {
        match *self {
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

    /// Addresses and SRV data of one endpoint, under the `name` that it was asked by.
    fn endpoint(&self, cluster: Option<&ClusterId>, hostname: &Label, name: &str) -> Found {
        if self.cluster_ip() {
            return Found::default();
        }
        let wanted = label_of(hostname.as_str(), cluster);
        let all = self.all_endpoints().into_iter().filter(|at| at.label == wanted);
        let mut found = Found::default();
        for at in all {
            found.addresses.insert(at.address);
            found.services.extend(numbers(at.ports, None).map(|number| (number, name.to_owned())));
        }
        found
    }
}

/// The numbers of `ports`, or of the one that is asked for if it is among them: what one cluster does not expose is not called there.
fn numbers<'a>(ports: &'a [Port], asked: Option<&'a Port>) -> impl Iterator<Item = u16> + 'a {
    let same = move |port: &&Port| asked.is_none_or(|asked| asked.number == port.number && carried(asked) == carried(port));
    ports.iter().filter(same).map(|port| port.number.get())
}

/// One endpoint of a headless service.
struct At<'a> {
    label: String,
    address: IpAddr,
    /// The ports that its cluster exposes.
    ports: &'a [Port],
}

fn own_endpoints<'a>(service: &'a Service, cluster: Option<&ClusterId>) -> Vec<At<'a>> {
    let at = |endpoint: &Endpoint| At {
        label: label_of(&endpoint.hostname.as_ref().map_or_else(|| dashed(endpoint.address), ToString::to_string), cluster),
        address: endpoint.address,
        ports: &service.ports,
    };
    service.endpoints.iter().filter(|endpoint| endpoint.ready).map(|endpoint| at(endpoint)).collect()
}

fn remote_endpoints<'a>(remote: &'a Remote, cluster: Option<&ClusterId>) -> Vec<At<'a>> {
    let at = |endpoint: &RemoteEndpoint| {
        let address = endpoint.stand_in?;
        let hostname = endpoint.hostname.as_ref().map_or_else(|| dashed(address), ToString::to_string);
        Some(At { label: label_of(&hostname, cluster), address, ports: &remote.ports })
    };
    remote.endpoints.iter().filter(|endpoint| endpoint.ready).filter_map(|endpoint| at(endpoint)).collect()
}

fn label_of(hostname: &str, cluster: Option<&ClusterId>) -> String {
    cluster.map_or_else(|| hostname.to_owned(), |cluster| format!("{hostname}.{cluster}"))
}

/// An endpoint without a hostname is named by its address (KEP-1645). An IPv6 address that begins or ends with `::` gets the zero that a
/// label needs there.
fn dashed(address: IpAddr) -> String {
    let text = address.to_string().replace(['.', ':'], "-");
    let before = if text.starts_with('-') { "0" } else { "" };
    let behind = if text.ends_with('-') { "0" } else { "" };
    format!("{before}{text}{behind}")
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
const RECORDS_MAX: usize = 64;

#[cfg(test)]
mod tests;
