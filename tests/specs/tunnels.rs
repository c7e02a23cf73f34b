//! A tunnel leads to what this peer may import, and nowhere else: checked by the gateway, and again inside the session by the endpoint's proxy.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use mesh_names::{ClusterId, ServiceId, SpiffeId};
use mesh_tests::{World, eventually};
use mesh_topology::Gateway;
use mesh_transport::session::Limits;
use mesh_transport::session::StreamTarget;
use mesh_transport::tunnel::message::{Export, Status, Target, TunnelRequest};
use mesh_transport::tunnel::{self, TunnelError};
use mesh_transport::{Identity, SESSION_ALPN, Session};
use mesh_trust::{Bundle, Bundles, Csr, Expected, Issuer, KeyPair, Refusals, Svid, Verifier};

#[tokio::test]
async fn only_exported_ports_are_reached_and_each_refusal_is_counted() {
    let (_alone, world) = crate::world(2).await;
    let client = world.client("west");
    eventually("catalog answers west", async || client.ok("http://catalog.shop.svc.clusterset.local/").await).await;
    let identity = storefront_of_west(&world);
    let east: ClusterId =
        world.kubectl("east", &["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"]).unwrap().parse().unwrap();
    let gateway = Gateway {
        address: world.address("east", "gateway"),
        identity: "spiffe://east.mesh/ns/isthmus-system/sa/mesh-gateway".parse().unwrap(),
    };
    let admin = SocketAddr::new(gateway.address.ip(), 4191);
    let export = |service: &str, port: u16| Export {
        cluster: east.clone(),
        service: service.parse().unwrap(),
        port: port.try_into().unwrap(),
        handle: None,
    };
    let not_exported = [
        export("isthmus-system/mesh-control", 4150),
        export("shop/catalog", 4191),
        export("shop/nothing", 80),
        export("shop/storefront", 80),
    ];
    for target in not_exported {
        let before = world.metric(admin, "mesh_denied_total", &[]).await.unwrap();
        let request = TunnelRequest::new(Target::Export(target.clone()));
        match tunnel::connect(&identity, &gateway, &request, &tunnel::Timeouts::default()).await {
            Err(TunnelError::Refused(reply)) => assert_eq!(reply.status, Status::NotExportedOrUnknown, "{target:?}"),
            other => panic!("{target:?}: {other:?}"),
        }
        let after = world.metric(admin, "mesh_denied_total", &[]).await.unwrap();
        assert!(after > before, "{target:?} was not counted");
    }
    let request = TunnelRequest::new(Target::Export(export("shop/catalog", 80)));
    let (_, stream) = tunnel::connect(&identity, &gateway, &request, &tunnel::Timeouts::default()).await.unwrap();
    let catalog = Expected::only("spiffe://east.mesh/ns/shop/sa/catalog".parse().unwrap());
    let (inner, peer) = identity.connect(stream, catalog, SESSION_ALPN).await.unwrap();
    let (session, driver) = Session::open(inner, peer, Duration::from_secs(60), &Limits::default()).await.unwrap();
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async move {
            tokio::task::spawn_local(driver);
            let allowed =
                StreamTarget::Export { cluster: east.clone(), service: "shop/catalog".parse().unwrap(), port: 80_u16.try_into().unwrap() };
            let other = StreamTarget::Export { cluster: east, service: id("shop/catalog"), port: 4191_u16.try_into().unwrap() };
            assert_eq!(status(&session, &allowed).await, Some(200));
            for refused in [other, StreamTarget::Port(4191_u16.try_into().unwrap()), StreamTarget::Port(8080_u16.try_into().unwrap())] {
                assert_ne!(status(&session, &refused).await, Some(200), "{refused}");
            }
        })
        .await;
}

async fn status(session: &Session, target: &StreamTarget) -> Option<u16> {
    let request =
        http::Request::get("http://catalog.shop.svc.clusterset.local/").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    session.request(target, request).await.ok().map(|response| response.status().as_u16())
}

fn id(text: &str) -> ServiceId {
    text.parse().unwrap()
}

/// A workload of west as its own proxy would be: issued by west's issuer, trusting east's bundle as the link carries it.
fn storefront_of_west(world: &World) -> Identity {
    let (chain, key) = world.issuer("west").unwrap();
    let issuer = Issuer::from_pem(&chain, &key).unwrap();
    let key = KeyPair::generate().unwrap();
    let csr = Csr::parse(&key.csr_der().unwrap()).unwrap();
    let who: SpiffeId = "spiffe://west.mesh/ns/shop/sa/storefront".parse().unwrap();
    let chain = issuer.issue(&csr, &who, SystemTime::now() - Duration::from_secs(60), Duration::from_secs(3600)).unwrap().chain;
    let bundle = world.kubectl("west", &["get", "links.isthmus.dev", "east", "-o", "jsonpath={.spec.bundle}"]).unwrap();
    let bundles = Bundles::of(Bundle::from_spiffe_json("east.mesh".parse().unwrap(), bundle.as_bytes()).unwrap()).shared();
    Identity::of(Svid::new(key, chain).unwrap(), Verifier::new(bundles, Refusals::default()))
}
