//! One pod while it lives: its containers, its sidecar, its probes, and its end.
//!
//! The end of a pod: it is told (its slices say so), a moment later its containers are asked to stop, then its sidecar, which carries
//! their last answers out, and what is left at the end of the grace is killed.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Client;
use mesh_runtime::tasks::Tasks;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::config::Config;
use super::container::{self, Surroundings};
use super::observed::{Ended, Observed, Phase, Process, Proxy};
use super::process::{Command, SETTLED_AFTER, Stop, pause_after};
use super::{probe, sidecar, token};

/// A pod's processes, as the node holds them.
#[derive(Debug)]
pub(crate) struct Run {
    shared: Arc<Shared>,
    end: watch::Sender<Option<Instant>>,
    _tasks: Tasks,
}

/// What a pod's tasks share.
#[derive(Debug)]
struct Shared {
    pod: Pod,
    meshed: bool,
    address: Ipv4Addr,
    home: PathBuf,
    config: Arc<Config>,
    observed: Mutex<Observed>,
    ended: AtomicBool,
    changed: Arc<Notify>,
}

impl Run {
    /// Starts everything that `pod` consists of.
    pub(crate) fn start(pod: &Pod, meshed: bool, address: Ipv4Addr, node: &Node) -> Self {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let shared = Arc::new(Shared {
            meshed,
            address,
            home: node.config.state_dir.join("pods").join(uid),
            config: Arc::clone(&node.config),
            observed: Mutex::new(first_look(pod, meshed, address, node.config.address)),
            ended: AtomicBool::new(false),
            changed: Arc::clone(&node.changed),
            pod: pod.clone(),
        });
        let (end, ends) = watch::channel(None);
        let mut tasks = Tasks::new();
        tasks.spawn(live(Arc::clone(&shared), node.client.clone(), ends));
        Self { shared, end, _tasks: tasks }
    }

    /// Asks the pod to end within `grace`; asked again, the earlier end counts.
    pub(crate) fn stop(&self, grace: Duration) {
        let at = Instant::now() + grace;
        self.end.send_if_modified(|held| {
            let sooner = held.is_none_or(|held| at + Duration::from_secs(1) < held);
            if sooner {
                *held = Some(at);
            }
            sooner
        });
    }

    /// Whether nothing of it runs any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// What is known of its processes.
    pub(crate) fn observed(&self) -> Observed {
        self.shared.observed.lock().clone()
    }

    /// The pod's address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.shared.address
    }

    /// Removes its files. Its logs stay.
    pub(crate) fn clean(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.shared.home)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, home = %self.shared.home.display(), "pod's files not removed");
        }
    }
}

/// What a pod needs of its node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) config: Arc<Config>,
    pub(crate) client: Client,
    pub(crate) changed: Arc<Notify>,
}

fn first_look(pod: &Pod, meshed: bool, address: Ipv4Addr, host: Ipv4Addr) -> Observed {
    let before = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let containers = containers(pod).iter().map(|container| {
        let had = before.iter().find(|status| status.name == container.name);
        let ran = had.is_some_and(|had| had.state.as_ref().is_some_and(|state| state.running.is_some()));
        let restarts = had.map_or(0, |had| u32::try_from(had.restart_count).unwrap_or(0)) + u32::from(ran);
        let phase = Phase::Waiting { reason: "ContainerCreating", message: None };
        let image = container.image.clone().unwrap_or_default();
        Process { name: container.name.clone(), image, phase, ready: false, restarts, last: None }
    });
    Observed { address, host, containers: containers.collect(), proxy: meshed.then_some(Proxy { pid: None, ready: false, why: None }) }
}

fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default()
}

impl Shared {
    /// Changes what is known, and tells the node when that made a difference.
    fn update(&self, change: impl FnOnce(&mut Observed)) {
        let mut observed = self.observed.lock();
        let before = observed.clone();
        change(&mut observed);
        if *observed != before {
            self.changed.notify_one();
        }
    }

    fn set(&self, index: usize, change: impl FnOnce(&mut Process)) {
        self.update(|observed| {
            if let Some(process) = observed.containers.get_mut(index) {
                change(process);
            }
        });
    }

    fn log(&self, process: &str) -> PathBuf {
        let metadata = &self.pod.metadata;
        let (namespace, name) = (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
        self.config.state_dir.join("logs").join(format!("{namespace}.{name}.{process}.log"))
    }
}

/// Runs the pod to its end.
async fn live(shared: Arc<Shared>, client: Client, mut ends: watch::Receiver<Option<Instant>>) {
    let prepared = std::fs::create_dir_all(&shared.home).and_then(|()| std::fs::create_dir_all(shared.config.state_dir.join("logs")));
    if let Err(error) = prepared {
        tracing::error!(%error, home = %shared.home.display(), "pod's directory not made");
    }
    let (stop_containers, containers_stop) = watch::channel(Stop::Run);
    let (stop_proxy, proxy_stop) = watch::channel(Stop::Run);
    let (mut processes, mut proxies, mut helpers) = (Tasks::new(), Tasks::new(), Tasks::new());
    if shared.meshed {
        let (written, token_written) = watch::channel(false);
        let file = shared.home.join(sidecar::TOKEN);
        let pod = shared.pod.clone();
        helpers.spawn(async move { token::keep(client, pod, &file, written).await });
        proxies.spawn(run_proxy(Arc::clone(&shared), token_written, proxy_stop));
    }
    for (index, container) in containers(&shared.pod).iter().enumerate() {
        processes.spawn(run_container(Arc::clone(&shared), index, container.clone(), containers_stop.clone()));
    }
    helpers.spawn(watch_readiness(Arc::clone(&shared)));
    let deadline = told(&mut ends).await;
    let told_at = (Instant::now() + TOLD_BEFORE).min(deadline);
    tokio::time::sleep_until(told_at).await;
    finish(&mut processes, &stop_containers, &mut ends, deadline).await;
    finish(&mut proxies, &stop_proxy, &mut ends, deadline.min(Instant::now() + SIDECAR_MAX)).await;
    drop(helpers);
    shared.ended.store(true, Ordering::Release);
    shared.changed.notify_one();
}

/// Waits until the pod is asked to end, and says until when.
async fn told(ends: &mut watch::Receiver<Option<Instant>>) -> Instant {
    loop {
        if let Some(deadline) = *ends.borrow_and_update() {
            return deadline;
        }
        if ends.changed().await.is_err() {
            return Instant::now();
        }
    }
}

/// Asks the tasks' processes to stop, waits, and kills at the deadline, also at one that moved closer.
async fn finish(tasks: &mut Tasks, stop: &watch::Sender<Stop>, ends: &mut watch::Receiver<Option<Instant>>, mut deadline: Instant) {
    stop.send_replace(Stop::Ask);
    while !tasks.is_empty() {
        tokio::select! {
            () = tasks.ended() => {}
            () = tokio::time::sleep_until(deadline), if *stop.borrow() != Stop::Kill => { stop.send_replace(Stop::Kill); }
            Ok(()) = ends.changed() => {
                if let Some(moved) = *ends.borrow_and_update() {
                    deadline = deadline.min(moved);
                }
            }
        }
    }
}

async fn run_container(shared: Arc<Shared>, index: usize, container: Container, mut stop: watch::Receiver<Stop>) {
    let policy = shared.pod.spec.as_ref().and_then(|spec| spec.restart_policy.clone());
    let mut failures = 0;
    while *stop.borrow() == Stop::Run {
        match start_container(&shared, &container) {
            Ok(running) => {
                let (pid, since) = (running.pid, running.since);
                shared.set(index, |process| process.phase = Phase::Running { pid, since });
                let ended = running.ended(&mut stop).await;
                let lasted = ended.at.duration_since(ended.since).unwrap_or_default();
                failures = if lasted > SETTLED_AFTER { 1 } else { failures + 1 };
                let again = *stop.borrow() == Stop::Run && restarts(policy.as_deref(), ended.code);
                note_end(&shared, index, ended, again);
                if !again {
                    return;
                }
            }
            Err((reason, message)) => {
                failures += 1;
                shared.set(index, |process| process.phase = Phase::Waiting { reason, message: Some(message) });
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause_after(failures)) => {}
            _ = stop.changed() => {}
        }
    }
}

fn start_container(shared: &Shared, container: &Container) -> Result<super::process::Running, (&'static str, String)> {
    let config = &shared.config;
    let around = Surroundings {
        pod: &shared.pod,
        address: shared.address,
        host: config.address,
        node: &config.node,
        cluster: config.cluster.as_str(),
        meshed: shared.meshed,
    };
    let launch = container::launch(container, &around).map_err(|error| (error.reason(), error.to_string()))?;
    let directory = container.working_dir.as_ref().map_or_else(|| shared.home.join("work"), |given| Path::new(given).to_owned());
    let command = Command {
        program: config.mesh_binary.clone(),
        arguments: ["internal".to_owned()].into_iter().chain(launch.arguments).collect(),
        environment: launch.environment,
        directory,
        log: shared.log(&container.name),
    };
    command.start().map_err(|error| ("RunContainerError", error.to_string()))
}

fn restarts(policy: Option<&str>, code: i32) -> bool {
    match policy {
        Some("Never") => false,
        Some("OnFailure") => code != 0,
        _ => true,
    }
}

fn note_end(shared: &Shared, index: usize, ended: Ended, again: bool) {
    shared.set(index, |process| {
        process.ready = false;
        if again {
            process.restarts += 1;
            process.phase = Phase::Waiting { reason: "CrashLoopBackOff", message: Some(format!("ended with exit code {}", ended.code)) };
        } else {
            process.phase = Phase::Ended { code: ended.code, signal: ended.signal, since: ended.since, at: ended.at };
        }
        process.last = Some(ended);
    });
}

/// Keeps the sidecar running: a dead one is back in a second, because the pod is cut off meanwhile.
async fn run_proxy(shared: Arc<Shared>, mut token_written: watch::Receiver<bool>, mut stop: watch::Receiver<Stop>) {
    let command = Command {
        program: shared.config.mesh_binary.clone(),
        arguments: sidecar::arguments(&shared.pod, shared.address, &shared.home, &shared.config),
        environment: std::env::vars().filter(|(name, _)| LOGGING.contains(&name.as_str())).collect(),
        directory: shared.home.join("proxy"),
        log: shared.log("isthmus-proxy"),
    };
    let say = |pid: Option<u32>, why: Option<String>| shared.update(|observed| observed.proxy = Some(Proxy { pid, ready: false, why }));
    say(None, Some("waiting for its service account's token".to_owned()));
    tokio::select! {
        _ = token_written.wait_for(|written| *written) => {}
        _ = stop.changed() => return,
    }
    while *stop.borrow() == Stop::Run {
        match command.start() {
            Ok(running) => {
                say(Some(running.pid), None);
                let ended = running.ended(&mut stop).await;
                say(None, Some(format!("the sidecar ended with exit code {}", ended.code)));
            }
            Err(error) => say(None, Some(format!("the sidecar could not be started: {error}"))),
        }
        if *stop.borrow() == Stop::Run {
            tokio::select! {
                () = tokio::time::sleep(SIDECAR_AGAIN) => {}
                _ = stop.changed() => {}
            }
        }
    }
}

/// Looks at every process in turn, often while one is not ready yet.
async fn watch_readiness(shared: Arc<Shared>) {
    let probes: Vec<Vec<probe::Probe>> = containers(&shared.pod).iter().map(probe::probes).collect();
    let mut misses = vec![0_u32; probes.len() + 1];
    loop {
        for (index, probes) in probes.iter().enumerate() {
            let running = matches!(shared.observed.lock().containers.get(index).map(|process| &process.phase), Some(Phase::Running { .. }));
            let held = running && probe::hold(probes, shared.address).await;
            misses[index] = if held { 0 } else { misses[index] + 1 };
            let patient = misses[index] < MISSES_MAX;
            shared.set(index, |process| {
                let runs = matches!(process.phase, Phase::Running { .. });
                process.ready = runs && (held || (process.ready && patient));
            });
        }
        watch_proxy(&shared, misses.last_mut()).await;
        let settled = {
            let observed = shared.observed.lock();
            observed.containers.iter().all(|process| process.ready) && observed.proxy.as_ref().is_none_or(|proxy| proxy.ready)
        };
        tokio::time::sleep(if settled { PROBE_EVERY } else { PROBE_OFTEN }).await;
    }
}

async fn watch_proxy(shared: &Shared, misses: Option<&mut u32>) {
    let pid = shared.observed.lock().proxy.as_ref().and_then(|proxy| proxy.pid);
    let (Some(pid), Some(misses)) = (pid, misses) else { return };
    let said = probe::get((shared.address, sidecar::ADMIN).into(), "/ready").await;
    *misses = if said.is_ok() { 0 } else { *misses + 1 };
    let patient = *misses < MISSES_MAX;
    shared.update(|observed| {
        if let Some(proxy) = observed.proxy.as_mut().filter(|proxy| proxy.pid == Some(pid)) {
            proxy.ready = said.is_ok() || (proxy.ready && patient);
            proxy.why = said.err().map(|why| format!("the sidecar is not ready: {why}"));
        }
    });
}

/// Between the news that a pod leaves and the request to stop: callers go elsewhere meanwhile.
const TOLD_BEFORE: Duration = Duration::from_millis(1500);

/// How long a sidecar may take after its containers have ended.
const SIDECAR_MAX: Duration = Duration::from_secs(4);

const SIDECAR_AGAIN: Duration = Duration::from_secs(1);
const PROBE_OFTEN: Duration = Duration::from_millis(100);
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Failed looks in a row after which a process that was ready is not; one slow answer on a busy laptop is none.
const MISSES_MAX: u32 = 3;

/// What a sidecar inherits: how to log.
const LOGGING: [&str; 2] = ["MESH_LOG", "MESH_LOG_FORMAT"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::plan::testing::pod;
    use std::os::unix::fs::PermissionsExt as _;

    fn shared(home: &Path, program: &str) -> Arc<Shared> {
        let mesh_binary = home.join("mesh");
        std::fs::write(&mesh_binary, format!("#!/bin/sh\n{program}\n")).unwrap();
        std::fs::set_permissions(&mesh_binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir_all(home.join("logs")).unwrap();
        let config = Config {
            kubeconfig: home.join("kubeconfig"),
            node: "east-1".into(),
            address: [127, 0, 0, 1].into(),
            pod_cidr: "127.10.64.0/18".parse().unwrap(),
            state_dir: home.to_owned(),
            mesh_binary,
            cluster: "east".parse().unwrap(),
            trust_domain: "east.mesh".parse().unwrap(),
            control: vec![],
            bundle: home.join("bundle.json"),
        };
        let (pod, address) = (pod("shop/cart-1"), Ipv4Addr::LOCALHOST);
        Arc::new(Shared {
            observed: Mutex::new(first_look(&pod, true, address, config.address)),
            pod,
            meshed: true,
            address,
            home: home.to_owned(),
            config: Arc::new(config),
            ended: AtomicBool::new(false),
            changed: Arc::new(Notify::new()),
        })
    }

    #[tokio::test]
    async fn a_sidecar_that_was_asked_to_stop_is_not_waited_for_once_it_has() {
        let home = tempfile::tempdir().unwrap();
        let shared = shared(home.path(), "exec sleep 1000");
        let (_written, token_written) = watch::channel(true);
        let (stop, stops) = watch::channel(Stop::Run);
        let mut tasks = Tasks::new();
        tasks.spawn(run_proxy(Arc::clone(&shared), token_written, stops));
        tokio::time::timeout(Duration::from_secs(30), async {
            while shared.observed.lock().proxy.as_ref().and_then(|proxy| proxy.pid).is_none() {
                shared.changed.notified().await;
            }
        })
        .await
        .unwrap();
        stop.send_replace(Stop::Ask);
        tokio::time::timeout(Duration::from_secs(30), tasks.ended()).await.unwrap();
    }
}
