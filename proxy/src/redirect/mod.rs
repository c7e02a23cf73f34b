//! `mesh-init`: makes the kernel of a pod hand its connections to the proxy.
//!
//! What to write is decided here and in the two files that render it, from numbers only, so that nothing that anybody chose can become a
//! rule of its own. nft writes one table in one transaction, for IPv4 and IPv6 at once, and may be run again; where there is no nft,
//! iptables and ip6tables do. What the proxy itself sends, by its user, is left alone.

mod apply;
mod iptables;
mod nft;

use std::num::NonZeroU16;
use std::path::PathBuf;

use mesh_api::inject::PortRanges;
use mesh_runtime::telemetry::{self, LogFlags};

pub use apply::ApplyError;
pub use iptables::Family;

/// The flags of `mesh-init`.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "mesh-init", version, about = "Redirects a pod's connections to its proxy", after_help = EXAMPLE)]
pub struct InitFlags {
    /// The user that the proxy runs as, whose own connections are left alone
    #[arg(long, env = "MESH_PROXY_UID", value_name = "UID")]
    pub proxy_uid: u32,
    /// Where the proxy takes redirected outgoing connections
    #[arg(long, env = "MESH_OUTBOUND_PORT", value_name = "PORT")]
    pub outbound_port: NonZeroU16,
    /// Where the proxy takes redirected incoming connections
    #[arg(long, env = "MESH_INBOUND_PORT", value_name = "PORT")]
    pub inbound_port: NonZeroU16,
    /// Ports of the pod that are reached without the proxy, such as 4143,9000-9010
    #[arg(long, env = "MESH_SKIP_INBOUND_PORTS", default_value = "", value_name = "PORTS")]
    pub skip_inbound_ports: PortRanges,
    /// Ports that the pod calls without the proxy
    #[arg(long, env = "MESH_SKIP_OUTBOUND_PORTS", default_value = "", value_name = "PORTS")]
    pub skip_outbound_ports: PortRanges,
    /// The program that sets the rules
    #[arg(long, env = "MESH_NFT", default_value = "nft", value_name = "PROGRAM")]
    pub nft: PathBuf,
    /// The program that is used when nft can't be
    #[arg(long, env = "MESH_IPTABLES", default_value = "iptables-restore", value_name = "PROGRAM")]
    pub iptables: PathBuf,
    /// The same for IPv6
    #[arg(long, env = "MESH_IP6TABLES", default_value = "ip6tables-restore", value_name = "PROGRAM")]
    pub ip6tables: PathBuf,
    /// Print the rules for nft, and set nothing
    #[arg(long)]
    pub print: bool,
    /// How it logs
    #[command(flatten)]
    pub log: LogFlags,
}

/// What is redirected where. Numbers only: whatever is rendered from it means what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The user whose connections are left alone.
    pub proxy_uid: u32,
    /// Where outgoing connections go.
    pub outbound: NonZeroU16,
    /// Where incoming connections go.
    pub inbound: NonZeroU16,
    /// Incoming ports that are left alone.
    pub skip_inbound: PortRanges,
    /// Outgoing ports that are left alone.
    pub skip_outbound: PortRanges,
}

impl From<&InitFlags> for Redirect {
    fn from(flags: &InitFlags) -> Self {
        Self {
            proxy_uid: flags.proxy_uid,
            outbound: flags.outbound_port,
            inbound: flags.inbound_port,
            skip_inbound: flags.skip_inbound_ports.clone(),
            skip_outbound: flags.skip_outbound_ports.clone(),
        }
    }
}

impl Redirect {
    /// The rules for `nft -f -`.
    #[must_use]
    pub fn nft(&self) -> String {
        nft::render(self)
    }

    /// The rules for `iptables-restore` or `ip6tables-restore`, with `--noflush`.
    #[must_use]
    pub fn iptables(&self, family: Family) -> String {
        iptables::render(self, family)
    }
}

/// Sets the redirect, and ends.
///
/// # Errors
/// When neither nft nor iptables can.
pub fn init(flags: &InitFlags) -> anyhow::Result<()> {
    let redirect = Redirect::from(flags);
    if flags.print {
        use std::io::Write as _;
        std::io::stdout().lock().write_all(redirect.nft().as_bytes())?;
        return Ok(());
    }
    telemetry::init(&flags.log)?;
    apply::apply(flags, &redirect)?;
    Ok(())
}

const EXAMPLE: &str = "Example:\n  mesh-init --proxy-uid 2140 --outbound-port 4141 --inbound-port 4142 --skip-inbound-ports 4143,4191";
