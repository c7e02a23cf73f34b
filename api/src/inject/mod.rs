//! A pod becomes a meshed pod: an init container that sets the redirect, the proxy as a native sidecar, what the two need. Pure.
//!
//! Only things are added, nothing of the pod is changed, and a pod that has a proxy gets no second one, so it does not matter how often or
//! by whom this is asked (`control` at admission, `mesh inject` offline). Nothing that a pod says enters a rule or a command as text: ports
//! are parsed here, and everything else of ours is fixed.
//!
//! The sidecar is an init container with `restartPolicy: Always`: it is ready before the pod's own init containers begin, ends after its
//! last container, and keeps no Job from ending.

mod patch;
mod ports;
mod probes;

use std::str::FromStr;

use mesh_names::{ClusterName, ParseError, TrustDomain};
use serde_json::{Value, json};

use crate::well_known::{
    CONTROL_ACCOUNT, INBOUND_PORT_DEFAULT, INJECT, INJECT_ENABLED, INJECTED, POD_BUNDLE, SKIP_INBOUND_PORTS, SKIP_OUTBOUND_PORTS,
    SYSTEM_NAMESPACE, TOKEN_AUDIENCE,
};

pub use patch::{Add, apply};
pub use ports::{PortRange, PortRanges};
pub use probes::Probe;

/// What a cluster says of its proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Its bundle in SPIFFE format.
    pub bundle: String,
    /// The image of the proxy.
    pub proxy_image: String,
    /// The image of the init container.
    pub init_image: String,
    /// What the pod's namespace, else the installation, says of plaintext.
    pub inbound: Inbound,
}

/// What becomes of plaintext from pods that are not meshed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Inbound {
    /// It is let in.
    #[default]
    Permissive,
    /// It is refused; the pod's own probes are answered.
    Strict,
}

/// What is to be done with a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// These are to be added.
    Add(Vec<Add>),
    /// It has a proxy.
    Already,
    /// It can have none, and works without: it shares its node's network, or runs Windows.
    Impossible(&'static str),
}

/// Why a pod may not be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// An annotation is not what it should be.
    #[error("annotation {annotation} can't be used: {source}")]
    Annotation {
        /// Its name.
        annotation: &'static str,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// What runs as the proxy's user is not redirected, so the pod would go around its own proxy.
    #[error("the pod runs as user {PROXY_UID}, which is the proxy's: choose another runAsUser")]
    ProxyUser,
}

/// Whether a pod is to be meshed: its own label decides, else its namespace's, else it is not.
#[must_use]
pub fn wanted(pod: Option<&str>, namespace: Option<&str>) -> bool {
    pod.or(namespace) == Some(INJECT_ENABLED)
}

/// What is to be added to `pod`, which is a Pod or the template of one.
///
/// # Errors
/// When the pod says something that can't be done.
pub fn inject(pod: &Value, settings: &Settings) -> Result<Injection, InjectError> {
    let spec = &pod["spec"];
    if containers(spec).any(|container| container["name"] == PROXY_CONTAINER) {
        return Ok(Injection::Already);
    }
    if spec["hostNetwork"] == true {
        return Ok(Injection::Impossible("it shares its node's network"));
    }
    if spec["os"]["name"] == "windows" {
        return Ok(Injection::Impossible("it runs Windows"));
    }
    if std::iter::once(spec).chain(containers(spec)).any(|of| of["securityContext"]["runAsUser"] == PROXY_UID) {
        return Err(InjectError::ProxyUser);
    }
    let skip_inbound = ports_of(pod, SKIP_INBOUND_PORTS)?;
    let skip_outbound = ports_of(pod, SKIP_OUTBOUND_PORTS)?;
    let mut adds = Vec::new();
    patch::annotate(&mut adds, pod, &[(INJECTED, "true"), (POD_BUNDLE, &settings.bundle)]);
    let first = [init(settings, &skip_inbound, &skip_outbound), proxy(settings, spec)];
    patch::first(&mut adds, spec, "initContainers", &first);
    patch::last(&mut adds, spec, "volumes", &volumes());
    Ok(Injection::Add(adds))
}

/// Every container, of both kinds.
fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().filter_map(|list| spec[list].as_array()).flatten()
}

fn ports_of(pod: &Value, annotation: &'static str) -> Result<PortRanges, InjectError> {
    let text = pod["metadata"]["annotations"][annotation].as_str().unwrap_or_default();
    text.parse().map_err(|source| InjectError::Annotation { annotation, source })
}

/// Sets the redirect, which needs the right to, and nothing else.
fn init(settings: &Settings, skip_inbound: &PortRanges, skip_outbound: &PortRanges) -> Value {
    let inbound = skip_inbound.with(&[INBOUND_PORT_DEFAULT, ADMIN_PORT]);
    let mut arguments = vec![
        format!("--proxy-uid={PROXY_UID}"),
        format!("--outbound-port={TRANSPARENT_OUTBOUND}"),
        format!("--inbound-port={TRANSPARENT_INBOUND}"),
        format!("--skip-inbound-ports={inbound}"),
    ];
    if !skip_outbound.is_empty() {
        arguments.push(format!("--skip-outbound-ports={skip_outbound}"));
    }
    json!({
        "name": INIT_CONTAINER,
        "image": settings.init_image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        // Where Debian has nft and iptables.
        "env": [{ "name": "PATH", "value": "/usr/sbin:/usr/bin:/sbin:/bin" }],
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
        "securityContext": {
            "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"] }, "seccompProfile": { "type": "RuntimeDefault" },
        },
        // iptables wants to write its lock.
        "volumeMounts": [no_api_token(), { "name": "isthmus-run", "mountPath": "/run" }],
    })
}

fn proxy(settings: &Settings, spec: &Value) -> Value {
    let text = |name: &str, value: String| json!({ "name": name, "value": value });
    let grace = spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(GRACE_DEFAULT);
    let probes: Vec<String> = probes::of(spec).iter().map(ToString::to_string).collect();
    let mut environment = vec![
        json!({ "name": "MESH_POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }),
        // The address that other pods would reach the application at: it need not listen on the loopback.
        text("MESH_APP", "$(MESH_POD_IP)".to_owned()),
        text("MESH_CLUSTER", settings.cluster.to_string()),
        text("MESH_TRUST_DOMAIN", settings.trust_domain.to_string()),
        text("MESH_CONTROL", format!("{CONTROL_ACCOUNT}.{SYSTEM_NAMESPACE}.svc:{CONTROL_PORT}")),
        text("MESH_TOKEN", format!("{IDENTITY}/token")),
        text("MESH_BUNDLE", format!("{IDENTITY}/bundle.json")),
        text("MESH_STATE_DIR", STATE.to_owned()),
        // Both families on one socket.
        text("MESH_INBOUND", format!("[::]:{INBOUND_PORT_DEFAULT}")),
        text("MESH_ADMIN", format!("[::]:{ADMIN_PORT}")),
        text("MESH_TRANSPARENT_OUTBOUND", format!("[::]:{TRANSPARENT_OUTBOUND}")),
        text("MESH_TRANSPARENT_INBOUND", format!("[::]:{TRANSPARENT_INBOUND}")),
        text("MESH_PLAINTEXT", settings.inbound.as_str().to_owned()),
        // Some seconds before the kubelet kills it.
        text("MESH_DRAIN", grace.saturating_sub(GRACE_LEFT).clamp(1, GRACE_DEFAULT).to_string()),
    ];
    if !probes.is_empty() {
        // Separated by blanks, which no path has. An empty text would be a probe that is none.
        environment.push(text("MESH_PROBES", probes.join(" ")));
    }
    let probe = |path: &str, period: u8, failures: u8| json!({ "httpGet": { "path": path, "port": ADMIN_PORT }, "periodSeconds": period, "timeoutSeconds": 3, "failureThreshold": failures });
    json!({
        "name": PROXY_CONTAINER,
        "image": settings.proxy_image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "env": environment,
        "ports": [
            { "name": "isthmus-in", "containerPort": INBOUND_PORT_DEFAULT, "protocol": "TCP" },
            { "name": "isthmus-admin", "containerPort": ADMIN_PORT, "protocol": "TCP" },
        ],
        "startupProbe": probe("/ready", 1, 120),
        "readinessProbe": probe("/ready", 5, 2),
        "livenessProbe": probe("/live", 10, 6),
        "resources": { "requests": { "cpu": "10m", "memory": "20Mi" } },
        "securityContext": {
            "runAsUser": PROXY_UID, "runAsGroup": PROXY_UID, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": [
            no_api_token(),
            { "name": "isthmus-identity", "mountPath": IDENTITY, "readOnly": true },
            { "name": "isthmus-state", "mountPath": STATE },
        ],
    })
}

/// An empty folder where the pod's token for the Kubernetes API would be: the API server adds that one to every container that has
/// nothing there, and ours have no use for it.
fn no_api_token() -> Value {
    json!({ "name": "isthmus-nothing", "mountPath": API_TOKEN, "readOnly": true })
}

fn volumes() -> [Value; 4] {
    let token = json!({ "audience": TOKEN_AUDIENCE, "expirationSeconds": 3600, "path": "token" });
    let bundle = json!([{ "path": "bundle.json", "fieldRef": { "fieldPath": format!("metadata.annotations['{POD_BUNDLE}']") } }]);
    [
        json!({ "name": "isthmus-identity", "projected": { "sources": [{ "serviceAccountToken": token }, { "downwardAPI": { "items": bundle } }] } }),
        // The proxy's key lies here: memory, and no container but the proxy mounts it.
        json!({ "name": "isthmus-state", "emptyDir": { "medium": "Memory", "sizeLimit": "64Mi" } }),
        json!({ "name": "isthmus-run", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }),
        json!({ "name": "isthmus-nothing", "emptyDir": { "medium": "Memory", "sizeLimit": "1Ki" } }),
    ]
}

impl Inbound {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permissive => "permissive",
            Self::Strict => "strict",
        }
    }
}

impl FromStr for Inbound {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "permissive" => Ok(Self::Permissive),
            "strict" => Ok(Self::Strict),
            _ => Err(ParseError::new("inbound policy", text, "it is permissive or strict")),
        }
    }
}

/// The label that says whether a pod or a namespace is to be meshed.
pub const LABEL: &str = INJECT;
/// The sidecar's name.
pub const PROXY_CONTAINER: &str = "isthmus-proxy";
/// The init container's name.
pub const INIT_CONTAINER: &str = "isthmus-init";
/// The user that the proxy runs as: what it sends is not redirected to itself.
pub const PROXY_UID: u32 = 2140;
/// Where redirected outgoing connections arrive.
pub const TRANSPARENT_OUTBOUND: u16 = 4141;
/// Where redirected incoming connections arrive.
pub const TRANSPARENT_INBOUND: u16 = 4142;
const ADMIN_PORT: u16 = 4191;
const CONTROL_PORT: u16 = 4150;
const API_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const IDENTITY: &str = "/var/run/isthmus/identity";
const STATE: &str = "/var/run/isthmus/state";
/// Kubernetes' own.
const GRACE_DEFAULT: u64 = 30;
const GRACE_LEFT: u64 = 3;

#[cfg(test)]
mod tests;
