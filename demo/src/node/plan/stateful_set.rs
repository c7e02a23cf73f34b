//! Which pods a StatefulSet needs: one per ordinal under a name that stays, in order unless it says `Parallel`.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource as _;

use super::{Place, Step, hash_of, pod_of};
use crate::node::status;

/// What to do about the pods of one StatefulSet; `pods` are those that it owns.
pub(super) fn plan(set: &StatefulSet, pods: &[Arc<Pod>], place: Place<'_>) -> Vec<Step> {
    let Some(spec) = &set.spec else { return vec![] };
    if set.metadata.deletion_timestamp.is_some() {
        return vec![];
    }
    let parallel = spec.pod_management_policy.as_deref() == Some("Parallel");
    let wanted: Vec<String> = ordinals(spec).map(|ordinal| name(set, ordinal)).collect();
    let mut steps = Vec::new();
    for (ordinal, name) in ordinals(spec).zip(&wanted) {
        let settled = match pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(name)) {
            // The name is free only when the old pod is gone.
            Some(pod) if pod.metadata.deletion_timestamp.is_some() => false,
            Some(pod) if status::is_ended(pod) => {
                steps.push(Step::Delete(Arc::clone(pod)));
                false
            }
            Some(pod) => status::is_ready(pod),
            None => {
                steps.push(Step::Create(Box::new(new_pod(set, spec, ordinal, place))));
                false
            }
        };
        if !settled && !parallel {
            return steps;
        }
    }
    let extra = pods.iter().filter(|pod| pod.metadata.name.as_ref().is_some_and(|name| !wanted.contains(name)));
    steps.extend(highest(extra, parallel));
    if steps.is_empty() {
        steps.extend(outdated(set, spec, pods));
    }
    steps
}

/// The `controller-revision-hash` of the present template.
pub(crate) fn hash(set: &StatefulSet) -> String {
    hash_of(&set.spec.as_ref().map(|spec| &spec.template))
}

fn ordinals(spec: &StatefulSetSpec) -> impl Iterator<Item = i32> + use<> {
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    start..start.saturating_add(spec.replicas.unwrap_or(1))
}

fn name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

fn revision(set: &StatefulSet) -> String {
    format!("{}-{}", set.metadata.name.as_deref().unwrap_or_default(), hash(set))
}

fn ordinal_of(pod: &Pod) -> Option<i32> {
    pod.metadata.name.as_ref()?.rsplit_once('-')?.1.parse().ok()
}

fn new_pod(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32, place: Place<'_>) -> Pod {
    let owner = set.controller_owner_ref(&()).unwrap_or_default();
    let mut pod = pod_of(&spec.template, set.metadata.namespace.clone(), owner, place);
    let name = name(set, ordinal);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION.to_owned(), revision(set));
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
    let held = pod.spec.get_or_insert_default();
    held.hostname = Some(name.clone());
    held.subdomain.clone_from(&spec.service_name);
    pod.metadata.name = Some(name);
    pod
}

/// Of pods that should not be, the ones to delete now: the highest ordinal, once the one before it is gone; all in parallel.
fn highest<'a>(extra: impl Iterator<Item = &'a Arc<Pod>>, parallel: bool) -> Vec<Step> {
    let mut extra: Vec<&Arc<Pod>> = extra.collect();
    extra.sort_by_key(|pod| std::cmp::Reverse(ordinal_of(pod)));
    let leaving = extra.iter().any(|pod| pod.metadata.deletion_timestamp.is_some());
    let staying = extra.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).cloned().map(Step::Delete);
    match (parallel, leaving) {
        (true, _) => staying.collect(),
        (false, true) => vec![],
        (false, false) => staying.take(1).collect(),
    }
}

/// The pod of an older template to replace next: the highest, one at a time, while all are ready.
fn outdated(set: &StatefulSet, spec: &StatefulSetSpec, pods: &[Arc<Pod>]) -> Option<Step> {
    let strategy = spec.update_strategy.as_ref();
    if strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("OnDelete")) || !pods.iter().all(|pod| status::is_ready(pod)) {
        return None;
    }
    let partition = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition).unwrap_or(0);
    let revision = revision(set);
    let is_old = |pod: &&Arc<Pod>| pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION)) != Some(&revision);
    let candidates = pods.iter().filter(is_old).filter(|pod| ordinal_of(pod).is_some_and(|ordinal| ordinal >= partition));
    candidates.max_by_key(|pod| ordinal_of(pod)).cloned().map(Step::Delete)
}

const REVISION: &str = "controller-revision-hash";

#[cfg(test)]
mod tests {
    use super::super::testing::{ready, written};
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn set(replicas: usize, image: &str, policy: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": { "name": "stock", "namespace": "shop", "uid": "s" },
            "spec": {
                "replicas": replicas,
                "serviceName": "stock",
                "podManagementPolicy": policy,
                "selector": { "matchLabels": { "app": "stock" } },
                "template": { "metadata": { "labels": { "app": "stock" } }, "spec": { "containers": [{ "name": "stock", "image": image }] } },
            },
        }))
        .unwrap()
    }

    /// Pods are written as ordinals; `!` is not ready, `~` being deleted, `-` of the older template.
    fn check(replicas: usize, policy: &str, pods: &[&str], expected: &Expect) {
        let (before, now) = (set(9, "one", policy), set(replicas, "two", policy));
        let make = |text: &&str| {
            let from = if text.ends_with('-') { &before } else { &now };
            let ordinal = text.trim_end_matches(['!', '~', '-']).parse().unwrap();
            let pod = new_pod(from, from.spec.as_ref().unwrap(), ordinal, Place { node: "east-1", meshed: false });
            let mut pod = if text.ends_with('!') { pod } else { ready(pod) };
            if text.ends_with('~') {
                pod.metadata.deletion_timestamp = Some(status::time(std::time::SystemTime::UNIX_EPOCH));
            }
            Arc::new(pod)
        };
        let pods: Vec<Arc<Pod>> = pods.iter().map(make).collect();
        expected.assert_eq(&written(&plan(&now, &pods, Place { node: "east-1", meshed: false })));
    }

    #[test]
    fn pods_are_created_in_order_each_when_the_one_before_is_ready() {
        check(3, "OrderedReady", &[], &expect!["create stock-0\n"]);
        check(3, "OrderedReady", &["0!"], &expect![""]);
        check(3, "OrderedReady", &["0"], &expect!["create stock-1\n"]);
        check(2, "OrderedReady", &["0", "1"], &expect![""]);
        check(2, "Parallel", &[], &expect!["create stock-0\ncreate stock-1\n"]);
    }

    #[test]
    fn a_name_is_used_again_only_when_its_pod_is_gone() {
        check(2, "OrderedReady", &["0~", "1"], &expect![""]);
        check(2, "OrderedReady", &["1"], &expect!["create stock-0\n"]);
    }

    #[test]
    fn scaling_down_deletes_the_highest_one_at_a_time() {
        check(1, "OrderedReady", &["0", "1", "2"], &expect!["delete stock-2\n"]);
        check(1, "OrderedReady", &["0", "1", "2~"], &expect![""]);
        check(0, "Parallel", &["0", "1"], &expect!["delete stock-1\ndelete stock-0\n"]);
    }

    #[test]
    fn a_new_template_replaces_the_highest_first_while_all_are_ready() {
        check(2, "OrderedReady", &["0-", "1-"], &expect!["delete stock-1\n"]);
        check(2, "OrderedReady", &["0-", "1!"], &expect![""]);
        check(2, "OrderedReady", &["0-", "1"], &expect!["delete stock-0\n"]);
    }

    #[test]
    fn a_pod_has_its_own_hostname_under_the_sets_service() {
        let steps = plan(&set(1, "one", "Parallel"), &[], Place { node: "east-1", meshed: false });
        let [Step::Create(pod)] = steps.as_slice() else { panic!("{steps:?}") };
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("stock-0"), Some("stock")));
    }
}
