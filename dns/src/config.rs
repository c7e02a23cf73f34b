//! Flags of `mesh-dns`, parsed once.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_api::client::identity::BootstrapFlags;
use mesh_runtime::telemetry::LogFlags;

/// Answers the mesh's names in one cluster.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "mesh-dns", version, about = "Answers the mesh's names", after_help = EXAMPLE)]
pub struct Flags {
    /// Who it is and where its control is.
    #[command(flatten)]
    pub bootstrap: BootstrapFlags,
    /// Where it answers, UDP and TCP.
    #[arg(long, env = "MESH_LISTEN", default_value = "0.0.0.0:4153")]
    pub listen: SocketAddr,
    /// Logs.
    #[command(flatten)]
    pub log: LogFlags,
}

/// How long questions in flight may take once the process is told to stop.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

const EXAMPLE: &str = "Example:\n  mesh-dns --cluster west --trust-domain west.mesh --control mesh-control.isthmus-system:4150\n  dig @127.0.0.1 -p 4153 web.shop.svc.clusterset.local";
