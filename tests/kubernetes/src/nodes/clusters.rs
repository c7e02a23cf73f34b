//! Clusters as a test or a person holds them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use super::plan::{Cluster, Plan, Tools, Topology};
use super::supervise;
use super::wait::until;
use crate::tools;

/// What is known of running clusters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    /// One file with a context per cluster.
    pub kubeconfig: PathBuf,
    /// The first process between the clusters. All ends with it.
    pub wan: u32,
    /// Each node's first process, by the cluster's name.
    pub nodes: BTreeMap<String, u32>,
}

/// The clusters `east` and `west`, until dropped; they end with this process, however that ends.
#[derive(Debug)]
pub struct Clusters {
    pub plan: Plan,
    pub ready: Ready,
    supervisor: Child,
    _directory: tempfile::TempDir,
}

impl Clusters {
    /// Starts them by `program` (this package's `clusters`), loads every archive of `images`, and waits until pods can run.
    ///
    /// # Errors
    /// When a tool is missing, this is not root, or something does not start: with the end of every log.
    pub fn start(program: &Path, topology: Topology, images: Vec<PathBuf>) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("isthmus-clusters-").tempdir()?;
        let plan = prepare(directory.path(), topology, images)?;
        let mut command = supervisor(program, &plan)?;
        let mut supervisor = command.stdin(Stdio::piped()).spawn().with_context(|| format!("could not start {}", program.display()))?;
        let ready = wait(&plan, &mut supervisor)?;
        Ok(Self { plan, ready, supervisor, _directory: directory })
    }

    /// What `kubectl` prints in the context of `cluster` when it succeeds.
    ///
    /// # Errors
    /// When it fails; both outputs are in the error.
    pub fn kubectl(&self, cluster: &str, arguments: &[&str]) -> anyhow::Result<String> {
        tools::run(self.command(cluster).args(arguments))
    }

    /// `kubectl` in the context of `cluster`, with arguments and standard input still to be given.
    #[must_use]
    pub fn command(&self, cluster: &str) -> Command {
        let mut command = Command::new(&self.plan.tools.kubectl);
        // What kubectl remembers of a server must not outlive it.
        command.env("HOME", &self.plan.directory).arg("--kubeconfig").arg(&self.ready.kubeconfig).args(["--context", cluster]);
        command
    }

    /// `program` in a network namespace: a cluster's node, or `wan` between them.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn within(&self, place: &str, program: &Path) -> anyhow::Result<Command> {
        let found = if place == "wan" { Some(&self.ready.wan) } else { self.ready.nodes.get(place) };
        let id = found.with_context(|| format!("there is no cluster {place}"))?;
        let mut command = Command::new(&self.plan.tools.nsenter);
        command.arg(format!("--net=/proc/{id}/ns/net")).arg("--").arg(program);
        Ok(command)
    }
}

impl Drop for Clusters {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

/// Writes the plan of two clusters into `directory`.
///
/// # Errors
/// When a tool is missing, or this is not root.
pub fn prepare(directory: &Path, topology: Topology, images: Vec<PathBuf>) -> anyhow::Result<Plan> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "clusters with nodes need root, for namespaces and mounts: run this as root, or leave them out with `cargo test --workspace --exclude mesh-kubernetes-tests`"
    );
    let clusters = ["east", "west"].into_iter().zip(1..).map(|(name, number)| Cluster { name: name.to_owned(), number });
    let plan =
        Plan { directory: directory.to_owned(), id: String::new(), topology, clusters: clusters.collect(), images, tools: Tools::find()? };
    fs::create_dir_all(directory).with_context(|| format!("could not make {}", directory.display()))?;
    fs::write(plan.file(), serde_json::to_vec_pretty(&plan)?)?;
    Ok(plan)
}

/// The command that runs a plan's clusters; where its standard input comes from is still to be said.
///
/// # Errors
/// When its log can't be written.
pub fn supervisor(program: &Path, plan: &Plan) -> anyhow::Result<Command> {
    let log = fs::File::create(plan.directory.join("supervise.log"))?;
    let mut command = Command::new(program);
    command.arg("supervise").arg(plan.file()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

/// Waits until the clusters of `plan` are ready or their supervisor gives up.
///
/// # Errors
/// What the supervisor said.
pub fn wait(plan: &Plan, supervisor: &mut Child) -> anyhow::Result<Ready> {
    let status = until(|| match supervisor.try_wait() {
        Ok(None) => fs::read(plan.directory.join(READY)).ok().map(|text| Ok(Seen::Ready(text))),
        Ok(Some(status)) => Some(Ok(Seen::Ended(status))),
        Err(error) => Some(Err(error)),
    })?;
    match status {
        Seen::Ready(text) => serde_json::from_slice(&text).context("what the supervisor wrote is not readable"),
        Seen::Ended(status) => {
            let said = fs::read_to_string(plan.directory.join(FAILED)).unwrap_or_default();
            let log = fs::read_to_string(plan.directory.join("supervise.log")).unwrap_or_default();
            bail!("the clusters did not start ({status}):\n{said}\n{log}")
        }
    }
}

enum Seen {
    Ready(Vec<u8>),
    Ended(std::process::ExitStatus),
}

/// The clusters that run in `directory`, whoever started them.
///
/// # Errors
/// When none do.
pub fn running(directory: &Path) -> anyhow::Result<(Plan, Ready)> {
    let text = fs::read(directory.join(READY)).context("no clusters are up: `cargo xtask clusters up` starts them")?;
    Ok((Plan::read(&directory.join("plan.json"))?, serde_json::from_slice(&text)?))
}

/// Loads an image archive into every cluster.
///
/// # Errors
/// When one of them refuses it.
pub fn load(plan: &Plan, archive: &Path) -> anyhow::Result<()> {
    for cluster in &plan.clusters {
        supervise::import(plan, cluster, archive)
            .with_context(|| format!("cluster {} does not take {}", cluster.name, archive.display()))?;
    }
    Ok(())
}

/// There when the clusters are ready.
pub const READY: &str = "ready.json";

/// There when they failed to start, with the reason.
pub const FAILED: &str = "failed.txt";
