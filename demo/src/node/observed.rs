//! What the node knows about the processes of one pod: plain values, written by whoever runs them and read for status and report.

use std::net::Ipv4Addr;
use std::time::SystemTime;

/// One pod's processes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Observed {
    /// The pod's address.
    pub(crate) address: Ipv4Addr,
    /// The node's address.
    pub(crate) host: Ipv4Addr,
    /// Its containers, in the order of its spec.
    pub(crate) containers: Vec<Process>,
    /// Its sidecar, when it is meshed.
    pub(crate) proxy: Option<Proxy>,
}

/// One container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) phase: Phase,
    pub(crate) ready: bool,
    pub(crate) restarts: u32,
    /// How it ended last.
    pub(crate) last: Option<Ended>,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    /// Not started, or between two starts.
    Waiting { reason: &'static str, message: Option<String> },
    /// Running as this process.
    Running { pid: u32, since: SystemTime },
    /// Ended for good.
    Ended { code: i32, signal: Option<i32>, since: SystemTime, at: SystemTime },
}

/// An end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) since: SystemTime,
    pub(crate) at: SystemTime,
}

/// A sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Its process, while it runs.
    pub(crate) pid: Option<u32>,
    pub(crate) ready: bool,
    /// Why it is not ready.
    pub(crate) why: Option<String>,
}

impl Observed {
    /// The pids of running containers.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = u32> {
        self.containers.iter().filter_map(|process| match process.phase {
            Phase::Running { pid, .. } => Some(pid),
            Phase::Waiting { .. } | Phase::Ended { .. } => None,
        })
    }
}
