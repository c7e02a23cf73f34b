//! Two trust domains that know each other, and a serving proxy on loopback.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use mesh_names::{SpiffeId, TrustDomain};
use mesh_runtime::drain::Drain;
use mesh_runtime::tasks::Tasks;
use mesh_transport::identity::life_left;
use mesh_transport::plan::{Answering, Way};
use mesh_transport::pool::Settings;
use mesh_transport::session::{self, Incoming, Kind, Limits, Served};
use mesh_transport::{Acceptor, Identity, Plan, Pool, SESSION_ALPN, tcp};
use mesh_trust::{Bundle, Bundles, Csr, Issuer, KeyPair, Root, Svid, Verifier};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

pub(crate) const SOON: Duration = Duration::from_secs(10);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Runs a test as a worker runs: on one thread, with local tasks.
pub(crate) fn on_a_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(3 * SOON, test).await.expect("the test ends in time") });
}

/// For a test about time itself: that nothing happens meanwhile.
pub(crate) async fn time_passes(lasting: Duration) {
    tokio::time::sleep(lasting).await;
}

/// Polls until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never saw: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn id(text: &str) -> SpiffeId {
    format!("spiffe://{text}").parse().unwrap()
}

/// Two trust domains that know each other.
pub(crate) struct World {
    east: Issuer,
    west: Issuer,
    pub(crate) bundles: mesh_trust::SharedBundles,
}

impl World {
    pub(crate) fn new() -> Self {
        let begun = SystemTime::now() - HOUR;
        let issuer = |name: &str| {
            let root = Root::generate(name, begun, 100 * HOUR).unwrap();
            root.issuer_for(&name.parse().unwrap(), begun, 90 * HOUR).unwrap()
        };
        let (east, west) = (issuer("east.mesh"), issuer("west.mesh"));
        let bundle = |issuer: &Issuer, name: &str| {
            Bundle::new(name.parse::<TrustDomain>().unwrap(), 1, vec![issuer.bundle_authority().clone()]).unwrap()
        };
        let bundles = Bundles::of(bundle(&east, "east.mesh")).with(bundle(&west, "west.mesh")).shared();
        Self { east, west, bundles }
    }

    pub(crate) fn identity(&self, name: &str) -> Identity {
        self.identity_for(name, 10 * HOUR)
    }

    pub(crate) fn identity_for(&self, name: &str, life: Duration) -> Identity {
        let name = id(name);
        let issuer = if name.trust_domain().as_str() == "east.mesh" { &self.east } else { &self.west };
        let key = KeyPair::generate().unwrap();
        let csr = Csr::parse(&key.csr_der().unwrap()).unwrap();
        let issued = issuer.issue(&csr, &name, SystemTime::now() - Duration::from_secs(60), life + Duration::from_secs(60)).unwrap();
        Identity::of(Svid::new(key, issued.chain).unwrap(), Verifier::new(Arc::clone(&self.bundles), Default::default()))
    }
}

/// A serving proxy: answers requests with what it saw, and echoes raw connections after a greeting.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) accepted: Rc<Cell<usize>>,
    pub(crate) revoked: CancellationToken,
    _tasks: Tasks,
}

impl Server {
    pub(crate) fn start(identity: &Identity, limits: Limits, drain: &Drain) -> Self {
        let listener = tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, revoked) = (Rc::new(Cell::new(0)), CancellationToken::new());
        let mut tasks = Tasks::new();
        let (acceptor, drain) = (Rc::new(Acceptor::new(identity.clone(), SESSION_ALPN)), drain.clone());
        let (counted, revoking) = (Rc::clone(&accepted), revoked.clone());
        tasks.spawn_local(async move {
            let mut sessions = Tasks::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.set(counted.get() + 1);
                let (acceptor, limits, drain, revoked) = (Rc::clone(&acceptor), limits.clone(), drain.clone(), revoking.clone());
                sessions.spawn_local(async move {
                    let Ok((stream, peer)) = acceptor.accept(stream).await else { return };
                    let life = life_left(&acceptor.identity().svid(), &peer, SystemTime::now());
                    let served = Served { peer: Arc::new(peer), life, limits, drain, revoked };
                    let _ = session::serve(stream, served, answer).await;
                });
            }
        });
        Self { address, accepted, revoked, _tasks: tasks }
    }

    pub(crate) fn plan(&self, expected: &str) -> Plan {
        Plan {
            way: Way::Local(self.address),
            expected: Answering::OneOf(Arc::new(BTreeSet::from([id(expected)]))),
            target: "port/8080".parse().unwrap(),
        }
    }
}

async fn answer(incoming: Incoming) {
    let target = incoming.target.as_ref().map(ToString::to_string).unwrap_or_default();
    match incoming.kind {
        Kind::Request(request, respond) if request.uri().path() == "/echo" => {
            let _ = respond.send(Response::new(request.into_body())).await;
        }
        Kind::Request(request, respond) => {
            let seen = format!("{} {} {} {target} ", incoming.peer.id(), request.method(), request.uri());
            let slow = request.uri().path() == "/never";
            let body = match request.into_body().collect().await {
                Ok(body) => body.to_bytes(),
                Err(_) => return,
            };
            if slow {
                return std::future::pending().await;
            }
            let body = Full::new(Bytes::from([seen.as_bytes(), &body].concat()));
            let _ = respond.send(Response::builder().header("connection", "close").body(body).unwrap()).await;
        }
        Kind::Raw(offer) if target == "port/1" => offer.refuse(StatusCode::FORBIDDEN, "no-such-port"),
        Kind::Raw(offer) => {
            let mut stream = offer.accept().unwrap();
            stream.write_all(b"hello ").await.unwrap();
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).await.is_ok() {
                stream.write_all(&all).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    }
}

pub(crate) fn pool(identity: &Identity) -> Pool {
    Pool::new(identity.clone(), Settings::default())
}
