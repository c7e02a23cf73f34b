//! The back end that every candidate is measured against: HTTP/1.1, keep-alive, a fixed answer of 100 bytes.
//!
//! It does the least that a server can do, so that what is measured is the path to it.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Serves until the process is ended.
pub(crate) fn run(mut listen: SocketAddr) -> anyhow::Result<()> {
    if let Ok(address) = std::env::var("POD_IP") {
        listen.set_ip(address.parse().context("POD_IP is no address")?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("could not listen on {listen}"))?;
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            connections.spawn(async move { serve(stream).await.ok() });
            while connections.try_join_next().is_some() {}
        }
    })
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", BODY.len(), BODY);
    let mut buffer = vec![0_u8; 16 * 1024];
    let mut held = 0;
    loop {
        let read = stream.read(&mut buffer[held..]).await?;
        if read == 0 {
            return Ok(());
        }
        held += read;
        let heads = heads_in(&buffer[..held]);
        if heads.count > 0 {
            stream.write_all(answer.repeat(heads.count).as_bytes()).await?;
            buffer.copy_within(heads.end..held, 0);
            held -= heads.end;
        } else if held == buffer.len() {
            return Ok(());
        }
    }
}

struct Heads {
    count: usize,
    end: usize,
}

/// How many request heads are complete, and where the last one ends. Requests of the load have no body.
fn heads_in(bytes: &[u8]) -> Heads {
    let mut heads = Heads { count: 0, end: 0 };
    while let Some(at) = bytes[heads.end..].windows(4).position(|window| window == b"\r\n\r\n") {
        heads.count += 1;
        heads.end += at + 4;
    }
    heads
}

/// 100 bytes.
const BODY: &str = "isthmus-isthmus-isthmus-isthmus-isthmus-isthmus-isthmus-isthmus-isthmus-isthmus-isthmus-isthmus-1234";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_heads_are_counted_and_the_rest_is_kept() {
        let heads = heads_in(b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\nGET");
        assert_eq!((heads.count, heads.end), (2, 54));
        assert_eq!(BODY.len(), 100);
    }
}
