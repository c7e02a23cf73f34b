//! The control groups that a cluster's pods live in. Kubelet wants its root to exist below each controller; nobody but us removes it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::plan::Plan;

/// Makes the group `name` below each controller.
///
/// # Errors
/// When the machine has no controllers mounted one by one (version 1), or they can't be written.
pub fn make(name: &str) -> anyhow::Result<()> {
    let controllers = controllers()?;
    ensure!(
        controllers.iter().any(|path| path.ends_with("memory")),
        "{CGROUPS} has no memory controller of version 1: clusters with nodes run on machines that mount control groups so"
    );
    for controller in controllers {
        let group = controller.join(name);
        fs::create_dir_all(&group).with_context(|| format!("could not make {}", group.display()))?;
        for setting in ["cpuset.cpus", "cpuset.mems"] {
            let from = controller.join(setting);
            if from.exists() {
                fs::write(group.join(setting), fs::read(&from)?).with_context(|| format!("could not set {setting} of {name}"))?;
            }
        }
    }
    Ok(())
}

/// What a sweep left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    Clean,
    /// A group of the plan still has a process.
    Busy,
}

/// Removes the groups of clusters that have ended: those of `plan`, and those whose process is gone.
pub fn sweep(plan: &Plan) -> Swept {
    let mut swept = Swept::Clean;
    for controller in controllers().unwrap_or_default() {
        for entry in fs::read_dir(controller).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_prefix(Plan::CGROUPS).and_then(|rest| rest.split('-').next()) else { continue };
            if id == plan.id || !Path::new("/proc").join(id).exists() {
                remove(&entry.path());
                if id == plan.id && entry.path().exists() {
                    swept = Swept::Busy;
                }
            }
        }
    }
    swept
}

/// Removes a group and those below it. One that still has a process stays, for the next sweep.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

/// Each controller's folder, and `unified`, where runc makes groups as well.
fn controllers() -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(CGROUPS).with_context(|| format!("could not read {CGROUPS}"))?;
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.map(|entry| entry.path()).collect())
}

const CGROUPS: &str = "/sys/fs/cgroup";
