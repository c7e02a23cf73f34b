//! What the node says about pods and workloads, from what it observes of processes. Pure: the same observation gives the same status,
//! and a condition's time moves only when its status does.

use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition,
    PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::observed::{Observed, Phase, Process};
use super::plan;

/// A moment as the API writes it: whole seconds.
pub(crate) fn time(at: SystemTime) -> Time {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
    Time(Timestamp::from_second(seconds).unwrap_or_default())
}

/// Whether the pod has the condition `Ready`.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the pod has run to its end and will not run again.
pub(crate) fn is_ended(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}

/// The status of a pod that runs as `observed`.
pub(crate) fn of_pod(pod: &Pod, observed: &Observed, now: SystemTime) -> PodStatus {
    let held = pod.status.clone().unwrap_or_default();
    let leaving = pod.metadata.deletion_timestamp.is_some();
    let containers: Vec<ContainerStatus> = observed.containers.iter().map(container).collect();
    let unready: Vec<&str> = observed.containers.iter().filter(|held| !held.ready).map(|held| held.name.as_str()).collect();
    let proxy_ready = observed.proxy.as_ref().is_none_or(|proxy| proxy.ready);
    let why = if leaving {
        Some(("PodTerminating", "the pod is being deleted".to_owned()))
    } else if !unready.is_empty() {
        Some(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
    } else if !proxy_ready {
        Some((
            "SidecarNotReady",
            observed.proxy.as_ref().and_then(|proxy| proxy.why.clone()).unwrap_or_else(|| "the sidecar is not ready".into()),
        ))
    } else {
        None
    };
    let mut conditions = Conditions { held: held.conditions.clone().unwrap_or_default(), generation: pod.metadata.generation, now };
    conditions.say("PodScheduled", None);
    conditions.say("Initialized", None);
    conditions.say("ContainersReady", why.clone());
    conditions.say("Ready", why);
    PodStatus {
        phase: Some(phase(observed).to_owned()),
        conditions: Some(conditions.held),
        container_statuses: Some(containers),
        host_ip: Some(observed.host.to_string()),
        host_ips: Some(vec![HostIP { ip: observed.host.to_string() }]),
        pod_ip: Some(observed.address.to_string()),
        pod_ips: Some(vec![PodIP { ip: observed.address.to_string() }]),
        qos_class: held.qos_class.clone().or_else(|| Some("BestEffort".into())),
        start_time: held.start_time.clone().or_else(|| Some(time(now))),
        ..held
    }
}

fn phase(observed: &Observed) -> &'static str {
    let over = |process: &Process| matches!(process.phase, Phase::Ended { .. });
    let failed = |process: &Process| matches!(process.phase, Phase::Ended { code, .. } if code != 0);
    if observed.containers.iter().all(over) {
        return if observed.containers.iter().any(failed) { "Failed" } else { "Succeeded" };
    }
    let begun = |process: &Process| process.restarts > 0 || !matches!(process.phase, Phase::Waiting { .. });
    if observed.containers.iter().any(begun) { "Running" } else { "Pending" }
}

fn container(process: &Process) -> ContainerStatus {
    let state = match &process.phase {
        Phase::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some((*reason).to_owned()), message: message.clone() }),
            ..ContainerState::default()
        },
        Phase::Running { since, .. } => {
            ContainerState { running: Some(ContainerStateRunning { started_at: Some(time(*since)) }), ..ContainerState::default() }
        }
        Phase::Ended { code, signal, since, at } => terminated(*code, *signal, *since, *at),
    };
    let last = process.last.as_ref().map(|last| terminated(last.code, last.signal, last.since, last.at));
    let pid = match process.phase {
        Phase::Running { pid, .. } => Some(format!("process://{pid}")),
        Phase::Waiting { .. } | Phase::Ended { .. } => None,
    };
    ContainerStatus {
        name: process.name.clone(),
        image: process.image.clone(),
        image_id: process.image.clone(),
        container_id: pid,
        ready: process.ready,
        started: Some(matches!(process.phase, Phase::Running { .. })),
        restart_count: i32::try_from(process.restarts).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn terminated(code: i32, signal: Option<i32>, since: SystemTime, at: SystemTime) -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code: code,
        signal,
        reason: Some(if code == 0 { "Completed" } else { "Error" }.to_owned()),
        started_at: Some(time(since)),
        finished_at: Some(time(at)),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// Conditions that are being said anew.
struct Conditions {
    held: Vec<PodCondition>,
    generation: Option<i64>,
    now: SystemTime,
}

impl Conditions {
    /// True, or false because of `why`.
    fn say(&mut self, kind: &str, why: Option<(&str, String)>) {
        let status = if why.is_none() { "True" } else { "False" };
        let old = self.held.iter().find(|condition| condition.type_ == kind && condition.status == status);
        let since = old.and_then(|old| old.last_transition_time.clone()).unwrap_or_else(|| time(self.now));
        let (reason, message) = why.map_or((None, None), |(reason, message)| (Some(reason.to_owned()), Some(message)));
        let said = PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: Some(since),
            observed_generation: self.generation,
            last_probe_time: None,
        };
        match self.held.iter_mut().find(|condition| condition.type_ == kind) {
            Some(slot) => *slot = said,
            None => self.held.push(said),
        }
    }
}

/// The status of a Deployment that owns `pods`.
pub(crate) fn of_deployment(deployment: &Deployment, pods: &[Arc<Pod>], now: SystemTime) -> DeploymentStatus {
    let hash = plan::deployment_hash(deployment);
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let counts = Counts::of(pods, "pod-template-hash", &hash);
    let held = deployment.status.clone().unwrap_or_default();
    let done = counts.updated == wanted && counts.replicas == wanted && counts.ready >= wanted;
    let progressing = if done {
        ("NewReplicaSetAvailable", "every pod is of the present template")
    } else {
        ("ReplicaSetUpdated", "pods are being exchanged")
    };
    let available = if counts.ready >= wanted {
        ("True", "MinimumReplicasAvailable", "as many pods are ready as wanted")
    } else {
        ("False", "MinimumReplicasUnavailable", "fewer pods are ready than wanted")
    };
    let old = held.conditions.as_deref().unwrap_or_default();
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(counts.replicas),
        updated_replicas: Some(counts.updated),
        ready_replicas: Some(counts.ready),
        available_replicas: Some(counts.ready),
        unavailable_replicas: Some((wanted - counts.ready).max(0)),
        terminating_replicas: Some(counts.terminating),
        conditions: Some(vec![
            condition(old, "Available", available, now),
            condition(old, "Progressing", ("True", progressing.0, progressing.1), now),
        ]),
        ..held
    }
}

fn condition(held: &[DeploymentCondition], kind: &str, said: (&str, &str, &str), now: SystemTime) -> DeploymentCondition {
    let (status, reason, message) = said;
    let old = held.iter().find(|old| old.type_ == kind && old.status == status);
    let same = old.filter(|old| old.reason.as_deref() == Some(reason));
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or_else(|| Some(time(now))),
        last_update_time: same.and_then(|old| old.last_update_time.clone()).or_else(|| Some(time(now))),
    }
}

/// The status of a StatefulSet that owns `pods`.
pub(crate) fn of_stateful_set(set: &StatefulSet, pods: &[Arc<Pod>]) -> StatefulSetStatus {
    let revision = format!("{}-{}", set.metadata.name.as_deref().unwrap_or_default(), plan::stateful_set_hash(set));
    let counts = Counts::of(pods, "controller-revision-hash", &revision);
    let held = set.status.clone().unwrap_or_default();
    let done = counts.updated == counts.replicas;
    let current = if done { Some(revision.clone()) } else { held.current_revision.clone().or_else(|| Some(revision.clone())) };
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: counts.replicas,
        ready_replicas: Some(counts.ready),
        available_replicas: Some(counts.ready),
        updated_replicas: Some(counts.updated),
        current_replicas: Some(if done { counts.replicas } else { counts.replicas - counts.updated }),
        current_revision: current,
        update_revision: Some(revision),
        ..held
    }
}

#[derive(Default)]
struct Counts {
    replicas: i32,
    updated: i32,
    ready: i32,
    terminating: i32,
}

impl Counts {
    fn of(pods: &[Arc<Pod>], label: &str, current: &str) -> Self {
        let mut counts = Self::default();
        for pod in pods.iter().filter(|pod| !is_ended(pod)) {
            if pod.metadata.deletion_timestamp.is_some() {
                counts.terminating += 1;
                continue;
            }
            counts.replicas += 1;
            counts.updated +=
                i32::from(pod.metadata.labels.as_ref().and_then(|labels| labels.get(label)).is_some_and(|held| held == current));
            counts.ready += i32::from(is_ready(pod));
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::observed::Proxy;
    use crate::node::plan::testing::pod;
    use std::time::Duration;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn observed(phase: Phase, ready: bool, proxy: Option<bool>) -> Observed {
        let process = Process { name: "cart".into(), image: "isthmus/shop".into(), phase, ready, restarts: 0, last: None };
        let proxy = proxy.map(|ready| Proxy { pid: Some(7), ready, why: None });
        Observed { address: [127, 10, 64, 2].into(), host: [127, 10, 0, 2].into(), containers: vec![process], proxy }
    }

    fn check(observed: &Observed, phase: &str, ready: bool) {
        let mut pod = pod("shop/cart");
        pod.status = Some(of_pod(&pod, observed, at(1)));
        assert_eq!(pod.status.as_ref().unwrap().phase.as_deref(), Some(phase));
        assert_eq!(is_ready(&pod), ready);
    }

    #[test]
    fn a_pod_is_ready_when_its_containers_and_its_sidecar_are() {
        let running = || Phase::Running { pid: 6, since: at(1) };
        check(&observed(Phase::Waiting { reason: "ContainerCreating", message: None }, false, None), "Pending", false);
        check(&observed(running(), false, None), "Running", false);
        check(&observed(running(), true, None), "Running", true);
        check(&observed(running(), true, Some(false)), "Running", false);
        check(&observed(running(), true, Some(true)), "Running", true);
        check(&observed(Phase::Ended { code: 0, signal: None, since: at(1), at: at(2) }, false, None), "Succeeded", false);
        check(&observed(Phase::Ended { code: 1, signal: None, since: at(1), at: at(2) }, false, None), "Failed", false);
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let mut pod = pod("shop/cart");
        let running = observed(Phase::Running { pid: 6, since: at(1) }, true, None);
        pod.status = Some(of_pod(&pod, &running, at(1)));
        assert_eq!(pod.status.as_ref(), Some(&of_pod(&pod, &running, at(9))));
        let broken = observed(Phase::Running { pid: 6, since: at(1) }, false, None);
        let ready = of_pod(&pod, &broken, at(9)).conditions.unwrap().into_iter().find(|held| held.type_ == "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.last_transition_time), ("False", Some(time(at(9)))));
    }
}
