//! The process that all of the clusters hangs on: starts them, carries ports of 127.0.0.1 to their API servers, loads images, and removes
//! what they leave. It ends when its standard input does (or, detached, never by that), and when the clusters' first process does.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use rustix::process::{WaitOptions, wait};
use serde_json::Value;

use super::clusters::{FAILED, READY, Ready};
use super::plan::{API_PORT, Cluster, Plan};
use super::wait::{until, until_at_most};
use super::{cgroups, config, forward, network, node};
use crate::{pki, tools};

/// Whether the supervisor ends with its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// With whoever holds the other end.
    Tied,
    /// When the clusters are taken down.
    Detached,
}

/// Runs the clusters of the plan in `file` to their end.
///
/// # Errors
/// When they do not start. Their folder, with the logs, then stays for whoever started them.
pub fn run(file: &Path, life: Life) -> anyhow::Result<()> {
    let mut plan = Plan::read(file)?;
    plan.id = std::process::id().to_string();
    replace(file, &serde_json::to_vec_pretty(&plan)?)?;
    cgroups::sweep(&plan);
    let input = (life == Life::Tied).then(standard_input_ends);
    let mut wan = first_process(&plan, Command::new(&plan.tools.unshare).args(UNSHARE), &["wan"])?;
    let outcome = start(&plan, &mut wan).and_then(|ready| replace(&plan.directory.join(READY), &serde_json::to_vec_pretty(&ready)?));
    let outcome = outcome.map_err(|error| error.context(last_words(&plan)));
    match &outcome {
        Ok(()) => {
            until(|| (!matches!(wan.try_wait(), Ok(None)) || input.as_ref().is_some_and(JoinHandle::is_finished)).then_some(()));
        }
        Err(error) => replace(&plan.directory.join(FAILED), format!("{error:?}").as_bytes())?,
    }
    let _ = wan.kill();
    let _ = wan.wait();
    let _ = until_at_most(DEADLINE, || (cgroups::sweep(&plan) == cgroups::Swept::Clean).then_some(()));
    if outcome.is_ok() {
        fs::remove_dir_all(&plan.directory).with_context(|| format!("could not remove {}", plan.directory.display()))?;
    }
    outcome
}

/// The first process between the clusters: makes the network, starts a node in each namespace, and waits for its own end.
///
/// # Errors
/// When the network can't be made or a node ends.
pub fn wan(file: &Path) -> anyhow::Result<()> {
    let plan = Plan::read(file)?;
    let input = standard_input_ends();
    network::make(&plan)?;
    let mut nodes = Vec::new();
    for cluster in &plan.clusters {
        let mut command = Command::new(&plan.tools.nsenter);
        command.arg(format!("--net=/run/netns/{}", cluster.name)).arg("--").arg(&plan.tools.unshare).args(UNSHARE_NODE);
        nodes.push(first_process(&plan, &mut command, &["node", &cluster.name])?);
    }
    replace(&plan.directory.join(NETWORK), b"")?;
    until(|| match wait(WaitOptions::NOHANG) {
        _ if input.is_finished() => Some(Ok(())),
        // Whoever else becomes a child of the first process is reaped on the way.
        Ok(Some((ended, status))) if nodes.iter().any(|node| node.id().cast_signed() == ended.as_raw_nonzero().get()) => {
            Some(Err(anyhow!("a node ended ({status:?})")))
        }
        Ok(_) => None,
        Err(error) => Some(Err(error.into())),
    })
}

/// The first process of one node.
///
/// # Errors
/// When something does not start.
pub fn node(file: &Path, cluster: &str) -> anyhow::Result<()> {
    node::run(&Plan::read(file)?, cluster)
}

fn start(plan: &Plan, wan: &mut Child) -> anyhow::Result<Ready> {
    let wan = Mutex::new(wan);
    holds("the network is there", &wan, || {
        ensure!(plan.directory.join(NETWORK).exists(), "its first process is not that far");
        Ok(())
    })?;
    let file = plan.file().display().to_string();
    let first = process(&["wan", &file])?;
    let mut servers = Vec::new();
    for cluster in &plan.clusters {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        servers.push(listener.local_addr()?);
        let namespace = Path::new("/proc").join(first.to_string()).join("root").join("run/netns").join(&cluster.name);
        forward::forward(listener, &namespace, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), API_PORT))?;
    }
    let kubeconfigs = thread::scope(|scope| {
        let wan = &wan;
        let bring = |(cluster, server)| scope.spawn(move || Bringing { plan, cluster, wan }.up(server));
        let brought: Vec<_> = plan.clusters.iter().zip(servers).map(bring).collect();
        brought.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("a thread panicked"))).collect::<anyhow::Result<Vec<_>>>()
    })?;
    let kubeconfig = plan.directory.join("kubeconfig");
    replace(&kubeconfig, &serde_json::to_vec_pretty(&pki::merged(&kubeconfigs))?)?;
    let node = |cluster: &Cluster| Ok((cluster.name.clone(), process(&["node", &cluster.name, &file])?));
    Ok(Ready { kubeconfig, wan: first, nodes: plan.clusters.iter().map(node).collect::<anyhow::Result<_>>()? })
}

/// One cluster on its way up, seen from the machine.
struct Bringing<'a> {
    plan: &'a Plan,
    cluster: &'a Cluster,
    wan: &'a Mutex<&'a mut Child>,
}

impl Bringing<'_> {
    /// Loads the images while the API server starts, waits until pods can run, and gives the kubeconfig.
    fn up(&self, server: SocketAddr) -> anyhow::Result<Value> {
        let (root, name) = (self.plan.root(self.cluster), &self.cluster.name);
        let socket = root.join(config::SOCKET.trim_start_matches('/'));
        self.holds("containerd answers", || ctr(self.plan, &socket, &["version"]))?;
        for image in &self.plan.images {
            ctr(self.plan, &socket, &["images", "import", &image.display().to_string()])?;
        }
        let inside = root.join("etc/kubernetes/pki/admin.kubeconfig");
        let mut kubeconfig = Value::Null;
        self.holds("the API server is ready", || {
            kubeconfig = serde_json::from_slice(&fs::read(&inside)?)?;
            Ok(())
        })?;
        kubeconfig["clusters"][0]["cluster"]["server"] = format!("https://{server}").into();
        let outside = self.plan.folder(self.cluster).join("kubeconfig");
        replace(&outside, &serde_json::to_vec_pretty(&kubeconfig)?)?;
        self.holds("the node is ready", || {
            let ready = r#"jsonpath={.items[0].status.conditions[?(@.type=="Ready")].status}"#;
            let said = self.kubectl(&outside, &["get", "nodes", "--output", ready])?;
            ensure!(said == "True", "Ready of {name}'s node is {said:?}");
            // Pods need it, and it is made last.
            self.kubectl(&outside, &["get", "--namespace=default", "serviceaccount/default"]).map(drop)
        })?;
        Ok(kubeconfig)
    }

    fn kubectl(&self, kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.plan.tools.kubectl);
        tools::run(command.env("HOME", &self.plan.directory).arg("--kubeconfig").arg(kubeconfig).args(arguments))
    }

    fn holds(&self, what: &str, condition: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        holds(&format!("{what} in {}", self.cluster.name), self.wan, condition)
    }
}

/// Imports an archive into a node's containerd, for kubelet's use.
///
/// # Errors
/// When containerd refuses it.
pub fn import(plan: &Plan, cluster: &Cluster, archive: &Path) -> anyhow::Result<()> {
    let socket = plan.root(cluster).join(config::SOCKET.trim_start_matches('/'));
    ctr(plan, &socket, &["images", "import", &archive.display().to_string()])
}

fn ctr(plan: &Plan, socket: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(plan.tools.node_root.join("usr/bin/ctr"));
    tools::run(command.arg("--address").arg(socket).args(["--namespace", "k8s.io"]).args(arguments)).map(drop)
}

/// Starts this program again, as the first process of namespaces that `command` makes. Its standard input ends with this process.
fn first_process(plan: &Plan, command: &mut Command, arguments: &[&str]) -> anyhow::Result<Child> {
    let log = plan.directory.join(format!("{}.log", arguments.join("-")));
    let output = File::create(&log).with_context(|| format!("could not write {}", log.display()))?;
    let own = std::env::current_exe().context("this program does not know where it lies")?;
    command.arg(own).args(arguments).arg(plan.file()).stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
    command.spawn().with_context(|| format!("could not start {command:?}"))
}

/// The process that this program runs as with these arguments.
fn process(arguments: &[&str]) -> anyhow::Result<u32> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).skip(1).filter(|word| !word.is_empty()).collect();
        if words.iter().copied().eq(arguments.iter().map(|word| word.as_bytes())) {
            return Ok(id);
        }
    }
    bail!("no process has the arguments {arguments:?}")
}

/// Looks until `condition` holds, while the clusters' first process lives.
fn holds(what: &str, wan: &Mutex<&mut Child>, mut condition: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let begun = Instant::now();
    until(|| {
        let Err(reason) = condition() else { return Some(Ok(())) };
        if let Some(status) = wan.lock().map_or(None, |mut wan| wan.try_wait().ok().flatten()) {
            return Some(Err(reason.context(format!("the clusters ended ({status}) before {what}"))));
        }
        (begun.elapsed() > DEADLINE).then(|| Err(reason.context(format!("not within {DEADLINE:?}: {what}"))))
    })
}

/// The end of each log, for a failure.
fn last_words(plan: &Plan) -> String {
    let own = fs::read_dir(&plan.directory).into_iter().flatten();
    let nodes = plan.clusters.iter().flat_map(|cluster| fs::read_dir(plan.root(cluster).join("var/log")).into_iter().flatten());
    let logs = own.chain(nodes).flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log"));
    let tail = |path: PathBuf| {
        let text = fs::read(&path).unwrap_or_default();
        format!("--- {}\n{}\n", path.display(), String::from_utf8_lossy(&text[text.len().saturating_sub(LAST_WORDS)..]))
    };
    logs.filter(|path| path.file_name().is_none_or(|name| name != "audit.log")).map(tail).collect()
}

/// A thread that ends when nobody holds the other end of our standard input any more.
fn standard_input_ends() -> JoinHandle<()> {
    thread::spawn(|| {
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut [0; 64]), Ok(1..)) {}
    })
}

/// Writes a file that is there whole or not at all, for its owner only.
fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, content).with_context(|| format!("could not write {}", partial.display()))?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o600))?;
    fs::rename(&partial, path).with_context(|| format!("could not write {}", path.display()))
}

/// What lies between the clusters has its own network, and ends as a whole.
const UNSHARE: &[&str] = &["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"];

/// A node has its own view of processes, mounts and its name as well; its network namespace is entered before.
const UNSHARE_NODE: &[&str] = &["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc", "--"];

/// There when the network is.
const NETWORK: &str = "network";

/// How long any step may take, on a machine that is busy with everything else.
const DEADLINE: Duration = Duration::from_secs(120);

/// Bytes of a log that a failure shows.
const LAST_WORDS: usize = 3000;
