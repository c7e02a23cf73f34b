//! What is built from what was observed, one sentence per test.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::client::imports::Imports;
use mesh_api::translate::{ExportedPort, ExportedProperties, Transport};
use mesh_names::{ClusterName, ServiceId};
use mesh_topology::{Gateway, ImportKind, LinkHealth, Mesh, Remote, RemoteEndpoint};
use mesh_trust::Bundle;

use super::*;
use crate::handles::Handles;
use crate::observed::{
    Complete, Facts, Link, Mirror, Namespace, ObjectName, Objects, Observed, Pod, PodRef, Requirement, Seen, Selector, Service,
    ServiceExport, ServiceImport, Slice, SliceEndpoint, SlicePort,
};

/// A cluster called west, described step by step.
#[derive(Default)]
struct World {
    services: Vec<Service>,
    slices: Vec<Slice>,
    pods: Vec<(&'static str, Pod)>,
    namespaces: Vec<(&'static str, Namespace)>,
    exports: Vec<ServiceExport>,
    imports: Vec<ServiceImport>,
    links: Vec<Link>,
    peers: Vec<observed::Peer>,
    told: Imports,
    allow_unmeshed: bool,
}

impl World {
    /// A service in namespace shop, port 80 called http, and its pods: name, service account, whether it has a proxy.
    fn service(mut self, name: &str, pods: &[(&'static str, &str, bool)]) -> Self {
        let id = ServiceId::parse("shop", name).unwrap();
        self.services.push(Service { id: id.clone(), ..plain(name, "127.1.128.1") });
        let endpoints = pods.iter().enumerate().map(|(index, (pod, _, _))| SliceEndpoint {
            address: format!("127.1.64.{index}").parse().unwrap(),
            ready: true,
            hostname: Some(pod.parse().unwrap()),
            zone: None,
            pod: Some(PodRef { name: object("shop", pod), uid: Some(format!("uid-{pod}").parse().unwrap()) }),
        });
        let ports = vec![SlicePort { name: "http".into(), number: "8080".parse().unwrap(), protocol: mesh_names::Protocol::Http }];
        self.slices.push(Slice { service: id, ports, endpoints: endpoints.collect() });
        let known = self.pods.len();
        for (pod, account, proxied) in pods {
            let inbound = proxied.then(|| "4143".parse().unwrap());
            let addresses = vec![self.slices.last().unwrap().endpoints[self.pods.len() - known].address];
            self.pods.push((pod, Pod { uid: format!("uid-{pod}").parse().unwrap(), account: (*account).into(), addresses, inbound }));
        }
        self
    }

    fn export(mut self, name: &str, labels: &[(&str, &str)], allow_unmeshed: Option<bool>) -> Self {
        self.exports.push(ServiceExport {
            id: ServiceId::parse("shop", name).unwrap(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            allow_unmeshed,
            created_at: 17,
            exported_labels: BTreeMap::from([("tier".to_owned(), "gold".to_owned())]),
            exported_annotations: BTreeMap::new(),
        });
        self
    }

    fn mirror(mut self, name: &str, address: &str, mirror: Mirror, listener: &str) -> Self {
        self.services.push(Service { mirror: Some(mirror), ..plain(name, address) });
        let ports = vec![SlicePort { name: "http".into(), number: listener.parse().unwrap(), protocol: mesh_names::Protocol::Unknown }];
        self.slices.push(Slice { service: ServiceId::parse("shop", name).unwrap(), ports, endpoints: Vec::new() });
        self
    }

    fn link(mut self, name: &str) -> Self {
        let trust_domain: TrustDomain = format!("{name}.mesh").parse().unwrap();
        let identity = format!("spiffe://{trust_domain}/ns/isthmus-system/sa/mesh-gateway").parse().unwrap();
        let link = mesh_topology::Link {
            name: name.parse().unwrap(),
            id: format!("id-{name}").parse().unwrap(),
            gateways: vec![Gateway { address: "127.2.0.3:4143".parse().unwrap(), identity }],
            health: LinkHealth::Unknown,
            priority: 0,
            trust_domain: trust_domain.clone(),
        };
        self.links.push(Link { link, bundle: Bundle::new(trust_domain, 3, Vec::new()).unwrap() });
        self
    }

    fn peer(mut self, name: &str, namespaces: &[&str], selector: Option<Selector>) -> Self {
        let trust_domain: TrustDomain = format!("{name}.mesh").parse().unwrap();
        self.peers.push(observed::Peer {
            name: name.parse().unwrap(),
            id: format!("id-{name}").parse().unwrap(),
            caller: format!("spiffe://{trust_domain}/ns/isthmus-system/sa/mesh-mirror-controller").parse().unwrap(),
            bundle: Bundle::new(trust_domain.clone(), 5, Vec::new()).unwrap(),
            namespaces: namespaces.iter().map(|namespace| (*namespace).to_owned()).collect(),
            selector,
            told: None,
            trust_domain,
        });
        self
    }

    fn built(self) -> Built {
        let facts = Facts {
            cluster: "west".parse().unwrap(),
            trust_domain: "west.mesh".parse().unwrap(),
            ranges: vec!["127.1.64.0/18".parse().unwrap()],
            allow_unmeshed: self.allow_unmeshed,
            inbound: mesh_api::inject::Inbound::default(),
        };
        let by_service = |id: &ServiceId| object(id.namespace().as_str(), id.name().as_str());
        let seen = Observed {
            services: seen(self.services.into_iter().map(|one| (by_service(&one.id), one))),
            slices: seen(self.slices.into_iter().map(|one| (by_service(&one.service), one))),
            pods: seen(self.pods.into_iter().map(|(name, one)| (object("shop", name), one))),
            namespaces: seen(self.namespaces.into_iter().map(|(name, one)| (object("", name), one))),
            exports: seen(self.exports.into_iter().map(|one| (by_service(&one.id), one))),
            imports: seen(self.imports.into_iter().map(|one| (by_service(&one.id), one))),
            links: seen(self.links.into_iter().map(|one| (object("", one.link.name.as_str()), one))),
            peers: seen(self.peers.into_iter().map(|one| (object("", one.name.as_str()), one))),
            ..Observed::default()
        };
        let complete = Complete {
            seen,
            id: "id-west".parse().unwrap(),
            bundle: Bundle::new(facts.trust_domain.clone(), 1, Vec::new()).unwrap(),
            facts: Arc::new(facts),
            handles: Arc::new(Handles::new(&[7; 32]).unwrap()),
        };
        build(&complete, &self.told)
    }
}

fn object(namespace: &str, name: &str) -> ObjectName {
    ObjectName { namespace: namespace.into(), name: name.into() }
}

fn seen<T>(objects: impl Iterator<Item = (ObjectName, T)>) -> Seen<T> {
    let objects: Objects<T> = objects.map(|(name, one)| (name, Arc::new(one))).collect();
    let mut seen = Seen::default();
    seen.on_listed(None, &"id-west".parse().unwrap(), objects);
    seen
}

fn plain(name: &str, address: &str) -> Service {
    Service {
        id: ServiceId::parse("shop", name).unwrap(),
        addresses: vec![address.parse().unwrap()],
        headless: false,
        ports: vec![ExportedPort {
            name: Some("http".parse().unwrap()),
            number: "80".parse().unwrap(),
            transport: Transport::Tcp,
            app_protocol: None,
        }],
        mirror: None,
        properties: ExportedProperties::default(),
    }
}

fn shop(name: &str) -> ServiceId {
    ServiceId::parse("shop", name).unwrap()
}

fn name(text: &str) -> ClusterName {
    text.parse().unwrap()
}

fn mirror_of(service: &str, link: &str) -> Mirror {
    let identities = vec![
        format!("spiffe://{link}.mesh/ns/shop/sa/{service}").parse().unwrap(),
        "spiffe://west.mesh/ns/shop/sa/web".parse().unwrap(),
        format!("spiffe://{link}.mesh/ns/isthmus-system/sa/mesh-gateway").parse().unwrap(),
    ];
    Mirror::Cluster { link: name(link), service: shop(service), identities, proxyless: false }
}

#[test]
fn a_service_has_its_ready_pods_with_ports_identities_and_handles() {
    let built = World::default().service("web", &[("web-0", "web", true), ("web-1", "plain", false)]).built();
    let service = built.snapshot.service(&shop("web")).unwrap();
    assert_eq!(service.identities, ["spiffe://west.mesh/ns/shop/sa/web".parse().unwrap()], "whoever has no proxy proves nothing");
    let [first, second] = service.endpoints.as_slice() else { panic!("{service:?}") };
    assert_eq!((first.name.as_str(), first.mesh), ("uid-web-0", Mesh::Proxy("4143".parse().unwrap())));
    assert_eq!(first.ports, BTreeMap::from([("80".parse().unwrap(), "8080".parse().unwrap())]));
    assert_eq!(second.mesh, Mesh::Plain);
    assert_ne!(first.handle, second.handle);
    assert!(built.snapshot.is_complete());
}

#[test]
fn a_pod_of_two_address_families_is_one_endpoint() {
    let mut world = World::default().service("web", &[("web-0", "web", true)]);
    let mut other = world.slices[0].clone();
    other.endpoints[0].address = "::1".parse().unwrap();
    world.slices.push(other);
    assert_eq!(world.built().snapshot.service(&shop("web")).unwrap().endpoints.len(), 1);
}

#[test]
fn an_endpoint_that_is_no_pod_is_plain_and_named_by_its_address() {
    let mut world = World::default().service("web", &[("web-0", "web", true)]);
    (world.slices[0].endpoints[0].pod, world.slices[0].endpoints[0].address) = (None, "127.1.70.0".parse().unwrap());
    let built = world.built();
    let service = built.snapshot.service(&shop("web")).unwrap();
    assert_eq!((service.endpoints[0].name.as_str(), service.endpoints[0].mesh), ("127.1.70.0", Mesh::Plain));
}

#[test]
fn an_address_that_somebody_wrote_into_a_slice_is_the_pod_with_a_proxy_that_has_it() {
    let mut world = World::default().service("web", &[("web-0", "web", true), ("web-1", "plain", false)]);
    for endpoint in &mut world.slices[0].endpoints {
        endpoint.pod = None;
    }
    world.slices[0].service = shop("by-hand");
    world.services.push(plain("by-hand", "127.1.128.2"));
    let built = world.built();
    let endpoints = &built.snapshot.service(&shop("by-hand")).unwrap().endpoints;
    let found = |name: &str| endpoints.iter().find(|endpoint| endpoint.name.as_str() == name).map(|endpoint| endpoint.mesh);
    assert_eq!((found("uid-web-0"), found("127.1.64.1")), (Some(Mesh::Proxy("4143".parse().unwrap())), Some(Mesh::Plain)));
    let called = endpoints.iter().find(|endpoint| endpoint.mesh != Mesh::Plain).unwrap();
    assert_eq!(called.identity.as_str(), "spiffe://west.mesh/ns/shop/sa/web");
}

#[test]
fn an_endpoint_whose_pod_is_not_known_is_left_out_and_never_called_in_plain_text() {
    let mut world = World::default().service("web", &[("web-0", "web", true), ("web-1", "web", true), ("web-2", "web", true)]);
    world.pods.remove(0);
    world.pods[0].1.uid = "another-pod-of-that-name".parse().unwrap();
    let built = world.built();
    let names: Vec<_> = built.snapshot.service(&shop("web")).unwrap().endpoints.iter().map(|one| one.name.to_string()).collect();
    assert_eq!(names, ["uid-web-2"]);
}

#[test]
fn only_a_service_with_a_service_export_is_exported_and_a_mirror_never_is() {
    let built = World::default()
        .service("web", &[("web-0", "web", true)])
        .service("private", &[])
        .mirror("cart-east", "127.1.128.9", mirror_of("cart", "east"), "20001")
        .export("web", &[], None)
        .export("cart-east", &[], None)
        .export("nothing", &[], None)
        .link("east")
        .peer("east", &["*"], None)
        .built();
    let exported: Vec<_> = built.views[&"east.mesh".parse().unwrap()].exported.keys().cloned().collect();
    assert_eq!(exported, [shop("web")]);
    assert!(built.snapshot.export(&shop("cart-east")).is_none());
    assert!(built.snapshot.service(&shop("cart-east")).is_none(), "a mirror is no service of this cluster");
}

#[test]
fn a_peer_is_told_ports_ids_handles_and_what_the_standard_merges() {
    let built = World::default()
        .service("web", &[("web-0", "web", true), ("web-1", "plain", false)])
        .export("web", &[], Some(true))
        .peer("east", &["*"], None)
        .built();
    let view = &built.views[&"east.mesh".parse().unwrap()];
    let exported = &view.exported[&shop("web")];
    assert_eq!(view.caller.as_str(), "spiffe://east.mesh/ns/isthmus-system/sa/mesh-mirror-controller");
    assert_eq!(exported.identities, ["spiffe://west.mesh/ns/shop/sa/web".parse().unwrap()]);
    assert_eq!(exported.endpoints.len(), 1, "where one has a proxy, those without are not told");
    let handle = built.snapshot.service(&shop("web")).unwrap().endpoints[0].handle.clone();
    assert_eq!((exported.endpoints[0].handle.clone(), exported.proxyless, exported.created_at), (handle, false, 17));
    assert_eq!(exported.properties.labels["tier"], "gold");
}

#[test]
fn a_service_without_any_proxy_is_proxyless_where_that_is_allowed_and_has_no_endpoints_where_not() {
    let check = |export: Option<bool>, namespace: Option<bool>, install: bool, proxyless: bool| {
        let mut world = World { allow_unmeshed: install, ..World::default() };
        world.namespaces.push(("shop", Namespace { allow_unmeshed: namespace, inbound: None }));
        let world = world.service("db", &[("db-0", "db", false)]).export("db", &[], export).peer("east", &["*"], None);
        let built = world.built();
        let exported = &built.views[&"east.mesh".parse().unwrap()].exported[&shop("db")];
        assert_eq!((exported.proxyless, exported.endpoints.len()), (proxyless, usize::from(proxyless)));
    };
    check(None, None, false, false);
    check(None, None, true, true);
    check(None, Some(true), false, true);
    check(None, Some(false), true, false);
    check(Some(false), Some(true), true, false);
    check(Some(true), Some(false), false, true);
}

#[test]
fn a_grant_narrows_by_namespace_and_label() {
    let gold = Selector(vec![Requirement::In("tier".to_owned(), vec!["gold".to_owned()])]);
    let check = |namespaces: &[&str], selector: Option<Selector>, expected: &[&str]| {
        let world =
            World::default().service("web", &[]).service("db", &[]).export("web", &[("tier", "gold")], None).export("db", &[], None);
        let built = world.peer("east", namespaces, selector).built();
        let exported: Vec<_> = built.views[&"east.mesh".parse().unwrap()].exported.keys().map(|id| id.name().to_string()).collect();
        assert_eq!(exported, expected, "{namespaces:?}");
        let peer = built.snapshot.peer(&"east.mesh".parse().unwrap()).unwrap();
        assert_eq!(expected.len(), built.snapshot.exports().filter(|export| peer.may_have(export)).count(), "gateways know the same");
    };
    check(&["*"], None, &["db", "web"]);
    check(&["shop"], None, &["db", "web"]);
    check(&["other"], None, &[]);
    check(&["*"], Some(gold.clone()), &["web"]);
    check(&["other"], Some(gold), &[]);
}

#[test]
fn a_peer_that_claims_our_trust_domain_is_none() {
    let built = World::default().peer("west", &["*"], None).built();
    assert!(built.views.is_empty());
    assert_eq!(built.bundles.get(&"west.mesh".parse().unwrap()).unwrap().sequence(), 1, "and its bundle is not ours");
}

#[test]
fn bundles_are_the_own_one_and_the_newest_of_each_linked_domain() {
    let built = World::default().link("east").peer("east", &["*"], None).link("north").built();
    let sequences: Vec<_> = built.bundles.iter().map(|bundle| (bundle.trust_domain().to_string(), bundle.sequence())).collect();
    assert_eq!(sequences, [("east.mesh".to_owned(), 5), ("north.mesh".to_owned(), 3), ("west.mesh".to_owned(), 1)]);
}

#[test]
fn without_the_mirror_controller_a_mirror_service_is_enough_to_call_without_handles() {
    let built = World::default().link("east").mirror("cart-east", "127.1.128.9", mirror_of("cart", "east"), "20001").built();
    let remote = built.snapshot.remote(&name("east"), &shop("cart")).unwrap();
    assert_eq!(remote.addresses, ["127.1.128.9".parse::<IpAddr>().unwrap()]);
    assert!(!remote.handles_valid);
    let believed: Vec<_> = remote.identities.iter().map(|id| id.as_str()).collect();
    assert_eq!(believed, ["spiffe://east.mesh/ns/shop/sa/cart"], "not ours, and not the mesh's own");
    assert_eq!(remote.ports[0].number.get(), 80);
    assert_eq!(built.snapshot.link(&name("east")).unwrap().health, LinkHealth::Unknown);
}

#[test]
fn the_mirror_controller_adds_handles_and_health_and_stand_ins_get_their_addresses() {
    let handle: mesh_names::Handle = "0123456789abcdef".parse().unwrap();
    let stand_in =
        Mirror::StandIn { link: name("east"), service: shop("stock"), hostname: Some("stock-0".parse().unwrap()), handle: handle.clone() };
    let mut world = World::default().link("east").mirror("stock-east", "127.1.128.9", mirror_of("stock", "east"), "20001").mirror(
        "stock-0-stock-east",
        "127.1.128.10",
        stand_in,
        "20002",
    );
    let before = World { links: world.links.clone(), services: world.services.clone(), ..World::default() }.built();
    assert_eq!(before.snapshot.remote(&name("east"), &shop("stock")).unwrap().endpoints.len(), 1, "stand-ins say who there is");
    let endpoint = RemoteEndpoint { handle, hostname: Some("stock-0".parse().unwrap()), ready: false, weight: 3, stand_in: None };
    let remote = Remote {
        link: name("east"),
        service: shop("stock"),
        ports: Vec::new(),
        identities: vec!["spiffe://east.mesh/ns/shop/sa/stock".parse().unwrap()],
        addresses: Vec::new(),
        endpoints: vec![Arc::new(endpoint)],
        handles_valid: true,
        proxyless: false,
    };
    world.told.remotes.insert((name("east"), shop("stock")), Arc::new(remote));
    world.told.links.insert(name("east"), LinkHealth::Healthy);
    let built = world.built();
    let remote = built.snapshot.remote(&name("east"), &shop("stock")).unwrap();
    assert_eq!(remote.endpoints[0].stand_in, Some("127.1.128.10".parse().unwrap()));
    assert_eq!((remote.endpoints[0].weight, remote.endpoints[0].ready, remote.handles_valid), (3, false, true));
    assert_eq!(built.snapshot.link(&name("east")).unwrap().health, LinkHealth::Healthy);
}

#[test]
fn nothing_is_remote_without_its_link() {
    let built = World::default().mirror("cart-east", "127.1.128.9", mirror_of("cart", "east"), "20001").built();
    assert!(built.snapshot.remotes().next().is_none());
}

#[test]
fn the_ways_out_are_what_the_mirrors_slices_record() {
    let built = World::default()
        .link("east")
        .mirror("cart-east", "127.1.128.9", mirror_of("cart", "east"), "20001")
        .mirror("cart-clusterset", "127.1.128.10", Mirror::ClusterSet(shop("cart")), "20002")
        .built();
    let one = built.snapshot.egress_at("20001".parse().unwrap()).unwrap();
    assert_eq!((one.service.clone(), one.cluster.clone(), one.service_port.get()), (shop("cart"), Some(name("east")), 80));
    assert_eq!(one.protocol, mesh_names::Protocol::Http);
    let set = built.snapshot.egress_at("20002".parse().unwrap()).unwrap();
    assert_eq!((set.service.clone(), set.cluster.clone()), (shop("cart"), None));
}

#[test]
fn a_cluster_set_service_names_the_links_that_contribute_and_the_own_export() {
    let import = |name: &str| ServiceImport {
        id: shop(name),
        addresses: vec!["127.1.128.20".parse().unwrap()],
        kind: ImportKind::ClusterSetIp,
        ports: Vec::new(),
        clusters: vec!["id-east".parse().unwrap(), "id-west".parse().unwrap(), "id-gone".parse().unwrap()],
    };
    let mut world = World::default().link("east").link("north").service("cart", &[]).export("cart", &[], None);
    world.imports = vec![import("cart"), import("catalog")];
    let built = world.built();
    let cart = built.snapshot.import(&shop("cart")).unwrap();
    assert_eq!((cart.clusters.clone(), cart.own), (vec![name("east")], true));
    assert!(!built.snapshot.import(&shop("catalog")).unwrap().own, "what was unexported is not ours, whatever its status still says");
}
