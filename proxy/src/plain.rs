//! HTTP without the mesh: to the application behind this proxy, to endpoints that are known to have no proxy, and to hosts outside.
//!
//! Each worker keeps its own idle connections. A connection goes back when the answer was read to its end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use mesh_runtime::tasks::Tasks;
use mesh_transport::tcp;
use tokio::net::TcpStream;

use crate::body::Body;
use crate::local::LocalExec;

/// A worker's plain connections.
#[derive(Clone, Default)]
pub(crate) struct Plain {
    inner: Rc<Inner>,
}

#[derive(Default)]
struct Inner {
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>>>,
    multiplexed: RefCell<HashMap<SocketAddr, http2::SendRequest<Body>>>,
    tasks: RefCell<Tasks>,
}

struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
}

/// What is spoken on a plain connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlainError {
    /// Nothing was sent.
    #[error("could not connect to {address}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It broke before the answer began.
    #[error("the connection broke before an answer came")]
    Broken(#[source] hyper::Error),
}

impl Plain {
    /// Sends `request`, whose URI and headers are fit for `spoken`, to `address`.
    pub(crate) async fn send(&self, address: SocketAddr, spoken: Spoken, request: Request<Body>) -> Result<Response<Body>, PlainError> {
        match spoken {
            Spoken::Http1 => self.send_one(address, request).await,
            Spoken::Http2 => self.send_multiplexed(address, request).await,
        }
    }

    async fn send_one(&self, address: SocketAddr, mut request: Request<Body>) -> Result<Response<Body>, PlainError> {
        loop {
            let kept = self.take_idle(address);
            let reused = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => {
                    self.open(tcp::connect(address, CONNECT_MAX).await.map_err(|source| PlainError::Connect { address, source })?).await?
                }
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let home = Home { pool: Rc::downgrade(&self.inner), address, sender };
                    return Ok(response.map(|incoming| Returning::body(incoming, home)));
                }
                // Nothing of it was sent: the kept connection had just been closed.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(PlainError::Broken(error.into_error())),
                },
            }
        }
    }

    async fn send_multiplexed(&self, address: SocketAddr, mut request: Request<Body>) -> Result<Response<Body>, PlainError> {
        loop {
            let kept = self.inner.multiplexed.borrow().get(&address).filter(|sender| !sender.is_closed()).cloned();
            let reused = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.open_multiplexed(address).await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(Body::from)),
                Err(mut error) => {
                    self.inner.multiplexed.borrow_mut().remove(&address);
                    match error.take_message() {
                        Some(unsent) if reused => request = unsent,
                        _ => return Err(PlainError::Broken(error.into_error())),
                    }
                }
            }
        }
    }

    /// Speaks HTTP/1.1 on `io`; upgrades are possible.
    pub(crate) async fn open<Io>(&self, io: Io) -> Result<http1::SendRequest<Body>, PlainError>
    where
        Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(PlainError::Broken)?;
        self.inner.tasks.borrow_mut().spawn_local(connection.with_upgrades().map(report));
        Ok(sender)
    }

    async fn open_multiplexed(&self, address: SocketAddr) -> Result<http2::SendRequest<Body>, PlainError> {
        let stream: TcpStream = tcp::connect(address, CONNECT_MAX).await.map_err(|source| PlainError::Connect { address, source })?;
        let mut builder = http2::Builder::new(LocalExec);
        builder.initial_stream_window_size(WINDOW).initial_connection_window_size(4 * WINDOW).max_frame_size(FRAME);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(PlainError::Broken)?;
        self.inner.tasks.borrow_mut().spawn_local(connection.map(report));
        self.inner.multiplexed.borrow_mut().insert(address, sender.clone());
        Ok(sender)
    }

    /// Closes what has been idle for long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.inner.idle.borrow_mut().retain(|_, idle| {
            idle.retain(|kept| now.saturating_duration_since(kept.since) < IDLE_MAX && !kept.sender.is_closed());
            !idle.is_empty()
        });
        self.inner.multiplexed.borrow_mut().retain(|_, sender| !sender.is_closed());
    }

    fn take_idle(&self, address: SocketAddr) -> Option<http1::SendRequest<Body>> {
        let mut all = self.inner.idle.borrow_mut();
        let idle = all.get_mut(&address)?;
        let fresh = |kept: &Idle| kept.sender.is_ready() && kept.since.elapsed() < IDLE_MAX;
        while let Some(kept) = idle.pop() {
            if fresh(&kept) {
                return Some(kept.sender);
            }
        }
        None
    }
}

fn report(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "plain connection ended");
    }
}

/// Where a connection goes when its answer was read.
struct Home {
    pool: Weak<Inner>,
    address: SocketAddr,
    sender: http1::SendRequest<Body>,
}

/// A body whose connection goes back to its pool at the end.
pub(crate) struct Returning {
    incoming: Incoming,
    home: Option<Home>,
}

impl Returning {
    fn body(incoming: Incoming, home: Home) -> Body {
        let mut returning = Self { incoming, home: Some(home) };
        if returning.incoming.is_end_stream() {
            returning.go_home();
            return returning.incoming.into();
        }
        returning.into()
    }

    fn go_home(&mut self) {
        let Some(home) = self.home.take() else { return };
        let Some(pool) = home.pool.upgrade() else { return };
        let mut all = pool.idle.borrow_mut();
        let idle = all.entry(home.address).or_default();
        if idle.len() < IDLE_CONNECTIONS_MAX && !home.sender.is_closed() {
            idle.push(Idle { sender: home.sender, since: Instant::now() });
        }
    }
}

impl http_body::Body for Returning {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if polled.is_none() || self.incoming.is_end_stream() {
            self.go_home();
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// How long a plain connection may take to be there.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Less than the keep-alive of common servers (Node: 5 s), so that we seldom use a connection that is just being closed.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Idle connections to one address that a worker keeps; more are closed.
const IDLE_CONNECTIONS_MAX: usize = 128;
const WINDOW: u32 = 1 << 20;
const FRAME: u32 = 64 * 1024;
