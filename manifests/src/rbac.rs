//! Who may do what with the Kubernetes API: exactly the verbs that the code uses, no wildcard, nothing for who asks nothing.
//!
//! Gateways and DNS have an account, which is their name in the mesh, and no right at all. Reading Secrets is by name.

use mesh_api::well_known::{
    BUNDLE, CONTROL_ACCOUNT, DNS_ACCOUNT, EGRESS_ACCOUNT, FACTS, GATEWAY_ACCOUNT, HANDLES, INJECTOR, ISSUER, MIRROR_ACCOUNT, MIRROR_LEASE,
    SYSTEM_NAMESPACE,
};
use serde_json::{Value, json};

use crate::object::Object;

/// Accounts, roles and bindings.
pub(crate) fn objects() -> Vec<Object> {
    let mut objects: Vec<Object> = [CONTROL_ACCOUNT, MIRROR_ACCOUNT, GATEWAY_ACCOUNT, EGRESS_ACCOUNT, DNS_ACCOUNT]
        .map(|name| Object::new("ServiceAccount", name, json!({ "automountServiceAccountToken": false })))
        .into();
    objects.extend(in_the_cluster("isthmus-control", CONTROL_ACCOUNT, &control()));
    objects.extend(in_the_cluster("isthmus-mirror-controller", MIRROR_ACCOUNT, &mirror()));
    objects.extend(in_the_namespace(
        CONTROL_ACCOUNT,
        &[
            named("", "configmaps", &[FACTS, BUNDLE], READ),
            named("", "secrets", &[ISSUER, HANDLES], READ),
            // A name can't be demanded of what is being created.
            rule("", &["secrets"], &["create"]),
        ],
    ));
    objects.extend(in_the_namespace(
        MIRROR_ACCOUNT,
        &[
            named("", "configmaps", &[BUNDLE], READ),
            named(COORDINATION, "leases", &[MIRROR_LEASE], &["get", "patch"]),
            rule(COORDINATION, &["leases"], &["create"]),
        ],
    ));
    objects.push(for_people("view", &[rule(OURS, &["links", "peers"], LOOK), rule(MCS, &["serviceexports", "serviceimports"], LOOK)]));
    objects.push(for_people("edit", &[rule(MCS, &["serviceexports"], WRITE)]));
    objects
}

fn control() -> Vec<Value> {
    vec![
        rule("", &["services", "pods", "namespaces"], READ),
        // Its uid is the cluster's id.
        named("", "namespaces", &["kube-system"], &["get"]),
        rule("discovery.k8s.io", &["endpointslices"], READ),
        rule(MCS, &["serviceexports", "serviceimports"], READ),
        rule(OURS, &["links", "peers"], READ),
        rule(OURS, &["peers/status"], &["patch"]),
        rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
        named("admissionregistration.k8s.io", "mutatingwebhookconfigurations", &[INJECTOR], &["get", "patch"]),
    ]
}

fn mirror() -> Vec<Value> {
    vec![
        rule("", &["namespaces"], READ),
        rule("", &["services"], MIRRORED),
        rule("discovery.k8s.io", &["endpointslices"], MIRRORED),
        rule(MCS, &["serviceimports"], &["create", "delete", "get", "list", "patch", "watch"]),
        rule(MCS, &["serviceexports"], READ),
        rule(MCS, &["serviceexports/status", "serviceimports/status"], &["patch"]),
        rule(OURS, &["links"], &["list", "patch", "watch"]),
        rule(OURS, &["peers"], READ),
        // The cluster's id is published there.
        rule("about.k8s.io", &["clusterproperties"], MIRRORED),
        rule(OURS, &["links/status"], &["patch"]),
    ]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({ "apiGroups": [group], "resources": resources, "verbs": verbs })
}

fn named(group: &str, resource: &str, names: &[&str], verbs: &[&str]) -> Value {
    json!({ "apiGroups": [group], "resources": [resource], "resourceNames": names, "verbs": verbs })
}

fn in_the_cluster(name: &str, account: &str, rules: &[Value]) -> [Object; 2] {
    [
        Object::new("ClusterRole", name, json!({ "rules": rules })),
        Object::new("ClusterRoleBinding", name, json!({ "roleRef": role("ClusterRole", name), "subjects": [subject(account)] })),
    ]
}

fn in_the_namespace(account: &str, rules: &[Value]) -> [Object; 2] {
    [
        Object::new("Role", account, json!({ "rules": rules })),
        Object::new("RoleBinding", account, json!({ "roleRef": role("Role", account), "subjects": [subject(account)] })),
    ]
}

/// What people of the standard roles may do with our kinds.
fn for_people(role: &str, rules: &[Value]) -> Object {
    let mut labels = json!({});
    labels[format!("rbac.authorization.k8s.io/aggregate-to-{role}")] = json!("true");
    Object::new("ClusterRole", &format!("isthmus-{role}"), json!({ "metadata": { "labels": labels }, "rules": rules }))
}

fn role(kind: &str, name: &str) -> Value {
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name })
}

fn subject(account: &str) -> Value {
    json!({ "kind": "ServiceAccount", "name": account, "namespace": SYSTEM_NAMESPACE })
}

/// What a list-and-watch needs.
const READ: &[&str] = &["list", "watch"];
const LOOK: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
/// What is done with mirror objects: made, brought up to date, taken away.
const MIRRORED: &[&str] = &["create", "delete", "list", "patch", "watch"];
const COORDINATION: &str = "coordination.k8s.io";
const OURS: &str = "isthmus.dev";
const MCS: &str = "multicluster.x-k8s.io";
