//! The serving half of a session: hands each stream to the program's handler, with the peer that proved itself once for all of them.
//!
//! The session ends when the peer leaves, at the drain's deadline, when [`Served::revoked`] is cancelled, or with the SVID that ends first.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use mesh_runtime::drain::Drain;
use mesh_runtime::tasks::Tasks;
use mesh_trust::VerifiedPeer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::body::{RecvBody, pump};
use super::head::{self, StreamTarget};
use super::raw::RawStream;
use super::{Limits, SessionError, StreamError};

/// What is the same for all streams of a served session.
#[derive(Clone, Debug)]
pub struct Served {
    /// Who called.
    pub peer: Arc<VerifiedPeer>,
    /// How long the session may last: until the first of both SVIDs ends ([`crate::identity::life_left`]).
    pub life: Duration,
    /// What the peer may ask.
    pub limits: Limits,
    /// When it starts, the peer is told to open elsewhere; at its deadline the session ends.
    pub drain: Drain,
    /// Cancelling it ends the session with all its streams at once.
    pub revoked: CancellationToken,
}

/// One stream of a session.
#[derive(Debug)]
pub struct Incoming {
    /// Who called.
    pub peer: Arc<VerifiedPeer>,
    /// What it is for; none when the caller named none that is valid.
    pub target: Option<StreamTarget>,
    /// What it is.
    pub kind: Kind,
}

/// What a stream is.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one lives per stream, for a moment; a box would cost every request an allocation")]
pub enum Kind {
    /// A request, and where its response goes. Its `isthmus-` headers are still there: strip them before an application sees it.
    Request(Request<RecvBody>, Responder),
    /// A raw connection that waits to be accepted.
    Raw(RawOffer),
}

/// Where a response goes. Dropping it resets the stream.
#[derive(Debug)]
pub struct Responder {
    respond: SendResponse<Bytes>,
}

/// A raw connection that waits to be accepted. Dropping it resets the stream.
#[derive(Debug)]
pub struct RawOffer {
    respond: SendResponse<Bytes>,
    recv: RecvStream,
}

/// Serves a session on `io`, a TLS stream whose peer was verified, until it ends. Runs on a worker's thread: handlers are local tasks.
///
/// # Errors
/// When the connection breaks or the peer breaks a rule of HTTP/2.
pub async fn serve<Io, H, Fut>(io: Io, served: Served, handler: H) -> Result<(), SessionError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Incoming) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let handshake = tokio::time::timeout(HANDSHAKE_MAX, served.limits.server().handshake(io));
    let mut connection = handshake.await.map_err(|_| SessionError::TooSlow)?.map_err(SessionError::Broken)?;
    let mut streams = Tasks::new();
    let ended = run(&mut connection, &mut streams, &served, handler).await;
    drop(streams);
    ended
}

async fn run<Io, H, Fut>(
    connection: &mut Connection<Io, Bytes>,
    streams: &mut Tasks,
    served: &Served,
    handler: H,
) -> Result<(), SessionError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Incoming) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    // Made once and not anew for each stream: this loop is on the path of every request.
    let (leave, stop) = (leave(served), stop(served));
    tokio::pin!(leave, stop);
    let mut named = Named::default();
    let mut leave_told = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                None => return Ok(()),
                Some(Err(error)) => return Err(SessionError::Broken(error)),
                Some(Ok((request, respond))) => {
                    if let Some(incoming) = incoming(request, respond, served, &mut named) {
                        // Boxed: starting and ending a task moves its future a dozen times.
                        streams.spawn_local(handler(incoming).boxed_local());
                    }
                }
            },
            () = &mut leave, if !leave_told => {
                leave_told = true;
                connection.graceful_shutdown();
            }
            reason = &mut stop => return end(connection, reason).await,
        }
    }
}

/// Returns when the peer should open its next streams elsewhere.
async fn leave(served: &Served) {
    tokio::select! {
        _ = served.drain.started() => {}
        () = tokio::time::sleep(served.life.mul_f64(LEAVE_AT)) => {}
    }
}

/// Returns when the session must end, whatever runs in it.
async fn stop(served: &Served) -> Reason {
    tokio::select! {
        () = served.drain.ended() => Reason::NO_ERROR,
        () = tokio::time::sleep(served.life) => Reason::NO_ERROR,
        () = served.revoked.cancelled() => Reason::CANCEL,
    }
}

/// Ends the session with a GOAWAY and gives it a moment to leave.
async fn end<Io>(connection: &mut Connection<Io, Bytes>, reason: Reason) -> Result<(), SessionError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    connection.abrupt_shutdown(reason);
    // The connection ends whether the peer hears it or not.
    let _ = tokio::time::timeout(FAREWELL_MAX, std::future::poll_fn(|cx| connection.poll_closed(cx))).await;
    Ok(())
}

fn incoming(request: Request<RecvStream>, respond: SendResponse<Bytes>, served: &Served, named: &mut Named) -> Option<Incoming> {
    if !served.limits.allow(request.headers()) {
        let responder = Responder { respond };
        responder.refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header-limit");
        return None;
    }
    let target = named.target_of(request.headers());
    let (parts, recv) = request.into_parts();
    let kind = if parts.method == Method::CONNECT {
        Kind::Raw(RawOffer { respond, recv })
    } else {
        let body = RecvBody::new(recv, &parts.headers);
        Kind::Request(Request::from_parts(parts, body), Responder { respond })
    };
    Some(Incoming { peer: Arc::clone(&served.peer), target, kind })
}

/// The last target that was named in a session, as text and read: most streams of a session name the same.
#[derive(Default)]
struct Named {
    last: Option<(HeaderValue, StreamTarget)>,
}

impl Named {
    /// What [`StreamTarget::of`] says.
    fn target_of(&mut self, headers: &HeaderMap) -> Option<StreamTarget> {
        let value = head::target_value(headers)?;
        if let Some((text, target)) = &self.last
            && text == value
        {
            return Some(target.clone());
        }
        let target = StreamTarget::read(value)?;
        self.last = Some((value.clone(), target.clone()));
        Some(target)
    }
}

impl Responder {
    /// Sends the response to its end.
    ///
    /// # Errors
    /// When the caller has left, or the body breaks (the stream is reset then).
    pub async fn send<B>(mut self, response: Response<B>) -> Result<(), StreamError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (mut parts, body) = response.into_parts();
        head::strip_hop(&mut parts.headers);
        let head = Response::from_parts(parts, ());
        if body.is_end_stream() {
            self.respond.send_response(head, true)?;
            return Ok(());
        }
        let send = self.respond.send_response(head, false)?;
        pump(body, send).await
    }

    /// Says no, with a reason that is a constant of the code.
    pub fn refuse(mut self, status: StatusCode, reason: &'static str) {
        refuse(&mut self.respond, status, reason);
    }

    /// Returns when the caller has given up: what it asked for need not go on.
    pub async fn gone(&mut self) {
        // A session that broke is as good a reason as a reset.
        let _ = std::future::poll_fn(|cx| self.respond.poll_reset(cx)).await;
    }

    /// Resets the stream: the caller's connection, too, should break.
    pub fn reset(mut self) {
        self.respond.send_reset(Reason::INTERNAL_ERROR);
    }
}

impl RawOffer {
    /// Accepts: bytes flow from now on.
    ///
    /// # Errors
    /// When the caller has left.
    pub fn accept(mut self) -> Result<RawStream, StreamError> {
        let send = self.respond.send_response(Response::new(()), false)?;
        Ok(RawStream::new(send, self.recv, None))
    }

    /// Says no, with a reason that is a constant of the code.
    pub fn refuse(mut self, status: StatusCode, reason: &'static str) {
        refuse(&mut self.respond, status, reason);
    }
}

fn refuse(respond: &mut SendResponse<Bytes>, status: StatusCode, reason: &'static str) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(head::REFUSED, HeaderValue::from_static(reason));
    // A caller that has left needs no answer.
    let _ = respond.send_response(response, true);
}

const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// After this share of its life a session asks its peer to open another.
const LEAVE_AT: f64 = 0.95;
