//! Requests through two proxies, in a cluster and across.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends here")]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_topology::Change;
use support::client::{connect, exchange, get, read_head, send};
use support::{World, catalog, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CATALOG: &str = "http://catalog.shop.svc.clusterset.local";
const WEB: &str = "spiffe://west.mesh/ns/shop/sa/web";

#[tokio::test(flavor = "multi_thread")]
async fn a_call_across_arrives_with_the_callers_own_identity() {
    let world = World::start().await;
    let answer = get(world.west.outbound, &format!("{CATALOG}/items")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.saw("x-mesh-peer"), Some(WEB));
    assert_eq!(answer.saw("host"), Some("catalog.shop.svc.clusterset.local"));
    assert!(answer.body.starts_with("HTTP/1.1 GET /items\n"), "{}", answer.body);
    assert!(!answer.head.contains("isthmus-"), "nothing of the mesh's own reaches a client, whoever said it: {}", answer.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_the_cluster_arrives_with_the_callers_own_identity() {
    let world = World::start().await;
    for host in ["catalog.shop.svc.cluster.local", "catalog.shop.svc.east.mesh", "127.1.128.1"] {
        let answer = get(world.storefront.outbound, &format!("http://{host}/")).await;
        assert_eq!((answer.status, answer.saw("x-mesh-peer")), (200, Some("spiffe://east.mesh/ns/shop/sa/storefront")), "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_claims_about_itself_never_arrives() {
    let world = World::start().await;
    let forged = "x-mesh-peer: forged\r\nX_Mesh_Peer: forged\r\nisthmus-target: port/22\r\nl5d-client-id: forged\r\n\
                  x-forwarded-client-cert: forged\r\nforwarded: for=forged\r\nx-envoy-peer: forged\r\naccept: */*\r\n";
    let answer = send(world.west.outbound, "GET", &format!("{CATALOG}/"), forged, "").await;
    assert!(!answer.body.contains("forged"), "{}", answer.body);
    assert_eq!((answer.saw("x-mesh-peer"), answer.saw("accept")), (Some(WEB), Some("*/*")));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_in_a_tunnel_is_read_as_http_whoever_sends_it_and_however_it_is_spelled() {
    let world = World::start().await;
    let lines = ["GET / HTTP/1.1", "get / HTTP/1.1", "GET\t/ HTTP/1.1", " GET / HTTP/1.1", "GET / HTTP/1.10"];
    for port in [80, 9000, 9001] {
        for line in lines {
            let mut tunnel = connect(world.west.outbound, &format!("catalog.shop.svc.clusterset.local:{port}")).await.unwrap();
            let request = format!("{line}\r\nhost: x\r\nx-mesh-peer: forged\r\nconnection: close\r\n\r\n");
            tunnel.write_all(request.as_bytes()).await.unwrap();
            tunnel.shutdown().await.unwrap();
            let mut all = Vec::new();
            // A connection that is broken off is as good as an error.
            let _ = tokio::time::timeout(support::SOON, tunnel.read_to_end(&mut all)).await.expect("still open");
            let all = String::from_utf8_lossy(&all);
            assert!(!all.contains("forged"), "{line:?} to {port}: {all}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_declares_http_gets_nothing_else() {
    let world = World::start().await;
    let mut tunnel = connect(world.west.outbound, "catalog.shop.svc.clusterset.local:80").await.unwrap();
    tunnel.write_all(b"EHLO x\r\n").await.unwrap();
    let mut all = Vec::new();
    let _ = tunnel.read_to_end(&mut all).await;
    assert!(all.is_empty(), "{}", String::from_utf8_lossy(&all));
    eventually("it is counted", async || world.east.proxy.denied.counted("not-http") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_client_has_gone_is_given_up_by_all() {
    let world = World::start().await;
    let waiting = || world.east.apps.waiting.load(Ordering::Relaxed);
    let mut client = tokio::net::TcpStream::connect(world.west.outbound).await.unwrap();
    let request = format!("GET {CATALOG}/never HTTP/1.1\r\nhost: catalog.shop.svc.clusterset.local\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    eventually("the application has it", async || waiting() == 1).await;
    drop(client);
    eventually("the application is rid of it", async || waiting() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_carried_both_ways() {
    let world = World::start().await;
    let answer = send(world.west.outbound, "POST", &format!("{CATALOG}/"), "", &"x".repeat(100_000)).await;
    assert!(answer.body.ends_with(&"x".repeat(100_000)));
    assert!(answer.saw("content-length").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_form_request_for_a_mesh_name_is_carried_and_for_another_is_not() {
    let world = World::start().await;
    let ask = |host: &str| format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    assert_eq!(exchange(world.west.outbound, &ask("catalog.shop.svc.clusterset.local")).await.status, 200);
    assert_eq!(exchange(world.west.outbound, &ask("example.org")).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_unknown_is_answered_with_host_reason_and_next_command() {
    let world = World::start().await;
    let answer = get(world.west.outbound, "http://nope.shop.svc.clusterset.local/").await;
    assert_eq!(answer.status, 404, "{answer:?}");
    assert!(answer.head.contains("x-mesh-error: unknown_service"), "{}", answer.head);
    assert!(answer.body.contains("mesh dns query nope.shop.svc.clusterset.local"), "{}", answer.body);
    assert_eq!(get(world.west.outbound, &format!("{CATALOG}:81/")).await.status, 404);
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    assert_eq!(send(world.west.outbound, "GET", &format!("{CATALOG}/"), &many, "").await.status, 431);
    assert!(connect(world.west.outbound, "nope.shop.svc.clusterset.local:80").await.unwrap_err().starts_with("HTTP/1.1 404"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_outside_the_mesh_is_called_untouched() {
    let world = World::start().await;
    let url = format!("http://127.0.0.1:{}/", outside().await);
    let answer = send(world.west.outbound, "GET", &url, "x-mesh-peer: mine\r\n", "").await;
    assert_eq!((answer.status, answer.saw("x-mesh-peer")), (200, Some("mine")));
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_trailers_arrive_over_http_2_to_the_end() {
    let world = World::start().await;
    let tunnel = connect(world.west.outbound, "catalog.shop.svc.clusterset.local:50051").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tunnel)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://catalog.shop.svc.clusterset.local:50051/trailers")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(b"ping")))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    let text = String::from_utf8(collected.to_bytes().to_vec()).unwrap();
    assert!(text.starts_with("HTTP/2.0 POST /trailers") && text.contains("te: trailers") && text.ends_with("ping"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_bytes_both_ways_and_still_has_a_caller() {
    let world = World::start().await;
    let mut stream = tokio::net::TcpStream::connect(world.west.outbound).await.unwrap();
    let request = format!(
        "GET {CATALOG}/ws HTTP/1.1\r\nhost: catalog.shop.svc.clusterset.local\r\nconnection: upgrade\r\nupgrade: echo\r\nx-mesh-peer: forged\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101"));
    stream.write_all(b"ping\n").await.unwrap();
    let expected = format!("hello {WEB}\nping\n");
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_ends_with_its_export() {
    let world = World::start().await;
    let mut stream = tokio::net::TcpStream::connect(world.west.outbound).await.unwrap();
    let request = format!("GET {CATALOG}/ HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101"));
    world.east.proxy.change([Change::Export(catalog(), None)]);
    let mut all = Vec::new();
    let ended = tokio::time::timeout(support::SOON, stream.read_to_end(&mut all)).await;
    assert!(ended.is_ok(), "still open: {}", String::from_utf8_lossy(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_application_are_kept_and_used_again() {
    let world = World::start().await;
    for _ in 0..20 {
        assert_eq!(get(world.west.outbound, &format!("{CATALOG}/")).await.status, 200);
    }
    assert!(world.east.apps.http_connections.load(Ordering::Relaxed) <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_is_an_answer_and_one_that_comes_back_carries_again() {
    let mut world = World::start().await;
    assert_eq!(get(world.west.outbound, &format!("{CATALOG}/")).await.status, 200);
    world.east.gateway.kill().await;
    let answer = get(world.west.outbound, &format!("{CATALOG}/")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.head.contains("x-mesh-error: unreachable"), "{}", answer.head);
    world.east.gateway.restart().await;
    let (proxy, url) = (world.west.outbound, format!("{CATALOG}/"));
    eventually("the gateway carries again", async || get(proxy, &url).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_withdrawn_ends_a_running_answer_within_two_seconds() {
    let world = World::start().await;
    let mut stream = tokio::net::TcpStream::connect(world.west.outbound).await.unwrap();
    stream.write_all(format!("GET {CATALOG}/endless HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200"));
    world.east.proxy.change([Change::Export(catalog(), None)]);
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(support::SOON, stream.read_to_end(&mut rest)).await.expect("still running");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(world.east.proxy.denied.counted("not-exported") >= 1);
    assert_ne!(get(world.west.outbound, &format!("{CATALOG}/")).await.status, 200, "also on the session kept from before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_left_the_listing_finishes_what_it_has() {
    let world = World::start().await;
    let mut stream = tokio::net::TcpStream::connect(world.west.outbound).await.unwrap();
    stream.write_all(format!("GET {CATALOG}/endless HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    read_head(&mut stream).await;
    let mut service = mesh_topology::Service::clone(world.east.proxy.snapshot.load().service(&catalog()).unwrap());
    service.endpoints.clear();
    world.east.proxy.change([Change::Service(catalog(), Some(service))]);
    // As much again as is sent in the two seconds after which a stream that is not allowed has ended.
    let mut more = [0; 1000];
    stream.read_exact(&mut more).await.unwrap();
    world.east.proxy.change([Change::Export(catalog(), None)]);
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await.expect("still running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_drains_finishes_what_it_has_and_ends() {
    let world = World::start().await;
    assert_eq!(get(world.west.outbound, &format!("{CATALOG}/")).await.status, 200);
    world.east.proxy.trigger.start();
    world.west.trigger.start();
    world.west.ended().await;
    world.east.proxy.ended().await;
}

/// Something that is not of the mesh.
async fn outside() -> u16 {
    support::apps::Apps::start("127.0.0.1".parse().unwrap(), "nowhere").await.http
}
