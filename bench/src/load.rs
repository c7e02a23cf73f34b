//! The load: closed loop (as fast as the path lets) and open loop (a fixed rate, latency counted from when a request was due).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Where the load goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// What is connected to.
    pub(crate) address: SocketAddr,
    /// The request line's target: `/`, or absolute for an HTTP proxy.
    pub(crate) uri: String,
    /// The Host header.
    pub(crate) host: String,
}

/// What a stage saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

/// As many requests as `connections` connections carry, each with one request at a time.
pub(crate) async fn saturate(target: &Target, connections: usize, lasting: Duration) -> anyhow::Result<Seen> {
    paced(target, connections, lasting, None).await
}

/// `rate` requests a second, spread over the connections; late ones are not forgiven.
pub(crate) async fn at_rate(target: &Target, connections: usize, lasting: Duration, rate: u64) -> anyhow::Result<Seen> {
    paced(target, connections, lasting, Some(Duration::from_secs_f64(connections as f64 / rate as f64))).await
}

async fn paced(target: &Target, connections: usize, lasting: Duration, every: Option<Duration>) -> anyhow::Result<Seen> {
    let begun = Instant::now();
    let until = begun + lasting;
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..connections {
        let target = target.clone();
        let offset = every.map_or(Duration::ZERO, |every| every.mul_f64(number as f64 / connections as f64));
        clients.spawn(client(target, begun + offset, until, every));
    }
    let mut all = Histogram::<u64>::new(3)?;
    let mut errors = 0;
    while let Some(ended) = clients.join_next().await {
        let (histogram, failed) = ended??;
        all.add(&histogram)?;
        errors += failed;
    }
    if all.is_empty() {
        bail!("no request to {} succeeded, {errors} failed", target.address);
    }
    Ok(Seen {
        requests: all.len(),
        errors,
        seconds: begun.elapsed().as_secs_f64(),
        p50_us: all.value_at_quantile(0.5),
        p99_us: all.value_at_quantile(0.99),
    })
}

async fn client(target: Target, first: Instant, until: Instant, every: Option<Duration>) -> anyhow::Result<(Histogram<u64>, u64)> {
    let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\nuser-agent: mesh-bench\r\n\r\n", target.uri, target.host);
    let mut seen = Histogram::<u64>::new(3)?;
    let mut errors = 0;
    let mut due = first;
    let mut connection: Option<Connection> = None;
    while Instant::now() < until && due < until {
        if every.is_some() {
            tokio::time::sleep_until(due).await;
        } else {
            due = Instant::now();
        }
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::open(target.address).await?,
        };
        match open.exchange(request.as_bytes()).await {
            Ok(()) => {
                seen.record(u64::try_from(due.elapsed().as_micros())?.max(1))?;
                connection = Some(open);
            }
            Err(_) => errors += 1,
        }
        due += every.unwrap_or_default();
    }
    Ok((seen, errors))
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("could not connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 8192] })
    }

    /// One request, one answer with a length; anything but 200 is an error.
    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        let mut held = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[held..]).await?;
            if read == 0 {
                bail!("closed before the answer was whole");
            }
            held += read;
            match whole_length(&self.buffer[..held])? {
                Some(whole) if held >= whole => return Ok(()),
                _ if held == self.buffer.len() => bail!("the answer is larger than the buffer"),
                _ => {}
            }
        }
    }
}

/// The length of head and body together, once the head is there.
fn whole_length(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head])?;
    if !text.starts_with("HTTP/1.1 200") {
        bail!("not 200: {}", text.lines().next().unwrap_or_default());
    }
    let length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("the answer has no content-length")?;
    Ok(Some(head + 4 + length.1.trim().parse::<usize>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is_there() {
        assert_eq!(whole_length(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").unwrap(), Some(41));
        assert_eq!(whole_length(b"HTTP/1.1 200 OK\r\n").unwrap(), None);
        assert!(whole_length(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
