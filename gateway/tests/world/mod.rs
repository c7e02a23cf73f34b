//! A cluster's gateway, an inbound proxy beside its one endpoint, a control that greets, and identities of several trust domains.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::Response;
use http_body_util::Full;
use mesh_gateway::serve::{Parts, serve};
use mesh_gateway::{Limits, Metrics, Settings};
use mesh_names::{Protocol, ServiceId, SpiffeId, TunnelPort};
use mesh_runtime::drain::{self, Drain, Trigger};
use mesh_runtime::tasks::Tasks;
use mesh_topology::{
    Change, Egress, Endpoint, Export, Gateway, Grant, Import, ImportKind, Link, LinkHealth, Mesh, Own, Peer, PeersAllowed, Port, Remote,
    Service, Snapshot,
};
use mesh_transport::identity::life_left;
use mesh_transport::plan::{Answering, Way};
use mesh_transport::session::{self, Incoming, Kind, Served};
use mesh_transport::{Acceptor, Identity, Plan, Pool, SESSION_ALPN, tcp, tunnel};
use mesh_trust::{Bundle, Bundles, Csr, Issuer, KeyPair, Refusals, Root, SharedBundles, Svid, Verifier};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const SOON: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

/// Runs a test as a worker runs: on one thread, with local tasks.
pub(crate) fn on_a_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(3 * SOON, test).await.expect("the test ends in time") });
}

/// Polls until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never saw: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn id(text: &str) -> SpiffeId {
    format!("spiffe://{text}").parse().unwrap()
}

/// Who issues for whom. Mars is known to nobody.
struct Authorities {
    issuers: BTreeMap<&'static str, Issuer>,
}

impl Authorities {
    fn new() -> Self {
        let begun = SystemTime::now() - 10 * HOUR;
        let root = Root::generate("shared", begun, 100 * HOUR).unwrap();
        let issuer = |domain: &'static str| (domain, root.issuer_for(&domain.parse().unwrap(), begun, 90 * HOUR).unwrap());
        Self { issuers: ["east.mesh", "west.mesh", "mars.mesh"].into_iter().map(issuer).collect() }
    }

    fn bundles(&self) -> SharedBundles {
        let bundle = |domain: &str| Bundle::new(domain.parse().unwrap(), 1, vec![self.issuers[domain].bundle_authority().clone()]).unwrap();
        Bundles::of(bundle("east.mesh")).with(bundle("west.mesh")).shared()
    }

    fn svid(&self, name: &SpiffeId, issuer: &str, not_before: SystemTime, life: Duration) -> Svid {
        let key = KeyPair::generate().unwrap();
        let csr = Csr::parse(&key.csr_der().unwrap()).unwrap();
        Svid::new(key, self.issuers[issuer].issue(&csr, name, not_before, life).unwrap().chain).unwrap()
    }
}

pub(crate) struct World {
    authorities: Rc<Authorities>,
    bundles: SharedBundles,
    domain: &'static str,
    address: SocketAddr,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changed: watch::Sender<u64>,
    registry: Registry,
    metrics: Metrics,
    trigger: Trigger,
    serving: Option<JoinHandle<std::io::Result<()>>>,
    inbound: RefCell<Option<Tasks>>,
    callers: Rc<RefCell<Vec<String>>>,
    _control: Tasks,
}

impl World {
    /// East, which exports `shop/cart` to west.
    pub(crate) fn start(limits: Limits) -> Self {
        Self::of("east", Rc::new(Authorities::new()), limits)
    }

    /// West, in the same trust as `east`.
    pub(crate) fn beside(east: &Self) -> Self {
        Self::of("west", Rc::clone(&east.authorities), Limits::default())
    }

    fn of(cluster: &str, authorities: Rc<Authorities>, limits: Limits) -> Self {
        let domain = if cluster == "east" { "east.mesh" } else { "west.mesh" };
        let bundles = authorities.bundles();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let denied = metrics.denied.clone();
        let verifier = Verifier::new(Arc::clone(&bundles), Refusals::observed(move |refused| denied.count(refused.reason())));
        let own = |account: &str| {
            let name = id(&format!("{domain}/ns/{account}"));
            Identity::of(authorities.svid(&name, domain, SystemTime::now() - HOUR, 10 * HOUR), verifier.clone())
        };
        let (inbound_address, callers, inbound) = start_inbound(own("shop/sa/cart"));
        let (control_address, control) = start_control();
        let snapshot = Arc::new(ArcSwap::from_pointee(east_snapshot(cluster, inbound_address)));
        let (changed, receiver) = watch::channel(0);
        let (trigger, drain) = drain::channel(SOON);
        let listener = tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let parts = Parts {
            identity: own("isthmus-system/sa/mesh-gateway"),
            egress: watch::channel(Some(own("isthmus-system/sa/mesh-egress"))).1,
            snapshot: Arc::clone(&snapshot),
            changed: receiver,
            settings: Settings {
                egress_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                control: vec![control_address.to_string().parse().unwrap()],
                workers: NonZeroUsize::new(2).unwrap(),
                limits,
            },
            metrics: metrics.clone(),
        };
        let serving = Some(tokio::task::spawn_local(serve(listener, parts, drain)));
        let (inbound, control) = (RefCell::new(Some(inbound)), control);
        Self {
            authorities,
            bundles,
            domain,
            address,
            snapshot,
            changed,
            registry,
            metrics,
            trigger,
            serving,
            inbound,
            callers,
            _control: control,
        }
    }

    pub(crate) fn gateway(&self) -> Gateway {
        Gateway { address: self.address, identity: id(&format!("{}/ns/isthmus-system/sa/mesh-gateway", self.domain)) }
    }

    pub(crate) fn identity(&self, name: &str) -> Identity {
        let name = id(name);
        self.prove(&name, SystemTime::now() - HOUR)
    }

    /// An SVID that ended an hour ago.
    pub(crate) fn expired(&self, name: &str) -> Identity {
        let name = id(name);
        self.prove(&name, SystemTime::now() - 9 * HOUR)
    }

    /// A west name in a certificate that east's issuer key signed, past its own rules.
    pub(crate) fn forged(&self, name: &str) -> Identity {
        let issuer = &self.authorities.issuers["east.mesh"];
        let (chain, key) = issuer.to_pem();
        let signer = rcgen::Issuer::from_ca_cert_pem(&chain, rcgen::KeyPair::from_pem(&key).unwrap()).unwrap();
        let own = KeyPair::generate().unwrap();
        let leaf = rcgen::KeyPair::try_from(own.pkcs8()).unwrap();
        let mut wanted = rcgen::CertificateParams::default();
        wanted.subject_alt_names = vec![rcgen::SanType::URI(id(name).as_str().try_into().unwrap())];
        wanted.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        wanted.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth, rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = wanted.signed_by(&leaf, &signer).unwrap().der().clone();
        let chain = [leaf].into_iter().chain(issuer.chain().iter().cloned()).collect();
        Identity::of(Svid::new(own, chain).unwrap(), Verifier::new(Arc::clone(&self.bundles), Refusals::default()))
    }

    fn prove(&self, name: &SpiffeId, not_before: SystemTime) -> Identity {
        let svid = self.authorities.svid(name, name.trust_domain().as_str(), not_before, 8 * HOUR);
        Identity::of(svid, Verifier::new(Arc::clone(&self.bundles), Refusals::default()))
    }

    pub(crate) fn pool(&self, name: &str) -> Pool {
        self.pool_as(&self.identity(name))
    }

    pub(crate) fn pool_as(&self, identity: &Identity) -> Pool {
        Pool::new(identity.clone(), Default::default())
    }

    /// A caller's way to a service of east.
    pub(crate) fn plan(&self, service: &str) -> Plan {
        let service: ServiceId = service.parse().unwrap();
        let export = tunnel::Export { cluster: "east-id".parse().unwrap(), service, port: "80".parse().unwrap(), handle: None };
        Plan {
            target: format!("export/east-id/{}/80", export.service).parse().unwrap(),
            way: Way::Through { gateway: self.gateway(), export, hops: 0 },
            expected: Answering::OneOf(Arc::new(BTreeSet::from([id("east.mesh/ns/shop/sa/cart")]))),
        }
    }

    pub(crate) fn change(&self, changes: impl IntoIterator<Item = Change>) {
        self.snapshot.store(Arc::new(self.snapshot.load().with(changes)));
        self.changed.send_modify(|count| *count += 1);
    }

    pub(crate) fn denied(&self, reason: &'static str) -> u64 {
        self.metrics.denied.counted(reason)
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    pub(crate) fn stop_inbound(&self) {
        self.inbound.borrow_mut().take();
    }

    pub(crate) fn drain(&self) {
        self.trigger.start();
    }

    pub(crate) async fn ended(&mut self) {
        self.serving.take().unwrap().await.unwrap().unwrap();
    }

    pub(crate) fn last_caller(&self) -> String {
        self.callers.borrow().last().cloned().unwrap_or_default()
    }

    pub(crate) fn free_port(&self) -> TunnelPort {
        StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().try_into().unwrap()
    }

    pub(crate) async fn connect_egress(&self, port: TunnelPort) -> TcpStream {
        eventually("a way out", || !self.egress_is_closed(port)).await;
        TcpStream::connect((Ipv4Addr::LOCALHOST, port.get())).await.unwrap()
    }

    pub(crate) fn egress_is_closed(&self, port: TunnelPort) -> bool {
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port.get())).is_err()
    }

    /// Links this cluster to `east` and opens a way out to its `shop/cart`.
    pub(crate) fn import_from_east(&self, east: &Self, port: TunnelPort) {
        let service: ServiceId = "shop/cart".parse().unwrap();
        let number = "80".parse().unwrap();
        let ports = vec![Port { name: None, number, protocol: Protocol::Tcp }];
        let name: mesh_names::ClusterName = "east".parse().unwrap();
        let link = Link {
            name: name.clone(),
            id: "east-id".parse().unwrap(),
            trust_domain: "east.mesh".parse().unwrap(),
            gateways: vec![east.gateway()],
            health: LinkHealth::Healthy,
            priority: 1,
        };
        let remote = Remote {
            link: name.clone(),
            service: service.clone(),
            ports: ports.clone(),
            identities: vec![id("east.mesh/ns/shop/sa/cart")],
            addresses: Vec::new(),
            endpoints: Vec::new(),
            handles_valid: false,
            proxyless: false,
        };
        let import = Import {
            id: service.clone(),
            addresses: Vec::new(),
            kind: ImportKind::ClusterSetIp,
            ports,
            own: false,
            clusters: vec![name.clone()],
        };
        let egress = Egress { port, service: service.clone(), cluster: None, service_port: number, protocol: Protocol::Tcp };
        self.change([
            Change::Link(name.clone(), Some(link)),
            Change::Remote(name, service.clone(), Some(remote)),
            Change::Import(service, Some(import)),
            Change::Egress(port, Some(egress)),
        ]);
    }
}

/// `cluster` exports `shop/cart`, served at `inbound`, to west; `shop/secret` is there and not exported.
fn east_snapshot(cluster: &str, inbound: SocketAddr) -> Snapshot {
    let domain: mesh_names::TrustDomain = format!("{cluster}.mesh").parse().unwrap();
    let identity = id(&format!("{domain}/ns/shop/sa/cart"));
    let number = "80".parse().unwrap();
    let service = |name: &str| {
        let id: ServiceId = name.parse().unwrap();
        let endpoint = Endpoint {
            name: format!("{}-0", id.name()).parse().unwrap(),
            handle: format!("handleof{}0", id.name()).parse().unwrap(),
            address: inbound.ip(),
            ports: BTreeMap::from([(number, "8080".parse().unwrap())]),
            hostname: None,
            identity: identity.clone(),
            mesh: Mesh::Proxy(inbound.port().try_into().unwrap()),
            ready: true,
            zone: None,
            weight: 1,
        };
        let ports = vec![Port { name: None, number, protocol: Protocol::Tcp }];
        let service =
            Service { id: id.clone(), addresses: Vec::new(), ports, identities: vec![identity.clone()], endpoints: vec![endpoint.into()] };
        Change::Service(id, Some(service))
    };
    let cart: ServiceId = "shop/cart".parse().unwrap();
    let export = Export { service: cart.clone(), ports: vec![number], peers: PeersAllowed::All, allow_unmeshed: false };
    let peer = Peer {
        name: "west".parse().unwrap(),
        id: "west-id".parse().unwrap(),
        trust_domain: "west.mesh".parse().unwrap(),
        grant: Grant::All,
        control_caller: id("west.mesh/ns/isthmus-system/sa/mesh-mirror-controller"),
    };
    let own = Own { cluster: cluster.parse().unwrap(), id: None, trust_domain: domain, ranges: Vec::new() };
    Snapshot::empty(own).with([
        service("shop/cart"),
        service("shop/secret"),
        Change::Export(cart, Some(export)),
        Change::Peer(peer.trust_domain.clone(), Some(peer)),
        Change::Complete(format!("{cluster}-id").parse().unwrap()),
    ])
}

/// An inbound proxy that answers with whom it saw, and echoes raw connections after a greeting.
fn start_inbound(identity: Identity) -> (SocketAddr, Rc<RefCell<Vec<String>>>, Tasks) {
    let listener = tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let callers = Rc::new(RefCell::new(Vec::new()));
    let (seen, acceptor) = (Rc::clone(&callers), Rc::new(Acceptor::new(identity, SESSION_ALPN)));
    let mut tasks = Tasks::new();
    tasks.spawn_local(async move {
        let mut sessions = Tasks::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, seen) = (Rc::clone(&acceptor), Rc::clone(&seen));
            sessions.spawn_local(async move {
                let Ok((stream, peer)) = acceptor.accept(stream).await else { return };
                let life = life_left(&acceptor.identity().svid(), &peer, SystemTime::now());
                let (limits, drain, revoked) = (session::Limits::default(), Drain::never(), CancellationToken::new());
                let served = Served { peer: Arc::new(peer), life, limits, drain, revoked };
                let _ = session::serve(stream, served, move |incoming| answer(incoming, Rc::clone(&seen))).await;
            });
        }
    });
    (address, callers, tasks)
}

async fn answer(incoming: Incoming, seen: Rc<RefCell<Vec<String>>>) {
    let caller = format!("{} {}", incoming.peer.id(), incoming.target.map(|target| target.to_string()).unwrap_or_default());
    seen.borrow_mut().push(caller.clone());
    match incoming.kind {
        Kind::Request(_, respond) => {
            let _ = respond.send(Response::new(Full::new(bytes::Bytes::from(caller)))).await;
        }
        Kind::Raw(offer) => {
            let mut stream = offer.accept().unwrap();
            let _ = stream.write_all(b"hello ").await;
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).await.is_ok() {
                let _ = stream.write_all(&all).await;
                let _ = stream.shutdown().await;
            }
        }
    }
}

/// A control that answers whatever it is asked.
fn start_control() -> (SocketAddr, Tasks) {
    let listener = tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = Tasks::new();
    tasks.spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 16]).await;
            let _ = stream.write_all(b"control!").await;
        }
    });
    (address, tasks)
}
