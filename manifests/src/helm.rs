//! The Helm chart: the same objects, with the chart's values in the places of the choices. Pure.
//!
//! Two things are not in it. The namespace, which Helm makes (`--create-namespace`), and what the cluster trusts, which is written once and
//! would be replaced at every upgrade: `mesh install --cluster NAME --only-trust` prints it, or cert-manager makes it.

use mesh_api::inject::Inbound;
use mesh_api::well_known::SYSTEM_NAMESPACE;
use serde_json::{Value, json};

use crate::install::{FailurePolicy, GatewayType};
use crate::knobs::Knobs;
use crate::{Object, rendered, yaml};

/// The chart's files, by their paths in it.
#[must_use]
pub fn chart() -> Vec<(&'static str, String)> {
    let objects: Vec<Object> = rendered(&Knobs::helm()).into_iter().filter(|object| object.kind() != "Namespace").collect();
    let (definitions, rest): (Vec<&Object>, Vec<&Object>) = objects.iter().partition(|object| object.kind() == "CustomResourceDefinition");
    let schema = format!("{:#}\n", schema());
    vec![
        ("Chart.yaml", chart_file()),
        ("values.yaml", VALUES.to_owned()),
        ("values.schema.json", schema),
        ("templates/definitions.yaml", yaml::documents(definitions)),
        ("templates/isthmus.yaml", GUARD.replace("NAMESPACE", SYSTEM_NAMESPACE) + &yaml::documents(rest)),
        ("templates/NOTES.txt", NOTES.to_owned()),
    ]
}

fn chart_file() -> String {
    yaml::document(&json!({
        "apiVersion": "v2", "name": "isthmus", "type": "application", "version": VERSION, "appVersion": VERSION,
        "description": "Links Kubernetes clusters: calls, identity and failover across them",
        "kubeVersion": ">=1.31.0-0",
    }))
}

/// What a value may be. A value that is not named here is refused.
fn schema() -> Value {
    let text = |pattern: &str, about: &str| json!({ "type": "string", "pattern": pattern, "description": about });
    let closed = |properties: Value| json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let policies: Vec<&str> = [Inbound::Permissive, Inbound::Strict].map(Inbound::as_str).into();
    let mut schema = closed(json!({
        "cluster": text("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", "The cluster's name, a DNS label: how other clusters call it"),
        "trustDomain": text("^[a-z0-9._-]{0,255}$", "The cluster's trust domain; empty is CLUSTER.mesh"),
        "images": closed(json!({
            "registry": text("^[a-z0-9._:-]+(/[a-z0-9._:-]+)*$", "What comes before /control:TAG"),
            "tag": text("^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$", "The version; empty is the chart's"),
        })),
        "replicas": { "type": "integer", "minimum": 1, "maximum": 20, "description": "Of control, mirror controller, gateway and DNS each" },
        "gateway": closed(json!({ "type": { "enum": GatewayType::WORDS, "description": "How peers reach the gateways" } })),
        "ranges": {
            "type": "array", "items": { "type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$" },
            "description": "Ranges of pods and Services, where plaintext needs a positive \"not meshed\"",
        },
        "webhook": closed(json!({
            "failurePolicy": { "enum": FailurePolicy::WORDS, "description": "What becomes of a pod to be meshed while no control answers" },
        })),
        "allowUnmeshed": { "type": "boolean", "description": "Whether endpoints without a proxy are exported by default" },
        "inbound": { "enum": policies, "description": "Whether plaintext from pods that are not meshed is let in by default" },
        "global": { "type": "object", "description": "Helm's own: what charts share" },
    }));
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["required"] = json!(["cluster"]);
    schema
}

/// Ids and certificates name the namespace, so there is only one.
const GUARD: &str = "\
{{- if ne .Release.Namespace \"NAMESPACE\" }}
{{- fail \"Isthmus lives in the namespace NAMESPACE: use --namespace NAMESPACE --create-namespace\" }}
{{- end }}
";

const VALUES: &str = "\
# The cluster's name, a DNS label: how other clusters call it. Required.
cluster: \"\"
# The cluster's trust domain; empty is CLUSTER.mesh.
trustDomain: \"\"
images:
  registry: isthmus
  # Empty is the chart's version.
  tag: \"\"
# Replicas of control, mirror controller, gateway and DNS each.
replicas: 2
gateway:
  # LoadBalancer or NodePort: how peers reach the gateways.
  type: LoadBalancer
# Ranges of pods and Services, such as 10.244.0.0/16, where plaintext needs a positive \"not meshed\".
ranges: []
webhook:
  # Fail or Ignore: what becomes of a pod to be meshed while no control answers.
  failurePolicy: Fail
# Whether endpoints without a proxy are exported unless the export or the namespace says otherwise.
allowUnmeshed: false
# permissive or strict: whether plaintext from pods that are not meshed is let in unless the namespace says otherwise.
inbound: permissive
";

const NOTES: &str = "\
Isthmus {{ .Chart.AppVersion }} is on its way into cluster {{ .Values.cluster }}.

What the cluster trusts is not part of this chart, so that no upgrade ever replaces it. If it is not there yet:
  mesh install --cluster {{ .Values.cluster }} --only-trust | kubectl apply -f -

Then mesh a namespace, and look:
  kubectl label namespace NAME isthmus.dev/inject=enabled
  mesh check
";

const VERSION: &str = env!("CARGO_PKG_VERSION");
