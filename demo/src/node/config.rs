//! The node's flags, and the configuration that they become.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::Ipv4Net;
use mesh_names::{ClusterName, TrustDomain};
use mesh_runtime::telemetry::LogFlags;

/// Flags of the demo's node.
#[derive(Debug, clap::Parser)]
#[command(name = "node", about = "Runs the pods of one demo cluster as processes")]
pub struct Flags {
    /// How to reach the cluster's API
    #[arg(long, env = "MESH_KUBECONFIG")]
    pub kubeconfig: PathBuf,
    /// The node's name
    #[arg(long, env = "MESH_NODE")]
    pub node: String,
    /// The node's own address
    #[arg(long, env = "MESH_ADDRESS")]
    pub address: Ipv4Addr,
    /// Addresses that pods get
    #[arg(long, env = "MESH_POD_CIDR")]
    pub pod_cidr: Ipv4Net,
    /// Where pods' working directories, tokens and logs go
    #[arg(long, env = "MESH_STATE_DIR")]
    pub state_dir: PathBuf,
    /// The `mesh` program, which holds sidecar and shop
    #[arg(long, env = "MESH_BINARY")]
    pub mesh_binary: PathBuf,
    /// The cluster's name
    #[arg(long, env = "MESH_CLUSTER")]
    pub cluster: ClusterName,
    /// The cluster's trust domain
    #[arg(long, env = "MESH_TRUST_DOMAIN")]
    pub trust_domain: TrustDomain,
    /// The controls that sidecars ask
    #[arg(long, env = "MESH_CONTROL", value_delimiter = ',', required = true)]
    pub control: Vec<SocketAddr>,
    /// The cluster's own bundle, for sidecars
    #[arg(long, env = "MESH_BUNDLE")]
    pub bundle: PathBuf,
    #[command(flatten)]
    pub(super) log: LogFlags,
}

/// What the node runs with. Invariant: paths are absolute, because pods run elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) node: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) pod_cidr: Ipv4Net,
    pub(crate) state_dir: PathBuf,
    pub(crate) mesh_binary: PathBuf,
    pub(crate) cluster: ClusterName,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) control: Vec<SocketAddr>,
    pub(crate) bundle: PathBuf,
}

/// Why the flags make no configuration.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be made absolute: is the working directory gone?")]
pub struct ConfigError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

impl TryFrom<Flags> for Config {
    type Error = ConfigError;

    fn try_from(flags: Flags) -> Result<Self, ConfigError> {
        let absolute = |path: PathBuf| std::path::absolute(&path).map_err(|source| ConfigError { path, source });
        Ok(Self {
            kubeconfig: absolute(flags.kubeconfig)?,
            node: flags.node,
            address: flags.address,
            pod_cidr: flags.pod_cidr,
            state_dir: absolute(flags.state_dir)?,
            mesh_binary: absolute(flags.mesh_binary)?,
            cluster: flags.cluster,
            trust_domain: flags.trust_domain,
            control: flags.control,
            bundle: absolute(flags.bundle)?,
        })
    }
}
