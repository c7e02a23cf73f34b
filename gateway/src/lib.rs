//! The one door between clusters: accepts tunnels from linked clusters, checks who asks for what, joins them to a local endpoint and copies
//! bytes; and the way out for clients without a proxy.
//!
//! Invariants: `accepted` is said after the endpoint was dialled; targets come from the snapshot's table of what this peer may import, and a
//! name is never turned into an address; a gateway can neither read nor forge what it copies.

mod accept;
mod config;
mod egress;
mod forward;
mod metrics;
mod plan;
mod quota;
mod run;
pub mod serve;

pub use config::{Config, ConfigError, Flags, Limits, Settings};
pub use metrics::Metrics;
pub use run::{Gateway, GatewayError, main};
