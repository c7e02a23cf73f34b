//! Which kinds are served: the table of built-in ones, and those that CustomResourceDefinitions add.
//!
//! A [`Registry`] is immutable and shared; the store makes a new one when a definition changes, so a request sees one consistent set.

use std::{collections::HashMap, sync::Arc};

use crate::crd::Custom;

/// One version of one kind, as requests address it.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version, such as `v1`.
    pub version: String,
    /// The plural name in paths.
    pub plural: String,
    /// The singular name that `kubectl` accepts.
    pub singular: String,
    /// The kind, such as `Pod`.
    pub kind: String,
    /// Short names that `kubectl` accepts.
    pub short_names: Vec<String>,
    /// Categories, such as `all`.
    pub categories: Vec<String>,
    /// Whether objects lie in namespaces.
    pub namespaced: bool,
    /// Subresources that are served.
    pub subresources: Vec<String>,
    /// Whether objects are kept; reviews are answered and forgotten.
    pub stored: Stored,
    /// The definition behind it, when a CustomResourceDefinition added it.
    pub custom: Option<Custom>,
}

/// Whether a kind's objects are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Kept in the store.
    Kept,
    /// Answered at once and not kept (reviews).
    Answered,
}

impl Kind {
    /// `v1`, or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, or `deployments.apps`: what errors name, and what the store files objects under (versions share it).
    pub(crate) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether the subresource is served.
    pub(crate) fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|each| each == subresource)
    }

    /// Whether this is the built-in kind of that group and name.
    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.custom.is_none() && self.group == group && self.kind == kind
    }
}

/// All kinds that are served now.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    kinds: Vec<Arc<Kind>>,
    by_path: HashMap<(String, String, String), usize>,
}

impl Registry {
    /// The built-in kinds and the given custom ones; a custom kind never replaces a built-in one.
    pub(crate) fn new(custom: impl IntoIterator<Item = Kind>) -> Self {
        let mut registry = Self { kinds: Vec::new(), by_path: HashMap::new() };
        for kind in TABLE.iter().map(Row::kind).chain(custom) {
            let path = (kind.group.clone(), kind.version.clone(), kind.plural.clone());
            if !registry.by_path.contains_key(&path) {
                registry.by_path.insert(path, registry.kinds.len());
                registry.kinds.push(Arc::new(kind));
            }
        }
        registry
    }

    /// The kind at a path.
    pub(crate) fn at(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let at = self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))?;
        self.kinds.get(*at).cloned()
    }

    /// A kind of a group by its name, in any version.
    pub(crate) fn named(&self, group: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.kinds.iter().find(|each| each.group == group && each.kind == kind)
    }

    /// Every kind, built-in ones first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.iter()
    }

    /// Groups in order of appearance, each with its versions, the preferred one first.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for kind in &self.kinds {
            match groups.iter_mut().find(|(group, _)| *group == kind.group) {
                Some((_, versions)) if versions.contains(&kind.version) => {}
                Some((_, versions)) => versions.push(kind.version.clone()),
                None => groups.push((kind.group.clone(), vec![kind.version.clone()])),
            }
        }
        groups
    }
}

/// Lists in a row are separated by blanks.
struct Row(&'static str, &'static str, &'static str, &'static str, &'static str, Scope, &'static str, &'static str);

#[derive(Clone, Copy, PartialEq)]
enum Scope {
    Namespace,
    Cluster,
    ReviewCluster,
    ReviewNamespace,
}
use Scope::{Cluster as C, Namespace as N, ReviewCluster as R, ReviewNamespace as L};

impl Row {
    fn kind(&self) -> Kind {
        let Self(group, version, plural, kind, short_names, scope, subresources, categories) = *self;
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        Kind {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            kind: kind.to_owned(),
            short_names: words(short_names),
            categories: words(categories),
            namespaced: matches!(scope, N | L),
            subresources: words(subresources),
            stored: if matches!(scope, R | L) { Stored::Answered } else { Stored::Kept },
            custom: None,
        }
    }
}

const TABLE: &[Row] = &[
    Row("", "v1", "configmaps", "ConfigMap", "cm", N, "", ""),
    Row("", "v1", "endpoints", "Endpoints", "ep", N, "", ""),
    Row("", "v1", "events", "Event", "ev", N, "", ""),
    Row("", "v1", "limitranges", "LimitRange", "limits", N, "", ""),
    Row("", "v1", "namespaces", "Namespace", "ns", C, "finalize status", ""),
    Row("", "v1", "nodes", "Node", "no", C, "status", ""),
    Row("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", "pvc", N, "status", ""),
    Row("", "v1", "persistentvolumes", "PersistentVolume", "pv", C, "status", ""),
    Row("", "v1", "pods", "Pod", "po", N, "binding eviction status", "all"),
    Row("", "v1", "podtemplates", "PodTemplate", "", N, "", ""),
    Row("", "v1", "replicationcontrollers", "ReplicationController", "rc", N, "scale status", "all"),
    Row("", "v1", "resourcequotas", "ResourceQuota", "quota", N, "status", ""),
    Row("", "v1", "secrets", "Secret", "", N, "", ""),
    Row("", "v1", "serviceaccounts", "ServiceAccount", "sa", N, "token", ""),
    Row("", "v1", "services", "Service", "svc", N, "status", "all"),
    Row("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", "", C, "", "api-extensions"),
    Row(
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        "",
        C,
        "",
        "api-extensions",
    ),
    Row("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", "crd crds", C, "status", "api-extensions"),
    Row("apps", "v1", "controllerrevisions", "ControllerRevision", "", N, "", ""),
    Row("apps", "v1", "daemonsets", "DaemonSet", "ds", N, "status", "all"),
    Row("apps", "v1", "deployments", "Deployment", "deploy", N, "scale status", "all"),
    Row("apps", "v1", "replicasets", "ReplicaSet", "rs", N, "scale status", "all"),
    Row("apps", "v1", "statefulsets", "StatefulSet", "sts", N, "scale status", "all"),
    Row("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", "", R, "", ""),
    Row("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", "", R, "", ""),
    Row("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", "", L, "", ""),
    Row("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", "", R, "", ""),
    Row("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", "", R, "", ""),
    Row("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", "", R, "", ""),
    Row("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", N, "status", "all"),
    Row("batch", "v1", "cronjobs", "CronJob", "cj", N, "status", "all"),
    Row("batch", "v1", "jobs", "Job", "", N, "status", "all"),
    Row("coordination.k8s.io", "v1", "leases", "Lease", "", N, "", ""),
    Row("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", "", N, "", ""),
    Row("events.k8s.io", "v1", "events", "Event", "ev", N, "", ""),
    Row("networking.k8s.io", "v1", "ingressclasses", "IngressClass", "", C, "", ""),
    Row("networking.k8s.io", "v1", "ingresses", "Ingress", "ing", N, "status", ""),
    Row("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", "netpol", N, "", ""),
    Row("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", N, "status", ""),
    Row("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", "", C, "", ""),
    Row("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", "", C, "", ""),
    Row("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", "", N, "", ""),
    Row("rbac.authorization.k8s.io", "v1", "roles", "Role", "", N, "", ""),
    Row("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", "pc", C, "", ""),
    Row("storage.k8s.io", "v1", "storageclasses", "StorageClass", "sc", C, "", ""),
];
