//! What a client speaks, told from its first bytes.
//!
//! A first line that is complete decides; bytes that can no longer become a request line decide too. So a client that speaks another
//! protocol waits for nothing, and nobody can pass HTTP off as something else by sending it in small pieces.
//!
//! Invariant: what some server takes for a request with headers is HTTP here. Servers are lenient in different ways (any token as a
//! method, tabs or control characters as separators, empty lines and spaces before the line), so this asks for no more than all of them
//! do: a word, a separator, and `HTTP/` in the first line. A line that has not ended where we stop reading is HTTP as well: the HTTP
//! server refuses it then.

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

    /// Waits for the client's first bytes, or its end. Giving up loses nothing.
    ///
    /// # Errors
    /// When the stream breaks.
    pub(crate) async fn hear(&mut self) -> io::Result<()> {
        if self.ahead.is_empty() && !self.ended { self.read_more().await } else { Ok(()) }
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
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 1024];
        match self.io.read(&mut chunk).await? {
            0 => self.ended = true,
            read => self.ahead.extend_from_slice(&chunk[..read]),
        }
        Ok(())
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
    // Servers skip empty lines before a request (RFC 9112, 2.2), some of them spaces too.
    let start = bytes.iter().position(|byte| !is_space(*byte)).unwrap_or(bytes.len());
    let line = &bytes[start..];
    let word = line.iter().position(|byte| !is_token(*byte)).unwrap_or(line.len());
    let plausible = line.get(word).is_none_or(|byte| word > 0 && is_space(*byte));
    let end = line.iter().position(|byte| *byte == b'\n');
    match end {
        _ if !plausible => First::Other,
        Some(end) if line[..end].windows(VERSION.len()).any(|part| part == VERSION) => First::Http1,
        Some(_) => First::Other,
        None if bytes.len() > LINE_MAX => First::Http1,
        None => First::Undecided,
    }
}

/// What a method consists of (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What some server takes for a separator in a request line: Python's are the most.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0x1c..=0x1f | 0x85 | 0xa0)
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
const VERSION: &[u8] = b"HTTP/";
/// How much of a first line is waited for.
const LINE_MAX: usize = 16 * 1024;

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
    fn what_any_server_takes_for_a_request_is_http() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(LINE_MAX));
        let method = format!("{} / HTTP/1.1\r\n", "M".repeat(64));
        let empty = format!("{}GET / HTTP/1.1\r\n", "\r\n".repeat(100));
        for text in [
            "get / HTTP/1.1\r\n",
            "M_E!THOD / HTTP/1.1\r\n",
            " GET / HTTP/1.1\r\n",
            "GET\t/ HTTP/1.1\r\n",
            "GET\x0b/\x1cHTTP/1.1\r\n",
            "GET / HTTP/1.10\r\n",
            "GET / HTTP/2.0\r\n",
            "GET / HTTP/1.1 \r\n",
            "GET / HTTP/1.1\rx\n",
            &long,
            &long[..LINE_MAX + 1],
            &method,
            &empty,
        ] {
            check(text, First::Http1);
        }
    }

    #[test]
    fn what_may_still_become_one_is_undecided() {
        for text in ["", "G", "GET", "GET ", "GET /a/b HTTP/1", "PRI", "PRI * HTTP/2.0\r\n", "\r\n", "hello", "PING"] {
            check(text, First::Undecided);
        }
    }

    #[test]
    fn everything_else_is_not_looked_at_further() {
        for text in
            ["\x16\x03\x01", "EHLO mail\r\n", "GET key\r\n", "GET /\r\n", "*1\r\n$4\r\nPING\r\n", "a\0\0", "{\"a\":1}", "\0\0\0\x08"]
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
