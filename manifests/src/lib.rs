//! Every object of an installed mesh, from one typed source. Pure: an [`Install`] gives [`Object`]s, and the same code gives the Helm chart
//! and the kustomize base, so that the three ways of installing cannot differ.
//!
//! Invariants, each with its test: every container runs as nobody with a read-only root, no capability and the runtime's seccomp
//! profile; no role has a wildcard; the injector never asks about the mesh's own namespace; what a program is told stands in the one
//! ConfigMap that an upgrade reads back.

pub mod helm;
mod install;
mod knobs;
pub mod kustomize;
mod network;
mod object;
mod rbac;
pub mod trust;
mod webhook;
mod workload;
pub mod yaml;

pub use install::{FactsError, FailurePolicy, GatewayType, Images, Inbound, Install, Registry, Replicas, Tag};
pub use object::{KINDS, Kind, Object};

use install::{ALLOW_UNMESHED, CLUSTER, GATEWAY, INBOUND, RANGES, REGISTRY, REPLICAS, TAG, TRUST_DOMAIN, WEBHOOK};
use knobs::Knobs;
use mesh_api::well_known::{FACTS, INJECT, INJECT_DISABLED, SYSTEM_NAMESPACE};
use serde_json::{Value, json};

/// Every object of `install`, trust aside, in the order in which they are to be applied: the injector last, when somebody can answer it.
#[must_use]
pub fn objects(install: &Install) -> Vec<Object> {
    rendered(&Knobs::of(install))
}

fn rendered(knobs: &Knobs) -> Vec<Object> {
    let mut objects = vec![namespace()];
    objects.extend(definitions());
    objects.push(facts(knobs));
    objects.extend(rbac::objects());
    objects.extend(network::objects(knobs));
    objects.extend(workload::objects(knobs));
    objects.extend(webhook::objects(knobs));
    objects
}

/// The mesh's own namespace. Nothing in it needs a privilege, and nothing that does gets in.
fn namespace() -> Object {
    let labels = json!({
        INJECT: INJECT_DISABLED,
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/audit": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
    });
    Object::new("Namespace", SYSTEM_NAMESPACE, json!({ "metadata": { "labels": labels } }))
}

/// The definitions of our kinds and of the standard ones that we serve.
#[must_use]
pub fn definitions() -> Vec<Object> {
    let definition = |crd| {
        let mut body = whole(serde_json::to_value(&crd).unwrap_or_default());
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if let Some(body) = body.as_object_mut() {
            body.remove("status");
        }
        Object::new("CustomResourceDefinition", &name, body)
    };
    mesh_api::crd::all().into_iter().map(definition).collect()
}

/// With whole numbers written as such: a schema's bounds are floating point here, and integers to everybody who prints them again.
fn whole(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, whole(value))).collect(),
        Value::Array(items) => items.into_iter().map(whole).collect(),
        Value::Number(number) => {
            let text = number.to_string();
            let integer = text.strip_suffix(".0").and_then(|text| text.parse::<i64>().ok());
            integer.map_or(Value::Number(number), Value::from)
        }
        other => other,
    }
}

fn facts(knobs: &Knobs) -> Object {
    let data = json!({
        CLUSTER: knobs.cluster, TRUST_DOMAIN: knobs.trust_domain, REGISTRY: knobs.registry, TAG: knobs.tag, REPLICAS: knobs.replicas_text,
        GATEWAY: knobs.gateway, RANGES: knobs.ranges, WEBHOOK: knobs.webhook, ALLOW_UNMESHED: knobs.allow_unmeshed, INBOUND: knobs.inbound,
    });
    Object::new("ConfigMap", FACTS, json!({ "data": data }))
}

#[cfg(test)]
mod tests;
