//! Which pods should exist: what the workload controllers of a cluster decide. Pure; a pod is made from a template here and nowhere else.

mod deployment;
mod stateful_set;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;

use super::observe::Seen;
use super::{sidecar, status};

/// One thing to do about a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Create it; without a name, under its `generateName` and something random.
    Create(Box<Pod>),
    /// Ask the API to delete it.
    Delete(Arc<Pod>),
}

/// What to do so that the pods become what Deployments and StatefulSets say.
pub(crate) fn plan(seen: &Seen, node: &str) -> Vec<Step> {
    let place = |namespace: Option<&str>, template: &PodTemplateSpec| Place {
        node,
        meshed: sidecar::template_is_meshed(template, namespace, seen),
    };
    let mut steps = Vec::new();
    for deployment in &seen.deployments {
        let place = place(deployment.metadata.namespace.as_deref(), &template_of(deployment.spec.as_ref().map(|spec| &spec.template)));
        steps.extend(deployment::plan(deployment, &owned(seen, deployment.metadata.uid.as_deref()), place));
    }
    for set in &seen.stateful_sets {
        let place = place(set.metadata.namespace.as_deref(), &template_of(set.spec.as_ref().map(|spec| &spec.template)));
        steps.extend(stateful_set::plan(set, &owned(seen, set.metadata.uid.as_deref()), place));
    }
    steps.extend(orphans(seen).map(Step::Delete));
    steps
}

pub(crate) use deployment::hash as deployment_hash;
pub(crate) use stateful_set::hash as stateful_set_hash;

/// Where a new pod goes and whether it gets a sidecar.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    node: &'a str,
    meshed: bool,
}

fn template_of(template: Option<&PodTemplateSpec>) -> PodTemplateSpec {
    template.cloned().unwrap_or_default()
}

/// The pods whose controller has this uid.
pub(crate) fn owned(seen: &Seen, uid: Option<&str>) -> Vec<Arc<Pod>> {
    let mut pods: Vec<Arc<Pod>> =
        seen.pods.iter().filter(|pod| controller(pod).is_some_and(|owner| Some(owner.uid.as_str()) == uid)).cloned().collect();
    pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    pods
}

/// Pods of a Deployment or StatefulSet that no longer exists.
fn orphans(seen: &Seen) -> impl Iterator<Item = Arc<Pod>> {
    seen.pods
        .iter()
        .filter(|pod| is_alive(pod))
        .filter(|pod| {
            controller(pod).is_some_and(|owner| match owner.kind.as_str() {
                "Deployment" => !seen.deployments.iter().any(|owning| owning.metadata.uid.as_ref() == Some(&owner.uid)),
                "StatefulSet" => !seen.stateful_sets.iter().any(|owning| owning.metadata.uid.as_ref() == Some(&owner.uid)),
                _ => false,
            })
        })
        .cloned()
}

fn controller(pod: &Pod) -> Option<&OwnerReference> {
    pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Neither being deleted nor ended.
fn is_alive(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !status::is_ended(pod)
}

/// The pod that `template` describes, owned by `owner`.
fn pod_of(template: &PodTemplateSpec, namespace: Option<String>, owner: OwnerReference, place: Place<'_>) -> Pod {
    let held = template.metadata.clone().unwrap_or_default();
    let mut spec = template.spec.clone().unwrap_or_default();
    spec.node_name = Some(place.node.to_owned());
    let mut pod = Pod {
        metadata: ObjectMeta {
            namespace,
            labels: held.labels,
            annotations: held.annotations,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    };
    if place.meshed {
        pod.metadata.annotations.get_or_insert_default().insert(mesh_api::well_known::INJECTED.to_owned(), "true".to_owned());
    }
    pod
}

/// A short name for a template's content, in letters that spell nothing.
pub(super) fn hash_of(value: &impl Serialize) -> String {
    // A template that does not serialise cannot have come from the API; an empty text then stands for it.
    let text = serde_json::to_string(value).unwrap_or_default();
    spelled(text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)), 10)
}

/// `number` in the letters that Kubernetes uses for generated names.
pub(crate) fn spelled(mut number: u64, letters: usize) -> String {
    (0..letters)
        .map(|_| {
            let letter = LETTERS[usize::try_from(number % LETTERS.len() as u64).unwrap_or(0)];
            number /= LETTERS.len() as u64;
            char::from(letter)
        })
        .collect()
}

const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

#[cfg(test)]
pub(crate) mod testing {
    //! Pods for tests, written as `namespace/name`, and steps written as lines.

    use super::*;
    use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};

    pub(crate) fn pod(id: &str) -> Pod {
        let (namespace, name) = id.split_once('/').unwrap();
        Pod {
            metadata: ObjectMeta {
                namespace: Some(namespace.into()),
                name: Some(name.into()),
                uid: Some(format!("uid-of-{name}")),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec::default()),
            status: None,
        }
    }

    pub(crate) fn ready(mut pod: Pod) -> Pod {
        let condition = PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
        pod.status = Some(PodStatus { phase: Some("Running".into()), conditions: Some(vec![condition]), ..PodStatus::default() });
        pod
    }

    pub(crate) fn written(steps: &[Step]) -> String {
        let line = |step: &Step| match step {
            Step::Create(pod) => format!("create {}\n", pod.metadata.name.as_ref().or(pod.metadata.generate_name.as_ref()).unwrap()),
            Step::Delete(pod) => format!("delete {}\n", pod.metadata.name.as_ref().unwrap()),
        };
        steps.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{pod, written};
    use super::*;

    #[test]
    fn a_pod_whose_deployment_is_gone_is_deleted() {
        let mut orphan = pod("shop/cart-1");
        let owner = OwnerReference { kind: "Deployment".into(), uid: "gone".into(), controller: Some(true), ..OwnerReference::default() };
        orphan.metadata.owner_references = Some(vec![owner]);
        let seen = Seen { pods: vec![Arc::new(orphan), Arc::new(pod("shop/bare"))], ..Seen::default() };
        assert_eq!(written(&plan(&seen, "east-1")), "delete cart-1\n");
    }

    #[test]
    fn names_are_spelled_in_letters_that_a_label_may_have() {
        assert_eq!(spelled(0, 5), "bbbbb");
        assert_eq!(hash_of(&"a").len(), 10);
        assert_ne!(hash_of(&"a"), hash_of(&"b"));
    }
}
