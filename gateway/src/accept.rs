//! One worker: what it is handed, and everything of its own that it serves with.

use std::cell::{OnceCell, RefCell};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_names::TunnelPort;
use mesh_runtime::clock;
use mesh_runtime::tasks::Tasks;
use mesh_runtime::workers::Worker;
use mesh_topology::{Draw, Loads};
use mesh_transport::gateways::InUse;
use mesh_transport::pool::Settings;
use mesh_transport::{Acceptor, Pool, TUNNEL_ALPN};

use crate::quota::Permit;
use crate::serve::Shared;
use crate::{egress, forward};

/// A connection for a worker.
#[derive(Debug)]
pub(crate) enum Job {
    /// Of a peer, to the tunnel listener.
    Tunnel(TcpStream, Permit),
    /// Of a client without a proxy, to this port of the way out.
    Egress(TcpStream, TunnelPort),
}

/// What one worker has for itself.
pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    pub(crate) acceptor: Acceptor,
    pub(crate) loads: RefCell<Loads>,
    pub(crate) in_use: InUse,
    pool: OnceCell<Pool>,
}

impl Local {
    /// The sessions of the way out; none until its identity is there.
    pub(crate) fn pool(&self) -> Option<&Pool> {
        if self.pool.get().is_none() {
            let identity = self.shared.parts.egress.borrow().clone()?;
            // Set only here, on this thread, and it was empty a line ago.
            let _ = self.pool.set(Pool::new(identity, Settings::default()));
        }
        self.pool.get()
    }

    /// The randomness and time of one decision.
    pub(crate) fn draw() -> Draw {
        Draw::new(clock::now(), rand::random())
    }

    fn sweep(&self) {
        self.loads.borrow_mut().sweep(clock::now());
        self.in_use.sweep();
        if let Some(pool) = self.pool.get() {
            pool.sweep();
        }
    }
}

/// Works until the acceptor is gone, which is when the gateway has drained; what is left then is ended.
pub(crate) async fn work(shared: Arc<Shared>, mut worker: Worker<Job>) {
    let acceptor = Acceptor::new(shared.parts.identity.clone(), TUNNEL_ALPN);
    let loads = RefCell::new(Loads::new(rand::random()));
    let local = Rc::new(Local { shared, acceptor, loads, in_use: InUse::default(), pool: OnceCell::new() });
    let mut tasks = Tasks::new();
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            handed = worker.mailbox.recv() => {
                let Some(handed) = handed else { return };
                let local = Rc::clone(&local);
                tasks.spawn_local(async move {
                    let _held = handed.held;
                    match handed.value {
                        Job::Tunnel(stream, permit) => forward::handle(&local, stream, permit).await,
                        Job::Egress(stream, port) => egress::handle(&local, stream, port).await,
                    }
                });
            }
            _ = sweep.tick() => local.sweep(),
        }
    }
}

const SWEEP_EVERY: Duration = Duration::from_secs(1);
