//! Control: watches one cluster and serves its proxies identity, discovery and exports.
//!
//! `observe` reads the Kubernetes API into plain values, `build` computes from them what is where, `publish` keeps what each reader lacks,
//! and `serve` says it. All state that lasts is in the Kubernetes API, so any number of replicas runs side by side without knowing of each
//! other; what differs between them is only their count of versions.

mod accept;
mod apply;
pub mod build;
pub mod config;
pub mod handles;
mod inject;
pub mod issue;
mod metrics;
pub mod observe;
pub mod observed;
pub mod publish;
mod run;
mod serve;

pub use config::{Config, ConfigError, Flags};
pub use run::{BindError, Control, main};
