//! Flags, the typed configuration, and the files that the server keeps in its data directory.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use mesh_runtime::telemetry::LogFlags;

use crate::write::Loopback;

/// An in-memory Kubernetes API with a journal: for laptops, demos and tests, never for production.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "mesh-apiserver")]
pub struct Flags {
    /// Where the journal, the keys and the admin kubeconfig are kept.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Where to listen, with TLS.
    #[arg(long, default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
    /// The range that Services' cluster IPs are taken from.
    #[arg(long, default_value = "10.96.0.0/16")]
    pub service_cluster_ip_range: IpNet,
    /// Accept endpoints on 127.x, which a real API server refuses.
    #[arg(long)]
    pub allow_loopback_endpoints: bool,
    /// A file of bearer tokens: lines of token,user,uid,"group1,group2".
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    /// The cluster's name in the admin kubeconfig.
    #[arg(long, default_value = "isthmus")]
    pub cluster_name: String,
    /// Logs.
    #[command(flatten)]
    pub log: LogFlags,
}

/// What a server needs to start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the journal, the keys and the admin kubeconfig are kept.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The range of cluster IPs.
    pub service_range: IpNet,
    /// Whether endpoints on 127.x are accepted.
    pub loopback_endpoints: Loopback,
    /// Static bearer tokens.
    pub token_auth_file: Option<PathBuf>,
    /// The cluster's name in the admin kubeconfig.
    pub cluster_name: String,
}

impl From<Flags> for Config {
    fn from(flags: Flags) -> Self {
        Self {
            data_dir: flags.data_dir,
            listen: flags.listen,
            service_range: flags.service_cluster_ip_range,
            loopback_endpoints: if flags.allow_loopback_endpoints { Loopback::Allow } else { Loopback::Refuse },
            token_auth_file: flags.token_auth_file,
            cluster_name: flags.cluster_name,
        }
    }
}

/// Writes a file that only its owner can read, replacing it whole.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt};
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}
