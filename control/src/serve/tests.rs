//! The services on real sockets, with real handshakes; only the Kubernetes API behind TokenReview is played.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use kube::client::Body;
use mesh_api::client::discovery::{self, Follow};
use mesh_api::client::exports::{self, ExportsState};
use mesh_api::connect::{CONTROL_ALPN, Connector};
use mesh_api::proto::discovery_client::DiscoveryClient;
use mesh_api::proto::exports_client::ExportsClient;
use mesh_api::proto::identity_client::IdentityClient;
use mesh_api::translate::Exported;
use mesh_names::{ServiceId, TrustDomain};
use mesh_runtime::tasks::Tasks;
use mesh_topology::{Change, Export, Own, PeersAllowed, Snapshot};
use mesh_trust::{Bundle, Bundles, Csr, Expected, Issuer, KeyPair, Refusals, Root, Svid, Verifier, client_config};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::*;
use crate::accept::{Acceptor, Limits};
use crate::build::{Built, View};
use crate::observed::{BundleText, Facts, ObjectName, Objects, Observed, Seen, Versions};
use crate::publish::Publisher;

const CALLER: &str = "spiffe://east.mesh/ns/isthmus-system/sa/mesh-mirror-controller";
const WEB: &str = "spiffe://west.mesh/ns/shop/sa/web";
const DEADLINE: Duration = Duration::from_secs(30);

/// West's control, and the issuers of both clusters.
struct World {
    address: SocketAddr,
    publisher: Arc<Publisher>,
    metrics: Metrics,
    west: Issuer,
    east: Issuer,
    bundles: Bundles,
    _tasks: Tasks,
}

impl World {
    async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        let root = Root::generate("root", now(), HOUR * 24).unwrap();
        let issuer = |domain: &str| root.issuer_for(&domain.parse().unwrap(), now(), HOUR * 12).unwrap();
        let bundle = |domain: &str| Bundle::new(domain.parse().unwrap(), 1, vec![root.certificate().clone()]).unwrap();
        let bundles = Bundles::from_iter([bundle("west.mesh"), bundle("east.mesh")]);
        let (west, east) = (issuer("west.mesh"), issuer("east.mesh"));
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let denied = metrics.denied.clone();
        let verifier = Verifier::new(bundles.clone().shared(), Refusals::observed(move |refused| denied.count(refused.reason())));
        let own = Arc::new(ArcSwapOption::from_pointee(svid(&west, "spiffe://west.mesh/ns/isthmus-system/sa/mesh-control")));
        let listener = mesh_transport::tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let publisher = Arc::new(Publisher::new(uuid::Uuid::new_v4().to_string()));
        let services = Services {
            observer: Observer::of(observed(&west, &bundles)),
            registrar: Arc::new(Registrar::new(reviewer(), "isthmus".to_owned())),
            publisher: Arc::clone(&publisher),
            metrics: metrics.clone(),
            drain: Drain::never(),
        };
        let mut tasks = Tasks::new();
        let (connections, incoming) = mpsc::channel(8);
        let acceptor = Acceptor { own, verifier, denied: metrics.denied.clone(), to: connections, limits };
        tasks.spawn(crate::accept::accept(listener, acceptor, Drain::never()));
        tasks.spawn(async move { services.serve(ReceiverStream::new(incoming)).await.unwrap() });
        Self { address, publisher, metrics, west, east, bundles, _tasks: tasks }
    }

    /// Publishes an export of each of `names`, to a peer whose caller is `caller`.
    fn publish(&self, names: &[&str], caller: Option<&str>) {
        self.publish_at(Versions::default(), names, caller);
    }

    /// The same, as what ServiceExports of these versions make.
    fn publish_at(&self, versions: Versions, names: &[&str], caller: Option<&str>) {
        let id = |name: &str| ServiceId::parse("shop", name).unwrap();
        let own = Own { cluster: "west".parse().unwrap(), id: None, trust_domain: "west.mesh".parse().unwrap(), ranges: Vec::new() };
        let own = Own { id: Some("id-west".parse().unwrap()), ..own };
        let export = |name: &&str| {
            let export = Export { service: id(name), ports: Vec::new(), peers: PeersAllowed::All, allow_unmeshed: false };
            Change::Export(id(name), Some(export))
        };
        let exported = names.iter().map(|name| (id(name), Arc::new(exported(id(name))))).collect();
        let views = caller.map(|caller| ("east.mesh".parse::<TrustDomain>().unwrap(), View { caller: caller.parse().unwrap(), exported }));
        let snapshot = Snapshot::empty(own).with(names.iter().map(export));
        let (bundles, views) = (self.bundles.clone(), views.into_iter().collect::<BTreeMap<_, _>>());
        self.publisher.publish(&Built { snapshot, bundles, views, versions: [("serviceexports", versions)].into() });
    }

    fn connector(&self, caller: Option<Svid>) -> Connector {
        let verifier = Verifier::fixed(self.bundles.clone());
        let control = Expected::only("spiffe://west.mesh/ns/isthmus-system/sa/mesh-control".parse().unwrap());
        Connector::tls(move || client_config(caller.as_ref(), &verifier, control.clone(), &[CONTROL_ALPN]))
    }

    async fn channel(&self, caller: Option<Svid>) -> tonic::transport::Channel {
        self.connector(caller).channel(&self.address.to_string().parse().unwrap()).await.unwrap()
    }

    /// A connection without a certificate.
    async fn stranger(&self) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let control = Expected::only("spiffe://west.mesh/ns/isthmus-system/sa/mesh-control".parse().unwrap());
        let config = client_config(None, &Verifier::fixed(self.bundles.clone()), control, &[CONTROL_ALPN]);
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        tokio_rustls::TlsConnector::from(config).connect(mesh_trust::tls::server_name(), stream).await.unwrap()
    }

    async fn check_discovery_refused(&self, caller: Option<Svid>, code: Code, reason: &'static str) {
        let before = self.metrics.denied.counted(reason);
        let mut client = DiscoveryClient::new(self.channel(caller).await);
        let refused = client.stream(tokio_stream::pending()).await.unwrap_err();
        assert_eq!(refused.code(), code);
        assert_eq!(self.metrics.denied.counted(reason), before + 1);
    }

    async fn issue(&self, token: &str, for_egress: bool) -> Result<Svid, Code> {
        let key = KeyPair::generate().unwrap();
        let request = proto::IssueRequest { token: token.to_owned(), csr_der: key.csr_der().unwrap(), for_egress };
        let mut client = IdentityClient::new(self.channel(None).await);
        let reply = client.issue(request).await.map_err(|status| status.code())?.into_inner();
        Ok(Svid::new(key, reply.chain.into_iter().map(Into::into).collect()).unwrap())
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    clock::wall() - Duration::from_secs(1)
}

fn svid(issuer: &Issuer, id: &str) -> Svid {
    let key = KeyPair::generate().unwrap();
    let csr = Csr::parse(&key.csr_der().unwrap()).unwrap();
    Svid::new(key, issuer.issue(&csr, &id.parse().unwrap(), now(), HOUR).unwrap().chain).unwrap()
}

fn exported(id: ServiceId) -> Exported {
    Exported {
        id,
        headless: false,
        ports: Vec::new(),
        identities: vec![WEB.parse().unwrap()],
        endpoints: Vec::new(),
        created_at: 1,
        proxyless: false,
        allow_unmeshed: false,
        properties: mesh_api::translate::ExportedProperties::default(),
    }
}

fn observed(issuer: &Issuer, bundles: &Bundles) -> Observed {
    fn one<T>(object: T) -> Seen<T> {
        let mut seen = Seen::default();
        seen.on_listed(None, &"id-west".parse().unwrap(), Objects::from([(ObjectName::default(), Arc::new(object))]));
        seen
    }
    let (chain, key) = issuer.to_pem();
    let facts = Facts {
        cluster: "west".parse().unwrap(),
        trust_domain: "west.mesh".parse().unwrap(),
        ranges: Vec::new(),
        allow_unmeshed: false,
        inbound: mesh_api::inject::Inbound::default(),
    };
    Observed {
        bundle: one(BundleText(bundles.get(&facts.trust_domain).unwrap().to_spiffe_json())),
        facts: one(facts),
        issuer: one(Issuer::from_pem(&chain, &key).unwrap()),
        ..Observed::default()
    }
}

/// An API server that knows tokens of the form `namespace/account/audience`.
fn reviewer() -> kube::Client {
    let review = |request: http::Request<Body>| async move {
        let body = request.into_body().collect_bytes().await.unwrap();
        let review: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
        let status = match token.split('/').collect::<Vec<_>>().as_slice() {
            [namespace, account, audience] => serde_json::json!({
                "authenticated": true,
                "audiences": [audience],
                "user": { "username": format!("system:serviceaccount:{namespace}:{account}") },
            }),
            _ => serde_json::json!({ "authenticated": false, "error": "unknown token" }),
        };
        let answer = serde_json::json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
            "spec": {}, "status": status });
        Ok::<_, Infallible>(http::Response::builder().status(201).body(Body::from(answer.to_string().into_bytes())).unwrap())
    };
    kube::Client::new(tower::service_fn(review), "default")
}

async fn until(changed: &mut watch::Receiver<u64>, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds() {
            changed.changed().await.unwrap();
        }
    });
    waited.await.expect("the condition holds before the deadline");
}

#[tokio::test]
async fn a_proxy_follows_the_cluster_from_a_full_state_through_deltas() {
    let world = World::new().await;
    world.publish(&["web", "cart"], None);
    let own = Own { cluster: "west".parse().unwrap(), id: None, trust_domain: "west.mesh".parse().unwrap(), ranges: Vec::new() };
    let bundles = Bundles::default().shared();
    let (mut told, follower) = discovery::follow(Follow {
        control: vec![world.address.to_string().parse().unwrap()],
        connector: world.connector(Some(svid(&world.west, WEB))),
        kinds: Vec::new(),
        own,
        bundles: Arc::clone(&bundles),
        state_dir: None,
    });
    let mut tasks = Tasks::new();
    tasks.spawn(follower.run(Drain::never()));
    let snapshot = Arc::clone(&told.snapshot);
    until(&mut told.changed, || snapshot.load().exports().count() == 2).await;
    assert!(snapshot.load().is_complete());
    assert_eq!(bundles.load().iter().count(), 2);
    world.publish(&["web", "ledger"], None);
    let names = || snapshot.load().exports().map(|export| export.service.name().to_string()).collect::<std::collections::BTreeSet<_>>();
    until(&mut told.changed, || names() == ["ledger".to_owned(), "web".to_owned()].into()).await;
}

#[tokio::test]
async fn a_replica_that_is_behind_gives_no_withdrawn_export_back() {
    let (ahead, behind) = (World::new().await, World::new().await);
    let at = |changed, read_to| Versions { changed, read_to };
    ahead.publish_at(at(7, 9), &["web"], None);
    behind.publish_at(at(6, 6), &["web", "withdrawn"], None);
    let (folder, own) = (tempfile::tempdir().unwrap(), "west".parse().unwrap());
    let own = Own { cluster: own, id: None, trust_domain: "west.mesh".parse().unwrap(), ranges: Vec::new() };
    let follow = |world: &World| {
        let (told, follower) = discovery::follow(Follow {
            control: vec![world.address.to_string().parse().unwrap()],
            connector: world.connector(Some(svid(&world.west, WEB))),
            kinds: Vec::new(),
            own: own.clone(),
            bundles: Bundles::default().shared(),
            state_dir: Some(folder.path().to_owned()),
        });
        let (trigger, drain) = mesh_runtime::drain::channel(Duration::ZERO);
        let mut tasks = Tasks::new();
        tasks.spawn(follower.run(drain));
        (told, trigger, tasks)
    };
    let exported = |told: &discovery::Discovery| told.snapshot.load().exports().count();
    let (mut told, trigger, mut tasks) = follow(&ahead);
    tokio::time::timeout(DEADLINE, told.complete()).await.unwrap();
    assert_eq!(exported(&told), 1);
    trigger.start();
    tasks.finish(tokio::time::Instant::now() + DEADLINE).await;
    let (mut told, _trigger, _tasks) = follow(&behind);
    tokio::time::timeout(DEADLINE, told.health.wait_for(|health| health.held.is_some())).await.unwrap().unwrap();
    assert_eq!(exported(&told), 1, "what is older is refused");
    // It has caught up.
    behind.publish_at(at(7, 7), &["web"], None);
    tokio::time::timeout(DEADLINE, told.health.wait_for(|health| health.connected && health.held.is_none())).await.unwrap().unwrap();
    assert_eq!(exported(&told), 1);
}

#[tokio::test]
async fn discovery_is_for_the_own_trust_domain_only() {
    let world = World::new().await;
    world.publish(&["web"], Some(CALLER));
    world.check_discovery_refused(None, Code::Unauthenticated, "no-certificate").await;
    world.check_discovery_refused(Some(svid(&world.east, CALLER)), Code::PermissionDenied, "discovery-from-outside").await;
}

#[tokio::test]
async fn exports_are_for_the_one_identity_that_a_peer_names_and_end_with_the_peer() {
    let world = World::new().await;
    world.publish(&["web"], Some(CALLER));
    let strangers = [svid(&world.east, "spiffe://east.mesh/ns/shop/sa/web"), svid(&world.west, WEB)];
    for stranger in strangers {
        let refused = ExportsClient::new(world.channel(Some(stranger)).await).follow(proto::FollowRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    assert_eq!(world.metrics.denied.counted("not-the-control-caller"), 2);
    let channel = world.channel(Some(svid(&world.east, CALLER))).await;
    let mut state = ExportsState::new("id-west".parse().unwrap());
    let mut sizes = Vec::new();
    let ended = tokio::time::timeout(
        DEADLINE,
        exports::follow(channel, &mut state, |state, _| {
            let services = state.exports().map_or(0, |exports| exports.get().services.len());
            sizes.push(services);
            match sizes.len() {
                1 => world.publish(&["web", "cart"], Some(CALLER)),
                2 => world.publish(&["cart"], Some(CALLER)),
                _ => world.publish(&["cart"], None),
            }
        }),
    );
    let Err(ended) = ended.await.expect("the stream ends before the deadline");
    assert_eq!(sizes, [1, 2, 1]);
    assert!(ended.to_string().contains("no peer names this identity"), "{ended}");
    let told = state.exports().unwrap().get();
    assert_eq!((told.lease, told.bundle.is_empty()), (Duration::from_secs(30), false));
}

#[tokio::test]
async fn a_connection_without_a_certificate_gets_little_room_and_little_time() {
    use tokio::io::AsyncReadExt as _;
    let world = World::with(Limits { strangers: 1, stranger_life: Duration::from_secs(3), ..Limits::default() }).await;
    world.publish(&["web"], None);
    let web = world.channel(Some(svid(&world.west, WEB))).await;
    // It says nothing, and the other end's closing ends the reading.
    let idle = |mut stream: tokio_rustls::client::TlsStream<_>| async move {
        let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await.expect("it is closed");
    };
    let first = world.stranger().await;
    idle(world.stranger().await).await;
    assert_eq!(world.metrics.denied.counted("too-many-connections"), 1);
    idle(first).await;
    let subscribe = proto::DiscoveryRequest { message: Some(proto::discovery_request::Message::Subscribe(proto::Subscribe::default())) };
    let requests = futures_util::StreamExt::chain(tokio_stream::once(subscribe), tokio_stream::pending());
    let mut updates = DiscoveryClient::new(web).stream(requests).await.unwrap().into_inner();
    assert!(updates.message().await.unwrap().is_some(), "who has one is served on");
    assert_eq!(world.issue("shop/web/isthmus", false).await.unwrap().id().as_str(), WEB, "and there is room again");
}

#[tokio::test]
async fn nothing_is_said_before_the_whole_cluster_was_seen() {
    let world = World::new().await;
    let mut client = DiscoveryClient::new(world.channel(Some(svid(&world.west, WEB))).await);
    let refused = client.stream(tokio_stream::pending()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "another replica is asked");
}

#[tokio::test]
async fn a_token_becomes_the_svid_of_its_service_account() {
    let world = World::new().await;
    let issued = world.issue("shop/web/isthmus", false).await.unwrap();
    assert_eq!(issued.id().as_str(), WEB);
    let egress = world.issue("isthmus-system/mesh-gateway/isthmus", true).await.unwrap();
    assert_eq!(egress.id().as_str(), "spiffe://west.mesh/ns/isthmus-system/sa/mesh-egress");
    assert_eq!(world.issue("shop/web/isthmus", true).await.unwrap_err(), Code::PermissionDenied);
    assert_eq!(world.issue("shop/web/vault", false).await.unwrap_err(), Code::Unauthenticated);
    assert_eq!(world.issue("nonsense", false).await.unwrap_err(), Code::Unauthenticated);
    assert_eq!(world.metrics.denied.counted("token-refused"), 2);
}

#[test]
fn a_large_state_is_told_in_pieces_and_nothing_is_lost() {
    let messages: Vec<_> = (0..100).map(|_| proto::Bundle { trust_domain: String::new(), json: vec![0; 20_000] }).collect();
    let chunks = chunks(messages);
    assert!(chunks.len() > 2);
    assert_eq!(chunks.iter().map(Vec::len).sum::<usize>(), 100);
    assert!(chunks.iter().all(|chunk| chunk.iter().map(Message::encoded_len).sum::<usize>() <= CHUNK_BYTES));
}

#[test]
fn an_empty_state_is_still_told() {
    assert_eq!(chunks(Vec::<proto::Bundle>::new()), [Vec::new()]);
}
