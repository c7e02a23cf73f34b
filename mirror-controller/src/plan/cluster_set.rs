//! The services of the cluster set: for each name, this cluster's export and each link's merged by the Multi-Cluster Services API, shown as
//! a ServiceImport and a selectorless Service `<name>-clusterset` whose address is the cluster-set IP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesh_api::crd::link::is_protected;
use mesh_api::translate::{ExportedPort, ExportedProperties};
use mesh_names::{ClusterId, ClusterName, ServiceId};
use mesh_topology::merge::{self, Conflict};
use mesh_topology::{ImportKind, Port};

use super::{Believed, Wanted, mirror, named};
use crate::model::{Import, Kind, MirrorService, NotExported, Object, ObjectId, StandsFor, Wish};

/// What to say on one ServiceExport of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSays {
    /// Why it exports nothing, if so.
    pub invalid: Option<NotExported>,
    /// On what the exporters of its name disagree.
    pub conflicts: BTreeSet<Conflict>,
}

/// What one cluster contributes to a name.
struct Part<'a> {
    cluster: &'a ClusterId,
    created_at: i64,
    headless: bool,
    ports: &'a [ExportedPort],
    properties: &'a ExportedProperties,
}

/// Wants the cluster set's objects, and says what this cluster's own exports are to be told.
pub(super) fn want(
    wanted: &mut Wanted<'_>,
    believed: &BTreeMap<ClusterName, BTreeMap<ServiceId, Believed>>,
) -> BTreeMap<ServiceId, ExportSays> {
    let seen = wanted.seen;
    let mut parts: BTreeMap<ServiceId, Vec<Part<'_>>> = BTreeMap::new();
    let mut says = BTreeMap::new();
    for (id, export) in &seen.exports {
        says.insert(id.clone(), ExportSays { invalid: export.service.as_ref().err().copied(), conflicts: BTreeSet::new() });
        if let Ok(service) = &export.service {
            parts.entry(id.clone()).or_default().push(Part {
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
            parts.entry(id.clone()).or_default().push(Part {
                cluster: &link.id,
                created_at: one.exported.created_at,
                headless: one.exported.headless,
                ports: &one.exported.ports,
                properties: &one.exported.properties,
            });
        }
    }
    let silent = silent_contributors(wanted, believed);
    let ids: BTreeSet<ServiceId> = parts.keys().chain(silent.keys()).cloned().collect();
    for id in ids.into_iter().filter(|id| seen.namespaces.contains(id.namespace()) && !is_protected(id.namespace().as_str())) {
        let of = parts.get(&id).map_or(&[][..], Vec::as_slice);
        let conflicts = want_one(wanted, &id, of, silent.get(&id));
        if let Some(says) = says.get_mut(&id) {
            says.conflicts = conflicts;
        }
    }
    says
}

/// Imports that a link contributed to which exists and has not said everything yet: what it gave stays.
fn silent_contributors(
    wanted: &Wanted<'_>,
    believed: &BTreeMap<ClusterName, BTreeMap<ServiceId, Believed>>,
) -> BTreeMap<ServiceId, (Import, BTreeSet<ClusterId>)> {
    let links = &wanted.seen.links;
    let silent: BTreeSet<&ClusterId> =
        links.iter().filter(|(name, _)| !believed.contains_key(*name)).filter_map(|(_, link)| Some(&link.as_ref().ok()?.id)).collect();
    // Nobody knows which cluster a link with an unusable spec leads to: every contributor that no other link explains may be it.
    let unknown = links.values().any(Result::is_err);
    let known: BTreeSet<&ClusterId> = links.values().filter_map(|link| Some(&link.as_ref().ok()?.id)).collect();
    let mut kept = BTreeMap::new();
    for found in wanted.seen.objects.values() {
        let Some(Object::Import(import)) = &found.object else { continue };
        let may_stay = |id: &&ClusterId| silent.contains(id) || (unknown && !known.contains(id) && **id != wanted.seen.id);
        let clusters: BTreeSet<ClusterId> = import.clusters.iter().filter(may_stay).cloned().collect();
        if !clusters.is_empty() {
            kept.insert(import.id.clone(), (import.clone(), clusters));
        }
    }
    kept
}

fn want_one(
    wanted: &mut Wanted<'_>,
    id: &ServiceId,
    parts: &[Part<'_>],
    silent: Option<&(Import, BTreeSet<ClusterId>)>,
) -> BTreeSet<Conflict> {
    let exported: Vec<merge::Exported> = parts.iter().map(exported).collect();
    let merged = merge::merge(&exported);
    let mut import = match (&merged, silent) {
        (Some(merged), _) => {
            let oldest = merged.clusters.first().and_then(|oldest| parts.iter().find(|part| part.cluster == oldest));
            Import {
                id: id.clone(),
                kind: merged.kind,
                ports: merged.ports.iter().filter_map(|port| whole(port, &merged.clusters, parts)).collect(),
                ips: Vec::new(),
                clusters: merged.clusters.iter().cloned().collect(),
                properties: oldest.map(|part| part.properties.clone()).unwrap_or_default(),
            }
        }
        (None, Some((kept, _))) => Import { clusters: BTreeSet::new(), ..kept.clone() },
        (None, None) => return BTreeSet::new(),
    };
    if let Some((kept, clusters)) = silent {
        import.clusters.extend(clusters.iter().cloned());
        // What nobody has contradicted yet stays as it was.
        import.kind = kept.kind;
        import.properties = kept.properties.clone();
        for port in &kept.ports {
            let there = |known: &ExportedPort| known.number == port.number && known.transport == port.transport;
            if !import.ports.iter().any(there) {
                import.ports.push(port.clone());
            }
        }
    }
    import.ports = named(&import.ports);
    want_service(wanted, &mut import);
    if !wanted.seen.taken.contains(&(Kind::Import, id.clone())) {
        wanted.insert(Object::Import(import));
    }
    merged.map(|merged| merged.conflicts).unwrap_or_default()
}

/// The Service whose address is the cluster-set IP. A headless import has none.
fn want_service(wanted: &mut Wanted<'_>, import: &mut Import) {
    let id = &import.id;
    import.ips = Vec::new();
    let Ok(name) = mirror::name_for(wanted, id.namespace(), &format!("{}-clusterset", id.name())) else { return };
    if import.kind == ImportKind::Headless {
        return;
    }
    let service = wanted.seen.objects.get(&ObjectId::service(&name));
    import.ips = match service {
        Some(found) => found.addresses.clone(),
        None => last_addresses(wanted, id),
    };
    let again = import.ips.first().copied().filter(|_| service.is_none());
    mirror::want_slices(wanted, &name, None, &import.ports);
    wanted.insert(Object::Service(MirrorService {
        id: name,
        stands_for: StandsFor::ClusterSet { service: id.name().clone() },
        ports: import.ports.clone(),
        identities: Vec::new(),
        proxyless: false,
        address: Wish(again),
    }));
}

/// The addresses that the import says: a Service that somebody deleted gets them back, so that they are stable.
fn last_addresses(wanted: &Wanted<'_>, id: &ServiceId) -> Vec<IpAddr> {
    let import = wanted.seen.objects.get(&ObjectId { kind: Kind::Import, ..ObjectId::service(id) });
    match import.and_then(|found| found.object.as_ref()) {
        Some(Object::Import(import)) => import.ips.clone(),
        _ => Vec::new(),
    }
}

fn exported(part: &Part<'_>) -> merge::Exported {
    let port = |port: &ExportedPort| Port { name: port.name.clone(), number: port.number, protocol: port.protocol() };
    merge::Exported {
        cluster: part.cluster.clone(),
        created: part.created_at,
        kind: if part.headless { ImportKind::Headless } else { ImportKind::ClusterSetIp },
        ports: part.ports.iter().map(port).collect(),
    }
}

/// A merged port as the oldest export that has it says it.
fn whole(port: &Port, by_age: &[ClusterId], parts: &[Part<'_>]) -> Option<ExportedPort> {
    let of = |cluster: &ClusterId| parts.iter().find(|part| part.cluster == cluster);
    let same = |known: &&ExportedPort| known.name == port.name && known.number == port.number && known.protocol() == port.protocol;
    by_age.iter().filter_map(of).find_map(|part| part.ports.iter().find(same)).cloned()
}
