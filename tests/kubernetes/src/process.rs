//! A long-running program of a cluster: its output goes to a file, and it ends with its [`Process`].
//!
//! If the test dies without dropping anything, the pipe to the program's standard input closes, and `kc` ends by that; the mesh's own
//! programs ask the kernel for a signal then. The kernel counts the thread that started a program as its parent, and a fixture that
//! several tests share must outlive the first of them: so one thread, which never ends, starts everything.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// A program that runs.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` as `name`, with its output in `NAME.log` in `directory`.
    ///
    /// # Errors
    /// When it can't be started or the file can't be written.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> anyhow::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("could not write {}", log.display()))?;
        command.env(ENDS_WITH_STDIN, "1").env(PARENT, std::process::id().to_string());
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let (answer, started) = sync_channel(1);
        STARTER.send((command, answer)).context("the thread that starts programs is gone")?;
        let child = started.recv()?.with_context(|| format!("could not start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Polls `condition` until it holds.
    ///
    /// # Errors
    /// When the program ends, or 60 s pass: with the last reason and the end of what the program wrote.
    pub fn until(&mut self, what: &str, mut condition: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let Err(reason) = condition() else { return Ok(()) };
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before {what}:\n{}", self.name, self.last_words());
            }
            if begun.elapsed() > DEADLINE {
                return Err(reason.context(format!("{}: not within {DEADLINE:?}: {what}:\n{}", self.name, self.last_words())));
            }
            sleep(Duration::from_millis(50));
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(LAST_WORDS)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Killed: the API server waits for minutes when etcd is gone first, and nothing here is worth a farewell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Start = (Command, SyncSender<io::Result<Child>>);

/// One start at a time; whoever comes second waits for the first.
static STARTER: LazyLock<SyncSender<Start>> = LazyLock::new(|| {
    let (sender, asked) = sync_channel::<Start>(0);
    std::thread::spawn(move || {
        for (mut command, answer) in asked {
            // Whoever asked waits for it.
            let _ = answer.send(command.spawn());
        }
    });
    sender
});

/// What the mesh's programs read: the process that they end with.
const PARENT: &str = "MESH_PARENT";

/// What `kc` reads: see the head of its main.go.
const ENDS_WITH_STDIN: &str = "KC_ENDS_WITH_STDIN";

/// How long any start may take, on a machine that is busy with everything else.
const DEADLINE: Duration = Duration::from_secs(60);

/// Bytes of a log that a failure shows.
const LAST_WORDS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools;

    #[test]
    fn a_program_whose_starter_is_gone_ends_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(tools::program("MESH_TOOLS_KC").unwrap());
        command.arg("etcd").arg(folder.path().join("etcd")).arg("127.0.0.1:0");
        let mut process = Process::start("etcd", command, folder.path()).unwrap();
        let directory = folder.path().join("etcd/member");
        process
            .until("it has begun", || {
                anyhow::ensure!(directory.exists(), "no data yet");
                Ok(())
            })
            .unwrap();
        // What the kernel does when a process dies.
        drop(process.child.stdin.take());
        let status = process.child.wait().unwrap();
        assert_eq!(status.code(), Some(3), "{}", process.last_words());
    }
}
