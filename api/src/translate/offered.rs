//! What a Service and its ServiceExport say to the cluster set. Read here for both readers: the cluster's own mirror controller, which merges
//! it, and its control, which tells peers of it. They must read alike, because every cluster is to come to the same merge.
//!
//! Invariant: what is read has the normal form that a peer reads off the wire: defaults are filled in as the API server does, and labels and
//! annotations that can't travel are left out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

use super::exports::{ExportedPort, ExportedProperties, IpFamily, SessionAffinity, TrafficPolicy, Transport};
use super::metadata::{ANNOTATIONS_MAX, LABELS_MAX, is_qualified, travelling_annotations, travelling_labels};

/// A Service's ports; one that the mesh can't name is passed over.
#[must_use]
pub fn offered_ports(of: &[ServicePort]) -> Vec<ExportedPort> {
    let port = |port: &ServicePort| {
        Some(ExportedPort {
            name: port.name.as_deref().filter(|name| !name.is_empty()).and_then(|name| name.parse().ok()),
            number: u32::try_from(port.port).ok()?.try_into().ok()?,
            transport: Transport::read(port.protocol.as_deref().unwrap_or_default())?,
            app_protocol: port.app_protocol.clone().filter(|protocol| is_qualified(protocol)),
        })
    };
    of.iter().filter_map(port).collect()
}

/// Whether a Service has no address of its own.
#[must_use]
pub fn is_headless(of: &ServiceSpec) -> bool {
    of.cluster_ip.as_deref() == Some("None")
}

/// What a Service says beside its ports. Its labels and annotations never travel; those of its export are added by
/// [`ExportedProperties::with_metadata`].
#[must_use]
pub fn offered_properties(of: &ServiceSpec) -> ExportedProperties {
    let client_ip = of.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = client_ip.and_then(|config| config.timeout_seconds).and_then(|seconds| u32::try_from(seconds).ok());
    ExportedProperties {
        session_affinity: SessionAffinity::read(of.session_affinity.as_deref().unwrap_or_default(), seconds.unwrap_or_default()),
        internal_traffic_policy: TrafficPolicy::read(of.internal_traffic_policy.as_deref().unwrap_or_default()),
        traffic_distribution: of.traffic_distribution.clone().filter(|distribution| !distribution.is_empty()),
        ip_families: IpFamily::read(of.ip_families.as_deref().unwrap_or_default()),
        ..ExportedProperties::default()
    }
}

impl ExportedProperties {
    /// With what a ServiceExport lets travel: `spec.exportedLabels` and `spec.exportedAnnotations`.
    #[must_use]
    pub fn with_metadata(self, labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Self {
        Self {
            labels: travelling_labels(labels.iter(), LABELS_MAX),
            annotations: travelling_annotations(annotations.iter(), ANNOTATIONS_MAX),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;
    use crate::translate::Exported;
    use serde_json::{Value, json};

    /// What a Service and its export say, read here and read by a peer.
    fn check(spec: Value, labels: &[(&str, &str)]) -> ExportedProperties {
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let properties = offered_properties(&spec).with_metadata(&labels, &labels);
        let exported = Exported {
            id: "shop/web".parse().unwrap(),
            headless: is_headless(&spec),
            ports: offered_ports(spec.ports.as_deref().unwrap_or_default()),
            identities: Vec::new(),
            endpoints: Vec::new(),
            created_at: 1,
            proxyless: false,
            allow_unmeshed: false,
            properties: properties.clone(),
        };
        let told = Exported::try_from(&proto::ExportedService::from(&exported)).unwrap();
        assert_eq!(told, exported, "a peer reads what this cluster reads");
        properties
    }

    #[test]
    fn a_peer_reads_a_service_as_its_own_cluster_does() {
        check(json!({}), &[]);
        check(json!({ "clusterIP": "None", "ports": [{ "port": 80 }] }), &[]);
        let said = check(
            json!({
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 10 } },
                "internalTrafficPolicy": "Local",
                "trafficDistribution": "PreferClose",
                "ipFamilies": ["IPv6", "IPv4"],
                "ports": [{ "name": "tcp", "port": 42, "appProtocol": "a b" }, { "name": "stcp", "port": 142, "protocol": "SCTP" }],
            }),
            &[("team", "shop")],
        );
        assert_eq!(said.session_affinity, SessionAffinity::ClientIp { seconds: 10 });
        assert_eq!(said.internal_traffic_policy, TrafficPolicy::Local);
        assert_eq!(said.traffic_distribution.as_deref(), Some("PreferClose"));
        assert_eq!(said.ip_families, [IpFamily::V6, IpFamily::V4]);
    }

    #[test]
    fn what_a_default_says_and_what_nobody_says_are_the_same() {
        let said = json!({ "sessionAffinity": "None", "internalTrafficPolicy": "Cluster" });
        assert_eq!(check(said, &[]), check(json!({}), &[]));
    }

    #[test]
    fn metadata_that_an_api_server_would_refuse_or_that_has_a_meaning_already_stays_at_home() {
        let long = "x".repeat(64);
        let bad = [
            ("team", "shop"),
            ("isthmus.dev/link", "east"),
            ("service.kubernetes.io/headless", ""),
            ("app.kubernetes.io/managed-by", "me"),
            ("app.kubernetes.io/part-of", "shop"),
            ("a b", "1"),
            (long.as_str(), "1"),
            ("spaced", "a b"),
        ];
        let said = check(json!({}), &bad);
        let keys = |of: &BTreeMap<String, String>| of.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&said.labels), ["app.kubernetes.io/part-of", "team"]);
        assert_eq!(keys(&said.annotations), ["app.kubernetes.io/part-of", "spaced", "team"], "an annotation's value is any text");
    }

    #[test]
    fn more_than_travels_is_cut_alike_on_both_sides() {
        let many: Vec<String> = (0..100).map(|n| format!("l{n:02}")).collect();
        let labels: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "1")).collect();
        let said = check(json!({}), &labels);
        assert_eq!((said.labels.len(), said.labels.contains_key("l63"), said.labels.contains_key("l64")), (64, true, false));
    }
}
