//! What is planned, for worlds of a few services.

mod agreement;
pub(crate) mod world;

use expect_test::{Expect, expect};

use self::world::{applied, exported, link, listed, listed_as, west};
use super::*;
use crate::model::{Kind, Namespaces, NotExported, OwnExport, OwnPods, OwnService, SeenLink};
use mesh_api::translate::{ExportedPort, ExportedProperties, Transport};
use mesh_names::PortName;
use mesh_topology::ImportKind;

fn told(of: &[(&str, &[&str])]) -> Told {
    of.iter().map(|(link, services)| (link.parse().unwrap(), listed(link, services))).collect()
}

fn decide(seen: &Seen, told: &Told) -> Plan {
    plan(seen, told, EgressRange::default())
}

/// What is planned, one line each; refusals at the end.
fn check(seen: &Seen, told: &Told, expected: Expect) -> Plan {
    let plan = decide(seen, told);
    let mut lines: Vec<String> = plan.changes.iter().map(show).collect();
    for (link, refused) in &plan.refused {
        lines.extend(refused.iter().map(|(id, why)| format!("refuse {id} of {link}: {}", why.reason())));
    }
    expected.assert_eq(&lines.join("\n"));
    plan
}

fn show(change: &Change) -> String {
    match change {
        Change::Create(object) => format!("create {}{}", object.id(), details(object)),
        Change::Update(object) => format!("update {}{}", object.id(), details(object)),
        Change::Delete(id, _) => format!("delete {id}"),
    }
}

fn details(object: &Object) -> String {
    match object {
        Object::Service(it) => {
            let ports: Vec<String> = it.ports.iter().map(|port| port.number.to_string()).collect();
            format!(" {}", ports.join(","))
        }
        Object::Slice(it) => {
            let addresses: Vec<String> = it.addresses.iter().map(ToString::to_string).collect();
            format!(" {}", addresses.join(","))
        }
        Object::Headless(it) => {
            let endpoint = |(address, hostname): &(std::net::IpAddr, Option<mesh_names::Label>)| {
                format!("{}@{address}", hostname.as_ref().map_or("", |hostname| hostname.as_str()))
            };
            let endpoints: Vec<String> = it.endpoints.iter().map(endpoint).collect();
            format!(" {} of {}", endpoints.join(","), it.source)
        }
        Object::Import(it) => {
            let ports: Vec<String> = it.ports.iter().map(|port| port.number.to_string()).collect();
            let clusters: Vec<&str> = it.clusters.iter().map(|id| id.as_str()).collect();
            let kind = if it.kind == ImportKind::Headless { " headless" } else { "" };
            let ready = if it.ready { "" } else { " not ready" };
            format!(" {} of {}{kind} at {:?}{ready}", ports.join(","), clusters.join(","), it.ips)
        }
    }
}

/// The world in which `told` has been carried out until nothing is left to do.
fn settled(mut seen: Seen, told: &Told) -> Seen {
    for _ in 0..4 {
        let changes = decide(&seen, told).changes;
        if changes.is_empty() {
            return seen;
        }
        seen = applied(seen, changes);
    }
    panic!("it never settles: {:?}", decide(&seen, told).changes);
}

#[test]
fn an_export_gets_its_mirror_and_its_place_in_the_cluster_set() {
    check(
        &west(&["east"]),
        &told(&[("east", &["shop/web"])]),
        expect![[r#"
            create Service shop/web-clusterset 80
            create Service shop/web-east 80
            create EndpointSlice shop/web-east-ipv4 127.2.0.5
            create ServiceImport shop/web 80 of id-east at [] not ready"#]],
    );
}

#[test]
fn the_import_learns_the_address_and_then_nothing_is_left_to_do() {
    let told = told(&[("east", &["shop/web"])]);
    let seen = applied(west(&["east"]), decide(&west(&["east"]), &told).changes);
    check(
        &seen,
        &told,
        expect![[r#"
        create EndpointSlice shop/web-clusterset-id-east-ipv4 127.2.0.5
        update ServiceImport shop/web 80 of id-east at [127.2.128.1]"#]],
    );
    settled(seen, &told);
}

#[test]
fn an_export_that_disappears_takes_its_mirror_with_it() {
    let seen = settled(west(&["east"]), &told(&[("east", &["shop/web", "shop/old"])]));
    check(
        &seen,
        &told(&[("east", &["shop/web"])]),
        expect![[r#"
            delete Service shop/old-clusterset
            delete Service shop/old-east
            delete EndpointSlice shop/old-clusterset-id-east-ipv4
            delete EndpointSlice shop/old-east-ipv4
            delete ServiceImport shop/old"#]],
    );
}

#[test]
fn nothing_is_deleted_before_a_link_has_said_everything() {
    let seen = settled(west(&["east", "north"]), &told(&[("east", &["shop/web"]), ("north", &["shop/web", "shop/cart"])]));
    check(&seen, &Told::new(), expect![""]);
    check(
        &seen,
        &told(&[("east", &[])]),
        expect![[r#"
            delete Service shop/web-east
            delete EndpointSlice shop/web-clusterset-id-east-ipv4
            delete EndpointSlice shop/web-east-ipv4
            update ServiceImport shop/web 80 of id-north at [127.2.128.1]"#]],
    );
}

#[test]
fn a_link_whose_spec_is_broken_keeps_what_it_has() {
    let mut seen = settled(west(&["east"]), &told(&[("east", &["shop/web"])]));
    seen.links.insert("east".parse().unwrap(), Err("bad".into()));
    check(&seen, &Told::new(), expect![""]);
}

#[test]
fn a_link_that_is_gone_takes_everything_with_it() {
    let mut seen = settled(west(&["east"]), &told(&[("east", &["shop/web", "shop/stock~"])]));
    seen.links.clear();
    let plan = decide(&seen, &Told::new());
    assert_eq!(plan.changes.len(), seen.objects.len());
    assert!(plan.changes.iter().all(|change| matches!(change, Change::Delete(..))));
}

#[test]
fn a_new_gateway_enters_the_slices_also_of_a_link_that_is_silent() {
    let mut seen = settled(west(&["east"]), &told(&[("east", &["shop/web"])]));
    seen.gateways.insert("127.2.0.6".parse().unwrap());
    check(
        &seen,
        &Told::new(),
        expect![[r#"
            update EndpointSlice shop/web-clusterset-id-east-ipv4 127.2.0.5,127.2.0.6
            update EndpointSlice shop/web-east-ipv4 127.2.0.5,127.2.0.6"#]],
    );
}

#[test]
fn linked_is_not_trusted() {
    let mut seen = west(&["east"]);
    seen.taken.insert((Kind::Service, "shop/own-east".parse().unwrap()));
    let mut stranger = exported("east", "shop/stranger");
    stranger.identities = vec!["spiffe://east.mesh/ns/isthmus-system/sa/mesh-control".into(), "spiffe://north.mesh/ns/shop/sa/a".into()];
    let mut bare = exported("east", "shop/bare");
    bare.ports.clear();
    let long = format!("shop/{}", "x".repeat(60));
    let rest = ["kube-system/dns", "isthmus-system/control", "absent/web", "shop/own", &long].map(|service| exported("east", service));
    let services = [vec![stranger, bare], rest.to_vec()].concat();
    let told = Told::from([("east".parse().unwrap(), listed_as("east", services))]);
    let plan = decide(&seen, &told);
    let refused: Vec<String> = plan.refused.values().flatten().map(|(id, why)| format!("{} {}", id.namespace(), why.reason())).collect();
    expect![[r#"
        absent namespace-absent
        isthmus-system namespace-protected
        kube-system namespace-protected
        shop no-ports
        shop name-taken
        shop identity-not-allowed
        shop name-too-long"#]]
    .assert_eq(&refused.join("\n"));
    let created: Vec<String> = plan.changes.iter().map(show).filter(|line| line.contains("Service shop/own")).collect();
    assert_eq!(created, ["create Service shop/own-clusterset 80"], "the cluster-set name still works");
}

#[test]
fn only_granted_namespaces_receive_imports() {
    let mut seen = west(&[]);
    let grant = Namespaces::Only(["other".parse().unwrap()].into());
    seen.links.insert("east".parse().unwrap(), Ok(SeenLink { grant, ..link("east") }));
    check(&seen, &told(&[("east", &["shop/web"])]), expect!["refuse shop/web of east: namespace-not-granted"]);
}

#[test]
fn without_sameness_there_is_a_mirror_and_no_merge() {
    let mut seen = west(&[]);
    let sameness = Namespaces::Only([].into());
    seen.links.insert("east".parse().unwrap(), Ok(SeenLink { sameness, ..link("east") }));
    check(
        &seen,
        &told(&[("east", &["shop/web"])]),
        expect![[r#"
            create Service shop/web-east 80
            create EndpointSlice shop/web-east-ipv4 127.2.0.5"#]],
    );
}

#[test]
fn a_headless_export_gets_stand_ins_and_no_cluster_set_address() {
    check(
        &west(&["east"]),
        &told(&[("east", &["shop/stock~"])]),
        expect![[r#"
            create Service shop/pod-0-stock-east 80
            create Service shop/stock-east 80
            create EndpointSlice shop/stock-east-ipv4 127.2.0.5
            create ServiceImport shop/stock 80 of id-east headless at []"#]],
    );
}

fn own_export(created_at: i64, port: u16) -> OwnExport {
    let port = ExportedPort {
        name: Some("http".parse().unwrap()),
        number: port.try_into().unwrap(),
        transport: Transport::Tcp,
        app_protocol: None,
    };
    OwnExport { created_at, service: Ok(OwnService { headless: false, ports: vec![port], properties: ExportedProperties::default() }) }
}

#[test]
fn an_own_export_merges_and_a_conflict_is_told() {
    let mut seen = west(&["east"]);
    seen.exports.insert("shop/web".parse().unwrap(), own_export(0, 80));
    let plan = decide(&seen, &told(&[("east", &["shop/web"])]));
    let import = plan.changes.iter().map(show).find(|line| line.contains("ServiceImport"));
    assert_eq!(import.unwrap(), "create ServiceImport shop/web 80 of id-east,id-west at [] not ready");
    assert!(plan.exports.values().all(|says| says.conflicts.as_ref().unwrap().is_empty()));
    seen.exports.insert("shop/web".parse().unwrap(), own_export(2, 81));
    let plan = decide(&seen, &told(&[("east", &["shop/web"])]));
    assert!(plan.exports.values().all(|says| !says.conflicts.as_ref().unwrap().is_empty()));
}

#[test]
fn an_own_export_is_imported_here_too_and_only_where_its_namespace_is_no_protected_one() {
    let mut seen = west(&[]);
    for service in ["shop/web", "kube-system/web"] {
        seen.exports.insert(service.parse().unwrap(), own_export(0, 80));
    }
    check(&settled(seen.clone(), &Told::new()), &Told::new(), expect![""]);
    check(
        &seen,
        &Told::new(),
        expect![[r#"
            create Service shop/web-clusterset 80
            create ServiceImport shop/web 80 of id-west at [] not ready"#]],
    );
}

#[test]
fn an_export_of_which_nothing_comes_says_why() {
    let mut seen = west(&["east"]);
    let told = told(&[("east", &["shop/web"])]);
    let mut portless = own_export(0, 80);
    portless.service.as_mut().unwrap().ports.clear();
    seen.exports.insert("kube-system/web".parse().unwrap(), own_export(0, 80));
    seen.exports.insert("shop/portless".parse().unwrap(), portless);
    seen.exports.insert("shop/web".parse().unwrap(), own_export(0, 80));
    seen.taken.insert((Kind::Import, "shop/web".parse().unwrap()));
    let plan = decide(&seen, &told);
    let failed: Vec<_> = plan.exports.values().map(|says| says.failed).collect();
    assert_eq!(failed, [Some(Failed::NamespaceProtected), Some(Failed::NoPorts), Some(Failed::ImportTaken)]);
    let of_the_set = |change: &&Change| show(change).contains("ServiceImport") || show(change).contains("-clusterset");
    assert_eq!(plan.changes.iter().filter(of_the_set).count(), 0);
}

#[test]
fn conflicts_stay_as_they_were_told_while_a_link_is_silent() {
    let mut seen = west(&["east"]);
    seen.exports.insert("shop/web".parse().unwrap(), own_export(2, 81));
    let told = told(&[("east", &["shop/web"])]);
    let seen = settled(seen, &told);
    let says = |told: &Told| decide(&seen, told).exports[&"shop/web".parse::<ServiceId>().unwrap()].conflicts.clone();
    assert_eq!(says(&told), Some([Conflict::Ports].into()));
    assert_eq!(says(&Told::new()), None);
    check(&seen, &Told::new(), expect![""]);
}

#[test]
fn a_port_that_an_older_export_takes_the_name_of_stays_in_the_service_and_in_its_cluster_s_slice() {
    let mut seen = west(&["east"]);
    seen.exports.insert("shop/web".parse().unwrap(), own_export(0, 8080));
    let seen = settled(seen, &told(&[("east", &["shop/web"])]));
    let names = |ports: Vec<Option<PortName>>| ports.into_iter().map(|name| name.unwrap().to_string()).collect::<Vec<_>>();
    let object =
        |name: &str| seen.objects.iter().find(|(id, _)| id.name == name && id.kind != Kind::Import).unwrap().1.object.clone().unwrap();
    let Object::Service(service) = object("web-clusterset") else { panic!("no Service") };
    assert_eq!(names(service.ports.into_iter().map(|port| port.name).collect()), ["http-80-tcp", "http-8080-tcp"]);
    for (cluster, expected) in [("id-west", "http-8080-tcp"), ("id-east", "http-80-tcp")] {
        let Object::Slice(slice) = object(&format!("web-clusterset-{cluster}-ipv4")) else { panic!("no slice") };
        assert_eq!(names(slice.ports.into_iter().map(|port| port.name).collect()), [expected]);
    }
}

#[test]
fn clients_keep_the_address_of_an_import_that_has_become_headless() {
    let told = told(&[("east", &["shop/web"])]);
    let mut seen = settled(west(&["east"]), &told);
    let mut headless = own_export(0, 80);
    headless.service.as_mut().unwrap().headless = true;
    seen.exports.insert("shop/web".parse().unwrap(), headless);
    let seen = settled(seen, &told);
    let service = ObjectId::service(&"shop/web-clusterset".parse().unwrap());
    let import = ObjectId { kind: Kind::Import, ..ObjectId::service(&"shop/web".parse().unwrap()) };
    let Some(Object::Import(import)) = &seen.objects[&import].object else { panic!("no import") };
    assert_eq!((import.kind, import.ips.len(), import.ready), (ImportKind::Headless, 0, true));
    assert!(seen.objects.contains_key(&service), "the address is in use");
    let alone = settled(seen, &told_nothing("east"));
    assert!(!alone.objects.contains_key(&service), "nobody has an address any more");
}

fn told_nothing(link: &str) -> Told {
    told(&[(link, &[])])
}

#[test]
fn a_headless_import_has_a_slice_per_cluster_with_the_hostnames_of_its_pods() {
    let mut seen = west(&["east"]);
    let mut own = own_export(5, 80);
    own.service.as_mut().unwrap().headless = true;
    seen.exports.insert("shop/stock".parse().unwrap(), own);
    let pod = ("127.2.64.1".parse().unwrap(), "stock-0".parse().ok());
    seen.pods.insert("shop/stock".parse().unwrap(), OwnPods { endpoints: [pod].into(), ports: Vec::new() });
    let told = told(&[("east", &["shop/stock~"])]);
    let seen = settled(seen, &told);
    let slices = seen.objects.values().filter_map(|found| found.object.as_ref().filter(|object| matches!(object, Object::Headless(_))));
    let slices: Vec<String> = slices.map(|object| format!("{}{}", object.id(), details(object))).collect();
    expect![[r#"
        EndpointSlice shop/stock-headless-id-east-ipv4 pod-0@127.2.128.1 of id-east
        EndpointSlice shop/stock-headless-id-west-ipv4 stock-0@127.2.64.1 of id-west"#]]
    .assert_eq(&slices.join("\n"));
    check(&seen, &Told::new(), expect![""]);
}

#[test]
fn a_deleted_import_comes_back_with_its_address() {
    let told = told(&[("east", &["shop/web"])]);
    let mut seen = settled(west(&["east"]), &told);
    seen.objects.retain(|id, _| id.kind != Kind::Import);
    check(&seen, &told, expect!["create ServiceImport shop/web 80 of id-east at [127.2.128.1]"]);
}

#[test]
fn an_export_without_a_service_imports_nothing() {
    let mut seen = west(&[]);
    seen.exports.insert("shop/web".parse().unwrap(), OwnExport { created_at: 0, service: Err(NotExported::NoService) });
    let plan = check(&seen, &Told::new(), expect![""]);
    assert_eq!(plan.exports.len(), 1);
}

#[test]
fn egress_ports_stay_as_they_were_recorded() {
    let seen = settled(west(&["east"]), &told(&[("east", &["shop/a"])]));
    let port = |seen: &Seen| {
        seen.objects.iter().find_map(|(id, found)| match &found.object {
            Some(Object::Slice(slice)) if id.name == "a-east-ipv4" => Some(slice.ports[0].number),
            _ => None,
        })
    };
    let before = port(&seen).unwrap();
    let many: Vec<String> = (0..50).map(|n| format!("shop/s{n}")).chain(["shop/a".to_owned()]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let after = settled(seen, &told(&[("east", &many)]));
    assert_eq!(port(&after), Some(before));
    let slices = after.objects.values().filter_map(|found| match &found.object {
        Some(Object::Slice(slice)) => Some(slice.ports[0].number),
        _ => None,
    });
    let ports: Vec<u16> = slices.collect();
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len(), "no port twice");
}

#[test]
fn a_cluster_set_service_that_somebody_deleted_gets_its_address_back() {
    let told = told(&[("east", &["shop/web"])]);
    let mut seen = settled(west(&["east"]), &told);
    seen.objects.retain(|id, _| id.name != "web-clusterset");
    let again = decide(&seen, &told).changes;
    let Some(Change::Create(Object::Service(service))) = again.first() else { panic!("{again:?}") };
    assert_eq!(service.address.0, Some("127.2.128.1".parse().unwrap()));
}
