//! TCP as the mesh wants it: no Nagle delay, dead peers noticed within half a minute, and the address that a redirected client meant.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

/// Connects to `address` within `limit`.
///
/// # Errors
/// When the peer refuses or does not answer in time.
pub async fn connect(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer in {limit:?}")))??;
    prepare(&stream)?;
    Ok(stream)
}

/// Sets the options that every connection of the mesh has, accepted ones too.
///
/// # Errors
/// When the socket is gone already.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Listens on `address`; an address that a process before us used a moment ago is free for us. `[::]` is every address of both families,
/// and of IPv4 alone where there is no IPv6.
///
/// # Errors
/// When the address cannot be listened on.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match listen_on(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            listen_on(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        done => done,
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Where a client that the kernel redirected to us wanted to go (`SO_ORIGINAL_DST`).
///
/// # Errors
/// When the connection was not redirected.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    // A socket of both families shows an IPv4 client as an IPv6 one, while the kernel remembers it as what it was.
    let is_ipv4 = stream.local_addr()?.ip().to_canonical().is_ipv4();
    let original = if is_ipv4 { socket.original_dst_v4()? } else { socket.original_dst_v6()? };
    original.as_socket().ok_or_else(|| io::Error::other("the original destination is no IP address"))
}

/// Closes the connection with a reset, so that the peer knows that what it got is not all.
pub fn abort(stream: TcpStream) {
    // A socket that is gone already needs no reset.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Sent data that nobody acknowledges for this long ends the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections that the kernel holds for us; past it, it makes clients try again.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn an_aborted_connection_ends_in_a_reset_and_not_in_an_end_of_file() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = connect(address, Duration::from_secs(5)).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"some").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        abort(server);
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn one_socket_listens_for_both_families() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = connect(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), Duration::from_secs(5)).await.unwrap();
        let (server, from) = listener.accept().await.unwrap();
        assert_eq!(from.ip().to_canonical(), Ipv4Addr::LOCALHOST);
        drop(server);
    }

    #[tokio::test]
    async fn a_connection_that_was_not_redirected_has_no_other_destination() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = connect(listener.local_addr().unwrap(), Duration::from_secs(5)).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        // Without netfilter the kernel refuses; with it, it names our own address.
        if let Ok(original) = original_destination(&server) {
            assert_eq!(original, server.local_addr().unwrap());
        }
    }
}
