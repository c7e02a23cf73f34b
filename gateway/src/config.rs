//! Flags to a typed configuration, parsed once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use mesh_api::client::BootstrapFlags;
use mesh_api::connect::ControlAddress;
use mesh_runtime::clock::Span;
use mesh_runtime::telemetry::LogFlags;

/// Accepts tunnels from linked clusters, and is the way out for clients without a proxy.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "mesh-gateway", version, after_help = EXAMPLE)]
pub struct Flags {
    /// Who it is and where its control is.
    #[command(flatten)]
    pub bootstrap: BootstrapFlags,
    /// Where peers dial their tunnels
    #[arg(long, env = "MESH_LISTEN", default_value = "0.0.0.0:4143")]
    pub listen: SocketAddr,
    /// The address that clients without a proxy reach imported services at, inside this cluster only
    #[arg(long, env = "MESH_EGRESS_ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub egress_address: IpAddr,
    /// Where tunnels to this cluster's control plane lead, unless that is what --control says
    #[arg(long, env = "MESH_CONTROL_DIAL", value_delimiter = ',')]
    pub control_dial: Vec<ControlAddress>,
    /// Threads that carry tunnels; one is used until it is busy. Default: one per core
    #[arg(long, env = "MESH_WORKERS")]
    pub workers: Option<NonZeroUsize>,
    /// How long open tunnels may go on once it is told to stop
    #[arg(long, env = "MESH_DRAIN", default_value = "30s")]
    pub drain: Span,
    /// Tunnels that one peer may have open here; past it the answer is `busy`
    #[arg(long, env = "MESH_PEER_TUNNELS_MAX", default_value_t = 10_000)]
    pub peer_tunnels_max: usize,
    /// How it logs.
    #[command(flatten)]
    pub log: LogFlags,
}

/// What a gateway runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is and where its control is.
    pub bootstrap: BootstrapFlags,
    /// Where peers dial their tunnels.
    pub listen: SocketAddr,
    /// How it serves.
    pub settings: Settings,
}

/// How a gateway serves, whoever it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of the way out.
    pub egress_address: IpAddr,
    /// Where tunnels to the control plane lead.
    pub control: Vec<ControlAddress>,
    /// Threads.
    pub workers: NonZeroUsize,
    /// How much peers may ask.
    pub limits: Limits,
}

/// How much peers may ask of one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tunnels of one peer; past it the answer is `busy`.
    pub per_peer: usize,
    /// Tunnels of all peers, and connections that have not said who they are; past it connections are closed unanswered.
    pub total: usize,
    /// How long a request may take to arrive after the handshake.
    pub request: Duration,
    /// How long an endpoint or a control may take to accept a connection.
    pub dial: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_peer: 10_000, total: 20_000, request: Duration::from_secs(10), dial: Duration::from_secs(2) }
    }
}

/// Why flags are no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Two listeners cannot share an address.
    #[error("--listen and --admin are both {0}: give them different ports")]
    SameAddress(SocketAddr),
}

impl TryFrom<Flags> for Config {
    type Error = ConfigError;

    fn try_from(flags: Flags) -> Result<Self, ConfigError> {
        if flags.listen == flags.bootstrap.admin && flags.listen.port() != 0 {
            return Err(ConfigError::SameAddress(flags.listen));
        }
        let control = if flags.control_dial.is_empty() { flags.bootstrap.control.clone() } else { flags.control_dial };
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let settings = Settings {
            egress_address: flags.egress_address,
            control,
            workers: flags.workers.unwrap_or_else(cores),
            limits: Limits { per_peer: flags.peer_tunnels_max, ..Limits::default() },
        };
        Ok(Self { bootstrap: flags.bootstrap, listen: flags.listen, settings })
    }
}

const EXAMPLE: &str =
    "Example:\n  mesh-gateway --cluster east --trust-domain east.mesh --control mesh-control.isthmus-system:4150 --listen 0.0.0.0:4143";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn flags(extra: &[&str]) -> Flags {
        let base = ["mesh-gateway", "--cluster", "east", "--trust-domain", "east.mesh", "--control", "127.1.0.2:4150"];
        Flags::try_parse_from(base.iter().chain(extra)).unwrap()
    }

    #[test]
    fn control_tunnels_lead_to_the_control_that_issues_svids_unless_told_otherwise() {
        let config = Config::try_from(flags(&[])).unwrap();
        assert_eq!(config.settings.control, config.bootstrap.control);
        let config = Config::try_from(flags(&["--control-dial", "127.1.0.3:1,127.1.0.4:2"])).unwrap();
        assert_eq!(config.settings.control.len(), 2);
    }

    #[test]
    fn two_listeners_on_one_address_are_refused_before_anything_starts() {
        let error = Config::try_from(flags(&["--listen", "127.1.0.4:4191", "--admin", "127.1.0.4:4191"])).unwrap_err();
        assert!(error.to_string().contains("different ports"));
    }
}
