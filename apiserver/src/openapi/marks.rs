//! How the lists and maps of the built-in kinds merge: what the published Rust types leave out of their schemas.
//!
//! Taken row by row from Kubernetes 1.35: list types from client-go's `applyconfigurations/internal`, patch strategies from the
//! struct tags of `k8s.io/api`. One table serves strategic patches, server-side apply and the OpenAPI documents, so that the three
//! can't disagree. A list that is not named here is atomic and replaced whole, a map merges key by key. Definitions of
//! `io.k8s.api` are named without that prefix.

use List::{Atomic, Map, Set, Unmarked};
use Patch::{MergeBy, MergeRetainingKeys, Replace, RetainKeys, Union};

/// How one field of one definition merges.
pub(super) struct Mark {
    /// The schema's name, see the module's head.
    pub(super) definition: &'static str,
    pub(super) field: &'static str,
    pub(super) list: List,
    pub(super) patch: Patch,
}

/// `x-kubernetes-list-type` and `x-kubernetes-list-map-keys`, for server-side apply.
pub(super) enum List {
    Unmarked,
    Atomic,
    Set,
    Map(&'static [&'static str]),
}

/// `x-kubernetes-patch-strategy` and `x-kubernetes-patch-merge-key`, for strategic patches.
pub(super) enum Patch {
    Replace,
    RetainKeys,
    /// A list of scalars, merged as a set.
    Union,
    MergeBy(&'static str),
    MergeRetainingKeys(&'static str),
}

const fn mark(definition: &'static str, field: &'static str, list: List, patch: Patch) -> Mark {
    Mark { definition, field, list, patch }
}

pub(super) const MARKS: &[Mark] = &[
    mark("admissionregistration.v1.MutatingWebhook", "matchConditions", Map(&["name"]), MergeBy("name")),
    mark("admissionregistration.v1.MutatingWebhookConfiguration", "webhooks", Map(&["name"]), MergeBy("name")),
    mark("admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec", "validationActions", Set, Replace),
    mark("admissionregistration.v1.ValidatingAdmissionPolicySpec", "matchConditions", Map(&["name"]), MergeBy("name")),
    mark("admissionregistration.v1.ValidatingAdmissionPolicySpec", "variables", Map(&["name"]), MergeBy("name")),
    mark("admissionregistration.v1.ValidatingAdmissionPolicyStatus", "conditions", Map(&["type"]), Replace),
    mark("admissionregistration.v1.ValidatingWebhook", "matchConditions", Map(&["name"]), MergeBy("name")),
    mark("admissionregistration.v1.ValidatingWebhookConfiguration", "webhooks", Map(&["name"]), MergeBy("name")),
    mark("apps.v1.DaemonSetStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("apps.v1.DeploymentSpec", "strategy", Unmarked, RetainKeys),
    mark("apps.v1.DeploymentStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("apps.v1.ReplicaSetStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("apps.v1.StatefulSetStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("batch.v1.JobStatus", "conditions", Atomic, MergeBy("type")),
    mark("batch.v1.PodFailurePolicyOnExitCodesRequirement", "values", Set, Replace),
    mark("batch.v1.UncountedTerminatedPods", "failed", Set, Replace),
    mark("batch.v1.UncountedTerminatedPods", "succeeded", Set, Replace),
    mark("core.v1.ComponentStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("core.v1.Container", "env", Map(&["name"]), MergeBy("name")),
    mark("core.v1.Container", "ports", Map(&["containerPort", "protocol"]), MergeBy("containerPort")),
    mark("core.v1.Container", "volumeDevices", Map(&["devicePath"]), MergeBy("devicePath")),
    mark("core.v1.Container", "volumeMounts", Map(&["mountPath"]), MergeBy("mountPath")),
    mark("core.v1.ContainerRestartRuleOnExitCodes", "values", Set, Replace),
    mark("core.v1.ContainerStatus", "allocatedResourcesStatus", Map(&["name"]), MergeBy("name")),
    mark("core.v1.ContainerStatus", "volumeMounts", Map(&["mountPath"]), MergeBy("mountPath")),
    mark("core.v1.EphemeralContainer", "env", Map(&["name"]), MergeBy("name")),
    mark("core.v1.EphemeralContainer", "ports", Map(&["containerPort", "protocol"]), MergeBy("containerPort")),
    mark("core.v1.EphemeralContainer", "volumeDevices", Map(&["devicePath"]), MergeBy("devicePath")),
    mark("core.v1.EphemeralContainer", "volumeMounts", Map(&["mountPath"]), MergeBy("mountPath")),
    mark("core.v1.NamespaceStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("core.v1.NodeSpec", "podCIDRs", Set, Union),
    mark("core.v1.NodeStatus", "addresses", Map(&["type"]), MergeBy("type")),
    mark("core.v1.NodeStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("core.v1.PersistentVolumeClaimStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("core.v1.PodSpec", "containers", Map(&["name"]), MergeBy("name")),
    mark("core.v1.PodSpec", "ephemeralContainers", Map(&["name"]), MergeBy("name")),
    mark("core.v1.PodSpec", "hostAliases", Map(&["ip"]), MergeBy("ip")),
    mark("core.v1.PodSpec", "imagePullSecrets", Map(&["name"]), MergeBy("name")),
    mark("core.v1.PodSpec", "initContainers", Map(&["name"]), MergeBy("name")),
    mark("core.v1.PodSpec", "resourceClaims", Map(&["name"]), MergeRetainingKeys("name")),
    mark("core.v1.PodSpec", "schedulingGates", Map(&["name"]), MergeBy("name")),
    mark("core.v1.PodSpec", "topologySpreadConstraints", Map(&["topologyKey", "whenUnsatisfiable"]), MergeBy("topologyKey")),
    mark("core.v1.PodSpec", "volumes", Map(&["name"]), MergeRetainingKeys("name")),
    mark("core.v1.PodStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("core.v1.PodStatus", "hostIPs", Atomic, MergeBy("ip")),
    mark("core.v1.PodStatus", "podIPs", Map(&["ip"]), MergeBy("ip")),
    mark("core.v1.PodStatus", "resourceClaimStatuses", Map(&["name"]), MergeRetainingKeys("name")),
    mark("core.v1.ReplicationControllerStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("core.v1.ResourceRequirements", "claims", Map(&["name"]), Replace),
    mark("core.v1.ResourceStatus", "resources", Map(&["resourceID"]), Replace),
    mark("core.v1.ServiceAccount", "secrets", Map(&["name"]), MergeBy("name")),
    mark("core.v1.ServiceSpec", "ports", Map(&["port", "protocol"]), MergeBy("port")),
    mark("core.v1.ServiceStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("discovery.v1.Endpoint", "addresses", Set, Replace),
    mark("networking.v1.ServiceCIDRStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("policy.v1.PodDisruptionBudgetStatus", "conditions", Map(&["type"]), MergeBy("type")),
    mark("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus", "conditions", Map(&["type"]), Replace),
    mark("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", Set, Union),
    mark("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "ownerReferences", Map(&["uid"]), MergeBy("uid")),
];

/// Structs that one manager owns as a whole.
pub(super) const ATOMIC_DEFINITIONS: &[&str] = &[
    "admissionregistration.v1.MatchResources",
    "admissionregistration.v1.NamedRuleWithOperations",
    "admissionregistration.v1.ParamKind",
    "admissionregistration.v1.ParamRef",
    "admissionregistration.v1.Variable",
    "core.v1.ConfigMapKeySelector",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.FileKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.ScopeSelector",
    "core.v1.SecretKeySelector",
    "core.v1.SecretReference",
    "core.v1.TypedLocalObjectReference",
    "discovery.v1.EndpointPort",
    "networking.v1.ServiceBackendPort",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
    "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference",
];

/// Maps that one manager owns as a whole.
pub(super) const ATOMIC_MAPS: &[(&str, &str)] =
    &[("core.v1.PodSpec", "nodeSelector"), ("core.v1.ReplicationControllerSpec", "selector"), ("core.v1.ServiceSpec", "selector")];

/// A struct that is atomic elsewhere and merges field by field here.
pub(super) const GRANULAR_FIELDS: &[(&str, &str)] = &[("core.v1.PersistentVolumeSpec", "claimRef")];

/// What a key of a list's element means when it is left out.
pub(super) const DEFAULTS: &[(&str, &str, &str)] =
    &[("core.v1.ContainerPort", "protocol", "TCP"), ("core.v1.ServicePort", "protocol", "TCP")];
