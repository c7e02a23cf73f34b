//! A client in one cluster: it calls through `storefront`'s outbound proxy there, as an application with `HTTP_PROXY` set would.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A client of one cluster's outbound proxy.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub outbound: SocketAddr,
}

/// What the shop's workload answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Answer {
    /// The cluster that answered, when the call succeeded.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.status.is_success().then(|| self.body["cluster"].as_str()).flatten()
    }
}

impl Client {
    /// One GET on a connection of its own.
    ///
    /// # Errors
    /// When the proxy can't be reached or the exchange breaks.
    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        Connection::open(self.outbound).await?.get(url).await
    }

    /// A GET that must be answered 200, within a deadline of 5 s.
    ///
    /// # Errors
    /// When it is not.
    pub async fn ok(&self, url: &str) -> anyhow::Result<Answer> {
        let answer = tokio::time::timeout(Duration::from_secs(5), self.get(url)).await??;
        anyhow::ensure!(answer.status == StatusCode::OK, "{url}: {} {}", answer.status, answer.body);
        Ok(answer)
    }

    /// A raw connection to `host:port` through CONNECT.
    ///
    /// # Errors
    /// When the proxy refuses.
    pub async fn connect(&self, authority: &str) -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.outbound).await?;
        stream.write_all(format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n").as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            anyhow::ensure!(head.len() < 8192, "an endless answer to CONNECT");
            head.push(stream.read_u8().await?);
        }
        let text = String::from_utf8_lossy(&head);
        anyhow::ensure!(text.starts_with("HTTP/1.1 200"), "CONNECT {authority}: {}", text.lines().next().unwrap_or_default());
        Ok(stream)
    }
}

/// One kept-alive connection to an outbound proxy.
pub struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn open(outbound: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(outbound).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, driver })
    }

    /// One GET in absolute form.
    ///
    /// # Errors
    /// When the exchange breaks.
    pub async fn get(&mut self, url: &str) -> anyhow::Result<Answer> {
        self.send(Request::get(url)).await
    }

    /// One request with the headers of `builder`.
    ///
    /// # Errors
    /// When the exchange breaks.
    pub async fn send(&mut self, builder: http::request::Builder) -> anyhow::Result<Answer> {
        let mut request = builder.body(Empty::new())?;
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        request.headers_mut().entry("host").or_insert(host.parse()?);
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { status, body })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
