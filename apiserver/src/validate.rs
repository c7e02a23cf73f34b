//! Checks that clients rely on: names, custom schemas, and a few rules of built-in kinds. Pure.

use std::net::IpAddr;

use serde_json::Value;

use crate::{
    crd,
    failure::Failure,
    kinds::Kind,
    object, openapi,
    write::{Loopback, Rules},
};

type Cause = (String, String, String);

/// Checks the metadata of an object.
pub(crate) fn metadata(kind: &Kind, object: &Value) -> Result<(), Failure> {
    let name = object::name(object);
    let mut causes = Vec::new();
    if name.is_empty() {
        causes.push(cause("FieldValueRequired", "metadata.name", "Required value: name or generateName is required".to_owned()));
    } else if let Some(message) = bad_name(kind, name) {
        causes.push(cause("FieldValueInvalid", "metadata.name", format!("Invalid value: {name:?}: {message}")));
    }
    refuse(kind, object, &causes)
}

/// Prunes an object by its schema; a custom one is given that schema's defaults and is checked by it.
pub(crate) fn schema(kind: &Kind, object: &mut Value) -> Result<(), Failure> {
    let Some(custom) = &kind.custom else {
        openapi::prune(&kind.group, &kind.kind, object);
        return Ok(());
    };
    let Some(schema) = &custom.schema else { return Ok(()) };
    schema.default_and_prune(object);
    let causes = schema.validate(object).into_iter().map(|found| (found.reason.to_owned(), found.field, found.message)).collect::<Vec<_>>();
    refuse(kind, object, &causes)
}

/// The fields of an object that its kind does not have.
pub(crate) fn unknown(kind: &Kind, object: &Value) -> Vec<String> {
    match &kind.custom {
        None => openapi::unknown_fields(&kind.group, &kind.kind, object),
        Some(custom) => custom.schema.as_ref().map(|schema| schema.unknown_fields(object)).unwrap_or_default(),
    }
}

/// The rules of built-in kinds.
pub(crate) fn builtin(kind: &Kind, before: Option<&Value>, new: &Value, rules: &Rules) -> Result<(), Failure> {
    if kind.custom.is_some() {
        return Ok(());
    }
    let causes = match kind.kind.as_str() {
        "CustomResourceDefinition" => crd::validate(new),
        "Service" => service(before, new),
        "EndpointSlice" => endpoint_slice(before, new, rules.loopback_endpoints),
        "Endpoints" => endpoints(new, rules.loopback_endpoints),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => workload(before, new),
        "Secret" | "ConfigMap" => immutable(before, new),
        _ => Vec::new(),
    };
    refuse(kind, new, &causes)
}

fn refuse(kind: &Kind, object: &Value, causes: &[Cause]) -> Result<(), Failure> {
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(&kind.group, &kind.kind, object::name(object), causes)) }
}

fn cause(reason: &str, field: &str, message: String) -> Cause {
    (reason.to_owned(), field.to_owned(), message)
}

fn bad_name(kind: &Kind, name: &str) -> Option<&'static str> {
    let label = |text: &str| {
        let inner = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        !text.is_empty() && inner && !text.starts_with('-') && !text.ends_with('-')
    };
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("rbac.authorization.k8s.io", _) => {
            (name.contains(['/', '%']) || matches!(name, "." | "..")).then_some("a path segment may not be '.', '..' or contain '/' or '%'")
        }
        ("", "Namespace") => (!label(name) || name.len() > 63).then_some(LABEL),
        ("", "Service") => {
            (!label(name) || name.len() > 63 || name.starts_with(|first: char| first.is_ascii_digit())).then_some(SERVICE_LABEL)
        }
        _ => (name.len() > 253 || !name.split('.').all(label)).then_some(SUBDOMAIN),
    }
}

fn service(before: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kind = object::text(new, "spec.type");
    let headless = object::text(new, "spec.clusterIP") == "None";
    let ports = object::at(new, "spec.ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if ports.is_empty() && !headless && kind != "ExternalName" {
        causes.push(cause("FieldValueRequired", "spec.ports", "Required value".to_owned()));
    }
    for (at, port) in ports.iter().enumerate() {
        if ports.len() > 1 && object::text(port, "name").is_empty() {
            causes.push(cause("FieldValueRequired", &format!("spec.ports[{at}].name"), "Required value".to_owned()));
        }
        let number = port.get("port").and_then(Value::as_u64).unwrap_or(0);
        if !(1..=65_535).contains(&number) {
            let message = format!("Invalid value: {number}: must be between 1 and 65535, inclusive");
            causes.push(cause("FieldValueInvalid", &format!("spec.ports[{at}].port"), message));
        }
    }
    let held =
        before.filter(|before| object::text(before, "spec.type") != "ExternalName").map(|before| object::text(before, "spec.clusterIP"));
    let asked = object::text(new, "spec.clusterIP");
    if kind != "ExternalName" && held.is_some_and(|held| !held.is_empty() && !asked.is_empty() && held != asked) {
        let message = format!("Invalid value: [{asked:?}]: may not change once set");
        causes.push(cause("FieldValueInvalid", "spec.clusterIPs[0]", message));
    }
    causes
}

fn endpoint_slice(before: Option<&Value>, new: &Value, loopback: Loopback) -> Vec<Cause> {
    let mut causes = Vec::new();
    let family = object::text(new, "addressType");
    if !matches!(family, "IPv4" | "IPv6" | "FQDN") {
        causes.push(cause("FieldValueRequired", "addressType", "Required value".to_owned()));
    }
    if before.is_some_and(|before| object::text(before, "addressType") != family) {
        causes.push(cause("FieldValueInvalid", "addressType", format!("Invalid value: {family:?}: field is immutable")));
    }
    for (at, endpoint) in new.get("endpoints").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let addresses = endpoint.get("addresses").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if addresses.is_empty() {
            let message = "Required value: must contain at least 1 address".to_owned();
            causes.push(cause("FieldValueRequired", &format!("endpoints[{at}].addresses"), message));
        }
        if family != "FQDN" {
            let field = |index: usize| format!("endpoints[{at}].addresses[{index}]");
            causes.extend(
                addresses.iter().enumerate().filter_map(|(index, address)| endpoint_address(address, family, &field(index), loopback)),
            );
        }
    }
    causes
}

fn endpoints(new: &Value, loopback: Loopback) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (at, subset) in new.get("subsets").and_then(Value::as_array).into_iter().flatten().enumerate() {
        for (index, address) in subset.get("addresses").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let field = format!("subsets[{at}].addresses[{index}].ip");
            causes.extend(endpoint_address(address.get("ip").unwrap_or(&Value::Null), "", &field, loopback));
        }
    }
    causes
}

fn endpoint_address(address: &Value, family: &str, field: &str, loopback: Loopback) -> Option<Cause> {
    let text = address.as_str().unwrap_or_default();
    let invalid = |why: &str| Some(cause("FieldValueInvalid", field, format!("Invalid value: {text:?}: {why}")));
    let Ok(ip) = text.parse::<IpAddr>() else { return invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)") };
    match (family, ip) {
        ("IPv4", IpAddr::V6(_)) => return invalid("must be an IPv4 address"),
        ("IPv6", IpAddr::V4(_)) => return invalid("must be an IPv6 address"),
        _ => {}
    }
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        return invalid("may not be unspecified (0.0.0.0 or ::)");
    }
    if ip.is_loopback() && loopback == Loopback::Refuse {
        return invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        return invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    ip.is_multicast().then(|| invalid("may not be in the multicast range (224.0.0.0/4, ff00::/10)"))?
}

fn workload(before: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let selector = object::at(new, "spec.selector");
    let labels = object::at(new, "spec.template.metadata.labels");
    let wanted = object::at(new, "spec.selector.matchLabels").and_then(Value::as_object);
    if selector.is_none_or(|selector| selector.as_object().is_none_or(serde_json::Map::is_empty)) {
        causes.push(cause("FieldValueRequired", "spec.selector", "Required value".to_owned()));
    } else if wanted.into_iter().flatten().any(|(name, value)| labels.and_then(|labels| labels.get(name)) != Some(value)) {
        let message = "Invalid value: `selector` does not match template `labels`".to_owned();
        causes.push(cause("FieldValueInvalid", "spec.template.metadata.labels", message));
    }
    if object::at(new, "spec.template.spec.containers").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        causes.push(cause("FieldValueRequired", "spec.template.spec.containers", "Required value".to_owned()));
    }
    if before.is_some_and(|before| object::at(before, "spec.selector") != selector) {
        causes.push(cause("FieldValueInvalid", "spec.selector", "Invalid value: field is immutable".to_owned()));
    }
    causes
}

fn immutable(before: Option<&Value>, new: &Value) -> Vec<Cause> {
    let Some(before) = before.filter(|before| before["immutable"] == true) else { return Vec::new() };
    let changed = |field: &&str| before.get(*field) != new.get(*field);
    let forbidden = |field: &str| cause("FieldValueForbidden", field, "Forbidden: field is immutable when `immutable` is set".to_owned());
    ["data", "binaryData", "immutable"].into_iter().filter(changed).map(forbidden).collect()
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SERVICE_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
