//! The standard kinds: the Multi-Cluster Services API (KEP-1645) and the About API (KEP-2149), field for field.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::SessionAffinityConfig;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::core::TypeMeta;
use kube::{CustomResource, CustomResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Exports the Service of the same name and namespace. The standard allows one without a spec, and most have none.
#[derive(kube::Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = "Definition")]
pub struct ServiceExport {
    /// What kind of object it is; there unless it came in a list.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub types: Option<TypeMeta>,
    /// Its name, namespace and the rest.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What travels with it.
    #[serde(default)]
    pub spec: ServiceExportSpec,
    /// What became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ServiceExportStatus>,
}

impl ServiceExport {
    /// The export of the Service `name`.
    #[must_use]
    pub fn new(name: &str, spec: ServiceExportSpec) -> Self {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        Self { types: Some(TypeMeta::resource::<Self>()), metadata, spec, status: None }
    }

    /// Its definition.
    #[must_use]
    pub fn crd() -> CustomResourceDefinition {
        let mut crd = Definition::crd();
        let schemas = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
        for schema in schemas {
            schema.required = schema.required.take().map(|mut required| {
                required.retain(|field| field != "spec");
                required
            });
        }
        crd
    }
}

/// What travels with an export.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "multicluster.x-k8s.io",
    version = "v1beta1",
    kind = "ServiceExport",
    root = "Definition",
    plural = "serviceexports",
    namespaced,
    status = "ServiceExportStatus",
    category = "multicluster",
    shortname = "svcex",
    shortname = "svcexport",
    doc = "Exports the Service of the same name and namespace to the cluster set.",
    printcolumn(name = "Valid", type_ = "string", json_path = r#".status.conditions[?(@.type=="Valid")].status"#),
    printcolumn(name = "Conflict", type_ = "string", json_path = r#".status.conditions[?(@.type=="Conflict")].status"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceExportSpec {
    /// Labels that travel to the import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exported_labels: Option<BTreeMap<String, String>>,
    /// Annotations that travel to the import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exported_annotations: Option<BTreeMap<String, String>>,
}

/// What became of an export.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceExportStatus {
    /// `Valid`, `Ready`, `Conflict`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A service of the cluster set, as this cluster sees it. Written by the mesh only.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "multicluster.x-k8s.io",
    version = "v1beta1",
    kind = "ServiceImport",
    plural = "serviceimports",
    namespaced,
    status = "ServiceImportStatus",
    derive = "PartialEq",
    category = "multicluster",
    shortname = "svcim",
    shortname = "svcimport",
    doc = "A service of the cluster set, as this cluster sees it.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "IP", type_ = "string", json_path = ".spec.ips"),
    printcolumn(name = "Clusters", type_ = "string", json_path = ".status.clusters[*].cluster"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceImportSpec {
    /// The union of all exporters' ports.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Vec<ImportPort>,
    /// The cluster-set addresses; none for a headless import.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub ips: Vec<String>,
    /// The families of `ips`, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub ip_families: Vec<String>,
    /// `ClusterSetIP` or `Headless`.
    #[serde(rename = "type")]
    pub kind: ImportType,
    /// `None` or `ClientIP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<String>,
    /// How long `ClientIP` sticks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// `Cluster` or `Local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<String>,
    /// As on Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,
}

/// The two kinds of import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImportType {
    /// One address for all clusters' endpoints.
    #[default]
    ClusterSetIP,
    /// Each endpoint by itself.
    Headless,
}

/// A port of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportPort {
    /// Its name, unless the import has one unnamed port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// TCP, UDP or SCTP.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// What is spoken on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// The number that callers use.
    pub port: i32,
}

/// Who contributes to an import.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceImportStatus {
    /// The exporting clusters, by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["cluster"]))]
    pub clusters: Vec<ImportCluster>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A cluster that contributes to an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ImportCluster {
    /// The cluster's id.
    pub cluster: String,
}

/// One property of a cluster (KEP-2149).
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "about.k8s.io",
    version = "v1beta1",
    kind = "ClusterProperty",
    plural = "clusterproperties",
    derive = "PartialEq",
    doc = "One property of this cluster.",
    printcolumn(name = "Value", type_ = "string", json_path = ".spec.value"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct ClusterPropertySpec {
    /// The property's value.
    #[schemars(length(min = 1, max = 128_000))]
    pub value: String,
}

/// With the approval that a group of Kubernetes needs: the community's, of this kind.
pub(super) fn approved(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let annotations = crd.metadata.annotations.get_or_insert_default();
    annotations.insert("api-approved.kubernetes.io".to_owned(), "https://github.com/kubernetes/enhancements/pull/3084".to_owned());
    crd
}

/// The same schema under `v1alpha1`, served and not stored.
pub(super) fn served_as_v1alpha1_too(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let older = crd.spec.versions.first().cloned().map(|mut version| {
        version.name = "v1alpha1".to_owned();
        version.storage = false;
        version
    });
    crd.spec.versions.extend(older);
    crd
}

fn tcp() -> String {
    "TCP".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_needs_no_spec() {
        let text = r#"{"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceExport","metadata":{"name":"web"}}"#;
        let export: ServiceExport = serde_json::from_str(text).unwrap();
        assert_eq!(export, ServiceExport::new("web", ServiceExportSpec::default()));
        let listed: ServiceExport = serde_json::from_str(r#"{"metadata":{"name":"web"}}"#).unwrap();
        assert_eq!(listed.metadata.name.as_deref(), Some("web"));
        let crd = served_as_v1alpha1_too(ServiceExport::crd());
        for version in crd.spec.versions {
            let schema = version.schema.unwrap().open_api_v3_schema.unwrap();
            assert_eq!(schema.required.unwrap_or_default(), [""; 0], "{}", version.name);
        }
    }
}
