//! Flags, and the one place where they become a configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_api::connect::ControlAddress;
use mesh_runtime::clock::Span;
use mesh_runtime::telemetry::LogFlags;

pub use crate::inject::InjectorConfig;

/// Watches one cluster and serves its proxies identity, discovery and exports.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "mesh-control", version)]
pub struct Flags {
    /// Where gRPC is served (mTLS)
    #[arg(long, env = "MESH_LISTEN", default_value = "0.0.0.0:4150", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where `/ready`, `/live` and `/metrics` are served
    #[arg(long, env = "MESH_ADMIN", default_value = "0.0.0.0:4191", value_name = "ADDRESS")]
    pub admin: SocketAddr,
    /// Where this cluster's mirror controllers serve Imports, host:port, separated by commas
    #[arg(long, env = "MESH_IMPORTS", value_delimiter = ',', value_name = "ADDRESS")]
    pub imports: Vec<ControlAddress>,
    /// Where the API server asks about new pods (HTTPS); without it, nobody is asked
    #[arg(long, env = "MESH_WEBHOOK", requires = "proxy_image", requires = "init_image", value_name = "ADDRESS")]
    pub webhook: Option<SocketAddr>,
    /// The image of the proxy that pods get
    #[arg(long, env = "MESH_PROXY_IMAGE", value_name = "IMAGE")]
    pub proxy_image: Option<String>,
    /// The image of the init container that pods get
    #[arg(long, env = "MESH_INIT_IMAGE", value_name = "IMAGE")]
    pub init_image: Option<String>,
    /// How to reach this cluster's Kubernetes API; without it, as a pod of the cluster
    #[arg(long, env = "MESH_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; without it, its current one
    #[arg(long, env = "MESH_CONTEXT", requires = "kubeconfig")]
    pub context: Option<String>,
    /// The audience that a service-account token must be for
    #[arg(long, env = "MESH_TOKEN_AUDIENCE", default_value = mesh_api::well_known::TOKEN_AUDIENCE)]
    pub token_audience: String,
    /// How long streams have to end when the process is told to stop
    #[arg(long, env = "MESH_DRAIN", default_value = "5s", value_name = "SPAN")]
    pub drain: Span,
    /// How this process logs
    #[command(flatten)]
    pub log: LogFlags,
}

/// What the process runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// Where the admin port is.
    pub admin: SocketAddr,
    /// The mirror controllers.
    pub imports: Vec<ControlAddress>,
    /// The injector, if there is one.
    pub injector: Option<InjectorConfig>,
    /// The Kubernetes API.
    pub cluster: ClusterAccess,
    /// The audience of service-account tokens.
    pub token_audience: String,
    /// How long streams have to end.
    pub drain: Duration,
}

/// How the Kubernetes API is reached.
#[derive(Clone, Debug)]
pub enum ClusterAccess {
    /// As a pod of the cluster.
    InCluster,
    /// As a kubeconfig says.
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// Its context; none means the current one.
        context: Option<String>,
    },
}

/// Why flags make no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A token for nobody would be a token for anybody.
    #[error("--token-audience is empty: name the audience of the projected tokens, `isthmus` by default")]
    NoAudience,
}

impl TryFrom<Flags> for Config {
    type Error = ConfigError;

    fn try_from(flags: Flags) -> Result<Self, ConfigError> {
        if flags.token_audience.is_empty() {
            return Err(ConfigError::NoAudience);
        }
        let cluster = match flags.kubeconfig {
            Some(file) => ClusterAccess::Kubeconfig { file, context: flags.context },
            None => ClusterAccess::InCluster,
        };
        let injector = match (flags.webhook, flags.proxy_image, flags.init_image) {
            (Some(listen), Some(proxy_image), Some(init_image)) => Some(InjectorConfig { listen, proxy_image, init_image }),
            _ => None,
        };
        Ok(Self {
            injector,
            listen: flags.listen,
            admin: flags.admin,
            imports: flags.imports,
            cluster,
            token_audience: flags.token_audience,
            drain: flags.drain.0,
        })
    }
}
