//! A small world for this crate's tests: west (the own cluster) and east, which both serve `shop/cart`; east alone serves the
//! headless `shop/stock`; `shop/secret` is west's and not exported.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use mesh_names::{Protocol, ServiceId, ServicePort, TunnelPort};

use crate::target::Target;
use crate::{
    Change, Endpoint, Export, Gateway, Grant, Import, ImportKind, Link, LinkHealth, Mesh, Own, Peer, PeersAllowed, Port, Remote,
    RemoteEndpoint, Service, Snapshot,
};

/// A fixed moment, the same in the whole test run.
#[expect(clippy::disallowed_methods, reason = "tests need one moment to count from")]
pub(crate) fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

pub(crate) fn port(number: u16) -> ServicePort {
    number.try_into().unwrap()
}

pub(crate) fn ports() -> Vec<Port> {
    vec![Port { name: "http".parse().ok(), number: port(80), protocol: Protocol::Http }]
}

/// Endpoints `<name>-0`, `<name>-1`, … of a service in west, at 127.2.64.1 and on.
pub(crate) fn service(id: &str, address: Option<&str>, endpoints: u8) -> Service {
    let id: ServiceId = id.parse().unwrap();
    let identity: mesh_names::SpiffeId = format!("spiffe://west.mesh/ns/{}/sa/{}", id.namespace(), id.name()).parse().unwrap();
    let endpoints = (0..endpoints).map(|number| {
        Arc::new(Endpoint {
            name: format!("{}-{number}", id.name()).parse().unwrap(),
            handle: format!("west{}{number}", id.name()).parse().unwrap(),
            address: IpAddr::from([127, 2, 64, number + 1]),
            ports: BTreeMap::from([(port(80), 8080_u16.try_into().unwrap())]),
            hostname: None,
            identity: identity.clone(),
            mesh: Mesh::Proxy(TunnelPort::try_from(4143_u16).unwrap()),
            ready: true,
            zone: None,
            weight: 1,
        })
    });
    let addresses = address.iter().map(|address| address.parse().unwrap()).collect();
    Service { addresses, ports: ports(), identities: vec![identity.clone()], endpoints: endpoints.collect(), id }
}

/// `shop/cart` and the like, as `link`'s cluster exports it: endpoints with handles `<link><name>0` and on.
pub(crate) fn remote(link: &str, id: &str, endpoints: u8) -> Remote {
    let service: ServiceId = id.parse().unwrap();
    let identity = format!("spiffe://{link}.mesh/ns/{}/sa/{}", service.namespace(), service.name()).parse().unwrap();
    let endpoints = (0..endpoints).map(|number| {
        let handle = format!("{link}{}{number}", service.name()).parse().unwrap();
        let hostname = format!("{}-{number}", service.name()).parse().ok();
        Arc::new(RemoteEndpoint { handle, hostname, ready: true, weight: 1, stand_in: None })
    });
    Remote {
        link: link.parse().unwrap(),
        ports: ports(),
        identities: vec![identity],
        addresses: Vec::new(),
        endpoints: endpoints.collect(),
        handles_valid: true,
        proxyless: false,
        service,
    }
}

/// A link with gateways at 127.`octet`.0.4 and 127.`octet`.0.5.
pub(crate) fn link(name: &str, octet: u8, priority: u32) -> Link {
    let identity = |name: &str| format!("spiffe://{name}.mesh/ns/isthmus-system/sa/mesh-gateway").parse().unwrap();
    let gateways = [4, 5].map(|last| Gateway { address: ([127, octet, 0, last], 4143).into(), identity: identity(name) });
    Link {
        name: name.parse().unwrap(),
        id: format!("{name}-id").parse().unwrap(),
        trust_domain: format!("{name}.mesh").parse().unwrap(),
        gateways: gateways.into(),
        health: LinkHealth::Healthy,
        priority,
    }
}

pub(crate) fn import(id: &str, own: bool, clusters: &[&str]) -> Import {
    Import {
        id: id.parse().unwrap(),
        addresses: Vec::new(),
        kind: ImportKind::ClusterSetIp,
        ports: ports(),
        own,
        clusters: clusters.iter().map(|cluster| cluster.parse().unwrap()).collect(),
    }
}

pub(crate) fn export(id: &str, ports: &[u16]) -> Export {
    Export {
        service: id.parse().unwrap(),
        ports: ports.iter().map(|number| port(*number)).collect(),
        peers: PeersAllowed::All,
        allow_unmeshed: false,
    }
}

/// West with nothing in it.
pub(crate) fn west() -> Snapshot {
    let own = Own {
        cluster: "west".parse().unwrap(),
        id: Some("west-id".parse().unwrap()),
        trust_domain: "west.mesh".parse().unwrap(),
        ranges: vec!["127.2.64.0/18".parse().unwrap(), "127.2.128.0/17".parse().unwrap()],
    };
    Snapshot::empty(own)
}

pub(crate) fn put_service(service: Service) -> Change {
    Change::Service(service.id.clone(), Some(service))
}

pub(crate) fn put_remote(remote: Remote) -> Change {
    Change::Remote(remote.link.clone(), remote.service.clone(), Some(remote))
}

pub(crate) fn put_import(import: Import) -> Change {
    Change::Import(import.id.clone(), Some(import))
}

pub(crate) fn put_link(link: Link) -> Change {
    Change::Link(link.name.clone(), Some(link))
}

/// The world that the head of this file describes.
pub(crate) fn east_and_west() -> Snapshot {
    let mut cart_set = import("shop/cart", true, &["east"]);
    cart_set.addresses = vec!["127.2.128.2".parse().unwrap()];
    let mut stock_set = import("shop/stock", false, &["east"]);
    stock_set.kind = ImportKind::Headless;
    let mut cart = remote("east", "shop/cart", 2);
    cart.addresses = vec!["127.2.128.3".parse().unwrap()];
    let mut stock = remote("east", "shop/stock", 2);
    Arc::make_mut(&mut stock.endpoints[0]).stand_in = Some("127.2.128.4".parse().unwrap());
    let mut secret = service("shop/secret", Some("127.2.128.9"), 1);
    Arc::make_mut(&mut secret.endpoints[0]).address = "127.2.64.77".parse().unwrap();
    let peer = Peer {
        name: "east".parse().unwrap(),
        id: "east-id".parse().unwrap(),
        trust_domain: "east.mesh".parse().unwrap(),
        grant: Grant::All,
        control_caller: "spiffe://east.mesh/ns/isthmus-system/sa/mesh-mirror-controller".parse().unwrap(),
    };
    let cart_export = export("shop/cart", &[80]);
    west().with([
        put_service(service("shop/cart", Some("127.2.128.1"), 1)),
        put_service(secret),
        put_import(cart_set),
        put_import(stock_set),
        put_remote(cart),
        put_remote(stock),
        put_link(link("east", 1, 0)),
        Change::Peer(peer.trust_domain.clone(), Some(peer)),
        Change::Export(cart_export.service.clone(), Some(cart_export)),
    ])
}

/// A target in one short line.
pub(crate) fn target(target: &Target) -> String {
    match target {
        Target::ClusterSet(service) => format!("set {service}"),
        Target::In { cluster, service } => format!("in {cluster} {service}"),
        Target::Own(service) => format!("own {service}"),
        Target::OwnEndpoint { service, endpoint, port: None } => format!("endpoint {service} {endpoint}"),
        Target::OwnEndpoint { service, endpoint, port: Some(port) } => format!("endpoint {service} {endpoint} at {port}"),
        Target::RemoteEndpoint { cluster, service, handle } => format!("handle {cluster} {service} {handle}"),
    }
}
