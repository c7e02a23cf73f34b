//! `mesh-init` sets rules that the kernel takes, and a pod's connections go where they say. Each test has a network namespace of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends here")]

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mesh_transport::tcp;
use tokio::net::TcpListener;

/// Says that this process runs in the namespace that was made for it.
const INSIDE: &str = "MESH_TEST_INSIDE_NAMESPACE";
const LIMIT: Duration = Duration::from_secs(10);

/// Runs the test `name` of this file in a namespace that has only `lo`; returns whether this is it.
fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let script = "\"$MESH_TOOLS_IP\" link set lo up && exec \"$0\" --exact \"$1\" --nocapture";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "sh", "-c", script]).arg(std::env::current_exe().unwrap()).arg(name);
    let output = command.env(INSIDE, "1").env("MESH_TOOLS_IP", tool("MESH_TOOLS_IP")).output().expect("unshare of util-linux starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// A program that `cargo xtask tools` provides; without it the test fails.
fn tool(variable: &str) -> std::ffi::OsString {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: run the tests through `cargo xtask ci`"))
}

fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &str) -> String {
    let output = Command::new(&program).args(arguments.split(' ')).output().expect("the tool starts");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn ip(arguments: &str) {
    run(tool("MESH_TOOLS_IP"), arguments);
}

/// A network outside, whose every address leads to nobody.
fn outside() {
    ip("link add d0 type veth peer name d1");
    ip("link set d1 up");
    ip("address add 10.77.0.1/24 dev d0");
    ip("-6 address add fd77::1/64 dev d0 nodad");
    ip("link set d0 up");
}

fn init(more: &[&str]) -> Output {
    let mut init = Command::new(env!("CARGO_BIN_EXE_mesh-init"));
    init.args(["--outbound-port", "4141", "--inbound-port", "4142"]).args(more).env("MESH_NFT", tool("MESH_TOOLS_NFT"));
    init.output().unwrap()
}

fn set(more: &[&str]) {
    let output = init(more);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn listen(port: u16) -> TcpListener {
    tcp::listen(SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port)).unwrap()
}

/// Whether a connection to `to` arrives at `listener`, and where it was meant to go.
async fn arrives(listener: &TcpListener, to: &str) -> SocketAddr {
    let to: SocketAddr = to.parse().unwrap();
    let client = tokio::task::spawn_blocking(move || TcpStream::connect_timeout(&to, LIMIT));
    let (stream, _) = tokio::time::timeout(LIMIT, listener.accept()).await.unwrap_or_else(|_| panic!("{to} does not arrive")).unwrap();
    drop(client.await.unwrap().unwrap());
    tcp::original_destination(&stream).unwrap()
}

/// Whether a connection to `to` goes its own way, to where there is nobody.
async fn leaves(to: &str) -> bool {
    let to: SocketAddr = to.parse().unwrap();
    let short = Duration::from_millis(300);
    tokio::task::spawn_blocking(move || TcpStream::connect_timeout(&to, short)).await.unwrap().is_err()
}

#[tokio::test]
async fn what_a_pod_sends_goes_to_its_proxy_in_both_families() {
    if !inside("what_a_pod_sends_goes_to_its_proxy_in_both_families") {
        return;
    }
    outside();
    let proxy = listen(4141);
    // Twice: a container that is started again sets the same.
    for _ in 0..2 {
        set(&["--proxy-uid", "2140", "--skip-outbound-ports", "25,3306-3308"]);
    }
    for to in ["10.77.0.7:80", "[fd77::7]:443"] {
        assert_eq!(arrives(&proxy, to).await.to_string(), to);
    }
    for skipped in ["10.77.0.7:25", "10.77.0.7:3307", "[fd77::7]:25"] {
        assert!(leaves(skipped).await, "{skipped}");
    }
    let own = listen(8080);
    for to in ["127.0.0.1:8080", "10.77.0.1:8080", "[::1]:8080"] {
        arrives(&own, to).await;
    }
    let tables = run(tool("MESH_TOOLS_NFT"), "list tables");
    assert_eq!(tables.lines().collect::<Vec<_>>(), ["table inet isthmus"], "a second run replaces the first");
}

#[tokio::test]
async fn what_the_proxy_itself_sends_leaves_the_pod() {
    if !inside("what_the_proxy_itself_sends_leaves_the_pod") {
        return;
    }
    outside();
    let _proxy = listen(4141);
    // This test is user 0 of its namespace.
    set(&["--proxy-uid", "0"]);
    assert!(leaves("10.77.0.7:80").await && leaves("[fd77::7]:80").await);
}

/// Another namespace, at the other end of a cable.
struct Neighbour(Child);

impl Neighbour {
    fn new() -> Self {
        let child = Command::new("unshare").args(["--net", "sh", "-c", "echo up; exec sleep 60"]).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("unshare of util-linux starts");
        let mut up = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
        ip("link add v0 type veth peer name v1");
        ip(&format!("link set v1 netns {}", child.id()));
        ip("address add 10.78.0.1/24 dev v0");
        ip("-6 address add fd78::1/64 dev v0 nodad");
        ip("link set v0 up");
        let enter = format!("--net=/proc/{}/ns/net", child.id());
        for arguments in ["address add 10.78.0.2/24 dev v1", "-6 address add fd78::2/64 dev v1 nodad", "link set v1 up"] {
            let mut there = Command::new("nsenter");
            there.arg(&enter).arg("--").arg(tool("MESH_TOOLS_IP")).args(arguments.split(' '));
            assert!(there.status().unwrap().success(), "{arguments}");
        }
        Self(child)
    }

    /// Connects from there.
    fn connect(&self, to: &str) -> std::thread::JoinHandle<std::io::Result<TcpStream>> {
        let to: SocketAddr = to.parse().unwrap();
        let there = File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        std::thread::spawn(move || {
            use std::os::fd::AsFd as _;
            rustix::thread::move_into_link_name_space(there.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))?;
            TcpStream::connect_timeout(&to, LIMIT)
        })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn comes_to(listener: &TcpListener, neighbour: &Neighbour, to: &str) -> SocketAddr {
    let client = neighbour.connect(to);
    let (stream, _) = tokio::time::timeout(LIMIT, listener.accept()).await.unwrap_or_else(|_| panic!("{to} does not arrive")).unwrap();
    client.join().unwrap().unwrap();
    tcp::original_destination(&stream).unwrap()
}

#[tokio::test]
async fn what_comes_to_a_pod_goes_to_its_proxy_unless_its_port_is_left_alone() {
    if !inside("what_comes_to_a_pod_goes_to_its_proxy_unless_its_port_is_left_alone") {
        return;
    }
    let neighbour = Neighbour::new();
    let (proxy, sessions) = (listen(4142), listen(4143));
    set(&["--proxy-uid", "2140", "--skip-inbound-ports", "4143,9000-9010"]);
    for to in ["10.78.0.1:8080", "[fd78::1]:8080"] {
        assert_eq!(comes_to(&proxy, &neighbour, to).await.to_string(), to);
    }
    for to in ["10.78.0.1:4143", "[fd78::1]:4143"] {
        comes_to(&sessions, &neighbour, to).await;
    }
}

#[tokio::test]
async fn without_nft_iptables_does_the_same() {
    if !inside("without_nft_iptables_does_the_same") {
        return;
    }
    let neighbour = Neighbour::new();
    let proxy = listen(4142);
    let fallback = ["--nft", "/nonexistent/nft", "--proxy-uid", "0", "--skip-inbound-ports", "4143"];
    for _ in 0..2 {
        let mut init = Command::new(env!("CARGO_BIN_EXE_mesh-init"));
        init.args(["--outbound-port", "4141", "--inbound-port", "4142"]).args(fallback);
        init.env("MESH_IPTABLES", tool("MESH_TOOLS_IPTABLES_RESTORE")).env("MESH_IP6TABLES", tool("MESH_TOOLS_IP6TABLES_RESTORE"));
        let output = init.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for to in ["10.78.0.1:8080", "[fd78::1]:8080"] {
        assert_eq!(comes_to(&proxy, &neighbour, to).await.to_string(), to);
    }
    let sessions = listen(4143);
    comes_to(&sessions, &neighbour, "10.78.0.1:4143").await;
}

#[test]
fn when_neither_works_both_reasons_are_told() {
    let mut init = Command::new(env!("CARGO_BIN_EXE_mesh-init"));
    init.args(["--outbound-port", "4141", "--inbound-port", "4142", "--proxy-uid", "2140"]);
    init.args(["--nft", "/nonexistent/nft", "--iptables", "/nonexistent/iptables-restore"]);
    let output = init.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("/nonexistent/nft") && said.contains("/nonexistent/iptables-restore"), "{said}");
}

#[test]
fn nothing_but_ports_becomes_a_rule() {
    for bad in ["25; flush ruleset", "25\nflush ruleset", "{ }", "0", "70000"] {
        let output = init(&["--proxy-uid", "2140", "--print", "--skip-outbound-ports", bad]);
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
    }
    let output = init(&["--proxy-uid", "2140;", "--print"]);
    assert_eq!(output.status.code(), Some(2));
}
