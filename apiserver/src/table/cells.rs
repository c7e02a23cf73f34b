//! The cells of built-in kinds: small readers of objects that never fail. Pure.

use jiff::Timestamp;
use serde_json::Value;

use super::{duration, since};

/// The value at a dotted path.
pub(super) fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, name| value.get(name))
}

/// The text at a dotted path, empty when there is none.
pub(super) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a dotted path, 0 when there is none.
pub(super) fn number(object: &Value, path: &str) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or_default()
}

/// The elements of the list at a dotted path.
pub(super) fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// How many keys the map at a dotted path has.
pub(super) fn size(object: &Value, path: &str) -> usize {
    at(object, path).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

pub(super) fn name(object: &Value) -> Value {
    text(object, "metadata.name").into()
}

pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    since(text(object, "metadata.creationTimestamp"), now).into()
}

pub(super) fn optional_age(object: &Value, path: &str, now: Timestamp) -> String {
    let moment = text(object, path);
    if moment.is_empty() { String::new() } else { since(moment, now) }
}

pub(super) fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

pub(super) fn or_unknown(text: &str) -> Value {
    if text.is_empty() { "<unknown>".into() } else { text.into() }
}

/// `key=value` pairs in order.
pub(super) fn labels(found: Option<&Value>) -> Value {
    let pairs = found.and_then(Value::as_object).into_iter().flatten();
    let mut pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.sort();
    or_none(&pairs.join(","))
}

/// A label selector as one would type it; `none` when it selects by nothing.
pub(super) fn selector(object: &Value, path: &str, none: &str) -> Value {
    let Some(selector) = at(object, path) else {
        return none.into();
    };
    let equal = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    let mut terms: Vec<(String, String)> =
        equal.map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default()))).collect();
    for expression in list(selector, "matchExpressions") {
        let key = text(expression, "key");
        let mut values: Vec<&str> = list(expression, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let term = match text(expression, "operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        terms.push((key.to_owned(), term));
    }
    terms.sort();
    let terms: Vec<String> = terms.into_iter().map(|(_, term)| term).collect();
    if terms.is_empty() { none.into() } else { terms.join(",").into() }
}

/// Names and images of a template's containers.
pub(super) fn templates(object: &Value, template: &str) -> Vec<Value> {
    let containers = at(object, template).map_or(&[][..], |template| list(template, "spec.containers"));
    let joined = |field: &str| containers.iter().map(|each| text(each, field)).collect::<Vec<_>>().join(",").into();
    vec![joined("name"), joined("image")]
}

pub(super) fn ready(object: &Value) -> Value {
    format!("{}/{}", number(object, "status.readyReplicas"), number(object, "spec.replicas")).into()
}

pub(super) fn controller(object: &Value) -> Value {
    let owner = list(object, "metadata.ownerReferences").iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)));
    let shown = owner.map(|owner| {
        let kind = text(owner, "kind").to_lowercase();
        let group = text(owner, "apiVersion").split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        format!("{kind}{group}/{}", text(owner, "name"))
    });
    or_none(&shown.unwrap_or_default())
}

pub(super) fn job_status(object: &Value) -> Value {
    let has =
        |kind: &str| list(object, "status.conditions").iter().any(|each| text(each, "type") == kind && text(each, "status") == "True");
    let deleted = !text(object, "metadata.deletionTimestamp").is_empty();
    let status = match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if deleted => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    status.into()
}

pub(super) fn completions(object: &Value) -> Value {
    let succeeded = number(object, "status.succeeded");
    let shown = match (at(object, "spec.completions").and_then(Value::as_i64), number(object, "spec.parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    shown.into()
}

pub(super) fn job_duration(object: &Value, now: Timestamp) -> Value {
    let moment = |path: &str| text(object, path).parse::<Timestamp>().ok();
    let Some(started) = moment("status.startTime") else {
        return "".into();
    };
    let ended = moment("status.completionTime").unwrap_or(now);
    duration(ended.as_second().saturating_sub(started.as_second())).into()
}

pub(super) fn suspended(object: &Value) -> Value {
    match at(object, "spec.suspend").and_then(Value::as_bool) {
        Some(true) => "True".into(),
        Some(false) => "False".into(),
        None => "<unset>".into(),
    }
}

pub(super) fn cluster_ip(object: &Value) -> &str {
    list(object, "spec.clusterIPs").first().and_then(Value::as_str).unwrap_or_else(|| text(object, "spec.clusterIP"))
}

pub(super) fn external_ip(object: &Value) -> Value {
    let balanced = list(object, "status.loadBalancer.ingress").iter().map(|each| match text(each, "ip") {
        "" => text(each, "hostname"),
        ip => ip,
    });
    let external = list(object, "spec.externalIPs").iter().filter_map(Value::as_str);
    match text(object, "spec.type") {
        "ClusterIP" | "NodePort" => or_none(&external.collect::<Vec<_>>().join(",")),
        "LoadBalancer" => {
            let all: Vec<&str> = balanced.chain(external).filter(|each| !each.is_empty()).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",").into() }
        }
        "ExternalName" => text(object, "spec.externalName").into(),
        _ => "<unknown>".into(),
    }
}

pub(super) fn service_ports(object: &Value) -> Value {
    let ports = list(object, "spec.ports").iter().map(|port| {
        let (number, protocol) = (number(port, "port"), text(port, "protocol"));
        match port.get("nodePort").and_then(Value::as_i64).unwrap_or_default() {
            0 => format!("{number}/{protocol}"),
            node => format!("{number}:{node}/{protocol}"),
        }
    });
    or_none(&ports.collect::<Vec<_>>().join(","))
}

pub(super) fn endpoints(object: &Value) -> Value {
    let mut all = Vec::new();
    for subset in list(object, "subsets") {
        let addresses = || list(subset, "addresses").iter().map(|each| text(each, "ip"));
        match list(subset, "ports") {
            [] => all.extend(addresses().map(str::to_owned)),
            ports => all.extend(ports.iter().flat_map(|port| addresses().map(|ip| join_host(ip, number(port, "port"))))),
        }
    }
    some_of(&all, "<none>")
}

fn join_host(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub(super) fn slice_ports(object: &Value) -> Value {
    let ports = list(object, "ports").iter().map(|port| match (port.get("port").and_then(Value::as_i64), text(port, "name")) {
        (Some(number), _) => number.to_string(),
        (None, "") => "*".to_owned(),
        (None, name) => name.to_owned(),
    });
    some_of(&ports.collect::<Vec<_>>(), "<unset>")
}

pub(super) fn slice_addresses(object: &Value) -> Value {
    let all = list(object, "endpoints").iter().flat_map(|each| list(each, "addresses")).filter_map(Value::as_str).map(str::to_owned);
    some_of(&all.collect::<Vec<_>>(), "<unset>")
}

/// The first three, and how many there are besides.
fn some_of(all: &[String], none: &str) -> Value {
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",");
    match all.len() {
        0 => none.into(),
        count if count > SHOWN => format!("{shown} + {} more...", count - SHOWN).into(),
        _ => shown.into(),
    }
}

const SHOWN: usize = 3;

pub(super) fn node_status(object: &Value) -> Value {
    let ready = list(object, "status.conditions").iter().find(|each| text(each, "type") == "Ready");
    let status = match ready.map(|condition| text(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if at(object, "spec.unschedulable") == Some(&Value::Bool(true)) { format!("{status},SchedulingDisabled").into() } else { status.into() }
}

pub(super) fn node_roles(object: &Value) -> Value {
    let all = at(object, "metadata.labels").and_then(Value::as_object).into_iter().flatten();
    let roles = all.filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role),
        None if key == "kubernetes.io/role" => value.as_str(),
        None => None,
    });
    let mut roles: Vec<&str> = roles.filter(|role| !role.is_empty()).collect();
    roles.sort_unstable();
    or_none(&roles.join(","))
}

pub(super) fn node_address(object: &Value, kind: &str) -> Value {
    let found = list(object, "status.addresses").iter().find(|each| text(each, "type") == kind);
    or_none(found.map_or("", |address| text(address, "address")))
}

pub(super) fn kernel(object: &Value) -> Value {
    let version = or_unknown(text(object, "status.nodeInfo.kernelVersion"));
    match text(object, "status.nodeInfo.architecture") {
        "" => version,
        architecture => format!("{} ({architecture})", version.as_str().unwrap_or_default()).into(),
    }
}

/// Both kinds of events: the newer one keeps the older one's times under `deprecated…`.
pub(super) fn event(object: &Value, about: &str, now: Timestamp) -> Vec<Value> {
    let first_of = |paths: &[&str]| paths.iter().map(|path| text(object, path)).find(|found| !found.is_empty()).unwrap_or_default();
    let series = at(object, "series").filter(|series| series.is_object());
    let first = since(first_of(&["firstTimestamp", "deprecatedFirstTimestamp", "eventTime"]), now);
    let last = match series {
        Some(series) => since(text(series, "lastObservedTime"), now),
        None => match first_of(&["lastTimestamp", "deprecatedLastTimestamp"]) {
            "" => first.clone(),
            moment => since(moment, now),
        },
    };
    let count =
        series.map_or_else(|| number(object, "count").max(number(object, "deprecatedCount")).max(1), |series| number(series, "count"));
    let target = object.get(about).unwrap_or(&Value::Null);
    let kind = text(target, "kind").to_lowercase();
    let source: Vec<&str> = [
        first_of(&["source.component", "deprecatedSource.component", "reportingComponent", "reportingController"]),
        first_of(&["source.host", "deprecatedSource.host", "reportingInstance"]),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect();
    vec![
        last.into(),
        text(object, "type").into(),
        text(object, "reason").into(),
        if text(target, "name").is_empty() { kind.into() } else { format!("{kind}/{}", text(target, "name")).into() },
        text(target, "fieldPath").into(),
        source.join(", ").into(),
        first_of(&["message", "note"]).trim().into(),
        first.into(),
        count.into(),
        name(object),
    ]
}

pub(super) fn budget(object: &Value, field: &str) -> Value {
    match object.get("spec").and_then(|spec| spec.get(field)) {
        Some(Value::String(share)) => share.as_str().into(),
        Some(Value::Number(number)) => number.to_string().into(),
        _ => "N/A".into(),
    }
}

pub(super) fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let of_kind = |kind: &str| {
        let subjects = list(object, "subjects").iter().filter(|subject| text(subject, "kind") == kind);
        let names = subjects.map(|subject| match text(subject, "namespace") {
            namespace if kind == "ServiceAccount" && !namespace.is_empty() => format!("{namespace}/{}", text(subject, "name")),
            _ => text(subject, "name").to_owned(),
        });
        names.collect::<Vec<_>>().join(", ").into()
    };
    let role = format!("{}/{}", text(object, "roleRef.kind"), text(object, "roleRef.name"));
    vec![name(object), role.into(), age(object, now), of_kind("User"), of_kind("Group"), of_kind("ServiceAccount")]
}
