//! Dying with the parent: a process started by the demo's supervisor ends when that ends, killed or not.
//!
//! The kernel counts the *thread* that started a process as its parent here: a supervisor starts its processes from a thread that lives as
//! long as it does (its main thread, or a worker; never `spawn_blocking`).

use std::io;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The environment variable in which a supervisor names its own pid.
pub const PARENT: &str = "MESH_PARENT";

/// When `MESH_PARENT` names our parent, asks the kernel to kill us when it dies. Call it first thing in `main`, from the main thread.
///
/// # Errors
/// When the variable is no pid, when that process is not our parent (it has died already), or when the kernel refuses.
pub fn die_with_parent() -> io::Result<()> {
    let Ok(parent) = std::env::var(PARENT) else { return Ok(()) };
    let expected = parent
        .parse::<i32>()
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{PARENT}={parent:?} is not a process id")))?;
    die_with(expected)
}

/// The same, with the parent's pid given.
///
/// # Errors
/// When `expected` is not our parent (it has died already), or when the kernel refuses.
pub fn die_with(expected: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the call above: then nobody would send the signal.
    if getppid() == Some(expected) {
        return Ok(());
    }
    set_parent_process_death_signal(None)?;
    Err(io::Error::other(format!("process {} that started this one is gone", expected.as_raw_nonzero())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_parent_is_already_gone_says_so() {
        let nobody = Pid::from_raw(i32::MAX).unwrap();
        assert!(die_with(nobody).unwrap_err().to_string().contains("is gone"));
    }
}
