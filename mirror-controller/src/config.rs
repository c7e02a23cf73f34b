//! Flags, and the configuration that they make.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_api::client::BootstrapFlags;
use mesh_names::{ParseError, SpiffeId};
use mesh_runtime::telemetry::LogFlags;

use crate::plan::EgressRange;

/// Brings home what linked clusters export.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "mesh-mirror-controller", version)]
pub struct Flags {
    /// Who this process is, and where its control is.
    #[command(flatten)]
    pub bootstrap: BootstrapFlags,
    /// How to reach the Kubernetes API; without it, as a pod does.
    #[arg(long, env = "MESH_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig.
    #[arg(long, env = "MESH_CONTEXT", requires = "kubeconfig")]
    pub context: Option<String>,
    /// Where `Imports` is served to this cluster's controls.
    #[arg(long, env = "MESH_LISTEN", default_value = "0.0.0.0:4151")]
    pub listen: SocketAddr,
    /// The ports that gateways may listen on for their way out.
    #[arg(long, env = "MESH_EGRESS_PORTS", default_value_t)]
    pub egress_ports: EgressRange,
    /// How long a drain may take, in seconds.
    #[arg(long, env = "MESH_DRAIN", default_value_t = 5)]
    pub drain: u64,
    /// How it logs.
    #[command(flatten)]
    pub log: LogFlags,
}

/// The configuration of a mirror controller.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this process is, and where its control is.
    pub bootstrap: BootstrapFlags,
    /// The id of this cluster's control: the only caller of `Imports`.
    pub control: SpiffeId,
    /// The kubeconfig and its context; none in a cluster.
    pub kubeconfig: Option<(PathBuf, Option<String>)>,
    /// Where `Imports` is served.
    pub listen: SocketAddr,
    /// The ports of the gateways' way out.
    pub egress_ports: EgressRange,
    /// How long a drain may take.
    pub drain: Duration,
}

impl TryFrom<Flags> for Config {
    type Error = ParseError;

    fn try_from(flags: Flags) -> Result<Self, ParseError> {
        Ok(Self {
            control: flags.bootstrap.control_id()?,
            bootstrap: flags.bootstrap,
            kubeconfig: flags.kubeconfig.map(|path| (path, flags.context)),
            listen: flags.listen,
            egress_ports: flags.egress_ports,
            drain: Duration::from_secs(flags.drain),
        })
    }
}
