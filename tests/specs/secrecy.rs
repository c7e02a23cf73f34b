//! What is said between two workloads is seen by them and their own sidecars only: on the wire between proxies and in the gateway's memory it is not.

use std::collections::BTreeSet;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use mesh_tests::{eventually, tools};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_canary_appears_only_between_an_application_and_its_own_sidecar() {
    let (_alone, world) = crate::world(2).await;
    let client = world.client("west");
    eventually("catalog answers west", async || client.ok("http://catalog.shop.svc.clusterset.local/").await).await;
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("capture.pcap");
    let mut capture = Command::new(tools::program("MESH_TOOLS_TCPDUMP"))
        .args(["-Z", "root", "-i", "lo", "--immediate-mode", "-U", "-s", "0", "-B", "16384", "-w"])
        .arg(&file)
        .arg("tcp")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the capture runs", async || {
        drop(TcpStream::connect(client.outbound).await?);
        anyhow::ensure!(std::fs::metadata(&file)?.len() > 24, "empty");
        anyhow::Ok(())
    })
    .await;
    for _ in 0..20 {
        speak(client.outbound).await.unwrap();
    }
    let seen = eventually("the canary is in the capture", async || {
        let seen = sightings(&std::fs::read(&file)?)?;
        anyhow::ensure!(!seen.is_empty(), "not yet");
        Ok(seen)
    })
    .await
    .0;
    capture.kill().unwrap();
    capture.wait().unwrap();
    // Between the client and its sidecar one end is the outbound port, between catalog and its sidecar one end is the application's port. Tunnel
    // and session ports never see it.
    for (from, to) in &seen {
        let at_client = [from, to].contains(&&client.outbound);
        let at_server = [from, to].iter().any(|end| end.port() == APPLICATION);
        assert!(at_client || at_server, "the canary crossed in plain text from {from} to {to}");
    }
    for pid in world.pids("east", "gateway").unwrap() {
        assert!(!memory_holds(pid, CANARY.as_bytes()).unwrap(), "the canary is in the memory of gateway {pid}");
    }
}

/// One POST with the canary in path, header and body, from the storefront's own address.
async fn speak(outbound: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(outbound).await?;
    let host = "catalog.shop.svc.clusterset.local";
    let request = format!(
        "POST http://{host}/{CANARY} HTTP/1.1\r\nhost: {host}\r\nx-canary: {CANARY}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{CANARY}",
        CANARY.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await??;
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Who sent the canary to whom, from a capture of loopback (Ethernet frames with IPv4).
fn sightings(capture: &[u8]) -> anyhow::Result<BTreeSet<(SocketAddr, SocketAddr)>> {
    let mut seen = BTreeSet::new();
    let mut at = 24;
    while let Some(header) = capture.get(at..at + 16) {
        let length = usize::try_from(u32::from_le_bytes(header[8..12].try_into()?))?;
        let Some(frame) = capture.get(at + 16..at + 16 + length) else { break };
        at += 16 + length;
        if frame.len() < 34 || frame[12..14] != [8, 0] || frame[23] != 6 {
            continue;
        }
        let head = 14 + usize::from(frame[14] & 15) * 4;
        if frame[head..].windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
            let address = |ip: usize, port: usize| {
                let ip = Ipv4Addr::new(frame[ip], frame[ip + 1], frame[ip + 2], frame[ip + 3]);
                SocketAddr::new(ip.into(), u16::from_be_bytes([frame[port], frame[port + 1]]))
            };
            seen.insert((address(26, head), address(30, head + 2)));
        }
    }
    Ok(seen)
}

fn memory_holds(pid: u64, needle: &[u8]) -> anyhow::Result<bool> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    for line in maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split_whitespace().next().and_then(|range| range.split_once('-')).unwrap_or(("0", "0"));
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut bytes = vec![0; usize::try_from(to - from)?];
        memory.seek(SeekFrom::Start(from))?;
        if memory.read_exact(&mut bytes).is_ok() && bytes.windows(needle.len()).any(|window| window == needle) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn a_frame_with_the_canary_is_found_in_a_capture() {
    let mut frame = vec![0_u8; 54];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[23] = 6;
    frame[26..34].copy_from_slice(&[127, 0, 0, 1, 127, 0, 0, 2]);
    frame[34..38].copy_from_slice(&[0, 80, 0, 81]);
    frame.extend(CANARY.as_bytes());
    let mut capture = vec![0_u8; 24 + 8];
    capture.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
    capture.extend([0; 4]);
    capture.extend(&frame);
    let expected = ("127.0.0.1:80".parse().unwrap(), "127.0.0.2:81".parse().unwrap());
    assert_eq!(sightings(&capture).unwrap().into_iter().collect::<Vec<_>>(), vec![expected]);
}

/// The port that catalog's own process listens on.
const APPLICATION: u16 = 8080;
/// 32 bytes.
const CANARY: &str = "kanarienvogel-0123456789abcdef-x";
