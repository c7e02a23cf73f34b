//! `Peer`: that cluster may import from this one. Lies in the exporter, is named after the importer.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an exporter knows of an importer, and what it grants it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "isthmus.dev",
    version = "v1alpha1",
    kind = "Peer",
    plural = "peers",
    status = "PeerStatus",
    derive = "PartialEq",
    category = "isthmus",
    doc = "Another cluster may import the services that this one exports. Named after that cluster.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterId"),
    printcolumn(name = "Trust-Domain", type_ = "string", json_path = ".spec.trustDomain"),
    printcolumn(name = "Services", type_ = "integer", json_path = ".status.exportedServices"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct PeerSpec {
    /// The importer's id: the uid of its `kube-system` namespace.
    pub cluster_id: String,
    /// The importer's trust domain.
    pub trust_domain: String,
    /// The importer's bundle, SPIFFE JSON.
    pub bundle: String,
    /// The one SPIFFE id that may call control services: the importer's mirror controller.
    pub caller: String,
    /// Which exports it may import.
    #[serde(default)]
    pub grant: ExportGrant,
}

/// Which exports a peer may import: those in the namespaces whose labels fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExportGrant {
    /// Names, or `*`.
    #[serde(default = "everything")]
    pub namespaces: Vec<String>,
    /// Labels that the ServiceExport must have; all of them fit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

impl ExportGrant {
    /// Whether exports of `namespace` are granted, labels aside.
    #[must_use]
    pub fn allows_namespace(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|granted| granted == "*" || granted == namespace)
    }
}

impl Default for ExportGrant {
    fn default() -> Self {
        Self { namespaces: everything(), selector: None }
    }
}

/// What control sees of a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// How many services this cluster exports to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exported_services: Option<i32>,
    /// `Connected`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn everything() -> Vec<String> {
    vec!["*".to_owned()]
}
