//! The node's loop: look, decide, do. One pass after each change, and one a second in any case.
//!
//! Order within a pass: processes first, because they must not wait for an API that is away; then what the API is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use mesh_runtime::clock;
use mesh_runtime::drain::Drain;
use serde_json::json;
use tokio::sync::{Notify, watch};

use super::apply::{ApplyError, Writer};
use super::balance::{self, Table};
use super::config::Config;
use super::kubelet::Kubelet;
use super::observe::{Seen, Watches, Writes};
use super::plan::{self, Step};
use super::{sidecar, slices, status};

/// What the loop works with.
pub(super) struct Loop {
    pub(super) config: Arc<Config>,
    pub(super) watches: Watches,
    pub(super) writer: Writer,
    pub(super) kubelet: Kubelet,
    pub(super) tables: watch::Sender<Table>,
    pub(super) changed: Arc<Notify>,
    pub(super) writes: Writes,
    /// The last status that each pod was given, and when: the watch shows it a little later.
    pub(super) told: HashMap<String, (PodStatus, Instant)>,
}

impl Loop {
    /// Runs until the drain starts, then ends the pods.
    pub(super) async fn run(mut self, drain: Drain) {
        tokio::select! {
            () = self.watches.listed() => {}
            _ = drain.started() => return,
        }
        loop {
            let pause = match self.pass().await {
                Ok(()) => PASS_EVERY,
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "pass not completed");
                    PASS_AGAIN
                }
            };
            tokio::select! {
                _ = drain.started() => break,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            // News come in bunches: one pass for all of them.
            tokio::time::sleep(TOGETHER).await;
        }
        self.kubelet.stop_all(LAST_GRACE);
        let deadline = tokio::time::Instant::now() + LAST_GRACE + Duration::from_secs(1);
        while !self.kubelet.is_idle() && tokio::time::Instant::now() < deadline {
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    async fn pass(&mut self) -> Result<(), ApplyError> {
        let seen = self.watches.seen(&mut self.writes, clock::now());
        let finished = self.kubelet.sync(&seen);
        self.kubelet.report();
        let table = balance::table(&seen);
        self.tables.send_if_modified(|held| {
            *held != table && {
                *held = table;
                true
            }
        });
        self.tell_pods(&seen).await?;
        self.tell_slices(&seen).await?;
        for pod in finished {
            self.writer.delete_pod(&pod, Some(0)).await?;
        }
        self.steps(plan::plan(&seen, &self.config.node)).await?;
        self.tell_workloads(&seen).await?;
        self.accounts(&seen).await
    }

    async fn steps(&mut self, steps: Vec<Step>) -> Result<(), ApplyError> {
        for step in steps {
            match step {
                Step::Create(pod) => {
                    if let Some(created) = going_on(self.writer.create_pod(*pod).await)?.flatten() {
                        self.writes.on_created(created, clock::now());
                        self.changed.notify_one();
                    }
                }
                Step::Delete(pod) => {
                    self.writer.delete_pod(&pod, None).await?;
                    self.writes.on_deleted(pod.metadata.uid.as_deref().unwrap_or_default(), clock::now());
                }
            }
        }
        Ok(())
    }

    async fn tell_pods(&mut self, seen: &Seen) -> Result<(), ApplyError> {
        let now = clock::now();
        self.told.retain(|uid, _| seen.pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid)));
        for pod in &seen.pods {
            let Some(observed) = self.kubelet.observed(pod) else { continue };
            if let Some(change) = adoption(pod, observed.proxy.is_some(), &self.config.node) {
                going_on(self.writer.adopt(pod, &change).await)?;
            }
            let wanted = status::of_pod(pod, &observed, clock::wall());
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let is_told =
                self.told.get(&uid).is_some_and(|(told, at)| *told == wanted && now.saturating_duration_since(*at) < TOLD_SEEN_WITHIN);
            if pod.status.as_ref() != Some(&wanted) && !is_told {
                going_on(self.writer.pod_status(pod, &wanted).await)?;
                self.told.insert(uid, (wanted, now));
            }
        }
        Ok(())
    }

    async fn tell_slices(&self, seen: &Seen) -> Result<(), ApplyError> {
        for write in slices::plan(seen) {
            going_on(self.writer.slice(&write).await)?;
        }
        Ok(())
    }

    async fn tell_workloads(&self, seen: &Seen) -> Result<(), ApplyError> {
        let now = clock::wall();
        for deployment in &seen.deployments {
            let wanted = status::of_deployment(deployment, &plan::owned(seen, deployment.metadata.uid.as_deref()), now);
            if deployment.status.as_ref() != Some(&wanted) {
                going_on(self.writer.deployment_status(deployment, &wanted).await)?;
            }
        }
        for set in &seen.stateful_sets {
            let wanted = status::of_stateful_set(set, &plan::owned(seen, set.metadata.uid.as_deref()));
            if set.status.as_ref() != Some(&wanted) {
                going_on(self.writer.stateful_set_status(set, &wanted).await)?;
            }
        }
        Ok(())
    }

    async fn accounts(&self, seen: &Seen) -> Result<(), ApplyError> {
        for namespace in seen.namespaces.iter().filter(|namespace| namespace.metadata.deletion_timestamp.is_none()) {
            let name = namespace.metadata.name.as_deref();
            let mut held = seen.accounts.iter().filter(|account| account.metadata.namespace.as_deref() == name);
            if let (Some(name), false) = (name, held.any(|account| account.metadata.name.as_deref() == Some("default"))) {
                going_on(self.writer.create_default_account(name).await)?;
            }
        }
        Ok(())
    }
}

/// One object that the API does not take is logged and must not hold up the others; an API that is away ends the pass.
fn going_on<T>(written: Result<T, ApplyError>) -> Result<Option<T>, ApplyError> {
    match written {
        Ok(written) => Ok(Some(written)),
        Err(error) if error.is_away() => Err(error),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, cause, "refused by the API");
            Ok(None)
        }
    }
}

/// What a pod that was created by somebody else lacks: its node, and the mark that it is meshed.
fn adoption(pod: &Pod, meshed: bool, node: &str) -> Option<serde_json::Value> {
    let marked = !meshed || sidecar::is_marked(pod);
    let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    match (marked, placed) {
        (true, true) => None,
        (true, false) => Some(json!({ "spec": { "nodeName": node } })),
        (false, true) => Some(json!({ "metadata": { "annotations": { mesh_api::well_known::INJECTED: "true" } } })),
        (false, false) => {
            Some(json!({ "metadata": { "annotations": { mesh_api::well_known::INJECTED: "true" } }, "spec": { "nodeName": node } }))
        }
    }
}

const PASS_EVERY: Duration = Duration::from_secs(1);
const PASS_AGAIN: Duration = Duration::from_millis(500);
const TOGETHER: Duration = Duration::from_millis(10);
const TOLD_SEEN_WITHIN: Duration = Duration::from_secs(2);

/// How long pods may take when the node itself is asked to end.
const LAST_GRACE: Duration = Duration::from_secs(2);
