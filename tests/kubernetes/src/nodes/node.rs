//! The first process of a node: makes its root, starts its programs in their order, starts a program again that ends, and reaps what
//! containerd leaves behind. When it ends, everything of the cluster does.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{WaitOptions, wait};

use super::config::{self, KubeletFiles};
use super::plan::{API_PORT, Cluster, Plan, Topology};
use super::wait::{until, until_at_most};
use super::{cgroups, network, root};
use crate::components::{self, ApiServer, Audit, Component, Controllers, Controlling, Nodes, Published};
use crate::pki::{Pki, User};

/// Runs the node of `name` for as long as this process lives.
///
/// # Errors
/// When something does not start.
pub fn run(plan: &Plan, name: &str) -> anyhow::Result<()> {
    let cluster = plan.cluster(name)?;
    cgroups::make(&plan.cgroup(cluster))?;
    root::enter(plan, cluster)?;
    rustix::system::sethostname(cluster.node().as_bytes())?;
    forwarding(plan, cluster)?;
    let mut programs = Programs::default();
    start(plan, cluster, &mut programs)?;
    programs.keep()
}

/// Lets pods through, and hides them where other clusters have no route to them.
fn forwarding(plan: &Plan, cluster: &Cluster) -> anyhow::Result<()> {
    for setting in ["ipv4/ip_forward", "bridge/bridge-nf-call-iptables"] {
        let path = format!("/proc/sys/net/{setting}");
        fs::write(&path, "1").with_context(|| format!("could not set {path}"))?;
    }
    if plan.topology == Topology::GatewayOnly {
        fs::write("/etc/masquerade.nft", network::masquerade(cluster))?;
        crate::tools::run(program("/usr/sbin/nft").args(["-f", "/etc/masquerade.nft"]))?;
    }
    Ok(())
}

fn start(plan: &Plan, cluster: &Cluster, programs: &mut Programs) -> anyhow::Result<()> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    fs::write("/etc/containerd.toml", config::containerd())?;
    fs::write("/etc/cni/net.d/10-pods.conflist", serde_json::to_vec_pretty(&config::cni(cluster))?)?;
    programs.start("containerd", &["/usr/bin/containerd", "--config", "/etc/containerd.toml"])?;

    let store = SocketAddr::new(loopback, 2379);
    programs.component(&components::etcd(Path::new("/var/lib/etcd"), store))?;
    let pki = Pki::make(Path::new("/etc/kubernetes/pki"), &cluster.name, &[loopback, cluster.address(), cluster.api_service()])?;
    let api_server = ApiServer {
        pki: &pki,
        etcd: store,
        listen: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), API_PORT),
        published: Published::At(cluster.address()),
        service_range: &cluster.services(),
        controllers: Controllers::Run,
        audit: Some(Audit::in_directory(Path::new("/var/log"))?),
        more: Vec::new(),
    };
    programs.component(&api_server.component())?;
    let server = format!("https://127.0.0.1:{API_PORT}");
    let admin = pki.write_kubeconfig(&User::Admin, &server)?;
    let user = User::Node { name: cluster.node(), addresses: vec![cluster.address()] };
    pki.issue(&user)?;
    programs.until("the API server is ready", || {
        crate::tools::run(program(root::KUBECTL).arg("--kubeconfig").arg(&admin).args(["get", "--raw=/readyz"])).map(drop)
    })?;

    let controlling = Controlling { pki: &pki, server: &server, bind: loopback, nodes: Nodes::Real };
    programs.component(&controlling.controller_manager()?)?;
    programs.component(&controlling.scheduler()?)?;
    let files = KubeletFiles {
        authority: pki.path("ca.crt").display().to_string(),
        certificate: pki.certificate(&user).display().to_string(),
        key: pki.key(&user).display().to_string(),
    };
    let kubelet = config::kubelet(cluster, &plan.cgroup(cluster), &files);
    fs::write("/etc/kubernetes/kubelet.json", serde_json::to_vec_pretty(&kubelet)?)?;
    let kubeconfig = pki.write_kubeconfig(&user, &server)?.display().to_string();
    programs.start(
        "kubelet",
        &[
            root::KC,
            "kubelet",
            "--config=/etc/kubernetes/kubelet.json",
            &format!("--kubeconfig={kubeconfig}"),
            &format!("--hostname-override={}", cluster.node()),
            &format!("--node-ip={}", cluster.address()),
        ],
    )?;
    let kubeconfig = pki.write_kubeconfig(&User::Proxy, &server)?.display().to_string();
    fs::write("/etc/kubernetes/kube-proxy.json", serde_json::to_vec_pretty(&config::kube_proxy(cluster, &kubeconfig))?)?;
    programs.start("kube-proxy", &[root::KC, "kube-proxy", "--config=/etc/kubernetes/kube-proxy.json"])
}

/// A program of the node's root, with nothing of the machine's environment.
fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
    command
}

/// What runs, by process id.
#[derive(Debug, Default)]
struct Programs {
    running: HashMap<i32, Program>,
}

#[derive(Debug, Clone)]
struct Program {
    name: String,
    words: Vec<String>,
}

impl Programs {
    fn component(&mut self, component: &Component) -> anyhow::Result<()> {
        let words: Vec<&str> = [root::KC, component.name].into_iter().chain(component.arguments.iter().map(String::as_str)).collect();
        self.start(component.name, &words)
    }

    fn start(&mut self, name: &str, words: &[&str]) -> anyhow::Result<()> {
        self.spawn(Program { name: name.to_owned(), words: words.iter().map(|word| (*word).to_owned()).collect() })
    }

    fn spawn(&mut self, started: Program) -> anyhow::Result<()> {
        let log = log(&started.name);
        let output = File::options().create(true).append(true).open(&log).with_context(|| format!("could not write {}", log.display()))?;
        let (first, rest) = started.words.split_first().context("a program has a path")?;
        let child = program(first).args(rest).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn();
        let child = child.with_context(|| format!("could not start {}", started.name))?;
        self.running.insert(i32::try_from(child.id())?, started);
        Ok(())
    }

    /// Polls `condition` until it holds, while every program still runs.
    fn until(&self, what: &str, mut condition: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let begun = Instant::now();
        until(|| {
            let Err(reason) = condition() else { return Some(Ok(())) };
            if let Some((_, program)) = self.running.iter().find(|(id, _)| ended(**id)) {
                return Some(Err(reason.context(format!("{} ended before {what}; see its log", program.name))));
            }
            (begun.elapsed() > DEADLINE).then(|| Err(reason.context(format!("not within {DEADLINE:?}: {what}"))))
        })
    }

    /// Reaps every child, and starts a program again that ended, as a node's init does.
    fn keep(&mut self) -> anyhow::Result<()> {
        loop {
            let Some((id, status)) = wait(WaitOptions::empty())? else { continue };
            let Some(program) = self.running.remove(&id.as_raw_nonzero().get()) else { continue };
            eprintln!("{} ended ({status:?}); it is started again", program.name);
            // One that ends at once must not keep the node busy.
            let _ = until_at_most(Duration::from_secs(1), || None::<()>);
            self.spawn(program)?;
        }
    }
}

/// Whether a child has ended and is not yet reaped.
fn ended(id: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// A program's log, in the node's root.
fn log(name: &str) -> PathBuf {
    Path::new("/var/log").join(format!("{name}.log"))
}

/// How long any start may take, on a machine that is busy with everything else.
const DEADLINE: Duration = Duration::from_secs(90);
