//! The Deployments and what keeps them up: two replicas on different nodes, as nobody, with nothing to write to but memory.

use mesh_api::well_known::{
    BUNDLE, BUNDLE_KEY, CONTROL_ACCOUNT, DNS_ACCOUNT, FACTS, GATEWAY_ACCOUNT, INJECT, INJECT_DISABLED, MIRROR_ACCOUNT, TOKEN_AUDIENCE,
};
use serde_json::{Value, json};

use crate::install::{CLUSTER, TRUST_DOMAIN};
use crate::knobs::Knobs;
use crate::network::{ADMIN, CONTROL, DNS, IMPORTS, TUNNEL, WEBHOOK, control_address};
use crate::object::Object;

/// Deployments and disruption budgets.
pub(crate) fn objects(knobs: &Knobs) -> Vec<Object> {
    let components = [control(knobs), gateway(knobs), dns(knobs), mirror(knobs)];
    let mut objects: Vec<Object> = components.iter().map(budget).collect();
    objects.extend(components.into_iter().map(|component| component.deployment(knobs)));
    objects
}

/// What tells one component from another.
struct Component {
    /// Its account, and the name of everything that is its own.
    name: &'static str,
    image: String,
    ports: Vec<Value>,
    environment: Vec<Value>,
    /// Whether it asks the Kubernetes API.
    asks_api: bool,
    /// Whether it gets its SVID from control, as all do but control.
    bootstraps: bool,
    /// How long it may take to end.
    grace: u8,
    cpu: &'static str,
    memory: &'static str,
}

fn control(knobs: &Knobs) -> Component {
    Component {
        name: CONTROL_ACCOUNT,
        image: knobs.image("control"),
        ports: vec![port("grpc", CONTROL, "TCP"), port("webhook", WEBHOOK, "TCP"), port("admin", ADMIN, "TCP")],
        environment: vec![
            json!({ "name": "MESH_IMPORTS", "value": format!("{MIRROR_ACCOUNT}.{}.svc:{IMPORTS}", mesh_api::well_known::SYSTEM_NAMESPACE) }),
            json!({ "name": "MESH_WEBHOOK", "value": format!("0.0.0.0:{WEBHOOK}") }),
            json!({ "name": "MESH_PROXY_IMAGE", "value": knobs.image("proxy") }),
            json!({ "name": "MESH_INIT_IMAGE", "value": knobs.image("init") }),
        ],
        asks_api: true,
        bootstraps: false,
        grace: 30,
        cpu: "100m",
        memory: "128Mi",
    }
}

fn gateway(knobs: &Knobs) -> Component {
    Component {
        name: GATEWAY_ACCOUNT,
        image: knobs.image("gateway"),
        ports: vec![port("tunnel", TUNNEL, "TCP"), port("tunnel-quic", TUNNEL, "UDP"), port("admin", ADMIN, "TCP")],
        environment: Vec::new(),
        asks_api: false,
        bootstraps: true,
        grace: 45,
        cpu: "100m",
        memory: "64Mi",
    }
}

fn dns(knobs: &Knobs) -> Component {
    Component {
        name: DNS_ACCOUNT,
        image: knobs.image("dns"),
        ports: vec![port("dns-udp", DNS, "UDP"), port("dns-tcp", DNS, "TCP"), port("admin", ADMIN, "TCP")],
        environment: Vec::new(),
        asks_api: false,
        bootstraps: true,
        grace: 30,
        cpu: "50m",
        memory: "32Mi",
    }
}

fn mirror(knobs: &Knobs) -> Component {
    Component {
        name: MIRROR_ACCOUNT,
        image: knobs.image("mirror-controller"),
        ports: vec![port("imports", IMPORTS, "TCP"), port("admin", ADMIN, "TCP")],
        environment: Vec::new(),
        asks_api: true,
        bootstraps: true,
        grace: 30,
        cpu: "50m",
        memory: "64Mi",
    }
}

impl Component {
    fn deployment(self, knobs: &Knobs) -> Object {
        let name = self.name;
        let mut labels = selector(self.name);
        labels[INJECT] = json!(INJECT_DISABLED);
        labels["app.kubernetes.io/part-of"] = json!("isthmus");
        let spec = json!({
            "replicas": knobs.replicas,
            "selector": { "matchLabels": selector(self.name) },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
            "template": { "metadata": { "labels": labels }, "spec": self.pod() },
        });
        Object::new("Deployment", name, json!({ "spec": spec }))
    }

    fn pod(self) -> Value {
        let apart = json!({ "weight": 100, "podAffinityTerm": {
            "labelSelector": { "matchLabels": selector(self.name) }, "topologyKey": "kubernetes.io/hostname",
        } });
        let mut environment = Vec::new();
        let (mut mounts, mut volumes) = (Vec::new(), Vec::new());
        if self.bootstraps {
            environment.push(json!({ "name": "MESH_CONTROL", "value": control_address() }));
            environment.extend(
                [("MESH_CLUSTER", CLUSTER), ("MESH_TRUST_DOMAIN", TRUST_DOMAIN)]
                    .map(|(name, key)| json!({ "name": name, "valueFrom": { "configMapKeyRef": { "name": FACTS, "key": key } } })),
            );
            mounts.extend([mount("bundle", true), mount("token", true), mount("state", false)]);
            volumes.extend([bundle_volume(), token_volume(), state_volume()]);
        }
        environment.extend(self.environment);
        let probe = |path: &str, failures: u8| json!({ "httpGet": { "path": path, "port": "admin" }, "periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": failures });
        let container = json!({
            "name": self.name.trim_start_matches("mesh-"),
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "env": environment,
            "ports": self.ports,
            "livenessProbe": probe("/live", 6),
            "readinessProbe": probe("/ready", 1),
            "resources": { "requests": { "cpu": self.cpu, "memory": self.memory } },
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
            },
            "volumeMounts": mounts,
        });
        json!({
            "serviceAccountName": self.name,
            "automountServiceAccountToken": self.asks_api,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": self.grace,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": NOBODY, "runAsGroup": NOBODY, "fsGroup": NOBODY,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [apart] } },
            "containers": [container],
            "volumes": volumes,
        })
    }
}

/// One replica at a time may be taken away on purpose.
fn budget(component: &Component) -> Object {
    let spec = json!({ "maxUnavailable": 1, "selector": { "matchLabels": selector(component.name) } });
    Object::new("PodDisruptionBudget", component.name, json!({ "spec": spec }))
}

/// The labels by which a component's pods are found.
pub(crate) fn selector(name: &str) -> Value {
    json!({ "app.kubernetes.io/name": name })
}

fn port(name: &str, number: u16, protocol: &str) -> Value {
    json!({ "name": name, "containerPort": number, "protocol": protocol })
}

fn mount(name: &str, read_only: bool) -> Value {
    json!({ "name": name, "mountPath": format!("/var/run/isthmus/{name}"), "readOnly": read_only })
}

fn bundle_volume() -> Value {
    json!({ "name": "bundle", "configMap": { "name": BUNDLE, "items": [{ "key": BUNDLE_KEY, "path": BUNDLE_KEY }] } })
}

fn token_volume() -> Value {
    let token = json!({ "audience": TOKEN_AUDIENCE, "expirationSeconds": 3600, "path": "token" });
    json!({ "name": "token", "projected": { "sources": [{ "serviceAccountToken": token }] } })
}

/// Keys lie here, so it is memory.
fn state_volume() -> Value {
    json!({ "name": "state", "emptyDir": { "medium": "Memory", "sizeLimit": "64Mi" } })
}

/// The user that every component runs as.
const NOBODY: u32 = 65_532;
