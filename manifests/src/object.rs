//! One Kubernetes object, as a plain value with the few fields that everybody asks for.

use mesh_api::well_known::{MANAGED_BY, MANAGED_BY_ISTHMUS, SYSTEM_NAMESPACE};
use serde_json::{Map, Value, json};

/// A Kubernetes object of the installation. Invariant: it has an apiVersion, a kind of [`KINDS`], a name, and our label.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(Value);

/// Where objects of a kind are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Group and version.
    pub api_version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// Its name in paths.
    pub plural: &'static str,
    /// Whether its objects lie in a namespace.
    pub namespaced: bool,
}

/// Every kind that an installation has objects of.
pub const KINDS: &[Kind] = &[
    cluster("v1", "Namespace", "namespaces"),
    cluster("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"),
    namespaced("v1", "ServiceAccount", "serviceaccounts"),
    namespaced("v1", "ConfigMap", "configmaps"),
    namespaced("v1", "Secret", "secrets"),
    namespaced("v1", "Service", "services"),
    namespaced("apps/v1", "Deployment", "deployments"),
    namespaced("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    namespaced("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    cluster("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles"),
    cluster("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings"),
    namespaced("rbac.authorization.k8s.io/v1", "Role", "roles"),
    namespaced("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    cluster("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
];

const fn cluster(api_version: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { api_version, kind, plural, namespaced: false }
}

const fn namespaced(api_version: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { api_version, kind, plural, namespaced: true }
}

impl Object {
    /// An object of `kind` with our label, in our namespace if its kind lies in one, and everything of `rest`.
    pub(crate) fn new(kind: &str, name: &str, rest: Value) -> Self {
        let of = KINDS.iter().find(|known| known.kind == kind).copied().unwrap_or(KINDS[0]);
        let mut metadata = json!({ "name": name, "labels": { MANAGED_BY: MANAGED_BY_ISTHMUS, "app.kubernetes.io/part-of": "isthmus" } });
        if of.namespaced {
            metadata["namespace"] = json!(SYSTEM_NAMESPACE);
        }
        let mut body = json!({ "apiVersion": of.api_version, "kind": of.kind, "metadata": metadata });
        merge(&mut body, rest);
        Self(body)
    }

    /// The object itself.
    #[must_use]
    pub fn body(&self) -> &Value {
        &self.0
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.0["kind"].as_str().unwrap_or_default()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The namespace that it lies in.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0["metadata"]["namespace"].as_str()
    }

    /// Where objects of its kind are found.
    #[must_use]
    pub fn of(&self) -> Kind {
        KINDS.iter().find(|known| known.kind == self.kind()).copied().unwrap_or(KINDS[0])
    }
}

/// Adds what is in `more`, map by map.
fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge_entry(into, key, value);
            }
        }
        (into, more) => *into = more,
    }
}

fn merge_entry(into: &mut Map<String, Value>, key: String, value: Value) {
    match into.get_mut(&key) {
        Some(held) => merge(held, value),
        None => {
            into.insert(key, value);
        }
    }
}
