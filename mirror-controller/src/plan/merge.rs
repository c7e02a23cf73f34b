//! One service of the cluster set out of what several clusters export under its name (KEP-1645): the oldest export decides what only one
//! can decide, ports are a union, and every difference is a conflict that all of them are told of.
//!
//! Pure, and a function of the set of parts alone: neither the order in which they were heard nor what was merged before has a say, so that
//! clusters which hear the same exports come to the same import. It lies here and not in `topology` because what it merges (transports,
//! application protocols, labels, policies) is the Kubernetes API's, and nobody but the mirror controller sees it; proxies read the result.
//!
//! Two views of the ports: [`Merged::ports`] is the import's, where no name and no (protocol, port) comes twice and a clash goes to the
//! oldest. [`Merged::reachable`] is every (protocol, port) that anybody exposes: a port that loses its name to an older export can still be
//! called by its number, so a peer that claims to be old takes no traffic away from anybody.

use std::collections::BTreeSet;

use mesh_api::translate::{ExportedPort, ExportedProperties, Transport};
use mesh_names::{ClusterId, PortName, ServicePort};
use mesh_topology::ImportKind;

/// What one cluster contributes to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// The cluster.
    pub(super) cluster: &'a ClusterId,
    /// When its ServiceExport was made, in seconds since 1970.
    pub(super) created_at: i64,
    /// Whether it is headless there.
    pub(super) headless: bool,
    /// Its ports there.
    pub(super) ports: &'a [ExportedPort],
    /// The rest of what is merged.
    pub(super) properties: &'a ExportedProperties,
}

/// The service of the cluster set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merged {
    /// Whether it is headless: as the oldest export has it.
    pub(super) kind: ImportKind,
    /// The import's ports.
    pub(super) ports: Vec<ExportedPort>,
    /// Every port that anybody exposes, each with the name that it has there.
    pub(super) reachable: Vec<ExportedPort>,
    /// The clusters that export it, oldest first.
    pub(super) clusters: Vec<ClusterId>,
    /// What the oldest export says.
    pub(super) properties: ExportedProperties,
    /// What they disagree on.
    pub(super) conflicts: BTreeSet<Conflict>,
}

/// What exporters of one name can disagree on. Ordered as the reasons are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conflict {
    /// Their ports differ.
    Ports,
    /// Some are headless and others are not.
    Type,
    /// Whether a client stays with an endpoint.
    SessionAffinity,
    /// For how long it does.
    SessionAffinityConfig,
    /// Their exported annotations.
    Annotations,
    /// Their exported labels.
    Labels,
    /// Which endpoints a node's clients may use.
    InternalTrafficPolicy,
    /// Which endpoints are preferred.
    TrafficDistribution,
    /// The families of their addresses.
    IpFamily,
}

impl Conflict {
    /// The reason in the `Conflict` condition.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Ports => "PortConflict",
            Self::Type => "TypeConflict",
            Self::SessionAffinity => "SessionAffinityConflict",
            Self::SessionAffinityConfig => "SessionAffinityConfigConflict",
            Self::Annotations => "AnnotationsConflict",
            Self::Labels => "LabelsConflict",
            Self::InternalTrafficPolicy => "InternalTrafficPolicyConflict",
            Self::TrafficDistribution => "TrafficDistributionConflict",
            Self::IpFamily => "IPFamilyConflict",
        }
    }
}

/// What `parts` of one name are together; none when there are none.
#[must_use]
pub(super) fn merge(parts: &[Part<'_>]) -> Option<Merged> {
    let mut by_age: Vec<&Part<'_>> = parts.iter().collect();
    // Timestamps have a grain of one second: ties go by id, so that every cluster decides alike.
    by_age.sort_by_key(|part| (part.created_at, part.cluster));
    let oldest = *by_age.first()?;
    let ports = named(union(&by_age, |known, port| known.name == port.name || number(known) == number(port)));
    let reachable = union(&by_age, |known, port| number(known) == number(port));
    // Who said nothing of families, because its release does not know them, neither wins nor disagrees.
    let families = by_age.iter().map(|part| &part.properties.ip_families).find(|families| !families.is_empty());
    Some(Merged {
        kind: if oldest.headless { ImportKind::Headless } else { ImportKind::ClusterSetIp },
        ports,
        reachable,
        clusters: by_age.iter().map(|part| part.cluster.clone()).collect(),
        properties: ExportedProperties { ip_families: families.cloned().unwrap_or_default(), ..oldest.properties.clone() },
        conflicts: by_age.iter().flat_map(|part| differences(oldest, part)).chain(family_conflict(&by_age)).collect(),
    })
}

fn union(by_age: &[&Part<'_>], clash: impl Fn(&ExportedPort, &ExportedPort) -> bool) -> Vec<ExportedPort> {
    let mut ports: Vec<ExportedPort> = Vec::new();
    for port in by_age.iter().flat_map(|part| part.ports) {
        if !ports.iter().any(|known| clash(known, port)) {
            ports.push(port.clone());
        }
    }
    ports
}

/// Gives each of several ports a name, as Kubernetes wants it; no name comes twice.
pub(super) fn named(mut ports: Vec<ExportedPort>) -> Vec<ExportedPort> {
    if ports.len() < 2 {
        return ports;
    }
    let mut taken: BTreeSet<PortName> = ports.iter().filter_map(|port| port.name.clone()).collect();
    for port in ports.iter_mut().filter(|port| port.name.is_none()) {
        let wished = format!("port-{}-{}", port.number, port.transport.as_str().to_ascii_lowercase());
        let free = |name: &PortName| !taken.contains(name);
        let others = (0_u32..).map(|nth| format!("{wished}-{nth}"));
        port.name = std::iter::once(wished.clone()).chain(others).filter_map(|name| name.parse().ok()).find(free);
        taken.extend(port.name.clone());
    }
    ports
}

/// What a port is called by on the wire.
fn number(port: &ExportedPort) -> (Transport, ServicePort) {
    (port.transport, port.number)
}

fn differences(oldest: &Part<'_>, part: &Part<'_>) -> Vec<Conflict> {
    let ports = |part: &Part<'_>| part.ports.iter().cloned().collect::<BTreeSet<ExportedPort>>();
    let (old, new) = (oldest.properties, part.properties);
    let differ = [
        (Conflict::Ports, ports(oldest) != ports(part)),
        (Conflict::Type, oldest.headless != part.headless),
        (Conflict::SessionAffinity, old.session_affinity.as_str() != new.session_affinity.as_str()),
        (Conflict::SessionAffinityConfig, old.session_affinity.seconds() != new.session_affinity.seconds()),
        (Conflict::Annotations, old.annotations != new.annotations),
        (Conflict::Labels, old.labels != new.labels),
        (Conflict::InternalTrafficPolicy, old.internal_traffic_policy != new.internal_traffic_policy),
        (Conflict::TrafficDistribution, old.traffic_distribution != new.traffic_distribution),
    ];
    differ.into_iter().filter_map(|(conflict, differs)| differs.then_some(conflict)).collect()
}

fn family_conflict(by_age: &[&Part<'_>]) -> Option<Conflict> {
    let told = by_age.iter().map(|part| part.properties.ip_families.iter().collect::<BTreeSet<_>>()).filter(|told| !told.is_empty());
    let different: BTreeSet<_> = told.collect();
    (different.len() > 1).then_some(Conflict::IpFamily)
}

#[cfg(test)]
pub(super) mod tests;
