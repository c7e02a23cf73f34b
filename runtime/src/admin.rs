//! The admin port: `/ready`, `/live` and `/metrics`, for kubelet and Prometheus. Status only: nothing here changes anything, and no
//! tunnel reaches it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::drain::Drain;
use crate::ready::Readiness;

/// The bound admin port of a process.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    shown: Shown,
}

#[derive(Debug)]
struct Shown {
    registry: Registry,
    readiness: Readiness,
    drain: Drain,
}

/// Why the admin port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on admin address {address}: is another process using it?")]
pub struct AdminError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub source: std::io::Error,
}

impl Admin {
    /// Opens the port. Once `drain` has started, `/ready` says no.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(address: SocketAddr, registry: Registry, readiness: Readiness, drain: Drain) -> Result<Self, AdminError> {
        let error = |source| AdminError { address, source };
        let listener = match TcpListener::bind(address).await {
            // Where there is no IPv6, every address is every IPv4 address.
            Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await,
            bound => bound,
        }
        .map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        Ok(Self { listener, address, shown: Shown { registry, readiness, drain } })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes by `drain` instead: for programs that open their sockets before they have one.
    #[must_use]
    pub fn following(mut self, drain: Drain) -> Self {
        self.shown.drain = drain;
        self
    }

    /// Serves until the drain's deadline: a draining process is still asked how it is.
    pub async fn run(self) {
        let drain = self.shown.drain.clone();
        let router = Router::new()
            .route("/ready", get(ready))
            .route("/live", get(|| async { "ok\n" }))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(self.shown));
        tokio::select! {
            served = IntoFuture::into_future(axum::serve(self.listener, router)) => {
                if let Err(error) = served {
                    tracing::warn!(%error, "admin port failed");
                }
            }
            () = drain.ended() => {}
        }
    }
}

async fn ready(State(shown): State<Arc<Shown>>) -> Response {
    if shown.drain.is_started() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    match shown.readiness.waiting_for() {
        closed if closed.is_empty() => "ok\n".into_response(),
        closed => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", closed.join(", "))).into_response(),
    }
}

async fn metrics(State(shown): State<Arc<Shown>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &shown.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_admin_port_tells_readiness_liveness_and_metrics() {
        let (trigger, drain) = drain::channel(Duration::from_secs(60));
        let readiness = Readiness::new();
        let gate = readiness.gate("discovery");
        let mut registry = Registry::default();
        crate::denied::Denied::register(&mut registry, "gateway").count("expired");
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap(), registry, readiness, drain).await.unwrap();
        let address = admin.address();
        let running = tokio::spawn(admin.run());
        assert!(ask(address, "/ready").await.contains("waiting for discovery"));
        gate.open();
        assert!(ask(address, "/ready").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/live").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/metrics").await.contains("mesh_denied_total"));
        trigger.start();
        assert!(ask(address, "/ready").await.contains("draining"));
        trigger.hurry();
        running.await.unwrap();
    }
}
