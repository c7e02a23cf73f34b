//! Tunnels: a byte stream through a gateway that a session runs in. One mTLS connection each, opened by one request and one reply.
//!
//! Neither half reads past the message it waits for, so bytes that follow at once reach whoever takes the stream next.

pub mod message;
pub mod watch;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_topology::Gateway;
use mesh_trust::Expected;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::identity::{Identity, TlsError};
use crate::{TUNNEL_ALPN, tcp};
pub use message::{Control, Export, Malformed, Status, Target, TunnelReply, TunnelRequest};

/// An open tunnel: what a session runs in.
pub type Tunnel = TlsStream<TcpStream>;

/// Why no tunnel was opened.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The gateway does not accept connections.
    #[error("could not connect to gateway {gateway}")]
    Connect {
        /// The gateway.
        gateway: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The gateway did not prove the identity that its Link names, or refused ours.
    #[error("no TLS with gateway {gateway}")]
    Tls {
        /// The gateway.
        gateway: SocketAddr,
        /// What went wrong.
        #[source]
        source: TlsError,
    },
    /// The connection broke, or ended, before the message had arrived.
    #[error("the tunnel broke while it was opened")]
    Broken(#[source] io::Error),
    /// The other side took too long.
    #[error("the tunnel was not opened in {0:?}")]
    TooSlow(Duration),
    /// The other side's message is none.
    #[error("the other side sent no valid message")]
    Malformed(#[from] Malformed),
    /// The gateway said no.
    #[error("the gateway said {}: {}", .0.status.as_str(), .0.detail)]
    Refused(TunnelReply),
}

/// Opens a tunnel through `gateway`. The reply is `accepted`; every other one is an error.
///
/// # Errors
/// When the gateway cannot be reached, is another, or says no.
pub async fn connect(
    identity: &Identity,
    gateway: &Gateway,
    request: &TunnelRequest,
    limits: &Timeouts,
) -> Result<(TunnelReply, Tunnel), TunnelError> {
    let address = gateway.address;
    let stream = tcp::connect(address, limits.connect).await.map_err(|source| TunnelError::Connect { gateway: address, source })?;
    let expected = Expected::only(gateway.identity.clone());
    let (stream, _) =
        identity.connect(stream, expected, TUNNEL_ALPN).await.map_err(|source| TunnelError::Tls { gateway: address, source })?;
    open(stream, request, limits.reply).await
}

/// How long the steps of opening a tunnel or session may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For TCP to connect.
    pub connect: Duration,
    /// For the gateway to answer, which includes its own dial.
    pub reply: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), reply: Duration::from_secs(5) }
    }
}

/// The asking half on a stream that is up: sends the request, and reads the reply within `limit`.
///
/// # Errors
/// When the stream breaks, the reply is late or malformed, or says anything but `accepted`.
pub async fn open<Io>(mut io: Io, request: &TunnelRequest, limit: Duration) -> Result<(TunnelReply, Io), TunnelError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        io.write_all(&request.encode()).await.map_err(TunnelError::Broken)?;
        io.flush().await.map_err(TunnelError::Broken)?;
        let bytes = read_message(&mut io, message::REPLY_MAX).await?;
        Ok::<_, TunnelError>(TunnelReply::decode(&bytes)?)
    };
    let reply = tokio::time::timeout(limit, exchange).await.map_err(|_| TunnelError::TooSlow(limit))??;
    match reply.status {
        Status::Accepted => Ok((reply, io)),
        Status::NotExportedOrUnknown | Status::Denied | Status::NoEndpoint | Status::Busy | Status::Draining | Status::TooManyHops => {
            Err(TunnelError::Refused(reply))
        }
    }
}

/// A tunnel that waits for its answer.
#[derive(Debug)]
pub struct Pending<Io> {
    io: Io,
}

/// The answering half: reads the request within `limit`. One that is no valid request is answered `denied` and is an error.
///
/// # Errors
/// When the stream breaks, or the request is late or malformed.
pub async fn accept<Io>(mut io: Io, limit: Duration) -> Result<(TunnelRequest, Pending<Io>), TunnelError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let reading = async {
        let bytes = read_message(&mut io, message::REQUEST_MAX).await?;
        Ok::<_, TunnelError>(TunnelRequest::decode(&bytes)?)
    };
    let read = tokio::time::timeout(limit, reading).await.map_err(|_| TunnelError::TooSlow(limit))?;
    let pending = Pending { io };
    match read {
        Ok(request) => Ok((request, pending)),
        Err(TunnelError::Malformed(malformed)) => {
            let reply = TunnelReply::new(Status::Denied, malformed.to_string());
            // The answer is a courtesy: a peer that is gone does not need it.
            let _ = tokio::time::timeout(FAREWELL_MAX, pending.refuse(&reply)).await;
            Err(malformed.into())
        }
        Err(error) => Err(error),
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Pending<Io> {
    /// Says `accepted`: the endpoint has been dialled, bytes follow.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn accept(mut self, reply: &TunnelReply) -> io::Result<Io> {
        self.io.write_all(&reply.encode()).await?;
        self.io.flush().await?;
        Ok(self.io)
    }

    /// Says no, and ends the tunnel.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn refuse(mut self, reply: &TunnelReply) -> io::Result<()> {
        self.io.write_all(&reply.encode()).await?;
        self.io.shutdown().await
    }

    /// The stream that waits, to see whether the asker has left.
    pub fn io_mut(&mut self) -> &mut Io {
        &mut self.io
    }
}

async fn read_message<Io: AsyncRead + Unpin>(io: &mut Io, max: usize) -> Result<Vec<u8>, TunnelError> {
    let length = usize::from(io.read_u16().await.map_err(TunnelError::Broken)?);
    message::check_length(length, max)?;
    let mut bytes = vec![0; length];
    io.read_exact(&mut bytes).await.map_err(TunnelError::Broken)?;
    Ok(bytes)
}

const FAREWELL_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn bytes_that_follow_the_request_at_once_are_not_lost() {
        let (mut near, far) = duplex(4096);
        let mut bytes = TunnelRequest::new(Target::Watch).encode();
        bytes.extend_from_slice(b"hello");
        near.write_all(&bytes).await.unwrap();
        let (request, pending) = accept(far, SOON).await.unwrap();
        assert_eq!(request.target, Target::Watch);
        let mut io = pending.accept(&TunnelReply::accepted(None)).await.unwrap();
        let mut followed = [0; 5];
        io.read_exact(&mut followed).await.unwrap();
        assert_eq!(&followed, b"hello");
    }

    #[tokio::test]
    async fn an_oversized_request_is_denied_unread() {
        let (mut near, far) = duplex(4096);
        near.write_all(&u16::MAX.to_be_bytes()).await.unwrap();
        let error = accept(far, SOON).await.unwrap_err();
        assert!(matches!(error, TunnelError::Malformed(Malformed::TooLong { length: 65535, .. })), "{error:?}");
        let bytes = read_message(&mut near, message::REPLY_MAX).await.unwrap();
        assert_eq!(TunnelReply::decode(&bytes).unwrap().status, Status::Denied);
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_given_up() {
        let (_near, far) = duplex(64);
        assert!(matches!(accept(far, Duration::from_millis(20)).await, Err(TunnelError::TooSlow(_))));
    }

    #[tokio::test]
    async fn a_refusal_reaches_the_asker_as_an_error() {
        let (near, far) = duplex(4096);
        let serving = tokio::spawn(async move {
            let (_, pending) = accept(far, SOON).await.unwrap();
            pending.refuse(&TunnelReply::new(Status::Busy, "quota")).await.unwrap();
        });
        let error = open(near, &TunnelRequest::new(Target::Watch), SOON).await.unwrap_err();
        assert!(matches!(error, TunnelError::Refused(reply) if reply.status == Status::Busy));
        serving.await.unwrap();
    }
}
