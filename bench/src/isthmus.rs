//! Isthmus under load: the demo's two clusters, the bench's own back end deployed in east, called from east and from west.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::Plan;
use crate::load::Target;

/// A running demo; it ends when dropped.
pub(crate) struct Demo {
    child: Child,
    state: Value,
    dir: std::path::PathBuf,
}

impl Demo {
    /// Starts `mesh demo`, deploys the back end in east, and waits until both clusters reach it.
    pub(crate) fn start(plan: &Plan) -> anyhow::Result<Self> {
        let mut child = Command::new(&plan.mesh)
            .args(["demo", "-o", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("could not start {}: build it with cargo build --release", plan.mesh.display()))?;
        let output = child.stdout.take().context("no output")?;
        let mut text = String::new();
        let mut state = None;
        for line in BufReader::new(output).lines() {
            text.push_str(&line?);
            if let Ok(value) = serde_json::from_str(&text) {
                state = Some(value);
                break;
            }
        }
        let state: Value = state.context("mesh demo ended before it was ready")?;
        let dir = state["dir"].as_str().context("no dir in the demo's state")?.into();
        let demo = Self { child, state, dir };
        demo.deploy(plan)?;
        Ok(demo)
    }

    /// The load's target as seen by `storefront` in `cluster`.
    pub(crate) fn target(&self, cluster: &str) -> anyhow::Result<Target> {
        let clusters = self.state["clusters"].as_array().context("no clusters")?;
        let found = clusters.iter().find(|entry| entry["name"] == cluster).context("no such cluster")?;
        let address = found["outbound"].as_str().context("no outbound")?.parse()?;
        Ok(Target { address, uri: format!("http://{HOST}/"), host: HOST.to_owned() })
    }

    /// The proxies (and, from another cluster, the gateways) that carry calls from `cluster` to the back end. A sidecar is found by the address
    /// of its pod, which it is started with.
    pub(crate) fn pids(&self, plan: &Plan, cluster: &str) -> anyhow::Result<Vec<u32>> {
        let state: Value = serde_json::from_slice(&std::fs::read(self.dir.join("state.json"))?)?;
        let pod = self
            .kubectl(plan)
            .args(["get", "pods", "-n", "shop", "-l", "app=bench", "-o", "jsonpath={.items[0].status.podIP}"])
            .output()?;
        let server = format!("{}:4143", String::from_utf8(pod.stdout)?.trim());
        let client = self.target(cluster)?.address.to_string();
        let mut pids = Vec::new();
        for process in state["processes"].as_array().context("no processes")? {
            let pid = u32::try_from(process["pid"].as_u64().context("no pid")?)?;
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let carries = match process["component"].as_str() {
                Some("proxy") => command.contains(&client) || command.contains(&server),
                Some("gateway") => cluster != "east" && process["cluster"] == "east",
                _ => false,
            };
            if carries {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    fn kubectl(&self, plan: &Plan) -> Command {
        let mut kubectl = Command::new(&plan.kubectl);
        kubectl.args(["--kubeconfig", self.state["kubeconfig"].as_str().unwrap_or_default(), "--context", "east"]);
        kubectl
    }

    fn deploy(&self, plan: &Plan) -> anyhow::Result<()> {
        let program = std::env::current_exe()?;
        let manifest = MANIFEST.replace("PROGRAM", &program.display().to_string());
        let mut kubectl = self
            .kubectl(plan)
            .args(["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("could not start kubectl")?;
        kubectl.stdin.take().context("no stdin")?.write_all(manifest.as_bytes())?;
        if !kubectl.wait()?.success() {
            bail!("kubectl apply failed");
        }
        for cluster in ["east", "west"] {
            self.wait_until_reached(cluster)?;
        }
        Ok(())
    }

    fn wait_until_reached(&self, cluster: &str) -> anyhow::Result<()> {
        let target = self.target(cluster)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if runtime.block_on(crate::load::saturate(&target, 1, Duration::from_millis(100))).is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the back end was not reached from {cluster} within 30 s");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

const HOST: &str = "bench.shop.svc.clusterset.local";

const MANIFEST: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: bench, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: bench}}
  template:
    metadata: {labels: {app: bench}}
    spec:
      containers:
      - name: bench
        image: bench
        command: [PROGRAM, backend, --listen, '0.0.0.0:8080']
        env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
        ports: [{containerPort: 8080, name: http}]
---
apiVersion: v1
kind: Service
metadata: {name: bench, namespace: shop}
spec:
  selector: {app: bench}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: bench, namespace: shop}
";
