//! Accepts mTLS connections. Who is at the other end is known to every call that arrives on one; what it may do is said in `serve`.
//!
//! A certificate is optional here, because a workload that asks for its first one has none; one that is presented is checked. Who has
//! none may take little room and little time, so that strangers never hold up those who have one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use mesh_api::connect::CONTROL_ALPN;
use mesh_runtime::denied::Denied;
use mesh_runtime::drain::Drain;
use mesh_runtime::tasks::Tasks;
use mesh_transport::tcp;
use mesh_trust::{ClientAuth, Purpose, Svid, UnixTime, VerifiedPeer, Verifier, server_config};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
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
    /// When it is ended, whatever happens in it: none for a caller with a certificate.
    ends: Option<Pin<Box<Sleep>>>,
    _room: OwnedSemaphorePermit,
}

/// How much is accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Handshakes at once; past it nothing is accepted, and the kernel's backlog pushes back.
    pub handshakes: usize,
    /// Connections with a certificate; past it further ones are closed.
    pub callers: usize,
    /// Connections without a certificate; past it further ones are closed.
    pub strangers: usize,
    /// How long a connection without a certificate lasts: long enough to be issued one.
    pub stranger_life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { handshakes: 1024, callers: 16_384, strangers: 4096, stranger_life: Duration::from_secs(20) }
    }
}

/// Who accepts.
#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    /// Who control is.
    pub own: OwnSvid,
    /// Who checks callers.
    pub verifier: Verifier,
    /// Counts what is closed for want of room.
    pub denied: Denied,
    /// Where connections go.
    pub to: mpsc::Sender<io::Result<Connection>>,
    /// How much is accepted.
    pub limits: Limits,
}

/// What is taken of the limits.
#[derive(Clone, Debug)]
struct Rooms {
    callers: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

/// Accepts until `drain` starts.
pub(crate) async fn accept(listener: TcpListener, acceptor: Acceptor, drain: Drain) {
    let limits = acceptor.limits;
    let shaking = Arc::new(Semaphore::new(limits.handshakes));
    let rooms = Rooms { callers: Arc::new(Semaphore::new(limits.callers)), strangers: Arc::new(Semaphore::new(limits.strangers)) };
    let mut handshakes = Tasks::new();
    let mut configured: Option<(Arc<Svid>, Arc<ServerConfig>)> = None;
    loop {
        let Ok(permit) = Arc::clone(&shaking).acquire_owned().await else { return };
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
        let Some(svid) = acceptor.own.load_full() else { continue };
        let config = match configured.take_if(|(known, _)| Arc::ptr_eq(known, &svid)) {
            Some((_, config)) => config,
            None => server_config(&svid, &acceptor.verifier, &[b"h2", CONTROL_ALPN], ClientAuth::Optional),
        };
        configured = Some((svid, Arc::clone(&config)));
        let (acceptor, rooms) = (acceptor.clone(), rooms.clone());
        handshakes.spawn(async move {
            acceptor.shake(stream, config, &rooms).await;
            drop(permit);
        });
    }
}

impl Acceptor {
    async fn shake(&self, stream: TcpStream, config: Arc<ServerConfig>, rooms: &Rooms) {
        let verifier = &self.verifier;
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
        let (room, ends) = match &caller {
            Some(_) => (&rooms.callers, None),
            None => (&rooms.strangers, Some(Box::pin(tokio::time::sleep(self.limits.stranger_life)))),
        };
        let Ok(room) = Arc::clone(room).try_acquire_owned() else { return self.denied.count("too-many-connections") };
        // The receiver is gone when the server has ended.
        let _ = self.to.send(Ok(Connection { stream, caller: Caller(caller), ends, _room: room })).await;
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ends.as_mut().is_some_and(|ends| ends.as_mut().poll(context).is_ready()) {
            // Read as the other side's end: the server closes.
            return Poll::Ready(Ok(()));
        }
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

const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
