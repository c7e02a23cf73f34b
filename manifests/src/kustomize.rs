//! The kustomize base: the objects with everything as it is by default, and a name that an overlay has to give. Pure.

use serde_json::json;

use crate::install::{CLUSTER, Install, TRUST_DOMAIN};
use crate::knobs::Knobs;
use crate::{Object, rendered, yaml};

/// The base's files, by their paths in it.
#[must_use]
pub fn base() -> Vec<(&'static str, String)> {
    let Ok(unnamed) = "unnamed".parse() else { return Vec::new() };
    // No cluster has such a name: control does not become ready before an overlay gives one.
    let knobs = Knobs { cluster: UNNAMED.to_owned(), trust_domain: UNNAMED.to_owned(), ..Knobs::of(&Install::new(unnamed)) };
    let objects = rendered(&knobs);
    let (definitions, rest): (Vec<&Object>, Vec<&Object>) = objects.iter().partition(|object| object.kind() == "CustomResourceDefinition");
    let list = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": ["definitions.yaml", "isthmus.yaml"],
    });
    vec![
        ("kustomization.yaml", yaml::document(&list)),
        ("definitions.yaml", yaml::documents(definitions)),
        ("isthmus.yaml", yaml::documents(rest)),
    ]
}

/// An overlay that names the cluster: what every overlay has to do.
#[must_use]
pub fn overlay(base: &str, install: &Install) -> String {
    let patch = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": mesh_api::well_known::FACTS, "namespace": mesh_api::well_known::SYSTEM_NAMESPACE },
        "data": { CLUSTER: install.cluster, TRUST_DOMAIN: install.trust_domain },
    });
    yaml::document(&json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [base],
        "patches": [{ "patch": yaml::document(&patch) }],
    }))
}

/// No DNS label.
const UNNAMED: &str = "NAME-THE-CLUSTER";
