//! Clusters on a laptop: the workload, the node that runs pods as processes, and the supervisor that starts clusters and links them.

pub mod node;
pub mod shop;
pub mod supervise;
