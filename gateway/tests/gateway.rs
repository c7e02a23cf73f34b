//! East's gateway on loopback, with a snapshot handed in: a caller in west, an inbound proxy in east, and clients without a proxy.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test: what fails here fails the test")]

mod world;

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use mesh_gateway::Limits;
use mesh_topology::{Change, Egress, Import, ImportKind, Stage};
use mesh_transport::tunnel::{self, Control, Status, Target, Timeouts, TunnelError, TunnelRequest, watch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use world::{SOON, World, eventually, on_a_worker};

const FRONT: &str = "west.mesh/ns/shop/sa/front";
const MIRROR: &str = "west.mesh/ns/isthmus-system/sa/mesh-mirror-controller";

async fn call(world: &World, pool: &mesh_transport::Pool) -> String {
    let lease = pool.checkout(&world.plan("shop/cart")).await.unwrap();
    let request = Request::get("/").header("host", "cart.shop").body(Full::<bytes::Bytes>::default()).unwrap();
    let body = lease.request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn a_call_from_west_reaches_east_with_the_callers_own_identity_and_is_counted() {
    on_a_worker(async {
        let world = World::start(Limits::default());
        let seen = call(&world, &world.pool(FRONT)).await;
        assert_eq!(seen, "spiffe://west.mesh/ns/shop/sa/front export/east-id/shop/cart/80");
        let metrics = world.metrics();
        let counted = r#"mesh_gateway_tunnels_total{src_cluster="west",dst_service="shop/cart",status="accepted"} 1"#;
        assert!(metrics.contains(counted), "{metrics}");
        assert!(metrics.contains(r#"mesh_gateway_tunnels_open{src_cluster="west"} 1"#), "{metrics}");
    });
}

#[test]
fn what_is_not_exported_and_what_does_not_exist_get_the_same_answer_and_are_counted() {
    on_a_worker(async {
        let world = World::start(Limits::default());
        let pool = world.pool(FRONT);
        for service in ["shop/secret", "shop/nothing"] {
            let error = pool.checkout(&world.plan(service)).await.unwrap_err();
            assert_eq!((error.stage, error.status()), (Stage::Dial, Some(Status::NotExportedOrUnknown)));
        }
        assert_eq!(world.denied("not-exported"), 2);
        let metrics = world.metrics();
        assert!(metrics.contains(r#"dst_service="other",status="not-exported-or-unknown"} 2"#), "{metrics}");
    });
}

#[test]
fn accepted_is_said_only_after_the_endpoint_was_dialled() {
    on_a_worker(async {
        let world = World::start(Limits::default());
        world.stop_inbound();
        let error = world.pool(FRONT).checkout(&world.plan("shop/cart")).await.unwrap_err();
        assert_eq!((error.stage, error.status()), (Stage::Dial, Some(Status::NoEndpoint)));
        assert_eq!(world.denied("endpoint-unreachable"), 1);
    });
}

#[test]
fn an_export_that_is_withdrawn_ends_its_open_tunnels_and_is_counted() {
    on_a_worker(async {
        let world = World::start(Limits::default());
        let pool = world.pool(FRONT);
        let lease = pool.checkout(&world.plan("shop/cart")).await.unwrap();
        let mut raw = lease.raw().await.unwrap();
        world.change([Change::Export("shop/cart".parse().unwrap(), None)]);
        let ended = tokio::time::timeout(Duration::from_secs(2), raw.read_to_end(&mut Vec::new())).await;
        assert!(ended.expect("within 2 s").is_err(), "what was open looks broken, not finished");
        assert_eq!(world.denied("revoked"), 1);
        assert!(pool.checkout(&world.plan("shop/cart")).await.is_err());
    });
}

#[test]
fn a_peer_that_is_unlinked_loses_its_tunnels_and_gets_no_new_one() {
    on_a_worker(async {
        let world = World::start(Limits::default());
        let pool = world.pool(FRONT);
        let lease = pool.checkout(&world.plan("shop/cart")).await.unwrap();
        world.change([Change::Peer("west.mesh".parse().unwrap(), None)]);
        tokio::time::timeout(Duration::from_secs(2), lease.session().ended()).await.expect("within 2 s");
        assert!(pool.checkout(&world.plan("shop/cart")).await.is_err());
        eventually("the refusal", || world.denied("unknown-peer") == 1).await;
    });
}

#[test]
fn callers_that_prove_nothing_good_are_refused_each_with_its_own_counter() {
    on_a_worker(async {
        let world = World::start(Limits::default());
        let refused = async |identity: &mesh_transport::Identity, reason: &'static str| {
            let error = world.pool_as(identity).checkout(&world.plan("shop/cart")).await.unwrap_err();
            assert_eq!(error.stage, Stage::Gateway, "{reason}");
            eventually(reason, || world.denied(reason) == 1).await;
        };
        refused(&world.identity("mars.mesh/ns/shop/sa/front"), "unknown-trust-domain").await;
        refused(&world.expired(FRONT), "expired").await;
        refused(&world.forged(FRONT), "issuer-of-other-trust-domain").await;
        let expected = mesh_trust::Expected::only(world.gateway().identity);
        let config = mesh_trust::client_config(None, world.identity(FRONT).verifier(), expected, &[mesh_transport::TUNNEL_ALPN]);
        let stream = TcpStream::connect(world.gateway().address).await.unwrap();
        let connecting = tokio_rustls::TlsConnector::from(config).connect(mesh_trust::tls::server_name(), stream);
        // TLS 1.3: the refusal of a client comes after its own handshake has ended.
        if let Ok(mut tls) = connecting.await {
            assert!(tls.read(&mut [0; 1]).await.is_err());
        }
        eventually("no certificate", || world.denied("no-certificate") == 1).await;
    });
}

#[test]
fn a_connection_that_is_no_tunnel_is_refused_and_counted() {
    on_a_worker(async {
        let world = World::start(Limits::default());
        let mut plain = TcpStream::connect(world.gateway().address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let _ = plain.read_to_end(&mut Vec::new()).await;
        eventually("plain text", || world.denied("handshake-failed") == 1).await;
        let identity = world.identity(FRONT);
        let stream = TcpStream::connect(world.gateway().address).await.unwrap();
        let expected = mesh_trust::Expected::only(world.gateway().identity);
        let (mut tls, _) = identity.connect(stream, expected, mesh_transport::TUNNEL_ALPN).await.unwrap();
        tls.write_all(&[0xff; 64]).await.unwrap();
        eventually("no message", || world.denied("request-malformed") == 1).await;
    });
}

#[test]
fn a_peer_past_its_quota_is_told_busy() {
    on_a_worker(async {
        let world = World::start(Limits { per_peer: 1, ..Limits::default() });
        let held = world.pool(FRONT);
        held.checkout(&world.plan("shop/cart")).await.unwrap();
        let error = world.pool(FRONT).checkout(&world.plan("shop/cart")).await.unwrap_err();
        assert_eq!((error.stage, error.status()), (Stage::Gateway, Some(Status::Busy)));
        assert_eq!(world.denied("quota"), 1);
    });
}

async fn open(world: &World, who: &str, target: Target) -> Result<tunnel::Tunnel, TunnelError> {
    let opened = tunnel::connect(&world.identity(who), &world.gateway(), &TunnelRequest::new(target), &Timeouts::default()).await;
    opened.map(|(_, tunnel)| tunnel)
}

#[test]
fn a_drain_is_heard_on_watch_and_open_tunnels_finish() {
    on_a_worker(async {
        let mut world = World::start(Limits::default());
        let mut watch = watch::Watch::new(open(&world, FRONT, Target::Watch).await.unwrap());
        watch.ping(SOON).await.unwrap();
        let pool = world.pool(FRONT);
        let mut raw = pool.checkout(&world.plan("shop/cart")).await.unwrap().raw().await.unwrap();
        world.drain();
        watch.listen(tokio::time::Instant::now() + SOON).await.unwrap();
        assert!(watch.draining().is_some());
        let error = world.pool(FRONT).checkout(&world.plan("shop/cart")).await.unwrap_err();
        assert_eq!((error.stage, error.status()), (Stage::Gateway, Some(Status::Draining)));
        raw.write_all(b"late").await.unwrap();
        raw.shutdown().await.unwrap();
        let mut echoed = String::new();
        raw.read_to_string(&mut echoed).await.unwrap();
        assert_eq!(echoed, "hello late");
        drop((raw, pool));
        world.ended().await;
    });
}

#[test]
fn control_is_reached_by_the_named_caller_only() {
    on_a_worker(async {
        let world = World::start(Limits::default());
        let mut tunnel = open(&world, MIRROR, Target::Control(Control::Exports)).await.unwrap();
        tunnel.write_all(b"ask").await.unwrap();
        let mut answer = [0; 8];
        tunnel.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"control!");
        let refused = open(&world, FRONT, Target::Control(Control::Exports)).await.unwrap_err();
        assert!(matches!(refused, TunnelError::Refused(reply) if reply.status == Status::Denied));
        assert_eq!(world.denied("control-caller"), 1);
    });
}

#[test]
fn a_client_without_a_proxy_goes_out_under_the_gateways_second_identity() {
    on_a_worker(async {
        let world = World::start(Limits::default());
        let (port, service) = (world.free_port(), "shop/cart".parse::<mesh_names::ServiceId>().unwrap());
        let number = "80".parse().unwrap();
        let import = Import {
            id: service.clone(),
            addresses: Vec::new(),
            kind: ImportKind::ClusterSetIp,
            ports: vec![mesh_topology::Port { name: None, number, protocol: mesh_names::Protocol::Tcp }],
            own: true,
            clusters: Vec::new(),
        };
        let egress = Egress { port, service: service.clone(), cluster: None, service_port: number, protocol: mesh_names::Protocol::Tcp };
        world.change([Change::Import(service, Some(import)), Change::Egress(port, Some(egress))]);
        let mut client = world.connect_egress(port).await;
        client.write_all(b"who").await.unwrap();
        client.shutdown().await.unwrap();
        let mut echoed = String::new();
        client.read_to_string(&mut echoed).await.unwrap();
        assert_eq!(echoed, "hello who");
        assert_eq!(world.last_caller(), "spiffe://east.mesh/ns/isthmus-system/sa/mesh-egress port/8080");
        eventually("the count", || world.metrics().contains(r#"mesh_gateway_egress_total{dst_service="shop/cart",outcome="carried"}"#))
            .await;
        world.change([Change::Egress(port, None)]);
        eventually("the listener is gone", || world.egress_is_closed(port)).await;
    });
}

#[test]
fn a_client_without_a_proxy_reaches_a_linked_cluster_through_its_gateway() {
    on_a_worker(async {
        let world = World::start(Limits::default());
        // East's own gateway stands in for another cluster's: a link to itself, with west's egress identity granted nothing special.
        let west = World::beside(&world);
        let port = west.free_port();
        west.import_from_east(&world, port);
        let mut client = west.connect_egress(port).await;
        client.shutdown().await.unwrap();
        let mut echoed = String::new();
        client.read_to_string(&mut echoed).await.unwrap();
        assert_eq!(echoed, "hello ");
        assert_eq!(world.last_caller(), "spiffe://west.mesh/ns/isthmus-system/sa/mesh-egress export/east-id/shop/cart/80");
        // From then on it hears whether that gateway lives, and whether it drains.
        eventually("a watch tunnel", || {
            let metrics = world.metrics();
            metrics
                .lines()
                .any(|line| line.starts_with("mesh_gateway_tunnels_total") && line.contains("watch") && line.contains("accepted"))
        })
        .await;
    });
}
