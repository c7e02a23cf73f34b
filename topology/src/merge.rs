//! One service of the cluster set out of what several clusters export under its name (KEP-1645): the oldest export decides what only
//! one can decide, ports are a union, and every difference is a conflict that all of them are told of.

use std::collections::BTreeSet;

use mesh_names::{ClusterId, Protocol};

use crate::model::{ImportKind, Port};

/// What one cluster exports under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The cluster.
    pub cluster: ClusterId,
    /// When its ServiceExport was created, in seconds since 1970.
    pub created: i64,
    /// Whether it is headless there.
    pub kind: ImportKind,
    /// Its ports there.
    pub ports: Vec<Port>,
}

/// The service of the cluster set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Whether it is headless: as the oldest export has it.
    pub kind: ImportKind,
    /// The union of the ports; no name and no number twice.
    pub ports: Vec<Port>,
    /// The clusters that export it, oldest first.
    pub clusters: Vec<ClusterId>,
    /// What they disagree on.
    pub conflicts: BTreeSet<Conflict>,
}

/// What exporters of one name can disagree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conflict {
    /// Their ports differ.
    Ports,
    /// Some are headless and others are not.
    Type,
}

impl Conflict {
    /// The reason in the `Conflict` condition.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Ports => "PortConflict",
            Self::Type => "TypeConflict",
        }
    }
}

/// What `exports` of one name are together; none when there are none.
#[must_use]
pub fn merge(exports: &[Exported]) -> Option<Merged> {
    let mut by_age: Vec<&Exported> = exports.iter().collect();
    // Timestamps have a grain of one second: ties go by id, so that every cluster decides alike.
    by_age.sort_by(|a, b| (a.created, &a.cluster).cmp(&(b.created, &b.cluster)));
    let oldest = by_age.first()?;
    let mut conflicts = BTreeSet::new();
    if by_age.iter().any(|export| export.kind != oldest.kind) {
        conflicts.insert(Conflict::Type);
    }
    let sorted = |export: &Exported| export.ports.iter().cloned().collect::<BTreeSet<Port>>();
    if by_age.iter().any(|export| sorted(export) != sorted(oldest)) {
        conflicts.insert(Conflict::Ports);
    }
    let mut ports: Vec<Port> = Vec::new();
    for port in by_age.iter().flat_map(|export| &export.ports) {
        let same_name = |known: &Port| known.name.is_some() && known.name == port.name;
        let same_number = |known: &Port| known.number == port.number && datagrams(known) == datagrams(port);
        if !ports.iter().any(|known| same_name(known) || same_number(known)) {
            ports.push(port.clone());
        }
    }
    let clusters = by_age.iter().map(|export| export.cluster.clone()).collect();
    Some(Merged { kind: oldest.kind, ports, clusters, conflicts })
}

fn datagrams(port: &Port) -> bool {
    port.protocol == Protocol::Udp
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name:number` (`:number` without a name, `/udp` for datagrams), the oldest cluster first.
    fn check(exports: &[(&str, &[&str])], expected: &[&str], conflicts: &[Conflict]) {
        let exports: Vec<Exported> = exports.iter().zip(0..).map(|((cluster, ports), age)| exported(cluster, age, ports)).collect();
        let merged = merge(&exports).unwrap();
        let text: Vec<String> = merged.ports.iter().map(show).collect();
        assert_eq!(text, expected);
        assert_eq!(merged.conflicts.into_iter().collect::<Vec<_>>(), conflicts);
        let reversed: Vec<Exported> = exports.iter().rev().cloned().collect();
        assert_eq!(merge(&reversed), merge(&exports), "the order of listing does not matter");
    }

    fn exported(cluster: &str, created: i64, ports: &[&str]) -> Exported {
        let ports = ports.iter().map(|text| {
            let (text, protocol) = text.strip_suffix("/udp").map_or((*text, Protocol::Http), |text| (text, Protocol::Udp));
            let (name, number) = text.split_once(':').unwrap();
            Port { name: name.parse().ok(), number: number.parse().unwrap(), protocol }
        });
        Exported { cluster: cluster.parse().unwrap(), created, kind: ImportKind::ClusterSetIp, ports: ports.collect() }
    }

    fn show(port: &Port) -> String {
        let suffix = if port.protocol == Protocol::Udp { "/udp" } else { "" };
        format!("{}:{}{suffix}", port.name.as_ref().map_or("", |name| name.as_str()), port.number)
    }

    #[test]
    fn equal_exports_merge_without_conflict() {
        check(&[("east", &["http:80"]), ("west", &["http:80"])], &["http:80"], &[]);
    }

    #[test]
    fn ports_are_a_union_and_any_difference_is_a_conflict() {
        check(&[("east", &["http:80"]), ("west", &["http:80", "admin:81"])], &["http:80", "admin:81"], &[Conflict::Ports]);
    }

    #[test]
    fn no_name_and_no_number_comes_twice_and_the_oldest_wins() {
        check(&[("east", &["http:80"]), ("west", &["http:8080"])], &["http:80"], &[Conflict::Ports]);
        check(&[("east", &["http:80"]), ("west", &["web:80"])], &["http:80"], &[Conflict::Ports]);
        check(&[("east", &["dns:53/udp"]), ("west", &["dns-tcp:53"])], &["dns:53/udp", "dns-tcp:53"], &[Conflict::Ports]);
    }

    #[test]
    fn the_oldest_decides_whether_it_is_headless_and_ties_go_by_id() {
        let mut west = exported("west", 5, &["http:80"]);
        west.kind = ImportKind::Headless;
        let east = exported("east", 5, &["http:80"]);
        let merged = merge(&[west.clone(), east.clone()]).unwrap();
        assert_eq!((merged.kind, merged.conflicts), (ImportKind::ClusterSetIp, BTreeSet::from([Conflict::Type])));
        west.created = 4;
        assert_eq!(merge(&[west, east]).unwrap().kind, ImportKind::Headless);
    }

    #[test]
    fn nothing_exported_is_nothing_merged() {
        assert_eq!(merge(&[]), None);
    }
}
