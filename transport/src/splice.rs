//! Copies bytes both ways between two streams until both directions have ended.
//!
//! Half-close is passed on: an end on one side shuts down writing on the other while the way back goes on. Nothing is held while
//! nothing flows: reads go through one buffer per thread, and only what the writer does not take is kept. A copy that always has
//! more yields after a quarter of a mebibyte, because requests on the same worker wait behind it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a copy did, and how it ended.
#[derive(Debug)]
pub struct Spliced {
    /// Bytes that went from the first stream to the second.
    pub forward: u64,
    /// Bytes that went from the second stream to the first.
    pub back: u64,
    /// Why it ended before both sides had said that they were done.
    pub result: Result<(), SpliceError>,
}

/// Which stream broke.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    /// The first one.
    #[error("the first stream broke")]
    First(#[source] io::Error),
    /// The second one.
    #[error("the second stream broke")]
    Second(#[source] io::Error),
}

/// Copies until both directions have ended, or one stream breaks. On an error the caller resets both: what was passed on is not all.
pub async fn copy_bidirectional<A, B>(first: &mut A, second: &mut B) -> Spliced
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut forward, mut back) = (Way::default(), Way::default());
    let result = poll_fn(|cx| {
        let there = forward.poll(cx, first, second).map_err(|broken| match broken {
            Broken::Reader(source) => SpliceError::First(source),
            Broken::Writer(source) => SpliceError::Second(source),
        })?;
        let here = back.poll(cx, second, first).map_err(|broken| match broken {
            Broken::Reader(source) => SpliceError::Second(source),
            Broken::Writer(source) => SpliceError::First(source),
        })?;
        if there.is_ready() && here.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await;
    Spliced { forward: forward.copied, back: back.copied, result }
}

/// One direction.
#[derive(Default)]
struct Way {
    /// What was read and not yet written, from `at` on.
    left: Vec<u8>,
    at: usize,
    copied: u64,
    unflushed: bool,
    state: State,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Flowing,
    Ending,
    Ended,
}

enum Broken {
    Reader(io::Error),
    Writer(io::Error),
}

impl Way {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut turn = 0;
        loop {
            ready!(self.poll_left(cx, writer))?;
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(Broken::Writer)?;
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
                State::Flowing => {}
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match with_scratch(|scratch| self.poll_read(cx, reader, writer, scratch)) {
                Poll::Ready(moved) => turn += moved?,
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *writer).poll_flush(cx)).map_err(Broken::Writer)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads once and writes what the writer takes; the rest is kept.
    fn poll_read<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W, scratch: &mut [u8]) -> Poll<Result<usize, Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(reader).poll_read(cx, &mut buffer)).map_err(Broken::Reader)?;
        let bytes = buffer.filled();
        if bytes.is_empty() {
            self.state = State::Ending;
            return Poll::Ready(Ok(0));
        }
        self.copied += bytes.len() as u64;
        self.unflushed = true;
        let mut rest = bytes;
        while !rest.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Broken::Writer(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(taken)) => rest = &rest[taken..],
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Writer(error))),
                Poll::Pending => {
                    self.left = rest.to_vec();
                    self.at = 0;
                    break;
                }
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_left<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<Result<(), Broken>> {
        while self.at < self.left.len() {
            match ready!(Pin::new(&mut *writer).poll_write(cx, &self.left[self.at..])).map_err(Broken::Writer)? {
                0 => return Poll::Ready(Err(Broken::Writer(io::ErrorKind::WriteZero.into()))),
                taken => self.at += taken,
            }
        }
        self.left = Vec::new();
        self.at = 0;
        Poll::Ready(Ok(()))
    }
}

/// Runs `work` with this thread's buffer; a copy inside a copy gets one of its own.
fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    }
    let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; READ].into_boxed_slice());
    let done = work(&mut scratch);
    SCRATCH.set(Some(scratch));
    done
}

/// One read: within the second-level cache, and as large as a session's frame.
const READ: usize = 64 * 1024;

/// What one direction copies before it lets others run.
const TURN: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn a_side_that_has_ended_still_gets_the_answer() {
        let (mut client, mut left) = duplex(16);
        let (mut right, mut server) = duplex(16);
        let copying = tokio::spawn(async move { copy_bidirectional(&mut left, &mut right).await });
        let serving = tokio::spawn(async move {
            let mut all = Vec::new();
            server.read_to_end(&mut all).await.unwrap();
            server.write_all(&all.repeat(2)).await.unwrap();
        });
        client.write_all(&[7; 1000]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [7; 2000]);
        serving.await.unwrap();
        let spliced = copying.await.unwrap();
        assert_eq!((spliced.forward, spliced.back), (1000, 2000));
        spliced.result.unwrap();
    }

    #[tokio::test]
    async fn the_stream_that_broke_is_named() {
        let (_client, mut left) = duplex(16);
        let mut broken = tokio_util::io::StreamReader::new(futures_util::stream::once(std::future::ready(Err::<&[u8], _>(
            io::Error::from(io::ErrorKind::ConnectionReset),
        ))));
        let mut right = tokio::io::join(&mut broken, tokio::io::sink());
        let spliced = copy_bidirectional(&mut left, &mut right).await;
        assert!(matches!(spliced.result, Err(SpliceError::Second(_))));
    }
}
