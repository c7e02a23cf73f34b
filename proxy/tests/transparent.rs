//! Connections that the kernel redirects, in a network namespace of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends here")]

mod support;

use std::net::SocketAddr;
use std::process::Command;

use socket2::{Domain, Socket, Type};
use support::World;
use support::client::exchange;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Says that this process runs in the namespace that was made for it.
const INSIDE: &str = "MESH_TEST_INSIDE_NAMESPACE";

/// Runs the test `name` of this file in a namespace that has only `lo`; returns whether this is it.
fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let script = "\"$MESH_TOOLS_IP\" link set lo up && exec \"$0\" --exact \"$1\" --nocapture";
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--net", "sh", "-c", script])
        .arg(program)
        .arg(name)
        .env(INSIDE, "1")
        .env("MESH_TOOLS_IP", tool("MESH_TOOLS_IP"));
    let output = command.output().expect("unshare of util-linux starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// A program that `cargo xtask tools` provides; without it the test fails.
fn tool(variable: &str) -> std::ffi::OsString {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: run the tests through `cargo xtask ci`"))
}

fn nft(rules: &str) {
    let output = Command::new(tool("MESH_TOOLS_NFT")).arg(rules).output().expect("nft starts");
    assert!(output.status.success(), "{rules}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirected_connection_goes_where_it_was_meant_to_go() {
    if !inside("a_redirected_connection_goes_where_it_was_meant_to_go") {
        return;
    }
    let world = World::start().await;
    let [outbound, _] = world.west.redirected;
    nft("add table ip mesh");
    nft("add chain ip mesh output { type nat hook output priority -100; }");
    nft(&format!("add rule ip mesh output ip daddr 127.2.128.0/17 meta l4proto tcp redirect to :{}", outbound.port()));

    let cluster_set: SocketAddr = "127.2.128.2:80".parse().unwrap();
    let request = "GET /items HTTP/1.1\r\nhost: whatever\r\nconnection: close\r\n\r\n";
    let answer = exchange(cluster_set, request).await;
    assert_eq!((answer.status, answer.saw("cluster")), (200, Some("east")), "{answer:?}");
    assert_eq!(answer.saw("x-mesh-peer"), Some("spiffe://west.mesh/ns/shop/sa/web"));
    assert_eq!(answer.saw("host"), Some("whatever"), "the client's own Host is left alone");

    let mut raw = tokio::net::TcpStream::connect("127.2.128.2:9000").await.unwrap();
    raw.write_all(b"hello").await.unwrap();
    raw.shutdown().await.unwrap();
    let mut echoed = String::new();
    raw.read_to_string(&mut echoed).await.unwrap();
    assert_eq!(echoed, "hellohello");

    let nobody = tokio::net::TcpStream::connect("127.2.128.77:80").await;
    let read = async { nobody?.read_u8().await };
    assert!(read.await.is_err(), "an address of the cluster that nobody has is refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_connection_to_a_workload_has_no_caller_and_cannot_claim_one() {
    if !inside("a_plain_connection_to_a_workload_has_no_caller_and_cannot_claim_one") {
        return;
    }
    let world = World::start().await;
    let [_, inbound] = world.east.proxy.redirected;
    redirect_plain(inbound);
    let request = "GET / HTTP/1.1\r\nhost: x\r\nx-mesh-peer: forged\r\nconnection: close\r\n\r\n";
    let answer = plain(([127, 1, 64, 1], world.east.apps.http).into(), request).await.unwrap();
    assert!(answer.contains("200 OK") && answer.contains("cluster: east"), "{answer}");
    assert!(!answer.contains("x-mesh-peer"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_strict_answers_the_kubelet_and_nobody_else_without_a_certificate() {
    if !inside("who_is_strict_answers_the_kubelet_and_nobody_else_without_a_certificate") {
        return;
    }
    let world = World::start().await;
    let [_, inbound] = world.north.proxy.redirected;
    redirect_plain(inbound);
    let http: SocketAddr = ([127, 3, 64, 1], world.north.apps.http).into();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let probed = plain(http, &get("/healthz")).await.unwrap();
    assert!(probed.contains("200 OK") && probed.contains("cluster: north"), "{probed}");
    for other in ["/", "/healthz/", "/healthz?x"] {
        let refused = plain(http, &get(other)).await.unwrap();
        assert!(refused.contains("403 Forbidden") && !refused.contains("cluster: north"), "{other}: {refused}");
    }
    assert!(plain(http, "no HTTP at all\r\n").await.is_err(), "what is no question is reset");
    assert!(plain(([127, 3, 64, 1], world.north.apps.echo).into(), "hello").await.is_err(), "a port that nobody probes is reset");
    assert_eq!(world.north.proxy.denied.counted("plaintext"), 5);
}

/// The port of the client of [`plain`], by which the kernel tells it from the proxy, which calls the application at the same address.
const CLIENT: u16 = 40000;

fn redirect_plain(inbound: SocketAddr) {
    nft("add table ip mesh");
    nft("add chain ip mesh output { type nat hook output priority -100; }");
    nft(&format!("add rule ip mesh output tcp sport {CLIENT} redirect to :{}", inbound.port()));
}

/// Says `text` to `to` from [`CLIENT`], and returns what comes until the end.
async fn plain(to: SocketAddr, text: &str) -> std::io::Result<String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // A reset leaves no port behind that waits, so the next call can have it.
    socket.set_linger(Some(std::time::Duration::ZERO))?;
    socket.bind(&SocketAddr::from(([127, 1, 64, 9], CLIENT)).into())?;
    socket.connect(&to.into())?;
    socket.set_nonblocking(true)?;
    let mut stream = tokio::net::TcpStream::from_std(socket.into())?;
    stream.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}
