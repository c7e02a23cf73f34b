//! Accepts mTLS connections. Who is at the other end is known to every call that arrives on one; what it may do is said in `serve`.
//!
//! A certificate is optional here, because a workload that asks for its first one has none; one that is presented is checked.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use mesh_api::connect::CONTROL_ALPN;
use mesh_runtime::drain::Drain;
use mesh_runtime::tasks::Tasks;
use mesh_transport::tcp;
use mesh_trust::{ClientAuth, Purpose, Svid, UnixTime, VerifiedPeer, Verifier, server_config};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Who control is now: nobody before its issuer has been read.
pub(crate) type OwnSvid = Arc<ArcSwapOption<Svid>>;

/// Who opened a connection; none when no certificate was presented.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub Option<Arc<VerifiedPeer>>);

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    _room: OwnedSemaphorePermit,
}

/// Accepts until `drain` starts, and hands connections to `to`.
pub(crate) async fn accept(
    listener: TcpListener,
    own: OwnSvid,
    verifier: Verifier,
    to: mpsc::Sender<io::Result<Connection>>,
    drain: Drain,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut handshakes = Tasks::new();
    let mut configured: Option<(Arc<Svid>, Arc<ServerConfig>)> = None;
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            _ = drain.started() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Nobody to be yet: the caller tries another replica at once.
        let Some(svid) = own.load_full() else { continue };
        let config = match configured.take_if(|(known, _)| Arc::ptr_eq(known, &svid)) {
            Some((_, config)) => config,
            None => server_config(&svid, &verifier, &[b"h2", CONTROL_ALPN], ClientAuth::Optional),
        };
        configured = Some((svid, Arc::clone(&config)));
        handshakes.spawn(shake(stream, config, verifier.clone(), to.clone(), permit));
    }
}

async fn shake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    verifier: Verifier,
    to: mpsc::Sender<io::Result<Connection>>,
    room: OwnedSemaphorePermit,
) {
    if tcp::prepare(&stream).is_err() {
        return;
    }
    let stream = match tokio::time::timeout(HANDSHAKE_MAX, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            verifier.refusals().handshake_failed(&error);
            tracing::debug!(%error, "handshake failed");
            return;
        }
        Err(_) => return,
    };
    let caller = match stream.get_ref().1.peer_certificates() {
        None => None,
        // It was checked in the handshake; if it is refused now, the bundles have changed meanwhile.
        Some(chain) => match verifier.verify(chain, UnixTime::now(), Purpose::Client) {
            Ok(peer) => Some(Arc::new(peer)),
            Err(_) => return,
        },
    };
    // The receiver is gone when the server has ended.
    let _ = to.send(Ok(Connection { stream, caller: Caller(caller), _room: room })).await;
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Connections at once; past it nothing is accepted, and the kernel's backlog pushes back.
const CONNECTIONS_MAX: usize = 16_384;
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
