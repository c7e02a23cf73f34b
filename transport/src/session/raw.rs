//! A raw connection as one stream of a session: END_STREAM is half-close, RST_STREAM is a reset.
//!
//! Dropping a stream that was not shut down resets it, so that a connection that broke on one side never looks finished on the other.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::flight::InFlight;

/// Bytes both ways.
#[derive(Debug)]
pub struct RawStream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    read: Bytes,
    ended: bool,
    _held: Option<InFlight>,
}

impl RawStream {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream, held: Option<InFlight>) -> Self {
        Self { send, recv, read: Bytes::new(), ended: false, _held: held }
    }

    /// Ends both directions at once; the peer sees a reset.
    pub fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
        self.ended = true;
    }
}

impl Drop for RawStream {
    fn drop(&mut self) {
        if !self.ended {
            self.send.send_reset(Reason::CANCEL);
        }
    }
}

impl AsyncRead for RawStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => self.read = data,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let length = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..length]);
        self.read.advance(length);
        // It fails only when the stream has ended, and then the window is moot.
        let _ = self.recv.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(bytes.len().min(WRITE_MAX));
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(self.why_closed(cx))),
            }
        }
        let length = self.send.capacity().min(bytes.len());
        self.send.send_data(Bytes::copy_from_slice(&bytes[..length]), false).map_err(broken)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is the session's to send; it needs no push.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.send.send_data(Bytes::new(), true).map_err(broken)?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl RawStream {
    fn why_closed(&mut self, cx: &mut Context<'_>) -> io::Error {
        match self.send.poll_reset(cx) {
            Poll::Ready(Err(error)) => broken(error),
            Poll::Ready(Ok(_)) | Poll::Pending => io::ErrorKind::ConnectionReset.into(),
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
    }
    let kind = if error.is_reset() { io::ErrorKind::ConnectionReset } else { io::ErrorKind::ConnectionAborted };
    io::Error::new(kind, error)
}

/// What one write puts into one frame at most.
const WRITE_MAX: usize = 64 * 1024;
