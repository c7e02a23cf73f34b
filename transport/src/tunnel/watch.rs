//! The `watch` tunnel: a proxy's own evidence that a gateway lives, and the gateway's way to say that it drains.
//!
//! After `accepted` both sides send frames of one length byte and a protobuf message. A frame of a later release is skipped.

use std::io;
use std::time::{Duration, Instant};

use mesh_runtime::drain::Drain;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Are you there?
    Ping(u64),
    /// The answer, with the ping's number.
    Pong(u64),
    /// Open no more tunnels here; what is open ends after this long.
    Draining(Duration),
}

/// Reads frames, resumable: a read that is given up half-way loses nothing.
#[derive(Debug, Default)]
struct Reader {
    bytes: Vec<u8>,
}

/// The asking side of one `watch` tunnel.
#[derive(Debug)]
pub struct Watch<Io> {
    io: Io,
    reader: Reader,
    sent: u64,
    draining: Option<Duration>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Watch<Io> {
    /// Watches over an accepted tunnel.
    pub fn new(io: Io) -> Self {
        Self { io, reader: Reader::default(), sent: 0, draining: None }
    }

    /// What is left to the gateway, once it has said that it drains.
    #[must_use]
    pub fn draining(&self) -> Option<Duration> {
        self.draining
    }

    /// Asks once, and returns how long the answer took.
    ///
    /// # Errors
    /// When the tunnel has ended, or no answer came within `limit`.
    pub async fn ping(&mut self, limit: Duration) -> io::Result<Duration> {
        self.sent += 1;
        let (number, begun) = (self.sent, Instant::now());
        let answered = async {
            write(&mut self.io, Frame::Ping(number)).await?;
            loop {
                match self.reader.next(&mut self.io).await? {
                    Frame::Pong(answered) if answered == number => return Ok(begun.elapsed()),
                    Frame::Draining(left) => self.draining = Some(left),
                    // A late answer to an earlier ping, or a peer that asks us: neither is the answer.
                    Frame::Pong(_) | Frame::Ping(_) => {}
                }
            }
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the gateway did not answer a ping");
        tokio::time::timeout(limit, answered).await.map_err(|_| late())?
    }

    /// Listens without asking, until `until`: hears at once that the gateway drains or is gone.
    ///
    /// # Errors
    /// When the tunnel has ended.
    pub async fn listen(&mut self, until: tokio::time::Instant) -> io::Result<()> {
        loop {
            match tokio::time::timeout_at(until, self.reader.next(&mut self.io)).await {
                Err(_) => return Ok(()),
                Ok(Ok(Frame::Draining(left))) => {
                    self.draining = Some(left);
                    return Ok(());
                }
                Ok(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

/// The answering side: answers pings until the asker leaves or stays silent for [`SILENT_MAX`], says when `drain` starts, and ends with it.
///
/// # Errors
/// When the tunnel breaks.
pub async fn serve<Io: AsyncRead + AsyncWrite + Unpin>(mut io: Io, drain: &Drain) -> io::Result<()> {
    let mut reader = Reader::default();
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            () = drain.ended() => return io.shutdown().await,
            deadline = drain.started(), if !told => {
                told = true;
                let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                write(&mut io, Frame::Draining(left)).await?;
            }
            heard = tokio::time::timeout(SILENT_MAX, reader.next(&mut io)) => match heard {
                Err(_) => return io.shutdown().await,
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return io.shutdown().await,
                Ok(Err(error)) => return Err(error),
                Ok(Ok(Frame::Ping(number))) => write(&mut io, Frame::Pong(number)).await?,
                Ok(Ok(Frame::Pong(_) | Frame::Draining(_))) => {}
            }
        }
    }
}

/// Writes one frame.
///
/// # Errors
/// When the tunnel breaks.
pub async fn write<Io: AsyncWrite + Unpin>(io: &mut Io, frame: Frame) -> io::Result<()> {
    let kind = match frame {
        Frame::Ping(number) => wire::Kind::Ping(number),
        Frame::Pong(number) => wire::Kind::Pong(number),
        Frame::Draining(left) => wire::Kind::DrainingMs(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
    };
    let message = wire::Frame { kind: Some(kind) }.encode_to_vec();
    let mut bytes = vec![u8::try_from(message.len()).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(&message);
    io.write_all(&bytes).await?;
    io.flush().await
}

impl Reader {
    /// The next frame that we know.
    async fn next<Io: AsyncRead + Unpin>(&mut self, io: &mut Io) -> io::Result<Frame> {
        loop {
            if let Some((length, rest)) = self.bytes.split_first()
                && rest.len() >= usize::from(*length)
            {
                let end = 1 + usize::from(*length);
                let frame = parse(&self.bytes[1..end])?;
                self.bytes.drain(..end);
                match frame {
                    Some(frame) => return Ok(frame),
                    None => continue,
                }
            }
            // At most one frame is incomplete, so this holds less than two.
            let mut chunk = [0; 256];
            match io.read(&mut chunk).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.bytes.extend_from_slice(&chunk[..read]),
            }
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<Frame>> {
    let frame = wire::Frame::decode(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(frame.kind.map(|kind| match kind {
        wire::Kind::Ping(number) => Frame::Ping(number),
        wire::Kind::Pong(number) => Frame::Pong(number),
        wire::Kind::DrainingMs(left) => Frame::Draining(Duration::from_millis(left)),
    }))
}

/// An asker that says nothing for this long is gone.
pub const SILENT_MAX: Duration = Duration::from_secs(30);

mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Frame {
        #[prost(oneof = "Kind", tags = "1, 2, 3")]
        pub(super) kind: Option<Kind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(uint64, tag = "1")]
        Ping(u64),
        #[prost(uint64, tag = "2")]
        Pong(u64),
        #[prost(uint64, tag = "3")]
        DrainingMs(u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_runtime::drain;
    use tokio::io::duplex;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_gateway_answers_pings_and_says_when_it_drains() {
        let (trigger, drain) = drain::channel(SOON);
        let (near, far) = duplex(64);
        let serving = tokio::spawn(async move { serve(far, &drain).await });
        let mut watch = Watch::new(near);
        watch.ping(SOON).await.unwrap();
        assert_eq!(watch.draining(), None);
        trigger.start();
        watch.listen(tokio::time::Instant::now() + SOON).await.unwrap();
        assert!(watch.draining().is_some_and(|left| left <= SOON));
        watch.ping(SOON).await.unwrap();
        drop(watch);
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_gateway_that_does_not_answer_is_noticed() {
        let (near, _far) = duplex(64);
        let error = Watch::new(near).ping(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_frame_of_a_later_release_is_skipped_and_garbage_ends_the_tunnel() {
        let (mut near, far) = duplex(64);
        let serving = tokio::spawn(async move { serve(far, &Drain::never()).await });
        near.write_all(&[2, 0x4a, 0x00]).await.unwrap();
        write(&mut near, Frame::Ping(7)).await.unwrap();
        assert_eq!(Reader::default().next(&mut near).await.unwrap(), Frame::Pong(7));
        near.write_all(&[2, 0xff, 0xff]).await.unwrap();
        assert_eq!(serving.await.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
