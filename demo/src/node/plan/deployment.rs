//! Which pods a Deployment needs: as many as it says, made from its present template, exchanged within surge and unavailability.
//!
//! Its pods are its own: there is no ReplicaSet between, because nothing in a demo rolls back.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource as _;

use super::{Place, Step, hash_of, is_alive, pod_of};
use crate::node::status;

/// What to do about the pods of one Deployment; `pods` are those that it owns.
pub(super) fn plan(deployment: &Deployment, pods: &[Arc<Pod>], place: Place<'_>) -> Vec<Step> {
    let Some(spec) = &deployment.spec else { return vec![] };
    if deployment.metadata.deletion_timestamp.is_some() {
        return vec![];
    }
    let alive: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_alive(pod)).collect();
    let current = hash(deployment);
    let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = alive.iter().partition(|pod| pod_hash(pod) == Some(current.as_str()));
    let limits = Limits::of(spec);
    let mut steps: Vec<Step> = pods.iter().filter(|pod| status::is_ended(pod)).cloned().map(Step::Delete).collect();
    let missing = limits.replicas.saturating_sub(new.len());
    let room = if limits.recreate && pods.iter().any(|pod| pod_hash(pod) != Some(current.as_str())) {
        0
    } else {
        (limits.replicas + limits.surge).saturating_sub(alive.len())
    };
    if !spec.paused.unwrap_or(false) || old.is_empty() {
        steps.extend((0..missing.min(room)).map(|_| Step::Create(Box::new(new_pod(deployment, spec, &current, place)))));
    }
    steps.extend(surplus(&new, limits.replicas).into_iter().map(Step::Delete));
    if !spec.paused.unwrap_or(false) {
        steps.extend(replaced(&new, &old, limits).into_iter().map(Step::Delete));
    }
    steps
}

/// The `pod-template-hash` of the present template.
pub(crate) fn hash(deployment: &Deployment) -> String {
    hash_of(&deployment.spec.as_ref().map(|spec| &spec.template))
}

fn pod_hash(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(HASH).map(String::as_str)
}

fn new_pod(deployment: &Deployment, spec: &DeploymentSpec, hash: &str, place: Place<'_>) -> Pod {
    let owner = deployment.controller_owner_ref(&()).unwrap_or_default();
    let mut pod = pod_of(&spec.template, deployment.metadata.namespace.clone(), owner, place);
    pod.metadata.generate_name = Some(format!("{}-{hash}-", deployment.metadata.name.as_deref().unwrap_or_default()));
    pod.metadata.labels.get_or_insert_default().insert(HASH.to_owned(), hash.to_owned());
    pod
}

#[derive(Clone, Copy)]
struct Limits {
    replicas: usize,
    surge: usize,
    unavailable: usize,
    recreate: bool,
}

impl Limits {
    fn of(spec: &DeploymentSpec) -> Self {
        let replicas = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        let strategy = spec.strategy.as_ref();
        if strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate")) {
            return Self { replicas, surge: 0, unavailable: replicas, recreate: true };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = share(rolling.and_then(|rolling| rolling.max_surge.as_ref()), replicas, usize::div_ceil);
        let unavailable = share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), replicas, |a, b| a / b);
        // Both zero would never move: Kubernetes then lets one be unavailable.
        Self { replicas, surge, unavailable: if surge == 0 { unavailable.max(1) } else { unavailable }, recreate: false }
    }
}

fn share(given: Option<&IntOrString>, replicas: usize, round: fn(usize, usize) -> usize) -> usize {
    let percent = |percent: usize| round(replicas * percent, 100);
    match given {
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(0),
        Some(IntOrString::String(text)) => percent(text.trim_end_matches('%').parse().unwrap_or(25)),
        None => percent(25),
    }
}

/// Pods above the wanted number: those that are not ready first, then the youngest.
fn surplus(new: &[&Arc<Pod>], replicas: usize) -> Vec<Arc<Pod>> {
    let mut by_worth = new.to_vec();
    by_worth.sort_by_key(|pod| (status::is_ready(pod), Reverse(pod.metadata.creation_timestamp.clone().map(|at| at.0))));
    by_worth.into_iter().take(new.len().saturating_sub(replicas)).cloned().collect()
}

/// Old pods that may go: those that are not ready at once, the others as far as enough stay available.
fn replaced(new: &[&Arc<Pod>], old: &[&Arc<Pod>], limits: Limits) -> Vec<Arc<Pod>> {
    let (ready, broken): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = old.iter().partition(|pod| status::is_ready(pod));
    let available = new.iter().filter(|pod| status::is_ready(pod)).count() + ready.len();
    let spare = available.saturating_sub(limits.replicas.saturating_sub(limits.unavailable));
    broken.into_iter().chain(ready.into_iter().take(spare)).cloned().collect()
}

const HASH: &str = "pod-template-hash";

#[cfg(test)]
mod tests {
    use super::super::testing::{ready, written};
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn deployment(replicas: usize, image: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": { "name": "cart", "namespace": "shop", "uid": "d" },
            "spec": {
                "replicas": replicas,
                "selector": { "matchLabels": { "app": "cart" } },
                "template": { "metadata": { "labels": { "app": "cart" } }, "spec": { "containers": [{ "name": "cart", "image": image }] } },
            },
        }))
        .unwrap()
    }

    fn pods_of(deployment: &Deployment, names: &[&str]) -> Vec<Arc<Pod>> {
        let place = Place { node: "east-1", meshed: false };
        let make = |name: &&str| {
            let mut pod = new_pod(deployment, deployment.spec.as_ref().unwrap(), &hash(deployment), place);
            pod.metadata.name = Some(name.trim_end_matches(['!', '~']).to_owned());
            let pod = if name.ends_with('!') { pod } else { ready(pod) };
            let mut pod = pod;
            if name.ends_with('~') {
                pod.metadata.deletion_timestamp = Some(status::time(std::time::SystemTime::UNIX_EPOCH));
            }
            Arc::new(pod)
        };
        names.iter().map(make).collect()
    }

    /// `!` marks a pod that is not ready, `~` one that is being deleted.
    fn check(replicas: usize, new: &[&str], old: &[&str], expected: &Expect) {
        let (before, now) = (deployment(replicas, "one"), deployment(replicas, "two"));
        let mut pods = pods_of(&now, new);
        pods.extend(pods_of(&before, old));
        let steps = plan(&now, &pods, Place { node: "east-1", meshed: true });
        expected.assert_eq(&written(&steps).replace(&hash(&now), "HASH"));
    }

    #[test]
    fn missing_pods_are_created() {
        check(2, &[], &[], &expect!["create cart-HASH-\ncreate cart-HASH-\n"]);
        check(2, &["a"], &[], &expect!["create cart-HASH-\n"]);
        check(2, &["a", "b"], &[], &expect![""]);
    }

    #[test]
    fn a_pod_that_is_being_deleted_is_replaced_at_once() {
        check(2, &["a", "b~"], &[], &expect!["create cart-HASH-\n"]);
    }

    #[test]
    fn scaling_down_deletes_those_that_are_not_ready_first() {
        check(1, &["a", "b!", "c"], &[], &expect!["delete b\ndelete a\n"]);
        check(0, &["a"], &[], &expect!["delete a\n"]);
    }

    #[test]
    fn a_new_template_replaces_pods_without_losing_availability() {
        check(2, &[], &["a", "b"], &expect!["create cart-HASH-\n"]);
        check(2, &["n!"], &["a", "b"], &expect![""]);
        check(2, &["n"], &["a", "b"], &expect!["delete a\n"]);
        check(2, &["n"], &["b"], &expect!["create cart-HASH-\n"]);
        check(2, &["n", "m"], &["b"], &expect!["delete b\n"]);
    }

    #[test]
    fn an_old_pod_that_is_not_ready_goes_at_once() {
        check(2, &[], &["a!", "b"], &expect!["create cart-HASH-\ndelete a\n"]);
    }

    #[test]
    fn a_new_pod_carries_owner_node_labels_and_the_mesh_mark() {
        let steps = plan(&deployment(1, "one"), &[], Place { node: "east-1", meshed: true });
        let [Step::Create(pod)] = steps.as_slice() else { panic!("{steps:?}") };
        assert_eq!(pod.metadata.owner_references.as_ref().unwrap()[0].uid, "d");
        assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some("east-1"));
        assert_eq!(pod.metadata.annotations.as_ref().unwrap()["isthmus.dev/injected"], "true");
        assert_eq!(pod.metadata.labels.as_ref().unwrap()["app"], "cart");
    }
}
