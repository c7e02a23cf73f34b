//! A world: `mesh demo` with some clusters, started as a user starts it, ended when dropped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{Client, tools};

/// Real clusters on loopback, linked both ways, with the shop in them.
pub struct World {
    demo: Child,
    pub dir: PathBuf,
    pub kubeconfig: PathBuf,
    state: Value,
    _scratch: tempfile::TempDir,
}

impl World {
    /// Starts a world of the first `clusters` of east, west, north, … and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not start; the demo's own messages are on standard error.
    pub async fn of(clusters: usize) -> Self {
        Self::start(clusters).await.expect("a world of clusters")
    }

    async fn start(clusters: usize) -> anyhow::Result<Self> {
        let scratch = tempfile::tempdir()?;
        let dir = scratch.path().join("demo");
        let mut demo = Command::new(tools::mesh())
            .args(["demo", "--clusters", &clusters.to_string(), "-o", "json", "--dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = tokio::process::ChildStdout::from_std(demo.stdout.take().context("no output")?)?;
        let mut lines = BufReader::new(output).lines();
        let mut text = String::new();
        let state: Value = loop {
            let line = lines.next_line().await?.context("mesh demo ended before it was ready")?;
            text.push_str(&line);
            if let Ok(state) = serde_json::from_str(&text) {
                break state;
            }
        };
        let kubeconfig = state["kubeconfig"].as_str().context("no kubeconfig")?.into();
        Ok(Self { demo, dir, kubeconfig, state, _scratch: scratch })
    }

    /// The client behind `storefront`'s proxy in `cluster`.
    ///
    /// # Panics
    /// When there is no such cluster.
    #[must_use]
    pub fn client(&self, cluster: &str) -> Client {
        Client { outbound: self.address(cluster, "outbound") }
    }

    /// An address of a cluster: `dns`, `gateway` or `outbound`.
    ///
    /// # Panics
    /// When there is no such cluster or address.
    #[must_use]
    pub fn address(&self, cluster: &str, which: &str) -> SocketAddr {
        let clusters = self.state["clusters"].as_array().expect("clusters");
        let entry = clusters.iter().find(|entry| entry["name"] == cluster).expect("the cluster");
        entry[which].as_str().expect("an address").parse().expect("host:port")
    }

    /// The pids of a component in a cluster, as `state.json` has them now.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn pids(&self, cluster: &str, component: &str) -> anyhow::Result<Vec<u64>> {
        let state: Value = serde_json::from_slice(&std::fs::read(self.dir.join("state.json"))?)?;
        let processes = state["processes"].as_array().context("no processes")?;
        let of = processes.iter().filter(|process| process["cluster"] == cluster && process["component"] == component);
        Ok(of.filter_map(|process| process["pid"].as_u64()).collect())
    }

    /// Runs kubectl in a cluster.
    ///
    /// # Errors
    /// When it fails; both outputs are in the error.
    pub fn kubectl(&self, cluster: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(tools::program("MESH_TOOLS_KUBECTL"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["--context", cluster]).args(arguments);
        tools::run(&mut command)
    }

    /// A cluster's issuer: its chain and its key, as PEM.
    ///
    /// # Errors
    /// When its Secret can't be read.
    pub fn issuer(&self, cluster: &str) -> anyhow::Result<(String, String)> {
        let part = |name: &str| {
            let template = format!("go-template={{{{index .data \"{name}\" | base64decode}}}}");
            self.kubectl(cluster, &["get", "secret", "-n", "isthmus-system", "isthmus-issuer", "-o", &template])
        };
        Ok((part("tls.crt")?, part("tls.key")?))
    }

    /// Applies a manifest in a cluster.
    ///
    /// # Errors
    /// When kubectl refuses it.
    pub fn apply(&self, cluster: &str, manifest: &str) -> anyhow::Result<String> {
        let mut file = tempfile::NamedTempFile::with_suffix(".yaml")?;
        std::io::Write::write_all(&mut file, manifest.as_bytes())?;
        self.kubectl(cluster, &["apply", "-f", &file.path().to_string_lossy()])
    }

    /// Runs `mesh` with this world's kubeconfig.
    ///
    /// # Errors
    /// When it fails; both outputs are in the error.
    pub fn mesh(&self, arguments: &[&str]) -> anyhow::Result<String> {
        tools::run(Command::new(tools::mesh()).args(arguments).arg("--kubeconfig").arg(&self.kubeconfig))
    }

    /// Asks a cluster's DNS server with `dig +short`.
    ///
    /// # Errors
    /// When dig fails.
    pub fn dig(&self, cluster: &str, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
        let at = self.address(cluster, "dns");
        let mut command = Command::new(tools::program("MESH_TOOLS_DIG"));
        command.args([&format!("@{}", at.ip()), "-p", &at.port().to_string(), "+short", "+tries=1", "+time=5"]).args(arguments);
        Ok(tools::run(&mut command)?.lines().map(ToOwned::to_owned).collect())
    }

    /// The sum of a metric's samples at an admin address whose line holds every one of `parts`.
    ///
    /// # Errors
    /// When the address does not answer.
    pub async fn metric(&self, admin: SocketAddr, name: &str, parts: &[&str]) -> anyhow::Result<f64> {
        let answer = Client { outbound: admin }.get(&format!("http://{admin}/metrics")).await?;
        let text = answer.body.as_str().unwrap_or_default().to_owned();
        let lines = text.lines().filter(|line| line.starts_with(name) && parts.iter().all(|part| line.contains(part)));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.demo.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.demo.wait();
    }
}
