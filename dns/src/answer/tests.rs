//! What is answered, one sentence per test.

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
    let port = |name: &str, number: u16, protocol| Port { name: Some(name.parse().unwrap()), number: number.try_into().unwrap(), protocol };
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

/// West's view of what the standard's table speaks of. `hello` has an address of both families and two ports of one number; headless `pods`
/// has two pods in east, one of them without a hostname, and one here, and only east exposes its port `admin`; `asleep` is headless and
/// nothing of it is ready.
fn table() -> Snapshot {
    let port = |name: &str, number: u16, protocol| Port { name: name.parse().ok(), number: number.try_into().unwrap(), protocol };
    let id = |text: &str| text.parse::<ServiceId>().unwrap();
    let import = |text: &str, addresses: &[&str], kind, ports: Vec<Port>| Import {
        id: id(text),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        kind,
        ports,
        own: true,
        clusters: vec![name("east")],
    };
    let remote = |text: &str, ports: Vec<Port>, endpoints: Vec<RemoteEndpoint>| Remote {
        link: name("east"),
        service: id(text),
        ports,
        identities: Vec::new(),
        addresses: Vec::new(),
        endpoints: endpoints.into_iter().map(Arc::new).collect(),
        handles_valid: true,
        proxyless: false,
    };
    let hello = || vec![port("tcp", 42, Protocol::Tcp), port("udp", 42, Protocol::Udp)];
    let (http, admin, unnamed) = (port("http", 80, Protocol::Http), port("admin", 81, Protocol::Http), port("", 82, Protocol::Tcp));
    let nameless = RemoteEndpoint { hostname: None, ..stand_in("none", "127.1.128.9") };
    let mut own = service("shop/pods", &[], &[("pods-0", "127.1.64.1")]);
    own.ports = vec![http.clone()];
    let sleeping = RemoteEndpoint { ready: false, ..stand_in("asleep-0", "127.1.128.6") };
    west(LinkHealth::Healthy).with([
        Change::Import(
            id("shop/hello"),
            Some(import("shop/hello", &["127.1.128.7", "fd00::7"], ImportKind::ClusterSetIp, [hello(), vec![unnamed]].concat())),
        ),
        Change::Import(id("shop/pods"), Some(import("shop/pods", &[], ImportKind::Headless, vec![http.clone(), admin.clone()]))),
        Change::Service(id("shop/pods"), Some(own)),
        Change::Remote(
            name("east"),
            id("shop/pods"),
            Some(remote("shop/pods", vec![http.clone(), admin], vec![stand_in("pods-0", "127.1.128.8"), nameless])),
        ),
        Change::Import(id("shop/asleep"), Some(import("shop/asleep", &[], ImportKind::Headless, vec![http.clone()]))),
        Change::Remote(name("east"), id("shop/asleep"), Some(remote("shop/asleep", vec![http], vec![sleeping]))),
    ])
}

/// One answer of the table, under `svc.clusterset.local`.
fn row(kind: Kind, name: &str, expected: &str) {
    let under = if name.is_empty() { "svc.clusterset.local".to_owned() } else { format!("{name}.svc.clusterset.local") };
    let expected = expected.replace('~', ".svc.clusterset.local");
    check_in(&table(), kind, &under, &expected);
}

#[test]
fn dns_version_is_a_text_with_a_long_life() {
    let found = answer(&table(), "dns-version.clusterset.local", Kind::Txt);
    assert_eq!(found.records, [(Data::Text("1.0.0".to_owned()), 28_800)]);
    check_in(&table(), Kind::A, "dns-version.clusterset.local", "NoError");
}

#[test]
fn a_cluster_set_ip_has_an_address_of_each_family() {
    row(Kind::A, "hello.shop", "NoError 127.1.128.7");
    row(Kind::Aaaa, "hello.shop", "NoError fd00::7");
}

#[test]
fn srv_of_a_named_port_names_the_service_and_an_unnamed_port_has_none() {
    row(Kind::Srv, "_tcp._tcp.hello.shop", "NoError 100 42 hello.shop~");
    row(Kind::Srv, "_udp._udp.hello.shop", "NoError 100 42 hello.shop~");
    row(Kind::Srv, "_udp._tcp.hello.shop", "NxDomain");
    row(Kind::Srv, "_82._tcp.hello.shop", "NxDomain");
}

#[test]
fn srv_of_the_bare_name_says_the_same_thing_once() {
    let two = table().import(&"shop/hello".parse().unwrap()).unwrap().as_ref().clone();
    let named = Import { ports: two.ports.into_iter().filter(|port| port.name.is_some()).collect(), ..two };
    let only_named = table().with([Change::Import(named.id.clone(), Some(named))]);
    check_in(&only_named, Kind::Srv, "hello.shop.svc.clusterset.local", "NoError 100 42 hello.shop.svc.clusterset.local");
    let pods = ["25 53 stock-0.", "25 53 stock-1.", "25 80 stock-0.", "25 80 stock-1."].map(|pod| format!("{pod}stock.shop.svc.east.mesh"));
    check_in(&west(LinkHealth::Healthy), Kind::Srv, "stock.shop.svc.east.mesh", &format!("NoError {}", pods.join(", ")));
}

#[test]
fn a_headless_name_has_the_ready_pods_of_all_clusters_and_without_any_it_does_not_exist() {
    row(Kind::A, "pods.shop", "NoError 127.1.64.1, 127.1.128.8, 127.1.128.9");
    row(Kind::Aaaa, "pods.shop", "NoError");
    row(Kind::A, "asleep.shop", "NxDomain");
    row(Kind::Srv, "_http._tcp.asleep.shop", "NxDomain");
    row(Kind::A, "_tcp.asleep.shop", "NxDomain");
    row(Kind::A, "asleep-0.e1.asleep.shop", "NxDomain");
}

#[test]
fn a_pod_is_named_by_hostname_and_cluster_or_by_its_dashed_address() {
    row(Kind::A, "pods-0.w1.pods.shop", "NoError 127.1.64.1");
    row(Kind::A, "pods-0.e1.pods.shop", "NoError 127.1.128.8");
    row(Kind::A, "127-1-128-9.e1.pods.shop", "NoError 127.1.128.9");
    row(Kind::Aaaa, "pods-0.e1.pods.shop", "NoError");
    row(Kind::A, "127-1-128-9.w1.pods.shop", "NxDomain");
}

#[test]
fn srv_of_a_headless_name_has_each_endpoint_for_each_port_that_its_cluster_exposes() {
    row(
        Kind::Srv,
        "_http._tcp.pods.shop",
        "NoError 33 80 127-1-128-9.e1.pods.shop~, 33 80 pods-0.e1.pods.shop~, 33 80 pods-0.w1.pods.shop~",
    );
    row(Kind::Srv, "_admin._tcp.pods.shop", "NoError 50 81 127-1-128-9.e1.pods.shop~, 50 81 pods-0.e1.pods.shop~");
    row(Kind::Srv, "pods-0.w1.pods.shop", "NoError 100 80 pods-0.w1.pods.shop~");
}

#[test]
fn a_cluster_s_id_before_a_service_s_name_does_not_exist() {
    row(Kind::A, "e1.pods.shop", "NxDomain");
    row(Kind::A, "w1.pods.shop", "NxDomain");
}

#[test]
fn a_name_of_another_type_and_an_empty_non_terminal_exist_without_data() {
    for (kind, name) in [
        (Kind::Txt, "hello.shop"),
        (Kind::Srv, "shop"),
        (Kind::A, "shop"),
        (Kind::A, ""),
        (Kind::Other, "pods.shop"),
        (Kind::A, "_tcp._tcp.hello.shop"),
        (Kind::A, "_tcp.hello.shop"),
    ] {
        let found = answer(&table(), format!("{name}.svc.clusterset.local").trim_start_matches('.'), kind);
        assert_eq!((found.code, found.records.len(), found.origin.as_deref()), (Code::NoError, 0, Some("clusterset.local")), "{name}");
    }
    row(Kind::A, "absent", "NxDomain");
    row(Kind::A, "absent.shop", "NxDomain");
}

#[test]
fn before_the_first_sync_no_name_of_the_cluster_set_is_denied() {
    let nothing = Snapshot::empty(table().own().clone());
    for name in ["hello.shop.svc.clusterset.local", "absent.svc.clusterset.local", "svc.clusterset.local"] {
        check_in(&nothing, Kind::A, name, "ServFail");
    }
}

#[test]
fn addresses_and_targets_of_a_big_headless_service_are_the_same_part_of_it() {
    let many = (0..200_u8)
        .map(|nth| RemoteEndpoint { hostname: format!("pod-{nth:03}").parse().ok(), ..stand_in("pod", &format!("127.1.130.{nth}")) });
    let pods: ServiceId = "shop/pods".parse().unwrap();
    let mut big = table().remote(&name("east"), &pods).unwrap().as_ref().clone();
    big.endpoints = many.map(Arc::new).collect();
    let snapshot = table().with([Change::Remote(name("east"), pods, Some(big))]);
    let addresses = answer(&snapshot, "pods.shop.svc.clusterset.local", Kind::A).records;
    let targets = answer(&snapshot, "_http._tcp.pods.shop.svc.clusterset.local", Kind::Srv).records;
    assert_eq!((addresses.len(), targets.len()), (64, 64));
    for (target, _) in targets {
        let Data::Srv { target, weight, .. } = target else { panic!("{target:?}") };
        assert_eq!(weight, 1);
        let of_one = answer(&snapshot, &target, Kind::A).records;
        assert!(of_one.iter().all(|one| addresses.contains(one)), "{target}");
    }
    let last = answer(&snapshot, "pod-199.e1.pods.shop.svc.clusterset.local", Kind::A);
    assert_eq!(last.records.len(), 1, "whom no list names can still be asked for");
}

#[test]
fn an_ipv6_address_without_a_hostname_is_a_label_too() {
    for (address, label) in [("fd00::1", "fd00--1"), ("::1", "0--1"), ("fd00::", "fd00--0")] {
        assert_eq!(dashed(address.parse().unwrap()), label);
        assert!(label.parse::<Label>().is_ok());
    }
}
