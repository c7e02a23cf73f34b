//! A proxy that starts while no control answers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends here")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use mesh_api::{proto, translate};
use mesh_proxy::{Config, Flags, Proxy};
use mesh_runtime::drain;
use prost::Message;
use support::client::{exchange, get};
use support::{SOON, World, eventually};

const CATALOG: &str = "http://catalog.shop.svc.clusterset.local/";

/// A proxy of west whose control is gone, with its state in `folder`.
async fn proxy(folder: &Path, admin: SocketAddr) -> Proxy {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let flags = Flags::try_parse_from([
        "mesh-proxy",
        "--control=127.2.0.2:1",
        "--trust-domain=west.mesh",
        "--cluster=west",
        &format!("--bundle={}", path("bundle.json")),
        &format!("--token={}", path("token")),
        &format!("--state-dir={}", path("state")),
        &format!("--admin={admin}"),
        "--outbound=127.2.64.5:0",
        "--inbound=127.2.64.5:0",
        "--workers=1",
    ])
    .unwrap();
    Proxy::bind(Config::try_from(flags).unwrap()).await.unwrap()
}

/// What a proxy of west keeps on disk, as it would have written it.
fn keep(folder: &Path, world: &World) {
    let state = folder.join("state");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(state.join("svid.pem"), world.svid("west.mesh", "web").to_pem().as_bytes()).unwrap();
    let snapshot = world.west.snapshot.load();
    let mut upserts = translate::said(&snapshot);
    upserts.extend(world.bundles().iter().map(|bundle| translate::bundle_said(bundle)));
    let copy = proto::DiscoveryUpdate {
        full: true,
        upserts,
        own: Some(snapshot.own().into()),
        complete: Some(proto::Complete { cluster_id: "west-id".to_owned() }),
        ..proto::DiscoveryUpdate::default()
    };
    std::fs::write(state.join("snapshot.pb"), copy.encode_to_vec()).unwrap();
}

/// An address for the admin port that was free a moment ago.
fn admin() -> SocketAddr {
    std::net::TcpListener::bind("127.2.64.5:0").unwrap().local_addr().unwrap()
}

async fn ready(admin: SocketAddr) -> String {
    if tokio::net::TcpStream::connect(admin).await.is_err() {
        return "no answer".to_owned();
    }
    let answer = exchange(admin, "GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    format!("{} {}", answer.status, answer.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_starts_from_disk_and_carries_calls_without_a_control() {
    let (world, folder, admin) = (World::start().await, tempfile::tempdir().unwrap(), admin());
    let own = world.bundles().get(&"west.mesh".parse().unwrap()).unwrap().to_spiffe_json();
    std::fs::write(folder.path().join("bundle.json"), own).unwrap();
    keep(folder.path(), &world);
    let proxy = proxy(folder.path(), admin).await;
    let outbound = proxy.plane().outbound().unwrap();
    let (trigger, drain) = drain::channel(Duration::from_secs(5));
    let running = tokio::spawn(proxy.run(drain));
    eventually("the proxy is ready", async || ready(admin).await.starts_with("200")).await;
    let answer = get(outbound, CATALOG).await;
    assert_eq!((answer.status, answer.saw("x-mesh-peer")), (200, Some("spiffe://west.mesh/ns/shop/sa/web")));
    let metrics = exchange(admin, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(metrics.body.contains(r#"mesh_requests_total{direction="outbound",kind="http",ended="answered"} 1"#), "{}", metrics.body);
    trigger.start();
    tokio::time::timeout(SOON, running).await.expect("still draining").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_nobody_yet_is_not_ready() {
    let (world, folder, admin) = (World::start().await, tempfile::tempdir().unwrap(), admin());
    let own = world.bundles().get(&"west.mesh".parse().unwrap()).unwrap().to_spiffe_json();
    std::fs::write(folder.path().join("bundle.json"), own).unwrap();
    let proxy = proxy(folder.path(), admin).await;
    let (trigger, drain) = drain::channel(Duration::from_secs(5));
    let running = tokio::spawn(proxy.run(drain));
    eventually("the admin port says why", async || {
        let said = ready(admin).await;
        said.starts_with("503") && said.contains("identity")
    })
    .await;
    trigger.start();
    tokio::time::timeout(SOON, running).await.expect("still draining").unwrap().unwrap();
}
