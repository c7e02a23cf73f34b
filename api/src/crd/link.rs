//! `Link`: this cluster imports from that one. Lies in the importer, is named after the exporter.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an importer knows of an exporter, and what it grants it.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "isthmus.dev",
    version = "v1alpha1",
    kind = "Link",
    plural = "links",
    status = "LinkStatus",
    derive = "PartialEq",
    category = "isthmus",
    doc = "This cluster imports the services that another cluster exports. Named after that cluster.",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterId"),
    printcolumn(name = "Services", type_ = "integer", json_path = ".status.importedServices"),
    printcolumn(name = "Data-Path", type_ = "string", json_path = r#".status.conditions[?(@.type=="DataPath")].status"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct LinkSpec {
    /// The exporter's id: the uid of its `kube-system` namespace.
    pub cluster_id: String,
    /// The exporter's trust domain.
    pub trust_domain: String,
    /// Where to dial the exporter, and who answers there.
    #[schemars(length(min = 1, max = 64))]
    pub gateways: Vec<LinkGateway>,
    /// The exporter's bundle, SPIFFE JSON.
    pub bundle: String,
    /// The SPIFFE id of the exporter's control.
    pub control: String,
    /// Which namespaces of this cluster may receive imports.
    #[serde(default)]
    pub grant: NamespaceGrant,
    /// Namespaces whose services merge with this cluster's of the same name; `*` is the standard's meaning.
    #[serde(default = "everything")]
    pub sameness: Vec<String>,
    /// What tunnels run over.
    #[serde(default)]
    pub transport: LinkTransport,
    /// How a headless service's endpoints appear here.
    #[serde(default)]
    pub headless: HeadlessMode,
    /// Links with a lower number are used first.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: i32,
}

/// One gateway of the exporter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkGateway {
    /// An IP address.
    pub address: String,
    /// Its tunnel port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The SPIFFE id that it must prove.
    pub identity: String,
}

/// A choice of namespaces: names, or `*` for all that exist here, now or later, and are not protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamespaceGrant {
    /// Names, or `*`.
    #[serde(default = "everything")]
    pub namespaces: Vec<String>,
}

impl NamespaceGrant {
    /// Whether `namespace` is granted. Protected namespaces never are.
    #[must_use]
    pub fn allows(&self, namespace: &str) -> bool {
        !is_protected(namespace) && self.namespaces.iter().any(|granted| granted == "*" || granted == namespace)
    }
}

impl Default for NamespaceGrant {
    fn default() -> Self {
        Self { namespaces: everything() }
    }
}

/// Namespaces that no peer's export ever reaches, whatever a grant says.
#[must_use]
pub fn is_protected(namespace: &str) -> bool {
    namespace.starts_with("kube-") || namespace == crate::well_known::SYSTEM_NAMESPACE
}

/// What tunnels of a link run over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkTransport {
    /// Whichever the path wants.
    #[default]
    Auto,
    /// mTLS over TCP.
    Tls,
    /// QUIC.
    Quic,
}

/// How endpoints of an imported headless service appear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HeadlessMode {
    /// A Service per endpoint stands for it.
    #[default]
    StandIns,
    /// The peer's pod addresses, for flat networks.
    PodAddresses,
}

/// What the mirror controller sees of a link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// One word for people: `Pending`, `Healthy`, `Degraded`, `Unreachable`, `Drained` or `Held`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// How many services this cluster imports over the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_services: Option<i32>,
    /// Exports that were not imported, with the reason; at most [`REFUSED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedImport>,
    /// `Ready`, `Connected`, `TrustCurrent`, `DataPath`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation of the spec that this was said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// One export that this cluster does not take.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct RefusedImport {
    /// `namespace/name`.
    pub service: String,
    /// Why not.
    pub reason: String,
}

/// How many refusals a status lists.
pub const REFUSED_MAX: usize = 32;

fn everything() -> Vec<String> {
    vec!["*".to_owned()]
}
