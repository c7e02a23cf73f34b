//! Real Kubernetes clusters for tests and for the hand, without Docker, registry or network: the components of Kubernetes are one binary
//! (`kc/`, which `cargo xtask tools` builds), their certificates are made here, and what runs is ended with whoever started it.
//!
//! Level 1 is etcd and the API server, level 2 adds the controller manager and the scheduler ([`ControlPlane`], ready in four seconds, on
//! loopback or in a network of their own); level 3 is whole clusters with nodes in network namespaces ([`Clusters`], ready in half a minute,
//! as root). Everything is reached as a user reaches it, with a kubeconfig.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, reason = "this crate is tests")]

pub mod components;
pub mod control_plane;
pub mod nodes;
pub mod pki;
pub mod private;
pub mod process;
pub mod tools;

pub use control_plane::{ControlPlane, Level, Place};
pub use nodes::Clusters;
pub use pki::{Pki, User};
pub use private::PrivateNetwork;
pub use process::Process;
