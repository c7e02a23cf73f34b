//! A raw connection of the workload: bytes both ways, each half closed by itself.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use mesh_topology::{RequestKey, Route};
use mesh_transport::plan::{NoProxy, Plan};
use mesh_transport::session::{RawStream, StreamError};
use mesh_transport::splice::copy_bidirectional;
use mesh_transport::tcp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{ATTEMPTS_MAX, AttemptError, Sent};
use crate::exchange::{Exchange, Flight, Line};
use crate::failure::Failure;
use crate::metrics::{Direction, Kind};
use crate::plain::{CONNECT_MAX, PlainError};
use crate::worker::Core;

/// The far end of a raw connection.
#[derive(Debug)]
pub(crate) enum Upstream {
    /// A stream of a session.
    Session(RawStream),
    /// A TCP connection.
    Plain(TcpStream),
}

/// Opens a raw connection to where `key` leads; nothing was sent yet, so every failure may be tried again elsewhere.
pub(crate) async fn open(core: &Rc<Core>, mut key: RequestKey) -> Result<(Upstream, Flight), Failure> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let route = core.route(&key)?;
        let mut flight = Flight::begin(core, &route);
        let failed = match attempt(core, &route, &mut flight).await {
            Ok(upstream) => {
                flight.answered();
                return Ok((upstream, flight));
            }
            Err(failed) => failed,
        };
        if let Some(stage) = failed.stage() {
            flight.failed(stage);
        }
        drop(flight);
        // A refusal for good is the same everywhere; everything else is worth another way.
        let final_word = matches!(&failed, AttemptError::Refused { .. }) && failed.sent() == Sent::Something;
        if attempts >= ATTEMPTS_MAX || final_word {
            return Err(failed.into());
        }
        failed.avoid(&mut key, &route);
        core.shared.metrics.retries.inc();
    }
}

async fn attempt(core: &Rc<Core>, route: &Route, flight: &mut Flight) -> Result<Upstream, AttemptError> {
    match Plan::of(route) {
        Ok(plan) => {
            let lease = core.pool.checkout(&plan).await.map_err(AttemptError::Dial)?;
            flight.sent();
            match lease.raw().await {
                Ok(stream) => Ok(Upstream::Session(stream)),
                Err(StreamError::Refused { status, reason }) => Err(AttemptError::Refused { status, reason }),
                Err(error) => Err(AttemptError::Stream(error)),
            }
        }
        Err(NoProxy) => {
            let Route::Local(local) = route else { return Err(AttemptError::NoProxy) };
            let address = local.app_address();
            let stream = tcp::connect(address, CONNECT_MAX).await;
            stream.map(Upstream::Plain).map_err(|source| AttemptError::Plain(PlainError::Connect { address, source }))
        }
    }
}

/// Opens a raw connection to where `key` leads and carries `client`'s bytes over it.
///
/// # Errors
/// When it could not be opened: the client is given back, to be told in its own way.
pub(crate) async fn relay<Io>(core: &Rc<Core>, mut client: Io, key: RequestKey) -> Result<(), (Io, Failure)>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut exchange = Exchange::begin(core, Direction::outbound, Kind::raw);
    exchange.describe(|| Line { to: format!("{:?}", key.target), ..Line::default() });
    match open(core, key).await {
        Ok((upstream, flight)) => {
            exchange.answered(0, Some(flight));
            carry(&mut client, upstream, exchange).await.map_err(|failure| (client, failure))
        }
        Err(failure) => {
            if failure.is_refusal() {
                exchange.refused()
            } else {
                exchange.broke()
            }
            Err((client, failure))
        }
    }
}

/// Carries bytes until both sides have ended; a side that breaks breaks the other.
pub(crate) async fn carry<Io>(client: &mut Io, mut upstream: Upstream, mut exchange: Exchange) -> Result<(), Failure>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let spliced = copy_bidirectional(client, &mut upstream).await;
    tracing::trace!(sent = spliced.forward, received = spliced.back, "raw connection ended");
    match spliced.result {
        Ok(()) => {
            exchange.finished();
            Ok(())
        }
        Err(error) => {
            tracing::debug!(%error, "raw connection broke");
            if let Upstream::Plain(stream) = upstream {
                tcp::abort(stream);
            }
            Err(Failure::Broken(StreamError::Ended))
        }
    }
}

impl AsyncRead for Upstream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Session(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Session(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Session(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Session(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
