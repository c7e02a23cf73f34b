//! The services of the cluster set: for each name, this cluster's export and each link's merged ([`merge`](super::merge)), shown as a
//! ServiceImport, a selectorless Service `<name>-clusterset` whose address is the cluster-set IP, and one slice of it per exporting cluster.
//!
//! The Service's ports are named after their numbers, not after the import's: names change hands when an older export comes, and a client
//! of one port must not be led to another while kube-proxy has seen one object and not yet the next. A cluster's slice has the ports that
//! this cluster exposes. What a link that has not said everything yet gave stays as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesh_api::crd::link::is_protected;
use mesh_api::translate::{ExportedPort, ExportedProperties, IpFamily};
use mesh_names::{ClusterId, ClusterName, Protocol, ServiceId};
use mesh_topology::ImportKind;

use super::merge::{Conflict, Merged, Part, merge};
use super::{Believed, Refusal, Wanted, headless, mirror};
use crate::model::{
    Import, Kind, MirrorService, MirrorSlice, NotExported, Object, ObjectId, SeenLink, SliceOf, StandsFor, Wish, source_of,
};

/// What to say on one ServiceExport of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSays {
    /// Why it exports nothing, if so.
    pub invalid: Option<NotExported>,
    /// Why nothing comes of it though it is valid, if so.
    pub failed: Option<Failed>,
    /// On what the exporters of its name disagree; none while a link that takes part has not spoken, so that what was said stays.
    pub conflicts: Option<BTreeSet<Conflict>>,
}

/// Why nothing comes of an export that is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Nothing of this namespace is ever imported.
    NamespaceProtected,
    /// Its Service has no port.
    NoPorts,
    /// Somebody else wrote a ServiceImport of its name.
    ImportTaken,
}

impl Failed {
    /// What a person is told.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::NamespaceProtected => "nothing of this namespace is imported anywhere: export a Service of another one",
            Self::NoPorts => "the Service has no port that could be called: add one",
            Self::ImportTaken => "a ServiceImport of this name exists that the mesh did not write: delete it",
        }
    }
}

/// What is known of one name.
#[derive(Default)]
struct Name<'a> {
    parts: Vec<Part<'a>>,
    remotes: Vec<(&'a SeenLink, &'a Believed)>,
    /// The import as it is, and which of its clusters have not spoken yet.
    silent: Option<(&'a Import, BTreeSet<ClusterId>)>,
}

/// Wants the cluster set's objects, and says what this cluster's own exports are to be told.
pub(super) fn want(
    wanted: &mut Wanted<'_>,
    believed: &BTreeMap<ClusterName, BTreeMap<ServiceId, Believed>>,
) -> BTreeMap<ServiceId, ExportSays> {
    let seen = wanted.seen;
    let mut says = BTreeMap::new();
    let mut names: BTreeMap<ServiceId, Name<'_>> = BTreeMap::new();
    for (id, export) in &seen.exports {
        let failed = match &export.service {
            Ok(_) if is_protected(id.namespace().as_str()) => Some(Failed::NamespaceProtected),
            Ok(service) if service.ports.is_empty() => Some(Failed::NoPorts),
            Ok(_) if seen.taken.contains(&(Kind::Import, id.clone())) => Some(Failed::ImportTaken),
            Ok(_) | Err(_) => None,
        };
        let invalid = export.service.as_ref().err().copied();
        says.insert(id.clone(), ExportSays { invalid, failed, conflicts: Some(BTreeSet::new()) });
        if let (Ok(service), None) = (&export.service, failed) {
            names.entry(id.clone()).or_default().parts.push(Part {
                cluster: &seen.id,
                created_at: export.created_at,
                headless: service.headless,
                ports: &service.ports,
                properties: &service.properties,
            });
        }
    }
    for (name, services) in believed {
        let Some(Ok(link)) = seen.links.get(name) else { continue };
        for (id, one) in services.iter().filter(|(id, _)| link.sameness.contains(id.namespace())) {
            let name = names.entry(id.clone()).or_default();
            name.remotes.push((link, one));
            name.parts.push(Part {
                cluster: &link.id,
                created_at: one.exported.created_at,
                headless: one.exported.headless,
                ports: &one.exported.ports,
                properties: &one.exported.properties,
            });
        }
    }
    for (import, clusters) in silent_contributors(wanted, believed) {
        names.entry(import.id.clone()).or_default().silent = Some((import, clusters));
    }
    if believed.len() < seen.links.len() {
        // What can't be read may be something that a silent link gave.
        let unread = seen.objects.iter().filter(|(_, found)| found.link.is_none() && found.object.is_none());
        wanted.untouched.extend(unread.map(|(id, _)| id.clone()));
    }
    let here = |id: &ServiceId| seen.namespaces.contains(id.namespace()) && !seen.taken.contains(&(Kind::Import, id.clone()));
    for (id, name) in names.iter().filter(|(id, _)| here(id)) {
        let conflicts = want_one(wanted, id, name);
        if let Some(says) = says.get_mut(id) {
            says.conflicts = conflicts;
        }
    }
    says
}

/// Imports that a link contributed to which exists and has not said everything yet: what it gave stays.
fn silent_contributors<'a>(
    wanted: &Wanted<'a>,
    believed: &BTreeMap<ClusterName, BTreeMap<ServiceId, Believed>>,
) -> Vec<(&'a Import, BTreeSet<ClusterId>)> {
    let links = &wanted.seen.links;
    let silent: BTreeSet<&ClusterId> =
        links.iter().filter(|(name, _)| !believed.contains_key(*name)).filter_map(|(_, link)| Some(&link.as_ref().ok()?.id)).collect();
    // Nobody knows which cluster a link with an unusable spec leads to: every contributor that no other link explains may be it.
    let unknown = links.values().any(Result::is_err);
    let known: BTreeSet<&ClusterId> = links.values().filter_map(|link| Some(&link.as_ref().ok()?.id)).collect();
    let may_stay = |id: &&ClusterId| silent.contains(id) || (unknown && !known.contains(id) && **id != wanted.seen.id);
    let mut kept = Vec::new();
    for found in wanted.seen.objects.values() {
        let Some(Object::Import(import)) = &found.object else { continue };
        let clusters: BTreeSet<ClusterId> = import.clusters.iter().filter(may_stay).cloned().collect();
        if !clusters.is_empty() {
            kept.push((import, clusters));
        }
    }
    kept
}

/// Wants what shows one name, and says what its exporters are to be told of it.
fn want_one(wanted: &mut Wanted<'_>, id: &ServiceId, name: &Name<'_>) -> Option<BTreeSet<Conflict>> {
    let merged = merge(&name.parts);
    let Some(mut import) = import_of(id, merged.as_ref(), name.silent.as_ref()) else { return Some(BTreeSet::new()) };
    let refused = want_service(wanted, &mut import, merged.as_ref(), name);
    if import.kind == ImportKind::Headless {
        let own = name.parts.iter().any(|part| *part.cluster == wanted.seen.id && part.headless);
        let silent = name.silent.as_ref().map(|(_, clusters)| clusters.iter().map(source_of).collect()).unwrap_or_default();
        headless::want(wanted, id, &name.remotes, own, &silent);
    }
    import.ready = import.kind == ImportKind::Headless || !import.ips.is_empty();
    import.pending = Wish(Some(match refused {
        Some(Refusal::NameTooLong) => "a Service <name>-clusterset would have too long a name: give the service a shorter one",
        Some(_) => "a Service <name>-clusterset exists that the mesh did not write: rename it",
        None => "its address is not assigned yet",
    }));
    import.properties.ip_families = import.ips.iter().copied().map(IpFamily::of).collect();
    wanted.insert(Object::Import(import));
    match name.silent {
        None => Some(merged.map(|merged| merged.conflicts).unwrap_or_default()),
        Some(_) => None,
    }
}

/// The import, its addresses aside.
fn import_of(id: &ServiceId, merged: Option<&Merged>, silent: Option<&(&Import, BTreeSet<ClusterId>)>) -> Option<Import> {
    let nothing = || Import {
        id: id.clone(),
        kind: ImportKind::ClusterSetIp,
        ports: Vec::new(),
        ips: Vec::new(),
        clusters: BTreeSet::new(),
        properties: ExportedProperties::default(),
        ready: false,
        pending: Wish(None),
    };
    let mut import = match (merged, silent) {
        (Some(merged), _) => Import {
            kind: merged.kind,
            ports: merged.ports.clone(),
            clusters: merged.clusters.iter().cloned().collect(),
            properties: merged.properties.clone(),
            ..nothing()
        },
        (None, Some((kept, _))) => Import { kind: kept.kind, ports: kept.ports.clone(), ..nothing() },
        (None, None) => return None,
    };
    if let Some((kept, clusters)) = silent {
        // What nobody has contradicted yet stays as it was.
        import.clusters.extend(clusters.iter().cloned());
        import.kind = kept.kind;
        import.properties = kept.properties.clone();
        let clash = |known: &ExportedPort, port: &ExportedPort| known.name == port.name || same_number(known, port);
        let rest: Vec<ExportedPort> =
            import.ports.iter().filter(|port| !kept.ports.iter().any(|known| clash(known, port))).cloned().collect();
        import.ports = super::merge::named(kept.ports.iter().cloned().chain(rest).collect());
    }
    Some(import)
}

/// The Service whose address is the cluster-set IP, and its slices. A headless import has none; but where it became headless while clients
/// had its address, they keep it for as long as an exporter with addresses takes part.
fn want_service(wanted: &mut Wanted<'_>, import: &mut Import, merged: Option<&Merged>, name: &Name<'_>) -> Option<Refusal> {
    let id = import.id.clone();
    let service = match mirror::name_for(wanted, id.namespace(), &format!("{}-clusterset", id.name())) {
        Ok(service) => service,
        Err(why) => return Some(why).filter(|_| import.kind == ImportKind::ClusterSetIp),
    };
    let found = wanted.seen.objects.get(&ObjectId::service(&service));
    if import.kind == ImportKind::Headless {
        let in_use = found.is_some() && merged.is_some_and(|merged| merged.conflicts.contains(&Conflict::Type));
        if !in_use && (name.silent.is_none() || found.is_none()) {
            return None;
        }
    } else {
        import.ips = found.map_or_else(|| last_addresses(wanted, &id), |found| found.addresses.clone());
    }
    let exposed = exposed(wanted, &service, name);
    // What a silent cluster exposes stays as it is named, whoever may be older.
    let silent = exposed.iter().skip(name.parts.len()).flat_map(|(_, ports)| ports);
    let mut ports: Vec<ExportedPort> = Vec::new();
    for port in silent.chain(merged.iter().flat_map(|merged| &merged.reachable)) {
        if !ports.iter().any(|known| same_number(known, port)) {
            ports.push(by_number(port));
        }
    }
    ports.sort_by_key(|port| (port.number, port.transport));
    want_slices(wanted, &service, &id, &exposed, &ports);
    let again = import.ips.first().copied().filter(|_| found.is_none());
    let families = families(wanted, &import.properties.ip_families);
    wanted.insert(Object::Service(MirrorService {
        id: service,
        stands_for: StandsFor::ClusterSet { service: id.name().clone() },
        ports,
        identities: Vec::new(),
        proxyless: false,
        address: Wish(again),
        families: Wish(Some(families)),
    }));
    None
}

/// The families that the exporters have and this cluster too; where there is none, gateways carry between them, so any will do.
fn families(wanted: &Wanted<'_>, exported: &[IpFamily]) -> Vec<IpFamily> {
    exported.iter().copied().filter(|family| wanted.seen.families.contains(family)).collect()
}

/// The ports that each cluster exposes; of one that is silent, those that its slices record.
fn exposed(wanted: &Wanted<'_>, service: &ServiceId, name: &Name<'_>) -> Vec<(ClusterId, Vec<ExportedPort>)> {
    let mut exposed: Vec<(ClusterId, Vec<ExportedPort>)> =
        name.parts.iter().map(|part| (part.cluster.clone(), part.ports.to_vec())).collect();
    let Some((import, silent)) = &name.silent else { return exposed };
    let found = match wanted.seen.objects.get(&ObjectId::service(service)).and_then(|found| found.object.as_ref()) {
        Some(Object::Service(found)) => found.ports.as_slice(),
        _ => &[],
    };
    for cluster in silent {
        let theirs = |slice: &&&MirrorSlice| matches!(&slice.of, SliceOf::Import { source, .. } if *source == source_of(cluster));
        let recorded: BTreeSet<_> =
            wanted.slices_of(service).iter().filter(theirs).flat_map(|slice| &slice.ports).map(|port| &port.name).collect();
        let ports = found.iter().filter(|port| recorded.contains(&port.name));
        let ports: Vec<ExportedPort> = if recorded.is_empty() { import.ports.clone() } else { ports.cloned().collect() };
        exposed.push((cluster.clone(), ports));
    }
    exposed
}

/// One slice per exporting cluster and family of our gateways. They are the ServiceImport's, so they wait until it is there.
fn want_slices(
    wanted: &mut Wanted<'_>,
    service: &ServiceId,
    id: &ServiceId,
    exposed: &[(ClusterId, Vec<ExportedPort>)],
    ports: &[ExportedPort],
) {
    // Where somebody deleted the import, its slices are kept until it is back.
    let last = || wanted.slices_of(service).iter().find_map(|slice| slice.of.import_uid()).map(ToOwned::to_owned);
    let Some(uid) = wanted.import_uid(id).or_else(last) else { return };
    for (cluster, theirs) in exposed {
        let ports: Vec<ExportedPort> = ports.iter().filter(|port| theirs.iter().any(|their| same_number(their, port))).cloned().collect();
        let of = SliceOf::Import { service: id.name().clone(), uid: uid.clone(), source: source_of(cluster) };
        mirror::want_slices(wanted, service, &format!("{}-{cluster}", service.name()), &of, &ports);
    }
}

fn same_number(a: &ExportedPort, b: &ExportedPort) -> bool {
    (a.transport, a.number) == (b.transport, b.number)
}

/// The port under a name that it has whoever names it, and whatever else is exported: what is spoken there, its number, its transport.
fn by_number(port: &ExportedPort) -> ExportedPort {
    let spoken = match port.protocol() {
        Protocol::Http => "http",
        Protocol::Http2 => "http2",
        Protocol::Tcp => "tcp",
        Protocol::Udp | Protocol::Unknown => "port",
    };
    let name = format!("{spoken}-{}-{}", port.number, port.transport.as_str().to_ascii_lowercase());
    ExportedPort { name: name.parse().ok(), ..port.clone() }
}

/// The addresses that the import says: a Service that somebody deleted gets them back, so that they are stable.
fn last_addresses(wanted: &Wanted<'_>, id: &ServiceId) -> Vec<IpAddr> {
    let import = wanted.seen.objects.get(&ObjectId { kind: Kind::Import, ..ObjectId::service(id) });
    match import.and_then(|found| found.object.as_ref()) {
        Some(Object::Import(import)) => import.ips.clone(),
        _ => Vec::new(),
    }
}
