//! The specification of [`crate::route`], one sentence per test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh_names::{AppPort, Protocol};

use crate::testing::{east_and_west, import, link, port, put_import, put_link, put_remote, put_service, remote, service, start, west};
use crate::{
    Change, Draw, EndpointKey, Evidence, Loads, NoRoute, Outcome, Port, ProbeState, Remote, RequestKey, Route, Snapshot, Stage, Target,
};

fn show(route: &Result<Route, NoRoute>) -> String {
    match route {
        Ok(Route::Local(local)) => format!("{} at {}", local.endpoint.name, local.app_address()),
        Ok(Route::Remote(remote)) => {
            let handle = remote.handle().map_or("any", |handle| handle.as_str());
            format!("{} in {}", handle, remote.link.name)
        }
        Err(why) => why.reason().to_owned(),
    }
}

/// Where 1,000 requests for `key` go, and how many to each.
fn spread(snapshot: &Snapshot, key: &RequestKey, loads: &Loads) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for bits in 0..1000 {
        *counts.entry(show(&snapshot.route(key, loads, Draw::new(start(), bits)))).or_default() += 1;
    }
    counts
}

/// All requests for `target` on port 80 go to `expected`, each to some of it.
fn check(snapshot: &Snapshot, target: Target, loads: &Loads, expected: &[&str]) {
    let went: BTreeSet<String> = spread(snapshot, &RequestKey::new(target, port(80)), loads).into_keys().collect();
    assert_eq!(went, expected.iter().map(ToString::to_string).collect());
}

fn cart() -> Target {
    Target::ClusterSet("shop/cart".parse().unwrap())
}

/// `own` endpoints in west, and for each link its name, priority and endpoints.
fn cart_in(own: u8, links: &[(&str, u32, u8)]) -> Snapshot {
    let names: Vec<&str> = links.iter().map(|(name, ..)| *name).collect();
    let base = west().with([put_import(import("shop/cart", own > 0, &names)), put_service(service("shop/cart", None, own))]);
    links.iter().zip(10..).fold(base, |snapshot, ((name, priority, endpoints), octet)| {
        snapshot.with([put_link(link(name, octet, *priority)), put_remote(remote(name, "shop/cart", *endpoints))])
    })
}

fn with_own_ready(snapshot: &Snapshot, ready: usize) -> Snapshot {
    let mut own = crate::Service::clone(snapshot.service(&"shop/cart".parse().unwrap()).unwrap());
    for endpoint in own.endpoints.iter_mut().skip(ready) {
        Arc::make_mut(endpoint).ready = false;
    }
    snapshot.with([put_service(own)])
}

fn failed(loads: &mut Loads, key: EndpointKey, stage: Stage) {
    loads.on_started(&key, start());
    loads.on_finished(&key, Duration::from_millis(1), Outcome::Failed(stage), start());
}

fn dark(gateways: &[[u8; 4]]) -> Arc<Evidence> {
    let seen = gateways.iter().fold(Evidence::default(), |seen, ip| seen.with_state((*ip, 4143).into(), ProbeState::Dark));
    Arc::new(seen)
}

#[test]
fn a_service_of_the_cluster_set_is_served_by_the_own_cluster_while_it_can() {
    check(&cart_in(2, &[("east", 0, 2)]), cart(), &Loads::default(), &["cart-0 at 127.2.64.1:8080", "cart-1 at 127.2.64.2:8080"]);
}

#[test]
fn a_service_fails_over_when_its_own_cluster_has_no_ready_endpoint() {
    let snapshot = with_own_ready(&cart_in(2, &[("east", 0, 2)]), 0);
    check(&snapshot, cart(), &Loads::default(), &["eastcart0 in east", "eastcart1 in east"]);
}

#[test]
fn a_tier_that_loses_more_than_its_headroom_spills_gradually() {
    let snapshot = cart_in(4, &[("east", 0, 1)]);
    let to_east = |ready| {
        let counts = spread(&with_own_ready(&snapshot, ready), &RequestKey::new(cart(), port(80)), &Loads::default());
        counts.get("eastcart0 in east").copied().unwrap_or(0)
    };
    assert_eq!((to_east(4), to_east(3)), (0, 0), "a quarter lost is within the headroom");
    assert!((250..350).contains(&to_east(2)), "half lost: 1 - 0.5 * 1.4 = 30 % go to east, not {}", to_east(2));
    assert!((600..700).contains(&to_east(1)), "three quarters lost: 65 % go to east, not {}", to_east(1));
    assert_eq!(to_east(0), 1000);
}

#[test]
fn a_service_served_in_both_clusters_survives_losing_either() {
    let snapshot = cart_in(1, &[("east", 0, 1)]);
    let mut without_own = Loads::default();
    failed(&mut without_own, EndpointKey::Local("cart-0".parse().unwrap()), Stage::Dial);
    check(&snapshot, cart(), &without_own, &["eastcart0 in east"]);
    let mut without_east = Loads::default();
    without_east.see(&dark(&[[127, 10, 0, 4], [127, 10, 0, 5]]));
    check(&snapshot, cart(), &without_east, &["cart-0 at 127.2.64.1:8080"]);
}

#[test]
fn a_link_of_lower_priority_waits_for_the_others_to_fail() {
    let snapshot = cart_in(0, &[("east", 0, 1), ("north", 1, 1)]);
    check(&snapshot, cart(), &Loads::default(), &["eastcart0 in east"]);
    let mut loads = Loads::default();
    loads.see(&dark(&[[127, 10, 0, 4], [127, 10, 0, 5]]));
    check(&snapshot, cart(), &loads, &["northcart0 in north"]);
}

#[test]
fn links_of_equal_priority_share_and_weights_divide_only_a_clusters_own_part() {
    let counts = spread(&cart_in(0, &[("east", 0, 1), ("north", 0, 3)]), &RequestKey::new(cart(), port(80)), &Loads::default());
    let east = counts["eastcart0 in east"];
    assert!((400..600).contains(&east), "{counts:?}");
}

/// `cart_in` west and east, one endpoint each, which expose these ports; the import has those of west, which is older.
fn cart_exposing(own: &[(&str, u16, Protocol)], east: &[(&str, u16, Protocol)]) -> Snapshot {
    let ports = |of: &[(&str, u16, Protocol)]| -> Vec<Port> {
        of.iter().map(|(name, number, protocol)| Port { name: name.parse().ok(), number: port(*number), protocol: *protocol }).collect()
    };
    let mut cart = service("shop/cart", None, 1);
    let app: AppPort = 8080_u16.try_into().unwrap();
    Arc::make_mut(&mut cart.endpoints[0]).ports = own.iter().map(|(_, number, _)| (port(*number), app)).collect();
    cart.ports = ports(own);
    let mut set = import("shop/cart", true, &["east"]);
    set.ports = ports(own);
    set.addresses = vec!["127.2.128.2".parse().unwrap()];
    let theirs = Remote { ports: ports(east), ..remote("east", "shop/cart", 1) };
    cart_in(1, &[("east", 0, 1)]).with([put_service(cart), put_import(set), put_remote(theirs)])
}

/// Where requests for `cart` on `number` go, by its name's address too.
fn goes(snapshot: &Snapshot, number: u16) -> Vec<String> {
    let by_address = snapshot.resolve_address(([127, 2, 128, 2], number).into());
    let by_name = snapshot.resolve(&"cart.shop.svc.clusterset.local".parse().unwrap(), port(number));
    assert_eq!(by_address, by_name);
    spread(snapshot, &RequestKey::new(cart(), port(number)), &Loads::default()).into_keys().collect()
}

#[test]
fn a_port_that_only_one_cluster_exposes_reaches_that_cluster_alone() {
    let snapshot = cart_exposing(&[("http", 80, Protocol::Http)], &[("http", 80, Protocol::Http), ("admin", 81, Protocol::Http)]);
    assert_eq!(goes(&snapshot, 80), ["cart-0 at 127.2.64.1:8080"]);
    assert_eq!(goes(&snapshot, 81), ["eastcart0 in east"]);
    let without_own = with_own_ready(&snapshot, 0);
    assert_eq!((goes(&without_own, 80), goes(&without_own, 81)), (vec!["eastcart0 in east".to_owned()], goes(&snapshot, 81)));
    let mut gone = Remote::clone(snapshot.remote(&"east".parse().unwrap(), &"shop/cart".parse().unwrap()).unwrap());
    Arc::make_mut(&mut gone.endpoints[0]).ready = false;
    assert_eq!(goes(&snapshot.with([put_remote(gone)]), 81), ["nothing_ready"], "never another cluster's endpoints");
}

#[test]
fn a_port_that_lost_its_name_to_an_older_export_still_reaches_who_exposes_it() {
    let snapshot = cart_exposing(&[("http", 80, Protocol::Http)], &[("http", 8080, Protocol::Http)]);
    assert_eq!(goes(&snapshot, 80), ["cart-0 at 127.2.64.1:8080"]);
    assert_eq!(goes(&snapshot, 8080), ["eastcart0 in east"]);
    assert_eq!(goes(&snapshot, 8081), ["unknown_port"]);
}

#[test]
fn streams_do_not_go_where_the_number_is_a_datagram_port() {
    let snapshot = cart_exposing(&[("dns", 53, Protocol::Udp)], &[("dns-tcp", 53, Protocol::Tcp)]);
    assert_eq!(goes(&snapshot, 53), ["eastcart0 in east"]);
}

#[test]
fn a_peer_s_weights_take_no_more_than_the_part_of_its_cluster() {
    let snapshot = cart_in(0, &[("east", 0, 2), ("north", 0, 1)]);
    let mut greedy = Remote::clone(snapshot.remote(&"east".parse().unwrap(), &"shop/cart".parse().unwrap()).unwrap());
    for endpoint in &mut greedy.endpoints {
        Arc::make_mut(endpoint).weight = u32::MAX;
    }
    let counts = spread(&snapshot.with([put_remote(greedy)]), &RequestKey::new(cart(), port(80)), &Loads::default());
    let north = counts["northcart0 in north"];
    assert!((400..600).contains(&north), "{counts:?}");
}

#[test]
fn a_link_that_is_dark_for_this_proxy_is_passed_over_at_once() {
    let snapshot = cart_in(0, &[("east", 0, 1), ("north", 0, 1)]);
    let mut loads = Loads::default();
    loads.see(&dark(&[[127, 10, 0, 4], [127, 10, 0, 5]]));
    check(&snapshot, cart(), &loads, &["northcart0 in north"]);
    let mut refused = Loads::default();
    for last in [4, 5] {
        failed(&mut refused, EndpointKey::Gateway(([127, 10, 0, last], 4143).into()), Stage::Gateway);
    }
    check(&snapshot, cart(), &refused, &["northcart0 in north"]);
}

#[test]
fn a_gateway_that_is_dark_or_draining_is_passed_over() {
    let snapshot = cart_in(0, &[("east", 0, 1)]);
    let mut loads = Loads::default();
    loads.see(&Arc::new(Evidence::default().with_draining(([127, 10, 0, 4], 4143).into(), true)));
    for bits in 0..100 {
        let Ok(Route::Remote(route)) = snapshot.route(&RequestKey::new(cart(), port(80)), &loads, Draw::new(start(), bits)) else {
            panic!("not through a gateway");
        };
        assert_eq!(route.gateway().address.to_string(), "127.10.0.5:4143");
        assert_eq!(route.gateways().count(), 2);
    }
}

#[test]
fn a_link_that_the_probes_call_unreachable_is_passed_over_and_a_drained_one_is_never_used() {
    let health = |health| {
        let mut east = link("east", 10, 0);
        east.health = health;
        cart_in(0, &[("east", 0, 1), ("north", 1, 1)]).with([put_link(east)])
    };
    use crate::LinkHealth::{Drained, Unknown, Unreachable};
    check(&health(Unreachable), cart(), &Loads::default(), &["northcart0 in north"]);
    check(&health(Drained), cart(), &Loads::default(), &["northcart0 in north"]);
    check(&health(Unknown), cart(), &Loads::default(), &["eastcart0 in east"]);
    let alone = |link_health| health(link_health).with([put_import(import("shop/cart", false, &["east"]))]);
    check(&alone(Unreachable), cart(), &Loads::default(), &["eastcart0 in east"]);
    check(&alone(Drained), cart(), &Loads::default(), &["nothing_ready"]);
}

#[test]
fn without_valid_handles_the_gateway_chooses() {
    let mut lapsed = remote("east", "shop/cart", 2);
    lapsed.handles_valid = false;
    let snapshot = cart_in(0, &[("east", 0, 2)]).with([put_remote(lapsed)]);
    check(&snapshot, cart(), &Loads::default(), &["any in east"]);
}

#[test]
fn an_endpoint_that_is_not_ready_or_has_weight_zero_gets_nothing() {
    let mut some = remote("east", "shop/cart", 3);
    Arc::make_mut(&mut some.endpoints[0]).ready = false;
    Arc::make_mut(&mut some.endpoints[1]).weight = 0;
    let snapshot = cart_in(0, &[("east", 0, 3)]).with([put_remote(some)]);
    check(&snapshot, cart(), &Loads::default(), &["eastcart2 in east"]);
}

#[test]
fn a_name_of_one_cluster_is_asked_there_only() {
    let snapshot = cart_in(1, &[("east", 0, 1), ("north", 0, 1)]);
    let service = || "shop/cart".parse().unwrap();
    check(&snapshot, Target::In { cluster: "north".parse().unwrap(), service: service() }, &Loads::default(), &["northcart0 in north"]);
    check(&snapshot, Target::Own(service()), &Loads::default(), &["cart-0 at 127.2.64.1:8080"]);
    check(&with_own_ready(&snapshot, 0), Target::Own(service()), &Loads::default(), &["nothing_ready"]);
    check(&snapshot, Target::In { cluster: "mars".parse().unwrap(), service: service() }, &Loads::default(), &["unknown_cluster"]);
}

#[test]
fn a_pod_called_by_name_is_the_one_that_answers() {
    let snapshot = east_and_west();
    let one = Target::RemoteEndpoint {
        cluster: "east".parse().unwrap(),
        service: "shop/stock".parse().unwrap(),
        handle: "eaststock1".parse().unwrap(),
    };
    check(&snapshot, one, &Loads::default(), &["eaststock1 in east"]);
    let any_port = Target::OwnEndpoint {
        service: "shop/cart".parse().unwrap(),
        endpoint: "cart-0".parse().unwrap(),
        port: Some(AppPort::try_from(9999_u16).unwrap()),
    };
    check(&snapshot, any_port, &Loads::default(), &["cart-0 at 127.2.64.1:9999"]);
}

#[test]
fn a_retry_goes_elsewhere_while_there_is_an_elsewhere() {
    let snapshot = cart_in(1, &[("east", 0, 1)]);
    let (loads, mut key) = (Loads::default(), RequestKey::new(cart(), port(80)));
    let first = snapshot.route(&key, &loads, Draw::new(start(), 1)).unwrap();
    key.avoid(&first, false);
    assert_eq!(spread(&snapshot, &key, &loads).into_keys().collect::<Vec<_>>(), ["eastcart0 in east"]);
    let second = snapshot.route(&key, &loads, Draw::new(start(), 2)).unwrap();
    key.avoid(&second, false);
    assert_eq!(spread(&snapshot, &key, &loads).values().sum::<u32>(), 1000, "with nothing left, what was tried is tried again");
    assert!(spread(&snapshot, &key, &loads).keys().all(|route| route != "nothing_ready"));
}

#[test]
fn ejecting_everything_is_taken_as_a_mistake_of_ours() {
    let snapshot = cart_in(2, &[]);
    let mut loads = Loads::default();
    for name in ["cart-0", "cart-1"] {
        failed(&mut loads, EndpointKey::Local(name.parse().unwrap()), Stage::Dial);
    }
    check(&snapshot, cart(), &loads, &["cart-0 at 127.2.64.1:8080", "cart-1 at 127.2.64.2:8080"]);
}

#[test]
fn the_cheaper_endpoint_is_taken() {
    let snapshot = cart_in(2, &[]);
    let mut loads = Loads::default();
    loads.on_started(&EndpointKey::Local("cart-0".parse().unwrap()), start());
    check(&snapshot, cart(), &loads, &["cart-1 at 127.2.64.2:8080"]);
}

#[test]
fn a_caller_keeps_to_four_endpoints_and_takes_more_while_they_are_busy() {
    let (snapshot, mut loads) = (cart_in(40, &[]), Loads::new(7));
    let key = RequestKey::new(cart(), port(80));
    let used = spread(&snapshot, &key, &loads);
    assert_eq!(used.len(), 4, "{used:?}");
    assert_ne!(used, spread(&snapshot, &key, &Loads::new(8)), "another caller keeps to others");
    for endpoint in &snapshot.service(&"shop/cart".parse().unwrap()).unwrap().endpoints {
        for _ in 0..20 {
            loads.on_started(&EndpointKey::Local(endpoint.name.clone()), start());
        }
    }
    assert_eq!(spread(&snapshot, &key, &loads).len(), 40);
}

#[test]
fn a_port_that_only_one_cluster_has_reaches_only_that_cluster() {
    let mut more = remote("east", "shop/cart", 1);
    more.ports.push(Port { number: port(81), ..more.ports[0].clone() });
    let mut merged = import("shop/cart", true, &["east"]);
    merged.ports.clone_from(&more.ports);
    let snapshot = cart_in(1, &[("east", 0, 1)]).with([put_remote(more), put_import(merged)]);
    let went = spread(&snapshot, &RequestKey::new(cart(), port(81)), &Loads::default());
    assert_eq!(went.into_keys().collect::<Vec<_>>(), ["eastcart0 in east"]);
    let missing = snapshot.route(&RequestKey::new(cart(), port(82)), &Loads::default(), Draw::new(start(), 1));
    assert_eq!(show(&missing), "unknown_port");
}

#[test]
fn an_end_without_a_proxy_is_expected_under_the_gateways_identity() {
    let mut plain = remote("east", "shop/cart", 1);
    plain.proxyless = true;
    let snapshot = cart_in(0, &[("east", 0, 1)]).with([put_remote(plain)]);
    let Ok(Route::Remote(route)) = snapshot.route(&RequestKey::new(cart(), port(80)), &Loads::default(), Draw::new(start(), 1)) else {
        panic!("not remote");
    };
    assert_eq!(route.expected(), ["spiffe://east.mesh/ns/isthmus-system/sa/mesh-gateway".parse().unwrap()]);
}

#[test]
fn a_link_that_goes_takes_its_way_with_it_and_a_delta_shares_what_did_not_change() {
    let before = cart_in(1, &[("east", 0, 1)]);
    let after = before.with([Change::Link("east".parse().unwrap(), None)]);
    check(&with_own_ready(&after, 0), cart(), &Loads::default(), &["nothing_ready"]);
    assert!(Arc::ptr_eq(&before.services, &after.services) && Arc::ptr_eq(&before.by_address, &after.by_address));
}

#[test]
fn an_address_is_forgotten_with_the_last_that_had_it() {
    let snapshot = east_and_west();
    let address = "127.2.64.1".parse().unwrap();
    let mut second = service("shop/also", None, 1);
    second.id = "shop/also".parse().unwrap();
    let both = snapshot.with([put_service(second)]);
    assert_eq!(both.owners_of(address).len(), 2);
    let one = both.with([Change::Service("shop/cart".parse().unwrap(), None)]);
    assert_eq!(one.owners_of(address).len(), 1);
    let none = one.with([Change::Service("shop/also".parse().unwrap(), None)]);
    assert!(none.owners_of(address).is_empty());
}
