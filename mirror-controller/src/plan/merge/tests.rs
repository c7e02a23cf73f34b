//! The merge: an example of each rule, and what holds whatever is exported.

use super::*;
use mesh_api::translate::{IpFamily, SessionAffinity, TrafficPolicy};
use proptest::prelude::*;

/// What one cluster exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plan) struct Export {
    pub(in crate::plan) cluster: ClusterId,
    pub(in crate::plan) created_at: i64,
    pub(in crate::plan) headless: bool,
    pub(in crate::plan) ports: Vec<ExportedPort>,
    pub(in crate::plan) properties: ExportedProperties,
}

fn merged<'a>(exports: &'a [Export]) -> Option<Merged> {
    let part = |of: &'a Export| Part {
        cluster: &of.cluster,
        created_at: of.created_at,
        headless: of.headless,
        ports: &of.ports,
        properties: &of.properties,
    };
    merge(&exports.iter().map(part).collect::<Vec<_>>())
}

/// `name:number` (`:number` without a name, `/UDP` and the like behind it).
fn port(text: &str) -> ExportedPort {
    let (text, transport) = text.split_once('/').unwrap_or((text, "TCP"));
    let (name, number) = text.split_once(':').unwrap();
    let transport = Transport::read(transport).unwrap();
    ExportedPort { name: name.parse().ok(), number: number.parse().unwrap(), transport, app_protocol: None }
}

fn show(port: &ExportedPort) -> String {
    let suffix = if port.transport == Transport::Tcp { String::new() } else { format!("/{}", port.transport.as_str()) };
    format!("{}:{}{suffix}", port.name.as_ref().map_or("", |name| name.as_str()), port.number)
}

fn export(cluster: &str, created_at: i64, ports: &[&str]) -> Export {
    let ports = ports.iter().map(|text| port(text)).collect();
    Export { cluster: cluster.parse().unwrap(), created_at, headless: false, ports, properties: ExportedProperties::default() }
}

/// The ports and the conflicts of exports, the oldest first.
fn check(exports: &[(&str, &[&str])], expected: &[&str], conflicts: &[Conflict]) {
    let exports: Vec<Export> = exports.iter().zip(0..).map(|((cluster, ports), age)| export(cluster, age, ports)).collect();
    let merged = merged(&exports).unwrap();
    assert_eq!(merged.ports.iter().map(show).collect::<Vec<_>>(), expected);
    assert_eq!(merged.conflicts.into_iter().collect::<Vec<_>>(), conflicts);
}

#[test]
fn equal_exports_merge_without_conflict() {
    check(&[("east", &["http:80"]), ("west", &["http:80"])], &["http:80"], &[]);
}

#[test]
fn the_order_of_ports_in_a_service_is_no_conflict() {
    check(&[("east", &["a:1", "b:2"]), ("west", &["b:2", "a:1"])], &["a:1", "b:2"], &[]);
}

#[test]
fn ports_are_a_union_of_every_protocol_and_any_difference_is_a_conflict() {
    check(&[("east", &["tcp:42"]), ("west", &["tcp:42", "stcp:142/SCTP"])], &["tcp:42", "stcp:142/SCTP"], &[Conflict::Ports]);
}

#[test]
fn no_name_and_no_number_comes_twice_and_clashes_go_to_the_oldest() {
    check(&[("east", &["http:80"]), ("west", &["http:8080"])], &["http:80"], &[Conflict::Ports]);
    check(&[("east", &["http:80"]), ("west", &["web:80"])], &["http:80"], &[Conflict::Ports]);
    check(&[("east", &["dns:53/UDP"]), ("west", &["dns-tcp:53"])], &["dns:53/UDP", "dns-tcp:53"], &[Conflict::Ports]);
    check(&[("east", &[":80"]), ("west", &[":8080"])], &[":80"], &[Conflict::Ports]);
}

#[test]
fn several_ports_have_names_each() {
    check(&[("east", &[":80"]), ("west", &["port-80-tcp:81"])], &["port-80-tcp-0:80", "port-80-tcp:81"], &[Conflict::Ports]);
}

#[test]
fn a_port_that_loses_its_name_can_still_be_called_by_its_number() {
    let merged = merged(&[export("east", 0, &["http:80"]), export("west", 1, &["http:8080"])]).unwrap();
    assert_eq!(merged.reachable.iter().map(show).collect::<Vec<_>>(), ["http:80", "http:8080"]);
}

#[test]
fn an_application_protocol_that_differs_is_a_conflict() {
    let (east, mut west) = (export("east", 0, &["http:80"]), export("west", 1, &["http:80"]));
    west.ports[0].app_protocol = Some("kubernetes.io/h2c".into());
    let merged = merged(&[east.clone(), west]).unwrap();
    assert_eq!((merged.ports, merged.conflicts), (east.ports, [Conflict::Ports].into()));
}

#[test]
fn the_oldest_decides_what_only_one_can_and_every_difference_is_named() {
    let (mut east, mut west) = (export("east", 5, &["http:80"]), export("west", 6, &["admin:81"]));
    west.headless = true;
    east.properties = ExportedProperties {
        session_affinity: SessionAffinity::ClientIp { seconds: 10 },
        internal_traffic_policy: TrafficPolicy::Local,
        traffic_distribution: Some("PreferClose".into()),
        ip_families: vec![IpFamily::V6],
        labels: [("a".to_owned(), "1".to_owned())].into(),
        annotations: [("b".to_owned(), "2".to_owned())].into(),
    };
    west.properties.ip_families = vec![IpFamily::V4];
    let merged = merged(&[west, east.clone()]).unwrap();
    assert_eq!((merged.kind, &merged.properties), (ImportKind::ClusterSetIp, &east.properties));
    let reasons: Vec<&str> = merged.conflicts.iter().map(|conflict| conflict.reason()).collect();
    assert_eq!(
        reasons,
        [
            "PortConflict",
            "TypeConflict",
            "SessionAffinityConflict",
            "SessionAffinityConfigConflict",
            "AnnotationsConflict",
            "LabelsConflict",
            "InternalTrafficPolicyConflict",
            "TrafficDistributionConflict",
            "IPFamilyConflict",
        ]
    );
}

#[test]
fn exports_of_the_same_second_are_ordered_by_the_cluster_s_id() {
    let (mut west, east) = (export("west", 5, &["http:80"]), export("east", 5, &["http:80"]));
    west.headless = true;
    assert_eq!(merged(&[west.clone(), east.clone()]).unwrap().kind, ImportKind::ClusterSetIp);
    west.created_at = 4;
    assert_eq!(merged(&[west, east]).unwrap().kind, ImportKind::Headless);
}

#[test]
fn an_exporter_that_does_not_know_families_is_in_no_conflict_over_them() {
    let (old, mut new) = (export("east", 0, &["http:80"]), export("west", 1, &["http:80"]));
    new.properties.ip_families = vec![IpFamily::V4];
    let merged = merged(&[old, new.clone()]).unwrap();
    assert_eq!((merged.properties.ip_families, merged.conflicts), (new.properties.ip_families, BTreeSet::new()));
}

#[test]
fn the_order_of_families_is_no_conflict_and_is_the_oldest_s() {
    let (mut east, mut west) = (export("east", 0, &["http:80"]), export("west", 1, &["http:80"]));
    east.properties.ip_families = vec![IpFamily::V6, IpFamily::V4];
    west.properties.ip_families = vec![IpFamily::V4, IpFamily::V6];
    let merged = merged(&[west, east.clone()]).unwrap();
    assert_eq!((merged.properties.ip_families, merged.conflicts), (east.properties.ip_families, BTreeSet::new()));
}

#[test]
fn nothing_exported_is_nothing_merged() {
    assert_eq!(merged(&[]), None);
}

/// Any list of ports, also one that no API server would take: a peer may say what it likes.
pub(in crate::plan) fn any_ports() -> impl Strategy<Value = Vec<ExportedPort>> {
    let name = prop::sample::select(vec!["", "http", "admin", "dns", "port-80-tcp", "port-81-udp"]);
    let transport = prop::sample::select(vec![Transport::Tcp, Transport::Udp, Transport::Sctp]);
    let app_protocol = prop::sample::select(vec![None, Some("http".to_owned()), Some("kubernetes.io/h2c".to_owned())]);
    let port = (name, 80_u16..84, transport, app_protocol).prop_map(|(name, number, transport, app_protocol)| ExportedPort {
        name: name.parse().ok(),
        number: number.try_into().unwrap(),
        transport,
        app_protocol,
    });
    prop::collection::vec(port, 1..5)
}

pub(in crate::plan) fn any_properties() -> impl Strategy<Value = ExportedProperties> {
    let affinity = prop::sample::select(vec![SessionAffinity::None, SessionAffinity::ClientIp { seconds: 10 }]);
    let policy = prop::sample::select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local]);
    let distribution = prop::sample::select(vec![None, Some("PreferClose".to_owned())]);
    let families = prop::sample::select(vec![vec![], vec![IpFamily::V4], vec![IpFamily::V6, IpFamily::V4]]);
    let pairs = || prop::sample::select(vec![vec![], vec![("team".to_owned(), "a".to_owned())], vec![("team".to_owned(), "b".to_owned())]]);
    (affinity, policy, distribution, families, pairs(), pairs()).prop_map(
        |(session_affinity, internal_traffic_policy, traffic_distribution, ip_families, labels, annotations)| ExportedProperties {
            session_affinity,
            internal_traffic_policy,
            traffic_distribution,
            ip_families,
            labels: labels.into_iter().collect(),
            annotations: annotations.into_iter().collect(),
        },
    )
}

/// Exports of up to five clusters under one name, some of the same age.
fn any_exports() -> impl Strategy<Value = Vec<Export>> {
    let export = (0_i64..3, any::<bool>(), any_ports(), any_properties());
    prop::collection::vec(export, 1..6).prop_map(|all| {
        let numbered = all.into_iter().zip(0..);
        let named = numbered.map(|((created_at, headless, ports, properties), nth)| Export {
            cluster: format!("c{nth}").parse().unwrap(),
            created_at,
            headless,
            ports,
            properties,
        });
        named.collect()
    })
}

fn numbers(ports: &[ExportedPort]) -> BTreeSet<(Transport, ServicePort)> {
    ports.iter().map(number).collect()
}

proptest! {
    #[test]
    fn the_order_in_which_exports_are_heard_does_not_matter(
        (exports, shuffled) in any_exports().prop_flat_map(|exports| (Just(exports.clone()), Just(exports).prop_shuffle())),
    ) {
        prop_assert_eq!(merged(&shuffled), merged(&exports));
    }

    #[test]
    fn no_name_and_no_number_comes_twice(exports in any_exports()) {
        let ports = merged(&exports).unwrap().ports;
        prop_assert_eq!(numbers(&ports).len(), ports.len());
        let names: BTreeSet<_> = ports.iter().map(|port| &port.name).collect();
        prop_assert_eq!(names.len(), ports.len());
        prop_assert!(ports.len() == 1 || ports.iter().all(|port| port.name.is_some()));
    }

    #[test]
    fn every_port_of_every_exporter_can_be_called_and_no_other(exports in any_exports()) {
        let merged = merged(&exports).unwrap();
        let exposed: BTreeSet<_> = exports.iter().flat_map(|export| numbers(&export.ports)).collect();
        prop_assert_eq!(numbers(&merged.reachable), exposed);
        prop_assert_eq!(numbers(&merged.reachable).len(), merged.reachable.len());
        prop_assert!(numbers(&merged.ports).is_subset(&numbers(&merged.reachable)));
    }

    #[test]
    fn there_is_a_conflict_exactly_where_two_differ(exports in any_exports()) {
        let alike = |a: &Export, b: &Export| {
            let ports = |of: &Export| of.ports.iter().cloned().collect::<BTreeSet<_>>();
            let families = |of: &Export| of.properties.ip_families.iter().copied().collect::<BTreeSet<_>>();
            let silent = families(a).is_empty() || families(b).is_empty();
            let rest = |of: &Export| ExportedProperties { ip_families: Vec::new(), ..of.properties.clone() };
            a.headless == b.headless && ports(a) == ports(b) && rest(a) == rest(b) && (silent || families(a) == families(b))
        };
        let all_alike = exports.iter().all(|a| exports.iter().all(|b| alike(a, b)));
        prop_assert_eq!(merged(&exports).unwrap().conflicts.is_empty(), all_alike);
    }

    /// Being the oldest wins what only one can decide. It wins no port, no caller and no silence.
    #[test]
    fn a_claimed_age_takes_nothing_that_is_another_s(exports in any_exports(), who in any::<prop::sample::Index>(), age in any::<i64>()) {
        let honest = merged(&exports).unwrap();
        let mut claimed = exports.clone();
        claimed[who.index(exports.len())].created_at = age;
        let lied = merged(&claimed).unwrap();
        prop_assert_eq!(numbers(&lied.reachable), numbers(&honest.reachable));
        prop_assert_eq!(lied.clusters.iter().collect::<BTreeSet<_>>(), honest.clusters.iter().collect::<BTreeSet<_>>());
        prop_assert_eq!(lied.conflicts, honest.conflicts);
    }
}
