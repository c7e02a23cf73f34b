//! What a client speaks, told from its first bytes.
//!
//! A request line that is complete decides; bytes that can no longer become one decide too. So a client that speaks another protocol
//! waits for nothing, and nobody can pass HTTP off as something else by sending it in small pieces.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// A request line of HTTP/1.
    Http1,
    /// The preface of HTTP/2.
    Http2,
    /// Something else, or the client has ended.
    Other,
    /// Not enough yet.
    Undecided,
}

/// A stream whose first bytes were read ahead.
#[derive(Debug)]
pub(crate) struct Peeked<Io> {
    io: Io,
    ahead: Vec<u8>,
    at: usize,
    ended: bool,
    /// The first line so far, when it must not turn out to be HTTP.
    guarded: Option<Vec<u8>>,
}

impl<Io: AsyncRead + Unpin> Peeked<Io> {
    /// Nothing read ahead yet.
    pub(crate) fn new(io: Io) -> Self {
        Self { io, ahead: Vec::new(), at: 0, ended: false, guarded: None }
    }

    /// It was taken for something that is not HTTP before that was certain: should it be HTTP after all, reading it fails.
    pub(crate) fn guarded(mut self) -> Self {
        self.guarded = Some(self.ahead.clone());
        self
    }

    /// Reads ahead until it is clear what is spoken, or `limit` has passed ([`First::Undecided`]).
    ///
    /// # Errors
    /// When the stream breaks.
    pub(crate) async fn look(&mut self, limit: Option<Duration>) -> io::Result<First> {
        match limit {
            None => self.read_ahead().await,
            Some(limit) => tokio::time::timeout(limit, self.read_ahead()).await.unwrap_or(Ok(First::Undecided)),
        }
    }

    /// Whether anything was read ahead.
    pub(crate) fn heard_something(&self) -> bool {
        !self.ahead.is_empty()
    }

    async fn read_ahead(&mut self) -> io::Result<First> {
        loop {
            if self.ended {
                return Ok(First::Other);
            }
            let first = first(&self.ahead);
            if first != First::Undecided {
                return Ok(first);
            }
            let mut chunk = [0; 1024];
            match self.io.read(&mut chunk).await? {
                0 => self.ended = true,
                read => self.ahead.extend_from_slice(&chunk[..read]),
            }
        }
    }

    fn check(&mut self, more: &[u8]) -> io::Result<()> {
        let Some(line) = &mut self.guarded else { return Ok(()) };
        line.extend_from_slice(more);
        match first(line) {
            First::Undecided => Ok(()),
            First::Other => {
                self.guarded = None;
                Ok(())
            }
            First::Http1 | First::Http2 => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "HTTP in a connection that began as something else"))
            }
        }
    }

    /// The stream itself, when the caller has to end it in a way of its own.
    pub(crate) fn into_inner(self) -> Io {
        self.io
    }
}

/// What `bytes`, the first of a client, say.
pub(crate) fn first(bytes: &[u8]) -> First {
    if PREFACE.starts_with(bytes) || bytes.starts_with(PREFACE) {
        return if bytes.len() >= PREFACE.len() { First::Http2 } else { First::Undecided };
    }
    // Servers skip empty lines before a request (RFC 9112, 2.2).
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let line = &bytes[start..];
    let end = line.iter().position(|byte| *byte == b'\n');
    let method = line.iter().position(|byte| !is_method(*byte)).unwrap_or(line.len());
    let plausible = method <= METHOD_MAX && line.get(method).is_none_or(|byte| *byte == b' ') && (method > 0 || line.is_empty());
    match end {
        _ if !plausible => First::Other,
        Some(end) => {
            let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
            let is_request = line.len() > VERSION.len() + 1 && line[..line.len() - 1].ends_with(VERSION);
            if is_request { First::Http1 } else { First::Other }
        }
        None if line.len() > LINE_MAX => First::Other,
        None if start > EMPTY_MAX => First::Other,
        None => First::Undecided,
    }
}

/// Methods in use are words of capital letters; a server that takes others reads no header of ours from them.
fn is_method(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-'
}

impl<Io: AsyncRead + Unpin> AsyncRead for Peeked<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = &self.ahead[self.at..];
        if left.is_empty() {
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if !self.ahead.is_empty() {
                (self.ahead, self.at) = (Vec::new(), 0);
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
            let checked = self.check(&buffer.filled()[before..]);
            if checked.is_err() {
                buffer.set_filled(before);
            }
            return Poll::Ready(checked);
        }
        let length = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..length]);
        self.at += length;
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Peeked<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const VERSION: &[u8] = b" HTTP/1.";
/// The longest method registered has 17 letters.
const METHOD_MAX: usize = 24;
/// A request line that is longer than this is none.
const LINE_MAX: usize = 16 * 1024;
const EMPTY_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn check(text: &str, expected: First) {
        assert_eq!(first(text.as_bytes()), expected, "{text:?}");
    }

    #[test]
    fn a_complete_request_line_is_http() {
        check("GET / HTTP/1.1\r\n", First::Http1);
        check("\r\nGET / HTTP/1.0\n", First::Http1);
        check("VERSION-CONTROL /a HTTP/1.1\r\nhost: x", First::Http1);
        check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", First::Http2);
    }

    #[test]
    fn what_may_still_become_one_is_undecided() {
        for text in ["", "G", "GET", "GET ", "GET /a/b HTTP/1", "PRI", "PRI * HTTP/2.0\r\n", "\r\n"] {
            check(text, First::Undecided);
        }
    }

    #[test]
    fn everything_else_is_not_looked_at_further() {
        for text in
            ["\x16\x03\x01", "hello", "EHLO mail\r\n", "GET key\r\n", "get / HTTP/1.1\r\n", " GET / HTTP/1.1\r\n", "*1\r\n$4\r\nPING\r\n"]
        {
            check(text, First::Other);
        }
    }

    #[tokio::test]
    async fn http_that_comes_in_small_pieces_does_not_pass_as_something_else() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut peeked = Peeked::new(server);
        client.write_all(b"GE").await.unwrap();
        assert_eq!(peeked.look(Some(Duration::from_millis(1))).await.unwrap(), First::Undecided);
        let mut peeked = peeked.guarded();
        client.write_all(b"T / HTTP/1.1\r\nx-mesh-peer: forged\r\n\r\n").await.unwrap();
        let mut read = Vec::new();
        assert_eq!(peeked.read_to_end(&mut read).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read, b"GE");
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_read_again() {
        let mut peeked = Peeked::new(&b"hello world"[..]);
        assert_eq!(peeked.look(None).await.unwrap(), First::Other);
        let mut all = String::new();
        peeked.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "hello world");
    }
}
