//! What a caller sees of gateways, endpoints and applications that die.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends here")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::client::{Answer, connect, get, send};
use support::{World, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const CATALOG: &str = "http://catalog.shop.svc.clusterset.local/";

/// Requests that follow each other on four connections at a time, until they are counted.
struct Flow {
    stop: CancellationToken,
    callers: JoinSet<u32>,
}

impl Flow {
    fn start(proxy: SocketAddr, method: &'static str) -> Self {
        let (stop, mut callers) = (CancellationToken::new(), JoinSet::new());
        for _ in 0..4 {
            let stop = stop.clone();
            callers.spawn(async move {
                let mut failed = 0;
                while !stop.is_cancelled() {
                    failed += u32::from(send(proxy, method, CATALOG, "", "").await.status != 200);
                }
                failed
            });
        }
        Self { stop, callers }
    }

    async fn failed(self) -> u32 {
        self.stop.cancel();
        self.callers.join_all().await.into_iter().sum()
    }
}

/// Answered, and by this cluster.
fn check(answer: &Answer, cluster: &str) {
    assert_eq!((answer.status, answer.saw("cluster")), (200, Some(cluster)), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_begun_after_a_gateway_died_is_answered_elsewhere_whatever_it_is() {
    let mut world = World::start().await;
    world.also_from_north();
    check(&get(world.west.outbound, CATALOG).await, "east");
    world.east.gateway.kill().await;
    for _ in 0..50 {
        check(&send(world.west.outbound, "POST", CATALOG, "", "order").await, "north");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_flow_while_a_gateway_dies_are_answered_and_return_when_it_does() {
    let mut world = World::start().await;
    world.also_from_north();
    let proxy = world.west.outbound;
    let flow = Flow::start(proxy, "GET");
    eventually("east answers", async || get(proxy, CATALOG).await.saw("cluster") == Some("east")).await;
    world.east.gateway.kill().await;
    eventually("north answers", async || get(proxy, CATALOG).await.saw("cluster") == Some("north")).await;
    world.east.gateway.restart().await;
    eventually("east answers again", async || get(proxy, CATALOG).await.saw("cluster") == Some("east")).await;
    assert_eq!(flow.failed().await, 0, "GETs are safe to send again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_proxy_that_drains_loses_no_request_whatever_it_is() {
    let world = World::start().await;
    world.also_from_north();
    let proxy = world.west.outbound;
    let flow = Flow::start(proxy, "POST");
    eventually("east answers", async || get(proxy, CATALOG).await.saw("cluster") == Some("east")).await;
    world.east.proxy.trigger.start();
    eventually("north answers", async || get(proxy, CATALOG).await.saw("cluster") == Some("north")).await;
    world.east.proxy.ended().await;
    assert_eq!(flow.failed().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_no_longer_answers_is_seen_by_its_watch_and_not_by_requests() {
    let mut world = World::start().await;
    world.also_from_north();
    let proxy = world.west.outbound;
    check(&get(proxy, CATALOG).await, "east");
    let dark = || metric(&world.west.metrics, "mesh_dark_gateways");
    assert_eq!(dark(), 0);
    world.east.gateway.kill().await;
    eventually("the watch sees it", async || dark() == 1).await;
    let begun = Instant::now();
    check(&get(proxy, CATALOG).await, "north");
    assert!(begun.elapsed() < Duration::from_secs(1));
    world.east.gateway.restart().await;
    eventually("the watch sees it", async || metric(&world.west.metrics, "mesh_dark_gateways") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_does_not_accept_is_passed_over_whatever_the_request_is() {
    let world = World::start().await;
    world.also_from_north();
    world.east.apps.stop_http();
    eventually("it does not accept", async || tokio::net::TcpStream::connect(("127.1.64.1", world.east.apps.http)).await.is_err()).await;
    for _ in 0..10 {
        check(&send(world.west.outbound, "POST", CATALOG, "", "order").await, "north");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_accepts_and_then_says_nothing_costs_a_request_time_and_no_answer() {
    let mut world = World::start().await;
    world.also_from_north();
    let silent = world.east.gateway.freeze().await;
    check(&send(world.west.outbound, "POST", CATALOG, "", "order").await, "north");
    eventually("the watch sees it", async || metric(&world.west.metrics, "mesh_dark_gateways") == 1).await;
    let begun = Instant::now();
    check(&get(world.west.outbound, CATALOG).await, "north");
    assert!(begun.elapsed() < Duration::from_secs(1));
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_connection_is_opened_elsewhere_when_a_gateway_is_gone() {
    let mut world = World::start().await;
    world.also_from_north();
    world.east.gateway.kill().await;
    let mut stream = connect(world.west.outbound, "catalog.shop.svc.clusterset.local:9000").await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "hellohello");
}

fn metric(registry: &prometheus_client::registry::Registry, name: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect("no such metric");
    value.parse().unwrap()
}
