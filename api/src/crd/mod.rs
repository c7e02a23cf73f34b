//! The mesh's own Kubernetes kinds and the standard ones that it serves, as `kubectl` and controllers see them.
#![allow(clippy::duplicated_attributes, reason = "the derive has one `printcolumn` per column, all with the same keys")]

pub mod link;
pub mod mcs;
pub mod peer;

pub use link::{Link, LinkGateway, LinkSpec, LinkStatus};
pub use mcs::{ClusterProperty, ServiceExport, ServiceImport};
pub use peer::{Peer, PeerSpec, PeerStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResourceExt;

/// Every definition that a cluster of the mesh needs.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        Link::crd(),
        Peer::crd(),
        mcs::served_as_v1alpha1_too(ServiceExport::crd()),
        mcs::served_as_v1alpha1_too(ServiceImport::crd()),
        mcs::approved(ClusterProperty::crd()),
    ];
    let versions = all.iter_mut().flat_map(|crd| crd.spec.versions.iter_mut());
    versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut()).for_each(without_formats_of_rust);
    all
}

/// Takes away formats such as `uint16`, which Kubernetes does not know and warns of; the numbers' bounds say the same.
fn without_formats_of_rust(schema: &mut JSONSchemaProps) {
    if schema.format.as_ref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    let below = schema.properties.iter_mut().flat_map(|properties| properties.values_mut());
    below.for_each(without_formats_of_rust);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => without_formats_of_rust(items),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => all.iter_mut().for_each(without_formats_of_rust),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        without_formats_of_rust(values);
    }
}

/// What a condition says, before it is stamped with a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The condition's type, `Ready` for example.
    pub kind: &'static str,
    /// `None` is `Unknown`.
    pub status: Option<bool>,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// Writes what is `said` over the `held` conditions: the transition time moves only when the status changes, conditions that are not said
/// stay, and the order is by type so that equal states compare equal.
#[must_use]
pub fn conditions(held: &[Condition], said: &[Said], generation: Option<i64>, now: &Time) -> Vec<Condition> {
    let mut all: Vec<Condition> = held.iter().filter(|old| said.iter().all(|new| new.kind != old.type_)).cloned().collect();
    for new in said {
        let status = new.status.map_or("Unknown", |status| if status { "True" } else { "False" });
        let old = held.iter().find(|old| old.type_ == new.kind);
        let since = old.filter(|old| old.status == status).map_or(now, |old| &old.last_transition_time);
        all.push(Condition {
            type_: new.kind.to_owned(),
            status: status.to_owned(),
            reason: new.reason.clone(),
            message: new.message.clone(),
            last_transition_time: since.clone(),
            observed_generation: generation,
        });
    }
    all.sort_by(|a, b| a.type_.cmp(&b.type_));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_definition_with_one_stored_version() {
        let names: Vec<String> = all().iter().filter_map(|crd| crd.metadata.name.clone()).collect();
        assert_eq!(
            names,
            [
                "links.isthmus.dev",
                "peers.isthmus.dev",
                "serviceexports.multicluster.x-k8s.io",
                "serviceimports.multicluster.x-k8s.io",
                "clusterproperties.about.k8s.io",
            ]
        );
        for crd in all() {
            assert_eq!(crd.spec.versions.iter().filter(|version| version.storage).count(), 1, "{:?}", crd.metadata.name);
        }
    }

    #[test]
    fn schemas_have_no_format_that_kubernetes_does_not_know() {
        let text = serde_json::to_string(&all()).unwrap();
        assert!(!text.contains("\"format\":\"uint"), "{text}");
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let at = |second| Time(jiff::Timestamp::from_second(second).unwrap());
        let said = |status| Said { kind: "Ready", status: Some(status), reason: "Because".into(), message: String::new() };
        let first = conditions(&[], &[said(true)], Some(1), &at(1));
        let same = conditions(&first, &[said(true)], Some(1), &at(2));
        assert_eq!(first, same);
        let changed = conditions(&first, &[said(false)], Some(1), &at(3));
        assert_eq!(changed[0].last_transition_time, at(3));
    }
}
