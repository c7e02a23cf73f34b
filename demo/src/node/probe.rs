//! Whether a process serves: its readiness probe if it has one, else each TCP port that its container declares takes connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One way to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The port takes connections.
    Connects(u16),
    /// A GET is answered with a status below 400.
    Answers { port: u16, path: String },
}

/// What must hold for `container` to be ready. Pure.
pub(crate) fn probes(container: &Container) -> Vec<Probe> {
    let number = |port: &IntOrString| match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => declared(container).find(|port| port.0 == Some(name.as_str())).map(|port| port.1),
    };
    let probe = container.readiness_probe.as_ref();
    let http = probe.and_then(|probe| probe.http_get.as_ref());
    let tcp = probe.and_then(|probe| probe.tcp_socket.as_ref());
    if let Some((http, port)) = http.and_then(|http| Some((http, number(&http.port)?))) {
        return vec![Probe::Answers { port, path: http.path.clone().unwrap_or_else(|| "/".to_owned()) }];
    }
    match tcp.and_then(|tcp| number(&tcp.port)) {
        Some(port) => vec![Probe::Connects(port)],
        None => declared(container).map(|(_, port)| Probe::Connects(port)).collect(),
    }
}

fn declared(container: &Container) -> impl Iterator<Item = (Option<&str>, u16)> {
    let tcp = container.ports.iter().flatten().filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    tcp.filter_map(|port| Some((port.name.as_deref(), u16::try_from(port.container_port).ok()?)))
}

/// Whether every probe holds at `address` now.
pub(crate) async fn hold(probes: &[Probe], address: Ipv4Addr) -> bool {
    for probe in probes {
        let held = match probe {
            Probe::Connects(port) => connect((address, *port).into()).await.is_some(),
            Probe::Answers { port, path } => get((address, *port).into(), path).await.is_ok(),
        };
        if !held {
            return false;
        }
    }
    true
}

/// Asks for `path`; the error says what came instead of a good answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<(), String> {
    let ask = async {
        let mut stream = connect(address).await.ok_or_else(|| format!("{address} takes no connections"))?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
        judge(&String::from_utf8_lossy(&answer))
    };
    tokio::time::timeout(PATIENCE, ask).await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}

fn judge(answer: &str) -> Result<(), String> {
    let status: u16 = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("not an HTTP answer")?;
    let said = answer.split("\r\n\r\n").nth(1).unwrap_or_default().trim();
    if (200..400).contains(&status) { Ok(()) } else { Err(format!("{status}: {said}")) }
}

async fn connect(address: SocketAddr) -> Option<TcpStream> {
    tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await.ok()?.ok()
}

const PATIENCE: Duration = Duration::from_secs(2);
const ANSWER_MAX: u64 = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(container: Value, expected: &[Probe]) {
        let container: Container = serde_json::from_value(container).unwrap();
        assert_eq!(probes(&container), expected);
    }

    #[test]
    fn a_readiness_probe_counts_else_every_declared_tcp_port() {
        let ports =
            json!([{ "name": "http", "containerPort": 8080 }, { "containerPort": 9000 }, { "containerPort": 53, "protocol": "UDP" }]);
        check(json!({ "name": "c", "ports": ports }), &[Probe::Connects(8080), Probe::Connects(9000)]);
        let http = json!({ "httpGet": { "port": "http", "path": "/healthz" } });
        check(json!({ "name": "c", "ports": ports, "readinessProbe": http }), &[Probe::Answers { port: 8080, path: "/healthz".into() }]);
        check(json!({ "name": "c", "readinessProbe": { "tcpSocket": { "port": 7 } } }), &[Probe::Connects(7)]);
        check(json!({ "name": "c" }), &[]);
    }

    #[test]
    fn an_answer_is_good_below_400_and_its_text_is_the_reason_otherwise() {
        assert_eq!(judge("HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
        assert_eq!(
            judge("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nwaiting for identity\n"),
            Err("503: waiting for identity".into())
        );
        assert!(judge("SSH-2.0").is_err());
    }
}
