//! The one body type of the proxy: whatever it streams, it is polled through here. It also holds what has to last as long as the body
//! does: the exchange that is measured, the connection that goes back to its pool.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use mesh_transport::session::RecvBody;

use crate::exchange::Exchange;
use crate::outbound::replay::Attempt;
use crate::plain::Returning;

/// An error of a body that is being streamed.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body.
#[derive(Default)]
pub(crate) struct Body {
    kind: Kind,
    /// Boxed: a body is moved many times on its way through the HTTP engines.
    exchange: Option<Box<Exchange>>,
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    Session(RecvBody),
    Attempt(Attempt),
    Returning(Box<Returning>),
}

impl Body {
    /// A body of these bytes.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Full(bytes.into()), exchange: None }
    }

    /// Measured until it has ended or is dropped.
    pub(crate) fn measured(mut self, exchange: Exchange) -> Self {
        self.exchange = Some(Box::new(exchange));
        self
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Self { kind: Kind::Incoming(incoming), exchange: None }
    }
}

impl From<RecvBody> for Body {
    fn from(body: RecvBody) -> Self {
        Self { kind: Kind::Session(body), exchange: None }
    }
}

impl From<Attempt> for Body {
    fn from(attempt: Attempt) -> Self {
        Self { kind: Kind::Attempt(attempt), exchange: None }
    }
}

impl From<Returning> for Body {
    fn from(returning: Returning) -> Self {
        Self { kind: Kind::Returning(Box::new(returning)), exchange: None }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(_) => match std::mem::take(&mut self.kind) {
                Kind::Full(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                _ => Poll::Ready(None),
            },
            Kind::Incoming(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Into::into),
            Kind::Session(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Attempt(attempt) => Pin::new(attempt).poll_frame(cx).map_err(Into::into),
            Kind::Returning(returning) => Pin::new(returning.as_mut()).poll_frame(cx).map_err(Into::into),
        };
        match (&polled, &mut self.exchange) {
            (Poll::Ready(Some(Err(_))), Some(exchange)) => exchange.broke(),
            (Poll::Ready(None), Some(exchange)) => exchange.finished(),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Session(body) => body.is_end_stream(),
            Kind::Attempt(attempt) => attempt.is_end_stream(),
            Kind::Returning(returning) => returning.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Session(body) => body.size_hint(),
            Kind::Attempt(attempt) => attempt.size_hint(),
            Kind::Returning(returning) => returning.size_hint(),
        }
    }
}
