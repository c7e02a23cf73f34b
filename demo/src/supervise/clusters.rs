//! Starting the clusters, linking them, and keeping what is known of them true until the end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use kube::Client;
use mesh_api::well_known;
use mesh_runtime::clock;
use mesh_runtime::drain::{Drain, Trigger};
use mesh_runtime::tasks::Tasks;
use mesh_trust::{Bundle, Root};
use parking_lot::Mutex;
use serde_json::Value;

use super::child::Child;
use super::layout::{ADMIN_PORT, AFTER_API, Cluster, Component};
use super::state::{self, Demo, Started};
use super::{Hooks, Linking, Output, apply, kubeconfig, objects, progress, since, tour};
use crate::node::{self, Reported};

/// The clusters of one demo.
pub(super) struct Clusters {
    dir: PathBuf,
    clusters: Vec<Cluster>,
    started: Started,
    children: Rc<Mutex<Tasks>>,
    drain: Drain,
    begun: Instant,
    /// The slices that each cluster was given last, and when.
    written: Mutex<BTreeMap<String, (Vec<Value>, Instant)>>,
}

impl Clusters {
    /// Nothing runs yet.
    pub(super) fn new(dir: PathBuf, clusters: Vec<Cluster>, drain: Drain) -> Self {
        Self { dir, clusters, started: Started::default(), children: Rc::default(), drain, begun: clock::now(), written: Mutex::default() }
    }

    /// Starts everything, tells about it, and ends everything at the first signal, or when something could not be started.
    pub(super) async fn run(&self, output: Output, hooks: &Hooks, trigger: Trigger) -> anyhow::Result<()> {
        let trigger = Rc::new(trigger);
        let signals = signals(Rc::clone(&trigger))?;
        let work = async {
            let told = async {
                let clients = self.start(hooks).await?;
                self.tell(output, hooks, &clients).await?;
                anyhow::Ok(clients)
            };
            let clients = tokio::select! {
                clients = told => clients?,
                _ = self.drain.started() => return Ok(()),
            };
            tokio::select! {
                () = self.maintain(&clients) => {}
                _ = self.drain.started() => {}
            }
            anyhow::Ok(())
        };
        let outcome = tokio::select! {
            outcome = async { tokio::select! { outcome = work => outcome, () = self.keep_state() => Ok(()) } } => outcome,
            () = signals => Ok(()),
        };
        trigger.start();
        progress("ending everything");
        let deadline = self.drain.started().await;
        let mut children = std::mem::take(&mut *self.children.lock());
        children.finish(deadline).await;
        outcome
    }

    /// Every cluster at once, then every link.
    async fn start(&self, hooks: &Hooks) -> anyhow::Result<Vec<Client>> {
        let now = clock::wall() - CLOCK_SKEW;
        let root = Root::generate("mesh demo root", now, ROOT_LIFE).context("no root could be made")?;
        let starting = self.clusters.iter().map(|cluster| self.start_cluster(cluster, &root, now, hooks));
        let clients = futures_util::future::try_join_all(starting).await?;
        let admins = self.clusters.iter().map(read_admin).collect::<anyhow::Result<Vec<Value>>>()?;
        let merged = self.dir.join(state::KUBECONFIG);
        write(&merged, &format!("{:#}\n", kubeconfig::merged(&admins)))?;
        write(&self.dir.join(tour::HELLO_FILE), tour::HELLO)?;
        for (context, to) in pairs(&self.clusters) {
            let linking = Linking { kubeconfig: merged.clone(), context: context.clone(), to: to.clone() };
            (hooks.link)(linking).await.with_context(|| format!("could not link {context} to {to}"))?;
            progress(&format!("{context}: linked to {to} ({:.1} s)", since(self.begun)));
        }
        Ok(clients)
    }

    async fn start_cluster(&self, cluster: &Cluster, root: &Root, now: SystemTime, hooks: &Hooks) -> anyhow::Result<Client> {
        let name = &cluster.name;
        std::fs::create_dir_all(cluster.directory.join("apiserver"))?;
        self.keep(Child::of(cluster, Component::Apiserver, 0, &hooks.program));
        let client = apply::client(cluster).await?;
        progress(&format!("{name}: API at https://{} ({:.1} s)", cluster.api(), since(self.begun)));
        let issuer = root.issuer_for(&cluster.trust_domain, now, ISSUER_LIFE).with_context(|| format!("no issuer for {name}"))?;
        let bundle = Bundle::new(cluster.trust_domain.clone(), 1, vec![issuer.bundle_authority().clone()])?;
        write(&cluster.bundle(), &bundle.to_spiffe_json())?;
        apply::definitions(&client).await.with_context(|| format!("{name} did not take the mesh's definitions"))?;
        for object in objects::objects(cluster, &issuer, &bundle) {
            apply::apply(&client, &object).await.with_context(|| format!("{name} did not take the mesh's objects"))?;
        }
        apply::gateway_addresses(&client, cluster).await?;
        self.slices(&client, cluster).await?;
        let admin = read_admin(cluster)?;
        for component in AFTER_API {
            let config = kubeconfig::for_component(&admin, component.as_str(), &cluster.api_token(component));
            write(&cluster.kubeconfig(component), &config.to_string())?;
        }
        tokens(&client, cluster).await?;
        for component in AFTER_API {
            for replica in 0..component.replicas() {
                self.keep(Child::of(cluster, component, replica, &hooks.program));
            }
        }
        for manifest in objects::shop(name.as_str()) {
            apply::apply_text(&client, manifest).await.with_context(|| format!("{name} did not take the shop"))?;
        }
        progress(&format!("{name}: mesh and shop started ({:.1} s)", since(self.begun)));
        Ok(client)
    }

    fn keep(&self, child: Child) {
        self.children.lock().spawn(child.keep(self.started.clone(), self.drain.clone()));
    }

    /// Waits until calls cross, then prints the tour or the JSON object.
    async fn tell(&self, output: Output, hooks: &Hooks, clients: &[Client]) -> anyhow::Result<()> {
        let mut patience = PATIENCE;
        loop {
            let waiting = self.waiting_for().await;
            if waiting.is_empty() {
                break;
            }
            if since(self.begun) > patience.as_secs_f64() {
                progress(&format!(
                    "still waiting for {} ({:.0} s); logs are in {}/*/logs",
                    waiting.join(", "),
                    since(self.begun),
                    self.dir.display()
                ));
                patience += PATIENCE;
            }
            for (client, cluster) in clients.iter().zip(&self.clusters) {
                self.slices(client, cluster).await?;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let demo = self.look();
        self.write_state(&demo);
        match output {
            Output::Json => (hooks.say)(&(serde_json::to_string(&demo)? + "\n")),
            Output::Tour => (hooks.say)(&tour::tour(&demo, since(self.begun))),
        }
        Ok(())
    }

    /// What is not there yet: a storefront, or its call to each service that it needs.
    async fn waiting_for(&self) -> Vec<String> {
        let mut waiting = Vec::new();
        for cluster in self.look().clusters {
            match cluster.outbound {
                None => waiting.push(format!("storefront in {}", cluster.name)),
                Some(outbound) => {
                    for (service, url) in CALLED {
                        if !node::probe(outbound, url).await {
                            waiting.push(format!("calls from {} to {service}", cluster.name));
                        }
                    }
                }
            }
        }
        waiting
    }

    /// Keeps slices and tokens true.
    async fn maintain(&self, clients: &[Client]) {
        let mut renewals = Renewals::new(self.clusters.len(), apply::token_renewal(), clock::now());
        loop {
            for (index, (client, cluster)) in clients.iter().zip(&self.clusters).enumerate() {
                // An API that is away gets the present state once it is back.
                if let Err(error) = self.slices(client, cluster).await {
                    tracing::debug!(%error, cluster = %cluster.name, "slices not written");
                }
                if renewals.is_due(index, clock::now()) {
                    match tokens(client, cluster).await {
                        Ok(()) => renewals.on_renewed(index, clock::now()),
                        Err(error) => tracing::warn!(%error, cluster = %cluster.name, "tokens not exchanged"),
                    }
                }
            }
            tokio::time::sleep(MAINTAIN_EVERY).await;
        }
    }

    /// Says which of the mesh's own replicas are ready.
    async fn slices(&self, client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
        let mut ready = Vec::new();
        for component in AFTER_API {
            for replica in 0..component.replicas() {
                let runs = self.started.runs(cluster.name.as_str(), component.as_str(), replica);
                let admin = SocketAddr::from((cluster.address(component, replica), ADMIN_PORT));
                if runs && node::probe(admin, "/ready").await {
                    ready.push((component, replica));
                }
            }
        }
        let slices = objects::slices(cluster, |component, replica| ready.contains(&(component, replica)));
        let name = cluster.name.to_string();
        let is_fresh = |(held, at): &(Vec<Value>, Instant)| *held == slices && since(*at) < WRITE_ANYWAY.as_secs_f64();
        if self.written.lock().get(&name).is_some_and(is_fresh) {
            return Ok(());
        }
        for slice in &slices {
            apply::apply(client, slice).await?;
        }
        self.written.lock().insert(name, (slices, clock::now()));
        Ok(())
    }

    /// Keeps `state.json` current.
    async fn keep_state(&self) {
        let mut written = None;
        loop {
            let demo = self.look();
            if written.as_ref() != Some(&demo) {
                self.write_state(&demo);
                written = Some(demo);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn look(&self) -> Demo {
        let report = |cluster: &Cluster| -> Vec<Reported> {
            let text = std::fs::read(cluster.node_directory().join(node::REPORT)).unwrap_or_default();
            serde_json::from_slice(&text).unwrap_or_default()
        };
        let reports: Vec<Vec<Reported>> = self.clusters.iter().map(report).collect();
        state::demo(&self.dir, &self.clusters, &self.started, &reports)
    }

    fn write_state(&self, demo: &Demo) {
        let written = serde_json::to_vec_pretty(demo)
            .map_err(anyhow::Error::from)
            .and_then(|text| write(&self.dir.join("state.json"), &String::from_utf8_lossy(&text)));
        if let Err(error) = written {
            tracing::warn!(%error, "state not written");
        }
    }
}

/// When each cluster's tokens are exchanged next: one that fails is tried again, whatever became of the others.
#[derive(Debug)]
struct Renewals {
    every: Duration,
    at: Vec<Instant>,
}

impl Renewals {
    fn new(clusters: usize, every: Duration, now: Instant) -> Self {
        Self { every, at: vec![now + every; clusters] }
    }

    fn is_due(&self, cluster: usize, now: Instant) -> bool {
        self.at.get(cluster).is_some_and(|at| now > *at)
    }

    fn on_renewed(&mut self, cluster: usize, now: Instant) {
        if let Some(at) = self.at.get_mut(cluster) {
            *at = now + self.every;
        }
    }
}

/// The first signal starts the drain, the second hurries it.
fn signals(trigger: Rc<Trigger>) -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        trigger.start();
    })
}

/// Every ordered pair: each cluster imports from each other one.
fn pairs(clusters: &[Cluster]) -> Vec<(String, String)> {
    let names: Vec<String> = clusters.iter().map(|cluster| cluster.name.to_string()).collect();
    let others = |name: &String| names.iter().filter(|other| *other != name).map(|other| (name.clone(), other.clone())).collect::<Vec<_>>();
    names.iter().flat_map(others).collect()
}

fn read_admin(cluster: &Cluster) -> anyhow::Result<Value> {
    let file = cluster.admin_kubeconfig();
    let text = std::fs::read(&file).with_context(|| format!("could not read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no kubeconfig", file.display()))
}

/// Fetches each component's tokens: for the API, and for control.
async fn tokens(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    for component in AFTER_API {
        let Some(account) = component.account() else { continue };
        write(&cluster.api_token(component), &apply::token(client, account, None).await?)?;
        write(&cluster.mesh_token(component), &apply::token(client, account, Some(well_known::TOKEN_AUDIENCE)).await?)?;
    }
    Ok(())
}

fn write(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    node::write_private(path, text.as_bytes()).with_context(|| format!("could not write {}", path.display()))
}

/// What every storefront can call once everything runs.
const CALLED: [(&str, &str); 2] =
    [("catalog", "http://catalog.shop.svc.clusterset.local/healthz"), ("cart", "http://cart.shop.svc.clusterset.local/healthz")];

const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Slices are written again after this time even if they are as before: somebody may have changed them.
const WRITE_ANYWAY: Duration = Duration::from_secs(30);

const MAINTAIN_EVERY: Duration = Duration::from_secs(1);

/// After this time, and again after as much, the demo says what it is waiting for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Certificates are good from a little earlier on.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
const ROOT_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
const ISSUER_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cluster_s_tokens_are_renewed_when_they_are_due() {
        let (begun, hour) = (clock::now(), Duration::from_secs(3600));
        let mut renewals = Renewals::new(3, hour, begun);
        assert!((0..3).all(|cluster| !renewals.is_due(cluster, begun + hour / 2)));
        let late = begun + hour * 2;
        renewals.on_renewed(0, late);
        assert_eq!([0, 1, 2].map(|cluster| renewals.is_due(cluster, late)), [false, true, true]);
        assert!(renewals.is_due(0, late + hour * 2));
    }

    #[test]
    fn every_cluster_is_linked_to_every_other_in_both_directions() {
        let cluster = |name| Cluster::new(name, 10, "/demo".into()).unwrap();
        let pairs = pairs(&[cluster("east"), cluster("west"), cluster("north")]);
        let written: Vec<String> = pairs.iter().map(|(from, to)| format!("{from}>{to}")).collect();
        assert_eq!(written, ["east>west", "east>north", "west>east", "west>north", "north>east", "north>west"]);
    }
}
