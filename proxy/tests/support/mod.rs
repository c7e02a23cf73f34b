//! Three clusters in one process: a client's proxy in west, a serving proxy and a bare gateway in east and in north, real sockets on loopback.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends here")]

pub(crate) mod apps;
pub(crate) mod client;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mesh_names::{Protocol, ServiceId, ServicePort, SpiffeId, TrustDomain, TunnelPort};
use mesh_proxy::{DataConfig, Knowledge, Plane, ServiceListener};
use mesh_runtime::denied::Denied;
use mesh_runtime::drain::{self, Drain, Trigger};
use mesh_topology::{
    Change, Draw, Endpoint, Export, ExportName, Gateway, Grant, Import, ImportKind, Link, LinkHealth, Loads, Mesh, Own, Peer, PeersAllowed,
    Port, Remote, RemoteEndpoint, Service, Snapshot,
};
use mesh_transport::tunnel::{self, Status, Target, TunnelReply, watch};
use mesh_transport::{Acceptor, Identity, TUNNEL_ALPN, tcp};
use mesh_trust::{Bundle, Bundles, Csr, Issuer, KeyPair, Root, Svid, Verifier};
use tokio::sync::watch as changes;
use tokio::task::JoinHandle;

/// A day, for certificates.
const DAY: Duration = Duration::from_secs(86_400);
/// How long a condition may take.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The clusters.
pub(crate) struct World {
    pub(crate) west: Running,
    pub(crate) east: Exporter,
    pub(crate) north: Exporter,
    pub(crate) storefront: Running,
    issuers: BTreeMap<&'static str, Issuer>,
    bundles: Bundles,
}

/// A cluster that exports `catalog`.
pub(crate) struct Exporter {
    pub(crate) proxy: Running,
    pub(crate) apps: apps::Apps,
    pub(crate) gateway: TestGateway,
}

/// A running data plane.
pub(crate) struct Running {
    pub(crate) outbound: SocketAddr,
    pub(crate) inbound: SocketAddr,
    pub(crate) listener: Option<SocketAddr>,
    pub(crate) redirected: [SocketAddr; 2],
    pub(crate) denied: Denied,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) trigger: Trigger,
    pub(crate) metrics: prometheus_client::registry::Registry,
    changed: changes::Sender<u64>,
    running: JoinHandle<()>,
}

/// A gateway that may be killed and started again at its address.
pub(crate) struct TestGateway {
    pub(crate) address: SocketAddr,
    snapshot: Arc<ArcSwap<Snapshot>>,
    identity: Identity,
    running: Option<JoinHandle<()>>,
}

impl World {
    /// Starts it: `catalog` in east and north answers HTTP on 80 and 50051, echoes TCP on 9000, and speaks first on 9001; all are
    /// exported to west, which imports them from east only until [`World::also_from_north`]. North lets no plaintext in.
    pub(crate) async fn start() -> Self {
        mesh_transport::install_crypto();
        let (issuers, bundles) = trust();
        let identity = |domain: &str, account: &str| identity(&issuers[domain], domain, account, &bundles);
        let east = Exporter::start("east", 1, &identity).await;
        let north = Exporter::start("north", 3, &identity).await;

        let mut registry = Default::default();
        let ledger = ServiceListener {
            listen: SocketAddr::from(([127, 2, 64, 1], 0)),
            host: "catalog.shop.svc.clusterset.local".parse().unwrap(),
            port: port(9000),
        };
        let west_plane = Plane::bind(config([127, 2, 64, 1], vec![ledger]), &mut registry).unwrap();
        let west_snapshot =
            own("west", 2).with(imported("east", 0, east.gateway.address)).with(imported("north", 1, north.gateway.address));
        let west_snapshot = west_snapshot.with([import(&["east"])]);
        let west = run(west_plane, identity("west.mesh", "web"), west_snapshot, registry);

        let storefront_plane = Plane::bind(config([127, 1, 64, 2], vec![]), &mut Default::default()).unwrap();
        let east_snapshot = Snapshot::clone(&east.proxy.snapshot.load());
        let storefront = run(storefront_plane, identity("east.mesh", "storefront"), east_snapshot, Default::default());
        Self { west, east, north, storefront, issuers, bundles }
    }

    /// From now on west imports `catalog` from north too, and uses it when east cannot.
    pub(crate) fn also_from_north(&self) {
        self.west.change([import(&["east", "north"])]);
    }

    /// An SVID of one of the trust domains.
    pub(crate) fn svid(&self, domain: &str, account: &str) -> Svid {
        svid(&self.issuers[domain], domain, account)
    }

    /// The bundles that everybody here believes.
    pub(crate) fn bundles(&self) -> &Bundles {
        &self.bundles
    }

    /// An identity of one of the trust domains.
    pub(crate) fn identity(&self, domain: &'static str, account: &str) -> Identity {
        identity(&self.issuers[domain], domain, account, &self.bundles)
    }
}

impl Exporter {
    async fn start(name: &'static str, octet: u8, identity: &impl Fn(&str, &str) -> Identity) -> Self {
        let apps = apps::Apps::start(ip([127, octet, 64, 1]), name).await;
        let mut config = config([127, octet, 64, 1], vec![]);
        if name == "north" {
            config.plaintext.policy = mesh_api::inject::Inbound::Strict;
            config.plaintext.probes = vec![format!("{}/healthz", apps.http).parse().unwrap()];
        }
        let plane = Plane::bind(config, &mut Default::default()).unwrap();
        let listener = tcp::listen(SocketAddr::from(([127, octet, 0, 4], 0))).unwrap();
        let snapshot = exporting(name, octet, &apps, plane.inbound().unwrap().port());
        let domain = format!("{name}.mesh");
        let proxy = run(plane, identity(&domain, "catalog"), snapshot, Default::default());
        let mut gateway = TestGateway {
            address: listener.local_addr().unwrap(),
            snapshot: Arc::clone(&proxy.snapshot),
            identity: identity(&domain, "mesh-gateway"),
            running: None,
        };
        gateway.serve(listener);
        Self { proxy, apps, gateway }
    }
}

impl Running {
    /// Publishes the next snapshot.
    pub(crate) fn change(&self, changes: impl IntoIterator<Item = Change>) {
        self.snapshot.store(Arc::new(self.snapshot.load().with(changes)));
        self.changed.send_modify(|count| *count += 1);
    }

    /// Waits until it has drained.
    pub(crate) async fn ended(self) {
        tokio::time::timeout(SOON, self.running).await.expect("still draining").unwrap();
    }
}

impl TestGateway {
    /// Starts it again at its address.
    pub(crate) async fn restart(&mut self) {
        let listener = tcp::listen(self.address).unwrap();
        self.serve(listener);
    }

    /// Ends it with all its tunnels.
    pub(crate) async fn kill(&mut self) {
        let running = self.running.take().expect("running");
        running.abort();
        let _ = running.await;
    }

    /// Ends it and puts a listener in its place that never says a word; it does so until what is returned is dropped.
    pub(crate) async fn freeze(&mut self) -> tokio::net::TcpListener {
        self.kill().await;
        tcp::listen(self.address).unwrap()
    }

    fn serve(&mut self, listener: tokio::net::TcpListener) {
        let acceptor = Arc::new(Acceptor::new(self.identity.clone(), TUNNEL_ALPN));
        let snapshot = Arc::clone(&self.snapshot);
        self.running = Some(tokio::spawn(async move {
            let mut tunnels = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tunnels.spawn(one_tunnel(stream, Arc::clone(&acceptor), Arc::clone(&snapshot)));
            }
        }));
    }
}

async fn one_tunnel(stream: tokio::net::TcpStream, acceptor: Arc<Acceptor>, snapshot: Arc<ArcSwap<Snapshot>>) {
    let Ok((tls, peer)) = acceptor.accept(stream).await else { return };
    let Ok((request, pending)) = tunnel::accept(tls, SOON).await else { return };
    match request.target {
        Target::Watch => {
            let io = pending.accept(&TunnelReply::accepted(None)).await.unwrap();
            let _ = watch::serve(io, &Drain::never()).await;
        }
        Target::Export(export) => {
            let name = ExportName { cluster: export.cluster, service: export.service, port: export.port };
            let draw = Draw::new(std::time::Instant::now(), 7);
            let asked = (&Loads::default(), draw);
            match snapshot.load().deliver(peer.id().trust_domain(), &name, export.handle.as_ref(), asked) {
                Ok(delivery) => {
                    let Ok(mut to) = tcp::connect(delivery.address(), SOON).await else {
                        return drop(pending.refuse(&TunnelReply::new(Status::NoEndpoint, "gone")).await);
                    };
                    let reply = TunnelReply::accepted(Some(delivery.endpoint.handle.clone()));
                    let mut io = pending.accept(&reply).await.unwrap();
                    let _ = mesh_transport::splice::copy_bidirectional(&mut io, &mut to).await;
                }
                Err(_) => drop(pending.refuse(&TunnelReply::new(Status::NotExportedOrUnknown, "no")).await),
            }
        }
        Target::Control(_) => {}
    }
}

fn run(plane: Plane, identity: Identity, snapshot: Snapshot, metrics: prometheus_client::registry::Registry) -> Running {
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
    let (changed, receiver) = changes::channel(0);
    let (trigger, drain) = drain::channel(Duration::from_secs(5));
    let (outbound, inbound) = (plane.outbound().unwrap(), plane.inbound().unwrap());
    let redirected = [plane.transparent_outbound().unwrap(), plane.transparent_inbound().unwrap()];
    let (listener, denied) = (plane.service(0), plane.denied());
    let knowledge = Knowledge { identity, snapshot: Arc::clone(&snapshot), changed: receiver };
    let running = tokio::spawn(async move { plane.run(knowledge, drain).await.unwrap() });
    Running { outbound, inbound, listener, redirected, denied, snapshot, trigger, metrics, changed, running }
}

fn trust() -> (BTreeMap<&'static str, Issuer>, Bundles) {
    let start = SystemTime::now() - Duration::from_secs(60);
    let mut issuers = BTreeMap::new();
    let mut bundles: Option<Bundles> = None;
    for domain in ["east.mesh", "west.mesh", "north.mesh"] {
        let trust_domain: TrustDomain = domain.parse().unwrap();
        let root = Root::generate(domain, start, DAY).unwrap();
        issuers.insert(domain, root.issuer_for(&trust_domain, start, DAY).unwrap());
        let bundle = Bundle::new(trust_domain, 1, vec![root.certificate().clone()]).unwrap();
        bundles = Some(match bundles {
            Some(bundles) => bundles.with(bundle),
            None => Bundles::of(bundle),
        });
    }
    (issuers, bundles.unwrap())
}

fn identity(issuer: &Issuer, domain: &str, account: &str, bundles: &Bundles) -> Identity {
    Identity::of(svid(issuer, domain, account), Verifier::fixed(bundles.clone()))
}

fn svid(issuer: &Issuer, domain: &str, account: &str) -> Svid {
    let key = KeyPair::generate().unwrap();
    let csr = Csr::parse(&key.csr_der().unwrap()).unwrap();
    let chain = issuer.issue(&csr, &id(domain, account), SystemTime::now() - Duration::from_secs(30), DAY / 2).unwrap().chain;
    Svid::new(key, chain).unwrap()
}

pub(crate) fn id(domain: &str, account: &str) -> SpiffeId {
    let namespace = if account.starts_with("mesh-") { "isthmus-system" } else { "shop" };
    format!("spiffe://{domain}/ns/{namespace}/sa/{account}").parse().unwrap()
}

fn config(address: [u8; 4], listeners: Vec<ServiceListener>) -> DataConfig {
    let any = SocketAddr::from((address, 0));
    DataConfig {
        plaintext: mesh_proxy::Plaintext::default(),
        outbound: any,
        inbound: any,
        app: ip(address),
        address: ip(address),
        listeners,
        transparent_outbound: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        transparent_inbound: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        own_ports: vec![4191],
        workers: NonZeroUsize::new(2).unwrap(),
        access_log: true,
    }
}

pub(crate) fn catalog() -> ServiceId {
    "shop/catalog".parse().unwrap()
}

/// The ports of `catalog`.
fn ports() -> Vec<Port> {
    let declared = [(80, Protocol::Http), (9000, Protocol::Tcp), (9001, Protocol::Unknown), (50051, Protocol::Http2)];
    declared.into_iter().map(|(number, protocol)| Port { name: None, number: port(number), protocol }).collect()
}

fn exporting(cluster: &str, octet: u8, apps: &apps::Apps, inbound: u16) -> Snapshot {
    let app = |number: u16| mesh_names::AppPort::try_from(number).unwrap();
    let own_ports = [(80, apps.http), (9000, apps.echo), (9001, apps.greeter), (50051, apps.http)];
    let endpoint = Endpoint {
        name: "catalog-0".parse().unwrap(),
        handle: format!("{cluster}catalog0").parse().unwrap(),
        address: ip([127, octet, 64, 1]),
        ports: own_ports.into_iter().map(|(service, own)| (port(service), app(own))).collect(),
        hostname: None,
        identity: id(&format!("{cluster}.mesh"), "catalog"),
        mesh: Mesh::Proxy(TunnelPort::try_from(inbound).unwrap()),
        ready: true,
        zone: None,
        weight: 1,
    };
    let service = Service {
        id: catalog(),
        addresses: vec![ip([127, octet, 128, 1])],
        ports: ports(),
        identities: vec![endpoint.identity.clone()],
        endpoints: vec![Arc::new(endpoint)],
    };
    let export = Export {
        service: catalog(),
        ports: ports().into_iter().map(|port| port.number).collect(),
        peers: PeersAllowed::All,
        allow_unmeshed: false,
    };
    let peer = Peer {
        name: "west".parse().unwrap(),
        id: "west-id".parse().unwrap(),
        trust_domain: "west.mesh".parse().unwrap(),
        grant: Grant::All,
        control_caller: id("west.mesh", "mesh-mirror-controller"),
    };
    own(cluster, octet).with([
        Change::Service(catalog(), Some(service)),
        Change::Export(catalog(), Some(export)),
        Change::Peer(peer.trust_domain.clone(), Some(peer)),
    ])
}

fn import(clusters: &[&str]) -> Change {
    let import = Import {
        id: catalog(),
        addresses: vec![ip([127, 2, 128, 2])],
        kind: ImportKind::ClusterSetIp,
        ports: ports(),
        own: false,
        clusters: clusters.iter().map(|cluster| cluster.parse().unwrap()).collect(),
    };
    Change::Import(catalog(), Some(import))
}

fn imported(cluster: &str, priority: u32, gateway: SocketAddr) -> [Change; 2] {
    let name: mesh_names::ClusterName = cluster.parse().unwrap();
    let domain = format!("{cluster}.mesh");
    let handle = format!("{cluster}catalog0").parse().unwrap();
    let remote = Remote {
        link: name.clone(),
        service: catalog(),
        ports: ports(),
        identities: vec![id(&domain, "catalog")],
        addresses: Vec::new(),
        endpoints: vec![Arc::new(RemoteEndpoint { handle, hostname: None, ready: true, weight: 1, stand_in: None })],
        handles_valid: true,
        proxyless: false,
    };
    let link = Link {
        name: name.clone(),
        id: format!("{cluster}-id").parse().unwrap(),
        trust_domain: domain.parse().unwrap(),
        gateways: vec![Gateway { address: gateway, identity: id(&domain, "mesh-gateway") }],
        health: LinkHealth::Unknown,
        priority,
    };
    [Change::Remote(name.clone(), catalog(), Some(remote)), Change::Link(name, Some(link))]
}

fn own(cluster: &str, octet: u8) -> Snapshot {
    let own = Own {
        cluster: cluster.parse().unwrap(),
        id: None,
        trust_domain: format!("{cluster}.mesh").parse().unwrap(),
        ranges: vec![format!("127.{octet}.64.0/18").parse().unwrap(), format!("127.{octet}.128.0/17").parse().unwrap()],
    };
    Snapshot::empty(own).with([Change::Complete(format!("{cluster}-id").parse().unwrap())])
}

pub(crate) fn port(number: u16) -> ServicePort {
    number.try_into().unwrap()
}

fn ip(octets: [u8; 4]) -> IpAddr {
    IpAddr::from(octets)
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
