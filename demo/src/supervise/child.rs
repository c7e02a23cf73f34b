//! A process of a cluster, kept running: one that dies is started again after a while, which is long enough to see what its absence does.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use mesh_runtime::drain::Drain;
use rustix::process::{Pid, Signal, kill_process};

use super::layout::{Cluster, Component};
use super::state::Started;

/// What to keep running.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) cluster: String,
    pub(super) component: Component,
    pub(super) replica: u8,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) log: PathBuf,
}

impl Child {
    /// A replica of `component`, started as `program` with the words that stand for the component there.
    pub(super) fn of(cluster: &Cluster, component: Component, replica: u8, program: &Program) -> Self {
        let mut arguments = program.words(component);
        arguments.extend(cluster.flags(component, replica, &program.binary.display().to_string()));
        Self {
            cluster: cluster.name.to_string(),
            component,
            replica,
            program: program.binary.clone(),
            arguments,
            log: cluster.log(component, replica),
        }
    }

    /// Keeps it running until the drain starts, then ends it.
    pub(super) async fn keep(self, started: Started, drain: Drain) {
        loop {
            match self.start() {
                Ok(child) => {
                    started.set(&self.cluster, self.component.as_str(), self.replica, child.id());
                    let how = self.ended(child, &drain).await;
                    started.set(&self.cluster, self.component.as_str(), self.replica, None);
                    if drain.is_started() {
                        return;
                    }
                    self.say(&format!("ended ({how})"));
                }
                Err(error) => self.say(&format!("could not be started ({error:#})")),
            }
            tokio::select! {
                _ = drain.started() => return,
                () = tokio::time::sleep(START_AGAIN) => {}
            }
        }
    }

    fn start(&self) -> anyhow::Result<tokio::process::Child> {
        if let Some(directory) = self.log.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log).with_context(|| format!("log {}", self.log.display()))?;
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.arguments).env_clear().env(mesh_runtime::process::PARENT, std::process::id().to_string());
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).kill_on_drop(true);
        command.spawn().with_context(|| self.program.display().to_string())
    }

    /// Waits for its end; once the drain starts it is asked to end, and killed when it does not.
    async fn ended(&self, mut child: tokio::process::Child, drain: &Drain) -> String {
        tokio::select! {
            status = child.wait() => return status.map_or_else(|error| error.to_string(), |status| status.to_string()),
            _ = drain.started() => {}
        }
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
            tracing::debug!(%error, component = self.component.as_str(), "signal not sent");
        }
        let grace = if self.component == Component::Node { NODE_GRACE } else { GRACE };
        if tokio::time::timeout(grace, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
        "ended with the demo".to_owned()
    }

    fn say(&self, what: &str) {
        let mut out = std::io::stderr().lock();
        let (cluster, component) = (&self.cluster, self.component.as_str());
        let _ =
            writeln!(out, "{cluster}: {component} {what}; starting it again in {} s; log: {}", START_AGAIN.as_secs(), self.log.display());
    }
}

/// The program that holds every component, and the words under which it runs each.
#[derive(Clone, Debug)]
pub struct Program {
    /// The binary.
    pub binary: PathBuf,
    /// The words for each component, before its flags.
    pub components: Vec<(Component, Vec<String>)>,
}

impl Program {
    fn words(&self, component: Component) -> Vec<String> {
        self.components.iter().find(|(held, _)| *held == component).map(|(_, words)| words.clone()).unwrap_or_default()
    }
}

/// The pause before a dead process is started again.
const START_AGAIN: Duration = Duration::from_secs(10);

/// How long a process may take to end with the demo.
const GRACE: Duration = Duration::from_secs(2);
const NODE_GRACE: Duration = Duration::from_secs(5);

/// What processes get of the supervisor's environment: nothing that could configure the mesh but how it logs.
const INHERITED: [&str; 7] = ["PATH", "HOME", "LANG", "TMPDIR", "RUST_BACKTRACE", "MESH_LOG", "MESH_LOG_FORMAT"];
