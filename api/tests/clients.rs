//! The clients against a control of a few lines: over real TLS, with a real issuer, with and without a control that answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use mesh_api::client::discovery::{self, Follow};
use mesh_api::client::{Bootstrap, BootstrapFlags, Credentials, Discovery};
use mesh_api::connect::CONTROL_ALPN;
use mesh_api::proto::discovery_server::{Discovery as ServeDiscovery, DiscoveryServer};
use mesh_api::proto::identity_server::{Identity, IdentityServer};
use mesh_api::{proto, translate};
use mesh_runtime::drain;
use mesh_runtime::tasks::Tasks;
use mesh_topology::Own;
use mesh_trust::{Bundle, Bundles, ClientAuth, Csr, Issuer, KeyPair, Refusals, Root, Svid, Verifier};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

const DAY: Duration = Duration::from_secs(24 * 3600);
const SOON: Duration = Duration::from_secs(30);

/// A cluster's trust, and a control that issues for one account and tells one export.
struct Control {
    issuer: Issuer,
    bundle: Bundle,
}

impl Control {
    fn new() -> Self {
        let root = Root::generate("test", SystemTime::now() - DAY, 30 * DAY).unwrap();
        let issuer = root.issuer_for(&"west.mesh".parse().unwrap(), SystemTime::now() - DAY, 20 * DAY).unwrap();
        let bundle = Bundle::new("west.mesh".parse().unwrap(), 1, vec![issuer.bundle_authority().clone()]).unwrap();
        Self { issuer, bundle }
    }

    fn svid(&self, account: &str) -> Svid {
        let key = KeyPair::generate().unwrap();
        let chain = self.issue(&key.csr_der().unwrap(), account);
        Svid::new(key, chain).unwrap()
    }

    fn issue(&self, csr: &[u8], account: &str) -> Vec<mesh_trust::CertificateDer<'static>> {
        let id = format!("spiffe://west.mesh/ns/isthmus-system/sa/{account}").parse().unwrap();
        self.issuer.issue(&Csr::parse(csr).unwrap(), &id, SystemTime::now() - Duration::from_secs(1), 2 * DAY).unwrap().chain
    }

    /// Serves as `account` until the tasks are dropped.
    async fn serve(self: &Arc<Self>, account: &str, tasks: &mut Tasks) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let verifier = Verifier::fixed(Bundles::of(self.bundle.clone()));
        let config = mesh_trust::server_config(&self.svid(account), &verifier, &[CONTROL_ALPN], ClientAuth::Optional);
        let (connections, incoming) = mpsc::channel(4);
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = TlsAcceptor::from(Arc::clone(&config)).accept(stream).await {
                    let _ = connections.send(Ok::<_, io::Error>(Accepted(stream))).await;
                }
            }
        });
        let services = Services(Arc::clone(self));
        tasks.spawn(async move {
            let server = Server::builder()
                .add_service(IdentityServer::new(services.clone()))
                .add_service(DiscoveryServer::new(services))
                .serve_with_incoming(ReceiverStream::new(incoming));
            server.await.unwrap();
        });
        address
    }
}

#[derive(Clone)]
struct Services(Arc<Control>);

#[tonic::async_trait]
impl Identity for Services {
    async fn issue(&self, request: Request<proto::IssueRequest>) -> Result<Response<proto::IssueReply>, Status> {
        let request = request.into_inner();
        if request.token != "good" {
            return Err(Status::unauthenticated("no such token"));
        }
        let account = if request.for_egress { "mesh-egress" } else { "mesh-gateway" };
        let chain = self.0.issue(&request.csr_der, account).into_iter().map(|certificate| certificate.to_vec()).collect();
        Ok(Response::new(proto::IssueReply { chain, bundle: self.0.bundle.to_spiffe_json().into_bytes(), not_after: 0 }))
    }
}

#[tonic::async_trait]
impl ServeDiscovery for Services {
    type StreamStream = ReceiverStream<Result<proto::DiscoveryUpdate, Status>>;

    async fn stream(&self, request: Request<Streaming<proto::DiscoveryRequest>>) -> Result<Response<Self::StreamStream>, Status> {
        let (updates, receiver) = mpsc::channel(4);
        let export = proto::Export {
            service: Some(proto::ServiceRef { namespace: "shop".into(), name: "web".into() }),
            all_peers: true,
            ..proto::Export::default()
        };
        let update = proto::DiscoveryUpdate {
            version: Some(proto::Version { replica: "a".into(), counter: 7 }),
            full: true,
            upserts: vec![
                proto::Resource { resource: Some(proto::resource::Resource::Export(export)) },
                translate::bundle_said(&self.0.bundle),
            ],
            complete: Some(proto::Complete { cluster_id: "id-west".into() }),
            ..proto::DiscoveryUpdate::default()
        };
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            updates.send(Ok(update)).await.unwrap();
            // Holds the stream open for as long as the client does, and checks that it acknowledges.
            let mut acknowledged = false;
            while let Some(Ok(request)) = requests.next().await {
                acknowledged |= matches!(request.message, Some(proto::discovery_request::Message::Ack(_)));
            }
            assert!(acknowledged);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct Accepted(TlsStream<TcpStream>);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn flags(folder: &Path, control: &Control, address: SocketAddr, token: &str) -> BootstrapFlags {
    std::fs::write(folder.join("bundle.json"), control.bundle.to_spiffe_json()).unwrap();
    std::fs::write(folder.join("token"), format!("{token}\n")).unwrap();
    BootstrapFlags {
        control: vec![address.to_string().parse().unwrap()],
        trust_domain: "west.mesh".parse().unwrap(),
        cluster: "west".parse().unwrap(),
        bundle: folder.join("bundle.json"),
        token: folder.join("token"),
        state_dir: folder.join("state"),
        admin: "127.0.0.1:0".parse().unwrap(),
    }
}

async fn obtain(flags: BootstrapFlags) -> Credentials {
    let bootstrap = Bootstrap::own(flags, Refusals::default()).unwrap();
    tokio::time::timeout(SOON, bootstrap.obtain()).await.unwrap().unwrap().0
}

async fn follow(flags: &BootstrapFlags, credentials: &Credentials, tasks: &mut Tasks) -> (Discovery, drain::Trigger) {
    let (trigger, drain) = drain::channel(Duration::ZERO);
    let own = Own { cluster: flags.cluster.clone(), id: None, trust_domain: flags.trust_domain.clone(), ranges: Vec::new() };
    let (mut discovery, follower) = discovery::follow(Follow {
        control: flags.control.clone(),
        connector: credentials.control_connector(),
        kinds: Vec::new(),
        own,
        bundles: Arc::clone(&credentials.bundles),
        state_dir: Some(flags.state_dir.clone()),
    });
    tasks.spawn(follower.run(drain));
    tokio::time::timeout(SOON, discovery.complete()).await.unwrap();
    (discovery, trigger)
}

#[tokio::test]
async fn a_process_starts_with_a_control_and_again_from_disk_without_one() {
    let (folder, control, mut tasks) = (tempfile::tempdir().unwrap(), Arc::new(Control::new()), Tasks::new());
    let address = control.serve("mesh-control", &mut tasks).await;
    let flags = flags(folder.path(), &control, address, "good");

    let credentials = obtain(flags.clone()).await;
    assert_eq!(credentials.svid.load().id().as_str(), "spiffe://west.mesh/ns/isthmus-system/sa/mesh-gateway");
    let file = flags.state_dir.join("svid.pem");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let egress = Bootstrap::egress(flags.clone(), &credentials).unwrap().obtain().await.unwrap().0;
    assert_eq!(egress.svid.load().id().as_str(), "spiffe://west.mesh/ns/isthmus-system/sa/mesh-egress");

    let mut following = Tasks::new();
    let (discovery, trigger) = follow(&flags, &credentials, &mut following).await;
    let exports =
        |discovery: &Discovery| discovery.snapshot.load().exports().map(|export| export.service.to_string()).collect::<BTreeSet<_>>();
    assert_eq!(exports(&discovery), BTreeSet::from(["shop/web".to_owned()]));
    trigger.start();
    following.finish(tokio::time::Instant::now() + SOON).await;
    assert!(flags.state_dir.join("snapshot.pb").exists(), "a drain writes the copy");

    drop(tasks);
    let again = obtain(flags.clone()).await;
    assert_eq!(again.svid.load().chain(), credentials.svid.load().chain());
    let (discovery, _trigger) = follow(&flags, &again, &mut following).await;
    assert_eq!(exports(&discovery), BTreeSet::from(["shop/web".to_owned()]));
    assert!(!discovery.health.borrow().connected);
}

#[tokio::test]
async fn a_kept_svid_of_an_authority_that_is_trusted_no_longer_is_replaced() {
    let (folder, mut tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
    let (before, after) = (Arc::new(Control::new()), Arc::new(Control::new()));
    let address = before.serve("mesh-control", &mut tasks).await;
    let kept = obtain(flags(folder.path(), &before, address, "good")).await;
    let address = after.serve("mesh-control", &mut tasks).await;
    let anew = obtain(flags(folder.path(), &after, address, "good")).await;
    assert_ne!(anew.svid.load().chain(), kept.svid.load().chain());
    assert_eq!(anew.svid.load().chain()[1..], after.issuer.chain()[..anew.svid.load().chain().len() - 1]);
}

#[tokio::test]
async fn nobody_but_the_control_of_the_own_trust_domain_is_believed() {
    let (folder, control, mut tasks) = (tempfile::tempdir().unwrap(), Arc::new(Control::new()), Tasks::new());
    let impostor = control.serve("mesh-dns", &mut tasks).await;
    let refusals = Refusals::default();
    let bootstrap = Bootstrap::own(flags(folder.path(), &control, impostor, "good"), refusals.clone()).unwrap();
    let asking = bootstrap.obtain();
    tokio::pin!(asking);
    let deadline = tokio::time::Instant::now() + SOON;
    while refusals.of(mesh_trust::Refused::UnexpectedIdentity) == 0 {
        assert!(tokio::time::Instant::now() < deadline, "the impostor was not refused");
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut asking).await.is_err(), "an SVID came from an impostor");
    }
}

#[tokio::test]
async fn a_refused_token_gives_no_svid_and_is_asked_for_again() {
    let (folder, control, mut tasks) = (tempfile::tempdir().unwrap(), Arc::new(Control::new()), Tasks::new());
    let address = control.serve("mesh-control", &mut tasks).await;
    let flags = flags(folder.path(), &control, address, "bad");
    let bootstrap = Bootstrap::own(flags.clone(), Refusals::default()).unwrap();
    let asking = bootstrap.obtain();
    tokio::pin!(asking);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut asking).await.is_err());
    // The kubelet has renewed it.
    std::fs::write(&flags.token, "good").unwrap();
    tokio::time::timeout(SOON, asking).await.unwrap().unwrap();
}
