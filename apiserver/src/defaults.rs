//! Defaults of built-in kinds that controllers and `kubectl` rely on. Pure.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{crd, kinds::Kind, object};

/// Fills in what the object leaves out.
pub(crate) fn apply(kind: &Kind, before: Option<&Value>, new: &mut Value) {
    if kind.custom.is_some() {
        return;
    }
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Namespace") => namespace(before, new),
        ("", "Pod") => {
            pod(object::member(new, "spec"));
            if before.is_none() {
                object::map(new).insert("status".to_owned(), json!({"phase": "Pending", "qosClass": "BestEffort"}));
            }
        }
        ("", "Service") => service(new),
        ("", "Secret") => secret(new),
        ("apps", "Deployment") => deployment(object::member(new, "spec")),
        ("apps", "StatefulSet") => stateful_set(object::member(new, "spec")),
        ("apps", "DaemonSet" | "ReplicaSet") | ("batch", "Job") => template(object::member(new, "spec")),
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice(new),
        ("apiextensions.k8s.io", _) => crd::default(new),
        _ => {}
    }
    if matches!(kind.kind.as_str(), "ReplicaSet") {
        object::default(object::member(new, "spec"), "replicas", json!(1));
    }
    if before.is_none() && kind.group == "apps" && kind.has("status") {
        object::member(new, "status");
    }
}

fn namespace(before: Option<&Value>, new: &mut Value) {
    let name = object::name(new).to_owned();
    object::map(object::metadata(new).entry("labels").or_insert_with(|| json!({})))
        .insert("kubernetes.io/metadata.name".to_owned(), json!(name));
    match before.and_then(|before| before.get("spec")) {
        Some(spec) => drop(object::map(new).insert("spec".to_owned(), spec.clone())),
        None if before.is_none() => {
            object::map(new).insert("spec".to_owned(), json!({"finalizers": ["kubernetes"]}));
            object::map(new).insert("status".to_owned(), json!({"phase": "Active"}));
        }
        None => {}
    }
}

fn pod(spec: &mut Map<String, Value>) {
    for (name, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("serviceAccountName", json!("default")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("securityContext", json!({})),
        ("enableServiceLinks", json!(true)),
    ] {
        object::default(spec, name, value);
    }
    let account = spec.get("serviceAccountName").cloned().unwrap_or_default();
    object::default(spec, "serviceAccount", account);
    containers(spec);
}

fn containers(spec: &mut Map<String, Value>) {
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let container = object::map(container);
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
            let pull = if tag.is_none_or(|tag| tag == "latest") { "Always" } else { "IfNotPresent" };
            object::default(container, "imagePullPolicy", json!(pull));
            object::default(container, "resources", json!({}));
            object::default(container, "terminationMessagePath", json!("/dev/termination-log"));
            object::default(container, "terminationMessagePolicy", json!("File"));
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                object::default(object::map(port), "protocol", json!("TCP"));
            }
        }
    }
}

fn template(spec: &mut Map<String, Value>) {
    if let Some(template) = spec.get_mut("template") {
        let spec = object::member(template, "spec");
        for (name, value) in [
            ("restartPolicy", json!("Always")),
            ("dnsPolicy", json!("ClusterFirst")),
            ("schedulerName", json!("default-scheduler")),
            ("terminationGracePeriodSeconds", json!(30)),
            ("securityContext", json!({})),
        ] {
            object::default(spec, name, value);
        }
        if let Some(account) = spec.get("serviceAccountName").cloned() {
            object::default(spec, "serviceAccount", account);
        }
        containers(spec);
    }
}

fn deployment(spec: &mut Map<String, Value>) {
    object::default(spec, "replicas", json!(1));
    object::default(spec, "revisionHistoryLimit", json!(10));
    object::default(spec, "progressDeadlineSeconds", json!(600));
    rolling(spec, "strategy", &json!({"maxSurge": "25%", "maxUnavailable": "25%"}));
    template(spec);
}

/// How to update, where that is left out or left empty, as Go leaves it.
fn rolling(spec: &mut Map<String, Value>, field: &str, how: &Value) {
    let strategy = object::map(spec.entry(field).or_insert_with(|| json!({})));
    object::default(strategy, "type", json!("RollingUpdate"));
    if strategy.get("type") == Some(&json!("RollingUpdate")) {
        let rolling = object::map(strategy.entry("rollingUpdate").or_insert_with(|| json!({})));
        for (name, value) in how.as_object().into_iter().flatten() {
            object::default(rolling, name, value.clone());
        }
    }
}

fn stateful_set(spec: &mut Map<String, Value>) {
    object::default(spec, "replicas", json!(1));
    object::default(spec, "revisionHistoryLimit", json!(10));
    object::default(spec, "podManagementPolicy", json!("OrderedReady"));
    rolling(spec, "updateStrategy", &json!({"partition": 0}));
    object::default(spec, "persistentVolumeClaimRetentionPolicy", json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    template(spec);
}

fn service(new: &mut Value) {
    let spec = object::member(new, "spec");
    object::default(spec, "type", json!("ClusterIP"));
    object::default(spec, "sessionAffinity", json!("None"));
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind != "ExternalName" {
        object::default(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        object::default(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let port = object::map(port);
        object::default(port, "protocol", json!("TCP"));
        let number = port.get("port").cloned().unwrap_or_default();
        port.retain(|name, value| name != "targetPort" || (*value != json!(0) && *value != json!("")));
        object::default(port, "targetPort", number);
    }
    let status = object::member(new, "status");
    object::default(status, "loadBalancer", json!({}));
}

fn secret(new: &mut Value) {
    let secret = object::map(new);
    object::default(secret, "type", json!("Opaque"));
    if let Some(Value::Object(plain)) = secret.remove("stringData") {
        let data = object::map(secret.entry("data").or_insert_with(|| json!({})));
        for (name, value) in plain {
            data.insert(name, json!(STANDARD.encode(value.as_str().unwrap_or_default())));
        }
    }
}

fn endpoint_slice(new: &mut Value) {
    for port in new.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let port = object::map(port);
        object::default(port, "protocol", json!("TCP"));
        object::default(port, "name", json!(""));
    }
}
