//! What a workload sends: HTTP written by hand, so that nothing between the test and the wire is clever.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::SOON;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a line `name: value` that the application saw.
    pub(crate) fn saw(&self, name: &str) -> Option<&str> {
        self.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// One request on a connection of its own, to the HTTP proxy.
pub(crate) async fn send(proxy: SocketAddr, method: &str, url: &str, headers: &str, body: &str) -> Answer {
    let host = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let text = format!("{method} {url} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}{length}\r\n{body}");
    exchange(proxy, &text).await
}

/// A GET to the HTTP proxy.
pub(crate) async fn get(proxy: SocketAddr, url: &str) -> Answer {
    send(proxy, "GET", url, "", "").await
}

/// Sends `text` and reads to the end.
pub(crate) async fn exchange(to: SocketAddr, text: &str) -> Answer {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut all)).await.expect("no answer").unwrap();
    let all = String::from_utf8_lossy(&all).into_owned();
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    Answer { status, head: head.to_owned(), body }
}

/// A tunnel through the HTTP proxy.
pub(crate) async fn connect(proxy: SocketAddr, authority: &str) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n").as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    if head.starts_with("HTTP/1.1 200") { Ok(stream) } else { Err(head) }
}

/// Reads to the end of a response's head.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(SOON, stream.read_u8()).await.expect("no answer").expect("ended early");
        head.push(byte);
    }
    String::from_utf8(head).unwrap()
}

fn unchunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = text.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            break;
        }
        body.push_str(&rest[..length]);
        text = rest[length..].strip_prefix("\r\n").unwrap();
    }
    body
}
