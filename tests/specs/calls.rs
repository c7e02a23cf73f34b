//! Calls cross from west to east: HTTP/1.1, HTTP/2, gRPC and raw TCP, with the caller's own identity, by the names that DNS answers.

use std::process::Command;

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_tests::{World, eventually, tools};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn calls_of_every_protocol_cross_with_the_callers_identity() {
    let (_alone, world) = crate::world(2).await;
    http_1_crosses_and_the_server_sees_the_caller(&world).await;
    a_forged_identity_header_is_removed(&world).await;
    http_2_crosses(&world).await;
    grpc_crosses(&world).await;
    raw_tcp_crosses_and_half_closes(&world).await;
    a_server_may_speak_first(&world).await;
    an_unknown_name_says_what_to_do_next(&world).await;
    dns_answers_every_kind_of_name(&world).await;
}

async fn http_1_crosses_and_the_server_sees_the_caller(world: &World) {
    let (answer, _) = eventually("catalog answers west", async || world.client("west").ok(CATALOG).await).await;
    assert_eq!(answer.body["cluster"], "east", "{}", answer.body);
    assert_eq!(answer.body["peer"], WEST_STOREFRONT, "{}", answer.body);
}

async fn a_forged_identity_header_is_removed(world: &World) {
    let mut connection = mesh_tests::client::Connection::open(world.client("west").outbound).await.unwrap();
    let forged =
        hyper::Request::get(CATALOG).header("X-Mesh-Peer", "spiffe://east.mesh/ns/shop/sa/root").header("x-mesh_peer", "spiffe://a/b");
    let answer = connection.send(forged).await.unwrap();
    assert_eq!(answer.body["peer"], WEST_STOREFRONT, "{}", answer.body);
    assert!(!answer.body.to_string().contains("spiffe://a/b"), "{}", answer.body);
}

async fn http_2_crosses(world: &World) {
    let stream = world.client("west").connect("catalog.shop.svc.clusterset.local:80").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = hyper::Request::get(CATALOG).body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(body["cluster"], "east", "{body}");
    driver.abort();
}

/// grpcurl honours no HTTP proxy for plaintext targets, so it calls through a local port that CONNECTs, as a stock client behind capture would.
async fn grpc_crosses(world: &World) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let client = world.client("west");
    let forwarder = tokio::spawn(async move {
        while let Ok((mut inbound, _)) = listener.accept().await {
            let mut outbound = client.connect("catalog.shop.svc.clusterset.local:9090").await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await });
        }
    });
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/proto");
    let answer = tokio::task::spawn_blocking(move || {
        tools::run(
            Command::new(tools::program("MESH_TOOLS_GRPCURL"))
                .args(["-plaintext", "-max-time", "10", "-import-path", proto, "-proto", "shop.proto", &at.to_string()])
                .arg("isthmus.shop.v1.Shop/Describe"),
        )
    })
    .await
    .unwrap()
    .unwrap();
    assert!(answer.contains("east") && answer.contains(WEST_STOREFRONT), "{answer}");
    forwarder.abort();
}

async fn raw_tcp_crosses_and_half_closes(world: &World) {
    let mut stream = world.client("west").connect("ledger.shop.svc.clusterset.local:9000").await.unwrap();
    let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
    let (mut reader, mut writer) = stream.split();
    let mut received = Vec::new();
    let sending = async {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    };
    let (wrote, read) = tokio::join!(sending, reader.read_to_end(&mut received));
    wrote.unwrap();
    read.unwrap();
    assert!(received.ends_with(&sent), "{} of {} bytes came back after the half-close", received.len(), sent.len());
}

async fn a_server_may_speak_first(world: &World) {
    let mut stream = world.client("west").connect("ledger.shop.svc.clusterset.local:9000").await.unwrap();
    let mut greeting = [0_u8; 6];
    tokio::time::timeout(std::time::Duration::from_secs(5), stream.read_exact(&mut greeting)).await.expect("a greeting").unwrap();
    assert_eq!(&greeting, b"ledger");
}

async fn an_unknown_name_says_what_to_do_next(world: &World) {
    let answer = world.client("west").get("http://nothing.shop.svc.clusterset.local/").await.unwrap();
    assert!(answer.status.is_client_error() || answer.status.is_server_error(), "{}", answer.status);
    assert!(answer.body.to_string().contains("nothing.shop.svc.clusterset.local"), "{}", answer.body);
    assert!(answer.body.to_string().contains("mesh "), "{}", answer.body);
}

async fn dns_answers_every_kind_of_name(world: &World) {
    let one = |arguments: &[&str]| {
        let answers = world.dig("west", arguments)?;
        anyhow::ensure!(answers.len() == 1, "{arguments:?}: {answers:?}");
        Ok(answers[0].clone())
    };
    let (set_ip, _) = eventually("a cluster-set address", async || one(&["catalog.shop.svc.clusterset.local"])).await;
    assert!(set_ip.starts_with("127."), "{set_ip}");
    assert_eq!(one(&["-t", "TXT", "dns-version.clusterset.local"]).unwrap(), "\"1.0.0\"");
    assert!(
        one(&["-t", "SRV", "_http._tcp.catalog.shop.svc.clusterset.local"]).unwrap().ends_with("80 catalog.shop.svc.clusterset.local.")
    );
    let (mirror, _) = eventually("a per-cluster address", async || one(&["catalog.shop.svc.east.mesh"])).await;
    assert_ne!(mirror, set_ip);
    assert_eq!(one(&["+tcp", "catalog.shop.svc.clusterset.local"]).unwrap(), set_ip);
    assert_eq!(world.dig("west", &["-t", "AAAA", "catalog.shop.svc.clusterset.local"]).unwrap(), Vec::<String>::new());
    let (stand_ins, _) = eventually("headless endpoints", async || {
        let answers = world.dig("west", &["stock.shop.svc.clusterset.local"])?;
        anyhow::ensure!(!answers.is_empty(), "none");
        Ok(answers)
    })
    .await;
    let id = world.kubectl("east", &["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"]).unwrap();
    let pod = one(&[&format!("stock-0.{id}.stock.shop.svc.clusterset.local")]).unwrap();
    assert!(stand_ins.contains(&pod), "{pod} of {stand_ins:?}");
    let status = tools::run(Command::new(tools::program("MESH_TOOLS_DIG")).args([
        &format!("@{}", world.address("west", "dns").ip()),
        "-p",
        &world.address("west", "dns").port().to_string(),
        &format!("{id}.stock.shop.svc.clusterset.local"),
    ]))
    .unwrap();
    assert!(status.contains("NXDOMAIN"), "{status}");
}

const CATALOG: &str = "http://catalog.shop.svc.clusterset.local/";
const WEST_STOREFRONT: &str = "spiffe://west.mesh/ns/shop/sa/storefront";
