//! Bodies inside a session: received ones, and the pump that sends a caller's.
//!
//! Flow control is the peer's: a byte is given back to its window when the reader asks for the next, so what waits unread is bounded by
//! the stream's window.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use super::StreamError;
use super::flight::InFlight;

/// A body received in a session. Dropping it before its end resets the stream.
#[derive(Debug)]
pub struct RecvBody {
    stream: RecvStream,
    /// Bytes handed to the reader that the window has not got back.
    owed: usize,
    trailers: bool,
    length: Option<u64>,
    _held: Option<InFlight>,
    _upload: Option<AbortOnDropHandle<()>>,
}

impl RecvBody {
    pub(super) fn new(stream: RecvStream, headers: &http::HeaderMap) -> Self {
        let length = headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { stream, owed: 0, trailers: false, length, _held: None, _upload: None }
    }

    /// Keeps the session busy, and the upload running, as long as this body lives.
    pub(super) fn holding(mut self, held: InFlight, upload: Option<AbortOnDropHandle<()>>) -> Self {
        self._held = Some(held);
        self._upload = upload;
        self
    }
}

impl Body for RecvBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if self.owed > 0 {
            let owed = std::mem::take(&mut self.owed);
            // It fails only when the stream has ended, and then the window is moot.
            let _ = self.stream.flow_control().release_capacity(owed);
        }
        if !self.trailers {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.owed = data.len();
                    self.length = self.length.map(|length| length.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => self.trailers = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(length) => SizeHint::with_exact(length),
            None if self.stream.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

/// Sends `body` to its end. When the body breaks, the stream is reset, so that nobody takes what was sent for all.
pub(super) async fn pump<B>(body: B, mut send: SendStream<Bytes>) -> Result<(), StreamError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut body = std::pin::pin!(body);
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(reset) = send.poll_reset(cx) {
                return Poll::Ready(Err(reset.map_or_else(StreamError::from, StreamError::reset)));
            }
            body.as_mut().poll_frame(cx).map(Ok)
        });
        let frame = match next.await? {
            None => return Ok(send.send_data(Bytes::new(), true)?),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                send.send_reset(Reason::INTERNAL_ERROR);
                return Err(StreamError::Body(error.into()));
            }
        };
        match frame.into_data() {
            Ok(data) => {
                let last = body.is_end_stream();
                if data.is_empty() && !last {
                    continue;
                }
                wait_for_room(&mut send, data.len()).await?;
                send.send_data(data, last)?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return Ok(send.send_trailers(trailers)?);
                }
            }
        }
    }
}

/// Waits until the peer's window has room for something; one frame may then wait in our own buffer.
async fn wait_for_room(send: &mut SendStream<Bytes>, length: usize) -> Result<(), StreamError> {
    if length == 0 {
        return Ok(());
    }
    send.reserve_capacity(length);
    poll_fn(|cx| {
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Err(StreamError::Ended)),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
