//! The gateway's decision, one line per case.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use mesh_names::Protocol;
use mesh_topology::{Change, Endpoint, Grant, Mesh, Own, PeersAllowed, Port, Service};

use super::*;

fn snapshot(mesh: Mesh) -> Snapshot {
    let id: mesh_names::ServiceId = "shop/cart".parse().unwrap();
    let identity: SpiffeId = "spiffe://east.mesh/ns/shop/sa/cart".parse().unwrap();
    let number = "80".parse().unwrap();
    let endpoint = Endpoint {
        name: "cart-0".parse().unwrap(),
        handle: "eastcart0".parse().unwrap(),
        address: IpAddr::from([127, 1, 64, 1]),
        ports: BTreeMap::from([(number, "8080".parse().unwrap())]),
        hostname: None,
        identity: identity.clone(),
        mesh,
        ready: true,
        zone: None,
        weight: 1,
    };
    let service = Service {
        id: id.clone(),
        addresses: Vec::new(),
        ports: vec![Port { name: None, number, protocol: Protocol::Http }],
        identities: vec![identity],
        endpoints: vec![Arc::new(endpoint)],
    };
    let export = mesh_topology::Export { service: id.clone(), ports: vec![number], peers: PeersAllowed::All, allow_unmeshed: true };
    let peer = Peer {
        name: "west".parse().unwrap(),
        id: "west-id".parse().unwrap(),
        trust_domain: "west.mesh".parse().unwrap(),
        grant: Grant::All,
        control_caller: "spiffe://west.mesh/ns/isthmus-system/sa/mesh-mirror-controller".parse().unwrap(),
    };
    let own = Own { cluster: "east".parse().unwrap(), id: None, trust_domain: "east.mesh".parse().unwrap(), ranges: Vec::new() };
    Snapshot::empty(own).with([
        Change::Service(id.clone(), Some(service)),
        Change::Export(id, Some(export)),
        Change::Peer(peer.trust_domain.clone(), Some(peer)),
        Change::Complete("east-id".parse().unwrap()),
    ])
}

fn proxied() -> Snapshot {
    snapshot(Mesh::Proxy("4143".parse().unwrap()))
}

fn id(text: &str) -> SpiffeId {
    format!("spiffe://{text}").parse().unwrap()
}

fn export(cluster: &str, service: &str, port: &str, handle: Option<&str>) -> TunnelRequest {
    TunnelRequest::new(Target::Export(Export {
        cluster: cluster.parse().unwrap(),
        service: service.parse().unwrap(),
        port: port.parse().unwrap(),
        handle: handle.map(|handle| handle.parse().unwrap()),
    }))
}

fn control(kind: Control) -> TunnelRequest {
    TunnelRequest::new(Target::Control(kind))
}

fn told(snapshot: &Snapshot, caller: &str, request: &TunnelRequest, draining: bool) -> String {
    let caller = id(caller);
    let Some(asker) = Asker::of(snapshot, &caller) else { return "nobody".to_owned() };
    match decide(snapshot, (&asker, &caller), request, draining, (&Loads::default(), Draw::new(Instant::now(), 1))) {
        Verdict::Join(join) => format!("join {} {}", join.address, join.handle),
        Verdict::Control => "control".to_owned(),
        Verdict::Watch => "watch".to_owned(),
        Verdict::Refuse(refusal) => format!("{}: {}", refusal.status.as_str(), refusal.reason),
    }
}

#[track_caller]
fn check(caller: &str, request: &TunnelRequest, expected: &str) {
    assert_eq!(told(&proxied(), caller, request, false), expected, "{caller} asks for {request:?}");
}

const FRONT: &str = "west.mesh/ns/shop/sa/front";
const MIRROR: &str = "west.mesh/ns/isthmus-system/sa/mesh-mirror-controller";

#[test]
fn a_peer_is_joined_to_what_it_may_import_and_to_nothing_else() {
    check(FRONT, &export("east-id", "shop/cart", "80", None), "join 127.1.64.1:4143 eastcart0");
    check(FRONT, &export("east-id", "shop/cart", "80", Some("eastcart0")), "join 127.1.64.1:4143 eastcart0");
    check(FRONT, &export("east-id", "shop/cart", "80", Some("eastcart9")), "no-endpoint: no-endpoint");
    check(FRONT, &export("east-id", "shop/cart", "8080", None), "not-exported-or-unknown: not-exported");
    check(FRONT, &export("east-id", "shop/nothing", "80", None), "not-exported-or-unknown: not-exported");
    check(FRONT, &export("west-id", "shop/cart", "80", None), "not-exported-or-unknown: not-exported");
}

#[test]
fn the_own_trust_domain_may_watch_and_no_stranger_gets_in() {
    check("east.mesh/ns/shop/sa/front", &TunnelRequest::new(Target::Watch), "watch");
    check("east.mesh/ns/shop/sa/front", &export("east-id", "shop/cart", "80", None), "not-exported-or-unknown: not-exported");
    check("mars.mesh/ns/shop/sa/front", &TunnelRequest::new(Target::Watch), "nobody");
}

#[test]
fn control_services_are_for_the_one_caller_that_the_peer_object_names() {
    check(MIRROR, &control(Control::Exports), "control");
    check(MIRROR, &control(Control::Bundle), "control");
    check(MIRROR, &control(Control::Operations), "denied: control-caller");
    check(FRONT, &control(Control::Exports), "denied: control-caller");
    check("east.mesh/ns/isthmus-system/sa/mesh-mirror-controller", &control(Control::Exports), "denied: control-caller");
}

#[test]
fn a_request_that_crossed_two_gateways_crosses_no_third() {
    let mut request = export("east-id", "shop/cart", "80", None);
    request.hops = 1;
    check(FRONT, &request, "join 127.1.64.1:4143 eastcart0");
    request.hops = 2;
    check(FRONT, &request, "too-many-hops: hops");
}

#[test]
fn a_draining_gateway_only_watches() {
    let (snapshot, cart) = (proxied(), export("east-id", "shop/cart", "80", None));
    assert_eq!(told(&snapshot, FRONT, &cart, true), "draining: draining");
    assert_eq!(told(&snapshot, MIRROR, &control(Control::Exports), true), "draining: draining");
    assert_eq!(told(&snapshot, FRONT, &TunnelRequest::new(Target::Watch), true), "watch");
}

#[test]
fn an_endpoint_without_a_proxy_is_not_joined() {
    assert_eq!(told(&snapshot(Mesh::Plain), FRONT, &export("east-id", "shop/cart", "80", None), false), "no-endpoint: no-proxy");
}

#[test]
fn an_open_tunnel_ends_with_its_export_or_its_peer_but_not_with_its_endpoint() {
    let snapshot = proxied();
    let Verdict::Join(join) = ({
        let caller = id(FRONT);
        let asker = Asker::of(&snapshot, &caller).unwrap();
        let request = export("east-id", "shop/cart", "80", None);
        decide(&snapshot, (&asker, &caller), &request, false, (&Loads::default(), Draw::new(Instant::now(), 1)))
    }) else {
        panic!("not joined")
    };
    let (service, held) = (join.export.service.clone(), Held::Export(Box::new(join)));
    let after = |change| still_allowed(&snapshot.with([change]), &id(FRONT), &held);
    assert_eq!(still_allowed(&snapshot, &id(FRONT), &held), Ok(()));
    assert_eq!(after(Change::Export(service.clone(), None)), Err("not-exported"));
    assert_eq!(after(Change::Peer("west.mesh".parse().unwrap(), None)), Err("unknown-peer"));
    let mut emptied = Service::clone(snapshot.service(&service).unwrap());
    emptied.endpoints.clear();
    assert_eq!(after(Change::Service(service, Some(emptied))), Ok(()));
    assert_eq!(still_allowed(&snapshot, &id(FRONT), &Held::Control), Err("control-caller"));
    assert_eq!(still_allowed(&snapshot, &id(MIRROR), &Held::Control), Ok(()));
}
