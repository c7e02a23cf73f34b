//! What a proxy is started with: flags of the command line and the environment, read once into domain types.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use mesh_api::client::BootstrapFlags;
use mesh_api::inject::{Inbound, Probe};
use mesh_names::{Host, ServicePort};
use mesh_runtime::telemetry::LogFlags;

pub use crate::inbound::Plaintext;

/// The flags of `mesh-proxy`.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "mesh-proxy",
    about = "Carries the traffic of one workload: outbound (routes, balances, encrypts) and inbound (authenticates)"
)]
pub struct Flags {
    /// What every program of the mesh is started with.
    #[command(flatten)]
    pub bootstrap: BootstrapFlags,
    /// Where applications find the HTTP proxy: absolute-form requests, CONNECT, and requests whose Host is a mesh name
    #[arg(long, env = "MESH_OUTBOUND", default_value = "127.0.0.1:4140", value_name = "ADDR:PORT")]
    pub outbound: SocketAddr,
    /// Where other proxies and gateways open sessions
    #[arg(long, env = "MESH_INBOUND", default_value = "0.0.0.0:4143", value_name = "ADDR:PORT")]
    pub inbound: SocketAddr,
    /// The address that the application listens on (default: the workload's own, so that what it binds to loopback stays its own)
    #[arg(long, env = "MESH_APP", value_name = "ADDR")]
    pub app: Option<IpAddr>,
    /// The workload's own address, as the cluster knows it (default: that of --inbound, else that of --app)
    #[arg(long, env = "MESH_POD_IP", value_name = "ADDR")]
    pub address: Option<IpAddr>,
    /// A local address for one service, for clients that speak TCP and no HTTP proxy; may be repeated
    #[arg(long, env = "MESH_TCP_LISTENER", value_delimiter = ',', value_name = "ADDR:PORT=HOST:PORT")]
    pub tcp_listener: Vec<ServiceListener>,
    /// Where the kernel redirects the workload's outgoing connections to
    #[arg(long, env = "MESH_TRANSPARENT_OUTBOUND", value_name = "ADDR:PORT")]
    pub transparent_outbound: Option<SocketAddr>,
    /// Where the kernel redirects plain connections to the workload to
    #[arg(long, env = "MESH_TRANSPARENT_INBOUND", value_name = "ADDR:PORT")]
    pub transparent_inbound: Option<SocketAddr>,
    /// What becomes of plaintext from pods that are not meshed, where connections are redirected
    #[arg(long, env = "MESH_PLAINTEXT", value_enum, default_value_t)]
    pub plaintext: Inbound,
    /// What the kubelet asks the containers, which is answered in plaintext all the same; separated by blanks
    #[arg(long, env = "MESH_PROBES", value_delimiter = ' ', value_name = "PORT/PATH")]
    pub probes: Vec<Probe>,
    /// Threads at most; the first is kept busy before the next is used (default: one for each core)
    #[arg(long, env = "MESH_WORKERS", value_name = "N")]
    pub workers: Option<NonZeroUsize>,
    /// How long connections may take to end after SIGTERM, in seconds
    #[arg(long, env = "MESH_DRAIN", default_value_t = 30, value_name = "SECONDS")]
    pub drain: u64,
    /// Log a line for each request and connection
    #[arg(long, env = "MESH_ACCESS_LOG")]
    pub access_log: bool,
    /// How it logs.
    #[command(flatten)]
    pub log: LogFlags,
}

/// A local address that stands for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceListener {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The service's name.
    pub host: Host,
    /// The service's port.
    pub port: ServicePort,
}

/// Why a text is no service listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no listener: write ADDR:PORT=HOST:PORT, such as 127.0.0.1:5432=ledger.shop.svc.clusterset.local:5432")]
pub struct ListenerError(String);

impl FromStr for ServiceListener {
    type Err = ListenerError;

    fn from_str(text: &str) -> Result<Self, ListenerError> {
        let parse = || {
            let (listen, target) = text.split_once('=')?;
            let (host, port) = target.rsplit_once(':')?;
            Some(Self { listen: listen.parse().ok()?, host: host.parse().ok()?, port: port.parse().ok()? })
        };
        parse().ok_or_else(|| ListenerError(text.to_owned()))
    }
}

/// A proxy's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// How it becomes someone and learns the mesh.
    pub bootstrap: BootstrapFlags,
    /// What it carries.
    pub data: DataConfig,
    /// How long connections may take to end.
    pub drain: Duration,
}

/// What a proxy carries, and where.
#[derive(Clone, Debug)]
pub struct DataConfig {
    /// The HTTP proxy for the workload.
    pub outbound: SocketAddr,
    /// Where sessions arrive.
    pub inbound: SocketAddr,
    /// The address that the application listens on.
    pub app: IpAddr,
    /// The workload's own address.
    pub address: IpAddr,
    /// Addresses that stand for one service each.
    pub listeners: Vec<ServiceListener>,
    /// Where redirected outgoing connections arrive.
    pub transparent_outbound: Option<SocketAddr>,
    /// Where redirected plain connections to the workload arrive.
    pub transparent_inbound: Option<SocketAddr>,
    /// What is let in without an identity.
    pub plaintext: Plaintext,
    /// Ports of the workload that are ours: nobody reaches them through a session.
    pub own_ports: Vec<u16>,
    /// Worker threads at most.
    pub workers: NonZeroUsize,
    /// Whether each request is logged.
    pub access_log: bool,
}

/// Why the flags make no configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Two listeners have the same address.
    #[error("two listeners have the address {0}: give each its own")]
    AddressTwice(SocketAddr),
    /// Nothing says where the workload is.
    #[error("the workload's address is not known: give --address (in a pod: MESH_POD_IP from status.podIP)")]
    NoAddress,
}

impl TryFrom<Flags> for Config {
    type Error = ConfigError;

    fn try_from(flags: Flags) -> Result<Self, ConfigError> {
        let mut addresses = vec![flags.outbound, flags.inbound];
        addresses.extend(flags.tcp_listener.iter().map(|listener| listener.listen));
        addresses.extend(flags.transparent_outbound.into_iter().chain(flags.transparent_inbound));
        let twice = |at: usize| addresses[at].port() != 0 && addresses[..at].contains(&addresses[at]);
        if let Some(at) = (1..addresses.len()).find(|at| twice(*at)) {
            return Err(ConfigError::AddressTwice(addresses[at]));
        }
        let inbound_ip = Some(flags.inbound.ip()).filter(|ip| !ip.is_unspecified());
        let app = flags.app.filter(|ip| !ip.is_unspecified());
        let address = flags.address.or(inbound_ip).or(app).ok_or(ConfigError::NoAddress)?;
        let mut own_ports: Vec<u16> = addresses.iter().map(SocketAddr::port).collect();
        own_ports.push(flags.bootstrap.admin.port());
        let data = DataConfig {
            outbound: flags.outbound,
            inbound: flags.inbound,
            app: app.unwrap_or(address),
            address,
            listeners: flags.tcp_listener,
            transparent_outbound: flags.transparent_outbound,
            transparent_inbound: flags.transparent_inbound,
            plaintext: Plaintext { policy: flags.plaintext, probes: flags.probes },
            own_ports,
            workers: flags.workers.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
            access_log: flags.access_log,
        };
        Ok(Self { bootstrap: flags.bootstrap, data, drain: Duration::from_secs(flags.drain) })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn flags(more: &[&str]) -> Flags {
        let base = ["mesh-proxy", "--control", "127.2.0.2:4150", "--trust-domain", "west.mesh", "--cluster", "west"];
        Flags::try_parse_from(base.iter().chain(more)).unwrap()
    }

    #[test]
    fn the_workloads_address_is_that_of_the_inbound_listener_unless_it_is_given() {
        let address = |more: &[&str]| Config::try_from(flags(more)).unwrap().data.address.to_string();
        assert_eq!(address(&["--inbound", "127.2.64.1:4143"]), "127.2.64.1");
        assert_eq!(address(&["--inbound", "127.2.64.1:4143", "--address", "10.0.0.1"]), "10.0.0.1");
        assert_eq!(address(&["--app", "127.2.64.9"]), "127.2.64.9");
        assert_eq!(Config::try_from(flags(&[])).unwrap_err(), ConfigError::NoAddress);
    }

    #[test]
    fn an_application_is_called_at_the_workloads_address_and_not_on_loopback() {
        let app = |more: &[&str]| Config::try_from(flags(more)).unwrap().data.app.to_string();
        assert_eq!(app(&["--address", "10.0.0.1"]), "10.0.0.1");
        assert_eq!(app(&["--address", "10.0.0.1", "--app", "127.0.0.1"]), "127.0.0.1");
    }

    #[test]
    fn a_listener_for_one_service_is_read_from_one_flag() {
        let read = flags(&["--tcp-listener", "127.2.64.1:5432=ledger.shop.svc.clusterset.local:5432"]);
        assert_eq!(read.tcp_listener[0].host.as_str(), "ledger.shop.svc.clusterset.local");
        assert!("127.2.64.1:5432".parse::<ServiceListener>().is_err());
    }

    #[test]
    fn two_listeners_never_share_an_address() {
        let same = flags(&["--address", "127.2.64.1", "--outbound", "127.2.64.1:4143", "--inbound", "127.2.64.1:4143"]);
        assert!(Config::try_from(same).is_err());
    }
}
