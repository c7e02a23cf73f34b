//! Carries ports of 127.0.0.1 into network namespaces: a listener belongs to the namespace that it was opened in, and a connection to that
//! of the thread that opens it, so that one thread which moves after it listens is all that it takes.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use anyhow::Context as _;
use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Connects whoever comes to `listener` with `target` in the network namespace at `namespace`, for as long as this process lives.
///
/// # Errors
/// When the namespace is not there yet.
pub fn forward(listener: TcpListener, namespace: &Path, target: SocketAddr) -> anyhow::Result<()> {
    let namespace = std::fs::File::open(namespace).with_context(|| format!("there is no network namespace {}", namespace.display()))?;
    thread::Builder::new().name("forward".to_owned()).spawn(move || {
        let moved = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
        if let Err(error) = moved.map_err(io::Error::from).and_then(|()| serve(&listener, target)) {
            eprintln!("forwarding to {target} ended: {error}");
        }
    })?;
    Ok(())
}

/// Threads inherit the namespace of the thread that starts them.
fn serve(listener: &TcpListener, target: SocketAddr) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept()?;
        thread::Builder::new().name("connection".to_owned()).spawn(move || {
            if let Ok(server) = TcpStream::connect(target) {
                let _ = join(&client, &server);
            }
        })?;
    }
}

/// Copies both ways until both have ended; one side's end is told to the other.
fn join(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    thread::scope(|scope| {
        scope.spawn(|| copy(client, server));
        copy(server, client);
    });
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
