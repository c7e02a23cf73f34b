//! Faults: processes of a world are ended by their pid, the way a node or a person would end them.

use rustix::process::{Pid, Signal, kill_process};

use crate::World;

impl World {
    /// SIGKILL to every process of `component` in `cluster`; gives how many there were.
    ///
    /// # Errors
    /// When the world's state can't be read.
    pub fn kill(&self, cluster: &str, component: &str) -> anyhow::Result<usize> {
        let pids = self.pids(cluster, component)?;
        for pid in &pids {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::KILL)?;
            }
        }
        anyhow::ensure!(!pids.is_empty(), "no {component} runs in {cluster}");
        Ok(pids.len())
    }
}
