//! The listeners: each accepted connection goes to the least loaded active worker; when all are full we stop accepting, and the kernel's
//! backlog pushes back.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_runtime::drain::Drain;
use mesh_runtime::workers::Workers;
use mesh_transport::tcp;
use tokio::net::TcpListener;

use crate::config::DataConfig;
use crate::worker::{Accepted, Entrance};

/// A listener and what its connections are.
#[derive(Debug)]
pub(crate) struct Door {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) at: Entrance,
}

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {address}: is another process using it?")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub source: std::io::Error,
}

/// Opens every listener.
pub(crate) fn open(config: &DataConfig) -> Result<Vec<Door>, ListenError> {
    let mut wanted = vec![(config.outbound, Entrance::Outbound), (config.inbound, Entrance::Inbound)];
    wanted.extend(config.listeners.iter().enumerate().map(|(at, listener)| (listener.listen, Entrance::Service(at))));
    wanted.extend(config.transparent_outbound.map(|address| (address, Entrance::TransparentOutbound)));
    wanted.extend(config.transparent_inbound.map(|address| (address, Entrance::TransparentInbound)));
    let open = |(address, at): (SocketAddr, Entrance)| {
        let listener = tcp::listen(address).map_err(|source| ListenError { address, source })?;
        let bound = listener.local_addr().map_err(|source| ListenError { address, source })?;
        Ok(Door { listener, address: bound, at })
    };
    wanted.into_iter().map(open).collect()
}

impl Door {
    /// Accepts until the drain: sessions and redirected connections to the workload stop when it starts, the workload's own calls are
    /// taken as long as it still has others running. The listener closes then: who comes later is refused at once and goes elsewhere.
    pub(crate) async fn run(self, workers: &Workers<Accepted>, drain: &Drain) {
        let outward = matches!(self.at, Entrance::Outbound | Entrance::Service(_) | Entrance::TransparentOutbound);
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.ended() => return,
                _ = drain.started(), if !outward => return,
                () = idle(workers, drain), if outward => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => self.hand(stream, workers, drain).await,
                Err(error) => {
                    // Out of descriptors, mostly: others must end before the next can be taken.
                    tracing::warn!(%error, address = %self.address, "connection not accepted");
                    tokio::time::sleep(ROOM_EVERY).await;
                }
            }
        }
    }

    async fn hand(&self, stream: std::net::TcpStream, workers: &Workers<Accepted>, drain: &Drain) {
        let mut accepted = Accepted { stream, at: self.at };
        while drain.deadline().is_none_or(|deadline| deadline > tokio::time::Instant::now()) {
            if workers.loads().iter().sum::<usize>() < CONNECTIONS_MAX * workers.loads().len() {
                match workers.hand(accepted) {
                    Ok(()) => return,
                    Err(back) => accepted = back,
                }
            }
            tokio::time::sleep(ROOM_EVERY).await;
        }
    }
}

/// Returns when the drain has started and no worker holds a connection.
async fn idle(workers: &Workers<Accepted>, drain: &Drain) {
    drain.started().await;
    while workers.loads().iter().any(|load| *load > 0) {
        tokio::time::sleep(ROOM_EVERY).await;
    }
}

/// Connections that one worker holds; when all hold as many, the next waits in the kernel's backlog.
const CONNECTIONS_MAX: usize = 4096;
const ROOM_EVERY: Duration = Duration::from_millis(20);
