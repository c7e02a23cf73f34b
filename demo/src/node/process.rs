//! Processes of pods: started under `mesh internal`, so that they die with this node, each in a process group of its own.
//!
//! Invariant: they are started from the node's main thread, because the kernel's parent-death signal follows the thread that started them.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use mesh_runtime::clock;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::sync::watch;

use super::observed::Ended;

/// What to start and where.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    /// Its working directory.
    pub(crate) directory: PathBuf,
    /// Where its output is appended.
    pub(crate) log: PathBuf,
}

/// How far a process has been asked to stop. It only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// Not at all.
    Run,
    /// By SIGTERM.
    Ask,
    /// By SIGKILL.
    Kill,
}

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) pid: u32,
    pub(crate) since: SystemTime,
}

impl Command {
    /// Starts it.
    pub(crate) fn start(&self) -> io::Result<Running> {
        std::fs::create_dir_all(&self.directory)?;
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.directory).env_clear();
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(&self.environment).env(mesh_runtime::process::PARENT, std::process::id().to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).kill_on_drop(true);
        let child = command.spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("the process ended while it was started"))?;
        Ok(Running { child, pid, since: clock::wall() })
    }
}

impl Running {
    /// Waits until the process has ended, and asks it to as `stop` says. A dropped `stop` kills it.
    pub(crate) async fn ended(mut self, stop: &mut watch::Receiver<Stop>) -> Ended {
        self.signal(*stop.borrow_and_update());
        loop {
            tokio::select! {
                status = self.child.wait() => return self.end(status),
                changed = stop.changed() => {
                    let asked = if changed.is_ok() { *stop.borrow_and_update() } else { Stop::Kill };
                    self.signal(asked);
                    if changed.is_err() {
                        let status = self.child.wait().await;
                        return self.end(status);
                    }
                }
            }
        }
    }

    fn signal(&self, stop: Stop) {
        let signal = match stop {
            Stop::Run => return,
            Stop::Ask => Signal::TERM,
            Stop::Kill => Signal::KILL,
        };
        let group = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(Err(error)) = group.map(|group| kill_process_group(group, signal)) {
            tracing::debug!(%error, pid = self.pid, "signal not sent");
        }
    }

    fn end(&self, status: io::Result<ExitStatus>) -> Ended {
        // What the program started itself must not outlive it: its address goes to another pod.
        self.signal(Stop::Kill);
        let signal = status.as_ref().ok().and_then(ExitStatus::signal);
        let code = match (status, signal) {
            (_, Some(signal)) => 128 + signal,
            (Ok(status), None) => status.code().unwrap_or(-1),
            (Err(_), None) => -1,
        };
        Ended { code, signal, since: self.since, at: clock::wall() }
    }
}

/// Writes a file that only its owner reads, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    std::fs::rename(&fresh, path)
}

/// The pause before a start after `failures` ends in a row: none at first, then doubling up to a minute.
pub(crate) fn pause_after(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => Duration::from_secs(1 << (more - 2).min(6)).min(PAUSE_MAX),
    }
}

/// A process that ran for this long has not failed in a row.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(60);

const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What a container gets of the node's own environment: enough to find programs, nothing of the mesh.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];

#[cfg(test)]
mod tests {
    use super::*;

    fn command(directory: &Path, script: &str) -> Command {
        Command {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: [("GREETING".to_owned(), "hello".to_owned())].into(),
            directory: directory.to_owned(),
            log: directory.join("log"),
        }
    }

    #[tokio::test]
    async fn a_process_gets_its_environment_and_tells_its_exit_code() {
        let directory = tempfile::tempdir().unwrap();
        let (_keep, mut stop) = watch::channel(Stop::Run);
        let ended = command(directory.path(), "echo $GREETING $CARGO; exit 3").start().unwrap().ended(&mut stop).await;
        assert_eq!((ended.code, ended.signal), (3, None));
        assert_eq!(std::fs::read_to_string(directory.path().join("log")).unwrap(), "hello\n");
    }

    #[tokio::test]
    async fn a_process_is_asked_and_then_killed() {
        let directory = tempfile::tempdir().unwrap();
        let (ask, mut stop) = watch::channel(Stop::Run);
        let running = command(directory.path(), "exec sleep 1000").start().unwrap();
        ask.send_replace(Stop::Ask);
        assert_eq!(running.ended(&mut stop).await.signal, Some(15));
        let running = command(directory.path(), "trap '' TERM; while true; do sleep 1000; done").start().unwrap();
        ask.send_replace(Stop::Kill);
        assert_eq!(running.ended(&mut stop).await.code, 137);
    }

    #[test]
    fn a_process_that_keeps_ending_is_started_ever_more_slowly() {
        let seconds: Vec<u64> = (0..10).map(|failures| pause_after(failures).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
