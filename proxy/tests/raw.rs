//! Raw connections through two proxies, and what a session refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends here")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_names::AppPort;
use mesh_transport::plan::{Answering, Plan, Way};
use mesh_transport::pool::{Pool, Settings};
use mesh_transport::session::{StreamError, StreamTarget};
use support::client::connect;
use support::{World, id};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_ended_still_gets_its_answer() {
    let world = World::start().await;
    let tunnel = connect(world.west.outbound, "catalog.shop.svc.clusterset.local:9000").await.unwrap();
    check_half_close(tunnel).await;
    check_half_close(TcpStream::connect(world.west.listener.unwrap()).await.unwrap()).await;
    let local = connect(world.storefront.outbound, "catalog.shop.svc.cluster.local:9000").await.unwrap();
    check_half_close(local).await;
}

async fn check_half_close(mut stream: TcpStream) {
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "hellohello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_speak_first_on_a_port_that_declares_nothing() {
    let world = World::start().await;
    let mut stream = connect(world.west.outbound, "catalog.shop.svc.clusterset.local:9001").await.unwrap();
    let mut heard = [0; 10];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"220 hello\n");
    stream.write_all(b"HELO x\n").await.unwrap();
    let mut heard = [0; 7];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"HELO x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_from_another_trust_domain_gets_exports_and_no_port() {
    let world = World::start().await;
    let (inbound, http) = (world.east.proxy.inbound, AppPort::try_from(world.east.apps.http).unwrap());
    let foreign = world.identity("west.mesh", "web");
    let own = world.identity("east.mesh", "storefront");
    let export = |cluster: &str, port: u16| StreamTarget::Export {
        cluster: cluster.parse().unwrap(),
        service: "shop/catalog".parse().unwrap(),
        port: support::port(port),
    };
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            assert_eq!(ask(&foreign, inbound, export("east-id", 9000)).await, Ok(()));
            assert_eq!(ask(&foreign, inbound, export("east-id", 81)).await, Err("not-exported".to_owned()));
            assert_eq!(ask(&foreign, inbound, export("west-id", 9000)).await, Err("not-exported".to_owned()));
            assert_eq!(ask(&foreign, inbound, StreamTarget::Port(http)).await, Err("port-from-outside".to_owned()));
            assert_eq!(ask(&own, inbound, StreamTarget::Port(http)).await, Ok(()));
            let admin = StreamTarget::Port(AppPort::try_from(4191_u16).unwrap());
            assert_eq!(ask(&own, inbound, admin).await, Err("proxy-port".to_owned()));
        })
        .await;
    assert_eq!(world.east.proxy.denied.counted("port-from-outside"), 1);
    assert_eq!(world.east.proxy.denied.counted("not-exported"), 2);
}

/// Opens a raw stream straight to an inbound proxy; the error is its reason.
async fn ask(identity: &mesh_transport::Identity, inbound: std::net::SocketAddr, target: StreamTarget) -> Result<(), String> {
    let pool = Pool::new(identity.clone(), Settings::default());
    let plan =
        Plan { way: Way::Local(inbound), expected: Answering::OneOf(Arc::new(BTreeSet::from([id("east.mesh", "catalog")]))), target };
    let lease = pool.checkout(&plan).await.unwrap();
    match lease.raw().await {
        Ok(_) => Ok(()),
        Err(StreamError::Refused { reason, .. }) => Err(reason),
        Err(error) => panic!("{error:?}"),
    }
}
