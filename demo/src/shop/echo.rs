//! The echo of the TCP port: may speak first, sends back what it gets, and closes its side when the caller has closed its own.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Serves one connection until the caller's end of stream.
pub(super) async fn serve(mut stream: TcpStream, greeting: Option<&str>) {
    let _ = stream.set_nodelay(true);
    if let Err(error) = echo(&mut stream, greeting).await {
        tracing::debug!(%error, "echo ended");
    }
}

async fn echo(stream: &mut TcpStream, greeting: Option<&str>) -> std::io::Result<()> {
    if let Some(greeting) = greeting {
        stream.write_all(format!("{greeting}\n").as_bytes()).await?;
    }
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.shutdown().await,
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_echo_speaks_first_and_answers_after_a_half_close() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let serving = tokio::spawn(async move { serve(server, Some("ledger ready")).await });
        let mut greeting = [0; 13];
        client.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"ledger ready\n");
        client.write_all(b"one entry").await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "one entry");
        serving.await.unwrap();
    }
}
