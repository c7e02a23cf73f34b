//! How the clients reach a control: an address, and a [`Connector`] that its program hands them.
//!
//! A connector turns an address into a byte stream whose other end has proved who it is; gRPC runs over that. In a cluster it is mTLS over
//! TCP ([`Connector::tls`]); to a peer's control it is a session inside a tunnel, which the mirror controller makes. Nothing here
//! falls back to plain text.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh_names::{Host, ParseError};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// The application protocol of every connection to a control: a session that carries gRPC.
pub const CONTROL_ALPN: &[u8] = b"isthmus/1";
/// The longest message that a client of control accepts: a full state of a large cluster comes in several updates below it.
pub const MESSAGE_MAX: usize = 64 << 20;

/// Where a control (or a mirror controller) listens: host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ControlAddress {
    host: Host,
    port: u16,
}

impl FromStr for ControlAddress {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = |why| ParseError::new("control address", text, why);
        let (host, port) = text.rsplit_once(':').ok_or_else(|| error("it is not of the form host:port"))?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| error("its port is not 1 to 65535"))?;
        let host = host.parse().map_err(|_| error("its host is no host name or IP address"))?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.as_str().contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A byte stream.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A byte stream of any kind.
pub type BoxedIo = Box<dyn Io>;

type Connecting = Pin<Box<dyn Future<Output = io::Result<BoxedIo>> + Send>>;

/// Opens authenticated byte streams. Cheap to clone.
#[derive(Clone)]
pub struct Connector(Arc<dyn Fn(ControlAddress) -> Connecting + Send + Sync>);

impl Connector {
    /// A connector that calls `open` for each connection; `open` answers once the other end has proved who it is.
    pub fn new<F, Fut>(open: F) -> Self
    where
        F: Fn(ControlAddress) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<BoxedIo>> + Send + 'static,
    {
        Self(Arc::new(move |address| Box::pin(open(address))))
    }

    /// TLS over TCP; `config` is asked for each connection, because SVIDs change.
    pub fn tls(config: impl Fn() -> Arc<ClientConfig> + Send + Sync + 'static) -> Self {
        Self::new(move |address| {
            let connector = TlsConnector::from(config());
            async move {
                let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
                stream.set_nodelay(true)?;
                let stream = connector.connect(mesh_trust::tls::server_name(), stream).await?;
                Ok(Box::new(stream) as BoxedIo)
            }
        })
    }

    /// A gRPC channel to `address`. It reconnects by itself; a broken stream shows as an error of the call that it carried.
    ///
    /// # Errors
    /// When the first connection can't be opened.
    pub async fn channel(&self, address: &ControlAddress) -> Result<Channel, ConnectError> {
        let (open, to) = (Arc::clone(&self.0), address.clone());
        let connector = service_fn(move |_| {
            let opening = open(to.clone());
            async move { opening.await.map(TokioIo::new) }
        });
        endpoint().connect_with_connector(connector).await.map_err(|source| ConnectError { address: Some(address.clone()), source })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// A gRPC channel over one byte stream; it ends with that stream.
///
/// # Errors
/// When the other end speaks no HTTP/2.
pub async fn channel_over(io: impl Io) -> Result<Channel, ConnectError> {
    let once = Arc::new(std::sync::Mutex::new(Some(io)));
    let connector = service_fn(move |_| {
        let io = once.lock().ok().and_then(|mut io| io.take());
        async move { io.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    endpoint().connect_with_connector(connector).await.map_err(|source| ConnectError { address: None, source })
}

/// Why a control could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("could not connect to {}", .address.as_ref().map_or_else(|| "the peer's control".to_owned(), |address| format!("control at {address}")))]
pub struct ConnectError {
    /// Where it was to be; none for a peer's, which is reached through a tunnel.
    pub address: Option<ControlAddress>,
    /// What the connection says.
    #[source]
    pub source: tonic::transport::Error,
}

/// The URI is never resolved: the connector knows where to go. Silence is noticed by pings.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://control.isthmus")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_address_is_a_host_and_a_port() {
        for good in ["127.1.0.2:4150", "mesh-control.isthmus-system:4150", "[::1]:4150"] {
            assert_eq!(good.parse::<ControlAddress>().unwrap().to_string(), good);
        }
        for bad in ["127.1.0.2", "host:0", "host:65536", ":1", "a b:1", ""] {
            assert!(bad.parse::<ControlAddress>().is_err(), "{bad:?}");
        }
    }
}
