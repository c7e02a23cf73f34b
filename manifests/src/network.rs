//! Services, and who may reach which port of the mesh's own pods.
//!
//! Everything that is not named here is closed: admin ports to other namespaces stay open because they hold status and metrics only, and
//! the gateways' way out is for pods of this cluster, never for who comes from outside.

use mesh_api::well_known::{
    CONTROL_ACCOUNT, DNS_ACCOUNT, GATEWAY_ACCOUNT, GATEWAY_SERVICE, MIRROR_ACCOUNT, SYSTEM_NAMESPACE, TUNNEL_PORT, WEBHOOK_SERVICE,
};
use serde_json::{Value, json};

use crate::knobs::Knobs;
use crate::object::Object;
use crate::workload::selector;

/// Where control serves gRPC.
pub(crate) const CONTROL: u16 = 4150;
/// Where the mirror controller serves control.
pub(crate) const IMPORTS: u16 = 4151;
/// Where DNS answers.
pub(crate) const DNS: u16 = 4153;
/// Where gateways accept tunnels.
pub(crate) const TUNNEL: u16 = mesh_api::well_known::INBOUND_PORT_DEFAULT;
/// Status and metrics.
pub(crate) const ADMIN: u16 = 4191;
/// The injector.
pub(crate) const WEBHOOK: u16 = 9443;
/// The ports of the gateways' way out.
const EGRESS: (u16, u16) = (20_000, 29_999);

/// Where everybody in the cluster finds control.
pub(crate) fn control_address() -> String {
    format!("{CONTROL_ACCOUNT}.{SYSTEM_NAMESPACE}.svc:{CONTROL}")
}

/// Services and network policies.
pub(crate) fn objects(knobs: &Knobs) -> Vec<Object> {
    let mut gateway = service(GATEWAY_SERVICE, GATEWAY_ACCOUNT, &[(TUNNEL_PORT, TUNNEL, TUNNEL, "TCP")]);
    gateway["spec"]["type"] = json!(knobs.gateway);
    vec![
        Object::new("Service", GATEWAY_SERVICE, gateway),
        Object::new("Service", "mesh-control", service("mesh-control", CONTROL_ACCOUNT, &[("grpc", CONTROL, CONTROL, "TCP")])),
        Object::new("Service", WEBHOOK_SERVICE, service(WEBHOOK_SERVICE, CONTROL_ACCOUNT, &[("https", 443, WEBHOOK, "TCP")])),
        Object::new("Service", MIRROR_ACCOUNT, service(MIRROR_ACCOUNT, MIRROR_ACCOUNT, &[("imports", IMPORTS, IMPORTS, "TCP")])),
        Object::new("Service", "mesh-dns", service("mesh-dns", DNS_ACCOUNT, &[("dns-udp", 53, DNS, "UDP"), ("dns-tcp", 53, DNS, "TCP")])),
        policy("isthmus-deny", &json!({}), &[]),
        policy(
            CONTROL_ACCOUNT,
            &selector(CONTROL_ACCOUNT),
            &[
                from(&pods(), &[tcp(CONTROL), tcp(ADMIN)]),
                // The API server calls from an address that nobody can know beforehand.
                from(&anybody(), &[tcp(WEBHOOK)]),
            ],
        ),
        policy(
            GATEWAY_ACCOUNT,
            &selector(GATEWAY_ACCOUNT),
            &[from(&anybody(), &[tcp(TUNNEL), udp(TUNNEL)]), from(&pods(), &[range("TCP", EGRESS), range("UDP", EGRESS), tcp(ADMIN)])],
        ),
        policy(
            DNS_ACCOUNT,
            &selector(DNS_ACCOUNT),
            &[
                // The cluster's DNS may run on the nodes' own network.
                from(&anybody(), &[tcp(DNS), udp(DNS)]),
                from(&pods(), &[tcp(ADMIN)]),
            ],
        ),
        policy(
            MIRROR_ACCOUNT,
            &selector(MIRROR_ACCOUNT),
            &[
                from(&json!([{ "podSelector": { "matchLabels": selector(CONTROL_ACCOUNT) } }]), &[tcp(IMPORTS)]),
                from(&pods(), &[tcp(ADMIN)]),
            ],
        ),
    ]
}

fn service(name: &str, account: &str, ports: &[(&str, u16, u16, &str)]) -> Value {
    let port = |(name, port, target, protocol): &(&str, u16, u16, &str)| json!({ "name": name, "port": port, "targetPort": target, "protocol": protocol });
    let ports: Vec<Value> = ports.iter().map(port).collect();
    json!({
        "metadata": { "labels": { "app.kubernetes.io/name": name } },
        "spec": { "selector": selector(account), "ports": ports, "ipFamilyPolicy": "PreferDualStack" },
    })
}

fn policy(name: &str, pods: &Value, ingress: &[Value]) -> Object {
    let pods = if pods.as_object().is_some_and(|labels| !labels.is_empty()) { json!({ "matchLabels": pods }) } else { json!({}) };
    let mut spec = json!({ "podSelector": pods, "policyTypes": ["Ingress"] });
    if !ingress.is_empty() {
        spec["ingress"] = json!(ingress);
    }
    Object::new("NetworkPolicy", name, json!({ "spec": spec }))
}

fn from(whom: &Value, ports: &[Value]) -> Value {
    if whom.is_null() { json!({ "ports": ports }) } else { json!({ "from": whom, "ports": ports }) }
}

/// Every pod of this cluster.
fn pods() -> Value {
    json!([{ "namespaceSelector": {} }])
}

fn anybody() -> Value {
    Value::Null
}

fn tcp(port: u16) -> Value {
    json!({ "port": port, "protocol": "TCP" })
}

fn udp(port: u16) -> Value {
    json!({ "port": port, "protocol": "UDP" })
}

fn range(protocol: &str, (first, last): (u16, u16)) -> Value {
    json!({ "port": first, "endPort": last, "protocol": protocol })
}
