//! Level 3: whole clusters, with kubelet, containerd and pods, each in a network namespace of its own on a network that leads nowhere else.
//!
//! Everything hangs on one process, [`supervise`], and ends with it, which ends with its own standard input:
//!
//! ```text
//! a test, or `clusters up`
//! └─ supervise        in the machine's namespaces: forwards ports of 127.0.0.1, loads images, sweeps up at the end
//!    └─ wan           first process of a PID namespace; its network namespace holds the bridge between the clusters
//!       ├─ node east  first process of another, with a root of its own: containerd, etcd, API server, … kubelet, pods
//!       └─ node west
//! ```
//!
//! Whoever of them dies, by whatever signal, takes all below it along (a PID namespace ends with its first process), and mounts and
//! network namespaces go with their last process. What is left then are empty control groups and a folder: `supervise` removes both, and
//! removes those of a `supervise` that could not.

pub mod cgroups;
pub mod clusters;
pub mod config;
pub mod forward;
pub mod network;
pub mod node;
pub mod plan;
pub mod root;
pub mod supervise;
pub mod wait;

pub use clusters::Clusters;
pub use plan::{Cluster, Plan, Topology};
