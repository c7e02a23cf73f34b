//! Sessions: one mTLS connection between two workloads that carries many streams, requests and raw connections alike.
//!
//! HTTP/2 is spoken by the `h2` engine directly, not through hyper's connection types: those turn a reset into an end of file, and a raw
//! connection must tell the two apart. The wire is plain HTTP/2 (RFC 9113).

mod body;
mod flight;
pub mod head;
mod limits;
mod raw;
pub mod serve;

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong, Reason};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use mesh_trust::VerifiedPeer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use body::RecvBody;
use flight::Flights;
pub use head::StreamTarget;
pub use limits::Limits;
pub use raw::RawStream;
pub use serve::{Incoming, Kind, RawOffer, Responder, Served, serve};

/// The calling half of a session. Clones are the same session; when the last clone and the last stream are gone, it closes.
#[derive(Clone, Debug)]
pub struct Session {
    send: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    peer: VerifiedPeer,
    flights: Arc<Flights>,
    opened: Instant,
    life: Duration,
    end: CancellationToken,
}

/// Why a session could not be opened, or ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The connection broke, or a rule of HTTP/2 was broken.
    #[error("the session broke")]
    Broken(#[source] h2::Error),
    /// The peer did not answer in time.
    #[error("the peer did not answer in time")]
    TooSlow,
}

/// Why a stream did not get through.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The stream was reset, or the session broke.
    #[error("the stream broke")]
    Broken(#[from] h2::Error),
    /// The session had ended before anything of the stream was sent.
    #[error("the session had ended already")]
    NotSent(#[source] h2::Error),
    /// The stream ended before all was sent.
    #[error("the stream ended early")]
    Ended,
    /// The body that was to be sent broke.
    #[error("the body broke")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    /// The serving side refused a raw connection.
    #[error("the peer refused the connection: {status} {reason}")]
    Refused {
        /// With this status.
        status: StatusCode,
        /// And this reason.
        reason: String,
    },
}

impl StreamError {
    fn reset(reason: Reason) -> Self {
        Self::Broken(reason.into())
    }

    /// Whether the peer surely has not begun with it, so that it may be sent again elsewhere whatever it is.
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        match self {
            Self::Broken(error) => {
                error.reason() == Some(Reason::REFUSED_STREAM) || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR))
            }
            Self::NotSent(_) => true,
            Self::Ended | Self::Body(_) | Self::Refused { .. } => false,
        }
    }
}

impl Session {
    /// Opens a session on `io`, a TLS stream to `peer`, that lasts at most `life`. Its owner spawns the future, which runs until it ends.
    ///
    /// # Errors
    /// When the peer breaks a rule of HTTP/2 or is too slow.
    pub async fn open<Io>(
        io: Io,
        peer: VerifiedPeer,
        life: Duration,
        limits: &Limits,
    ) -> Result<(Self, impl Future<Output = ()> + use<Io>), SessionError>
    where
        Io: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let handshake = tokio::time::timeout(HANDSHAKE_MAX, limits.client().handshake(io));
        let (send, mut connection) = handshake.await.map_err(|_| SessionError::TooSlow)?.map_err(SessionError::Broken)?;
        let shared = Arc::new(Shared { peer, flights: Flights::new(), opened: Instant::now(), life, end: CancellationToken::new() });
        let pings = connection.ping_pong();
        let (flights, end) = (Arc::clone(&shared.flights), shared.end.clone());
        let alive = Alive { every: limits.ping_every, answer: limits.ping_answer };
        let driver = async move {
            tokio::select! {
                () = drive(connection) => {}
                () = alive.watch(pings, &flights) => {}
                () = tokio::time::sleep(life) => {}
                () = end.cancelled() => {}
            }
            end.cancel();
        };
        Ok((Self { send, shared }, driver))
    }

    /// Who serves it.
    #[must_use]
    pub fn peer(&self) -> &VerifiedPeer {
        &self.shared.peer
    }

    /// Streams in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.flights.open()
    }

    /// For how long nothing has been in flight.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.shared.flights.idle()
    }

    /// Whether another stream fits without waiting for one to end.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.in_flight() < self.send.current_max_send_streams()
    }

    /// Whether it takes new streams: not broken, not told to go away, and not near the end of its life.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_young() && !self.shared.end.is_cancelled() && !matches!(self.send.clone().ready().now_or_never(), Some(Err(_)))
    }

    /// The same for its owner, whom it costs no clone.
    pub(crate) fn stays_open(&mut self) -> bool {
        let ready = std::future::poll_fn(|cx| self.send.poll_ready(cx)).now_or_never();
        self.is_young() && !self.shared.end.is_cancelled() && !matches!(ready, Some(Err(_)))
    }

    fn is_young(&self) -> bool {
        self.shared.opened.elapsed() < self.shared.life.mul_f64(REPLACE_AT)
    }

    /// Ends it at once with all its streams: its peer is not trusted any more.
    pub fn end(&self) {
        self.shared.end.cancel();
    }

    /// Returns when it has ended.
    pub async fn ended(&self) {
        self.shared.end.cancelled().await;
    }

    /// Sends a request for `target` and returns the response's head; its body follows in the stream. The request's head is made fit
    /// for a session here: hop-by-hop and `isthmus-` headers do not pass (`isthmus-deadline-ms` alone does).
    ///
    /// # Errors
    /// When the stream or the session breaks, or the request's body does.
    pub async fn request<B>(&self, target: &StreamTarget, request: Request<B>) -> Result<Response<RecvBody>, StreamError>
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.request_to(target.to_header(), request).await
    }

    /// The same for a target whose header is there already.
    pub(crate) async fn request_to<B>(&self, target: HeaderValue, request: Request<B>) -> Result<Response<RecvBody>, StreamError>
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let held = self.shared.flights.start();
        let (mut parts, body) = request.into_parts();
        head::enter(&mut parts, target);
        let last = body.is_end_stream();
        let mut send = self.send.clone();
        let (response, stream) = send.send_request(Request::from_parts(parts, ()), last).map_err(StreamError::NotSent)?;
        let upload = if last { None } else { upload(body::pump(body, stream)) };
        let (parts, recv) = response.await?.into_parts();
        let body = RecvBody::new(recv, &parts.headers).holding(held, upload);
        Ok(Response::from_parts(parts, body))
    }

    /// Opens a raw connection to `target`; it is up when this returns.
    ///
    /// # Errors
    /// When the peer refuses it, or the session breaks.
    pub async fn raw(&self, target: &StreamTarget) -> Result<RawStream, StreamError> {
        let held = self.shared.flights.start();
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::from_static("raw");
        *request.version_mut() = http::Version::HTTP_2;
        request.headers_mut().insert(head::TARGET, target.to_header());
        let mut send = self.send.clone().ready().await.map_err(StreamError::NotSent)?;
        let (response, stream) = send.send_request(request, false).map_err(StreamError::NotSent)?;
        let response = response.await?;
        if !response.status().is_success() {
            let reason = response.headers().get(head::REFUSED).and_then(|reason| reason.to_str().ok()).unwrap_or("no reason given");
            return Err(StreamError::Refused { status: response.status(), reason: reason.to_owned() });
        }
        Ok(RawStream::new(stream, response.into_body(), Some(held)))
    }
}

/// Sends a body beside the response: at once when it is all there, else as a task that lasts no longer than the response.
fn upload(pump: impl Future<Output = Result<(), StreamError>> + 'static) -> Option<AbortOnDropHandle<()>> {
    let mut sending = Box::pin(async move {
        if let Err(error) = pump.await {
            tracing::debug!(%error, "request body was not sent to its end");
        }
    });
    match sending.as_mut().now_or_never() {
        Some(()) => None,
        None => Some(AbortOnDropHandle::new(tokio::task::spawn_local(sending))),
    }
}

async fn drive<Io: AsyncRead + AsyncWrite + Unpin>(connection: Connection<Io, Bytes>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "session ended");
    }
}

/// How a session learns that its peer is gone without a word.
struct Alive {
    every: Duration,
    answer: Duration,
}

impl Alive {
    /// Pings while streams are in flight; returns when an answer is late.
    async fn watch(&self, pings: Option<PingPong>, flights: &Flights) {
        let Some(mut pings) = pings else { return std::future::pending().await };
        loop {
            tokio::time::sleep(self.every).await;
            if flights.open() == 0 {
                continue;
            }
            match tokio::time::timeout(self.answer, pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => {}
                // The connection itself says why it broke.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) => {
                    tracing::debug!("session's peer does not answer pings");
                    return;
                }
            }
        }
    }
}

const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// After this share of its life a session is replaced before it ends.
const REPLACE_AT: f64 = 0.9;
