//! The injector's registration: which pods the API server asks control about.
//!
//! The API server itself leaves out what is not to be meshed, by label, so a control that does not answer delays nobody else. The
//! certificate that it is checked against is written by control, which makes it.

use mesh_api::well_known::{INJECT, INJECT_DISABLED, INJECT_ENABLED, INJECTOR, SYSTEM_NAMESPACE, WEBHOOK_PATH, WEBHOOK_SERVICE};
use serde_json::{Value, json};

use crate::knobs::Knobs;
use crate::object::Object;

/// The configuration of the injector.
pub(crate) fn objects(knobs: &Knobs) -> Vec<Object> {
    let by_namespace = webhook(
        knobs,
        "namespaces.inject.isthmus.dev",
        json!({ "key": INJECT, "operator": "In", "values": [INJECT_ENABLED] }),
        json!({ "key": INJECT, "operator": "NotIn", "values": [INJECT_DISABLED] }),
    );
    let by_pod = webhook(
        knobs,
        "pods.inject.isthmus.dev",
        json!({ "key": INJECT, "operator": "NotIn", "values": [INJECT_ENABLED] }),
        json!({ "key": INJECT, "operator": "In", "values": [INJECT_ENABLED] }),
    );
    vec![Object::new("MutatingWebhookConfiguration", INJECTOR, json!({ "webhooks": [by_namespace, by_pod] }))]
}

#[expect(clippy::needless_pass_by_value, reason = "the selectors are written in place")]
fn webhook(knobs: &Knobs, name: &str, namespaces: Value, pods: Value) -> Value {
    let never = json!({ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [SYSTEM_NAMESPACE, "kube-system", "kube-public", "kube-node-lease"] });
    json!({
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": { "service": { "name": WEBHOOK_SERVICE, "namespace": SYSTEM_NAMESPACE, "path": WEBHOOK_PATH, "port": 443 } },
        "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced" }],
        "namespaceSelector": { "matchExpressions": [namespaces, never] },
        "objectSelector": { "matchExpressions": [pods] },
        "failurePolicy": knobs.webhook,
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "None",
        "timeoutSeconds": 10,
    })
}
