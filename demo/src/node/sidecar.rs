//! Which pods get a sidecar, and with which flags it is started. Pure.

use std::net::Ipv4Addr;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::config::Config;
use super::observe::Seen;

/// Whether a pod of this namespace and template gets a sidecar: its own label decides, else its namespace's.
pub(crate) fn template_is_meshed(template: &PodTemplateSpec, namespace: Option<&str>, seen: &Seen) -> bool {
    let own = template.metadata.as_ref().and_then(inject);
    own.or_else(|| namespace_says(namespace, seen)).unwrap_or(false)
}

/// The same for a pod that exists. The mark that it got when it was created stays true for as long as it lives.
pub(crate) fn pod_is_meshed(pod: &Pod, seen: &Seen) -> bool {
    is_marked(pod) || inject(&pod.metadata).or_else(|| namespace_says(pod.metadata.namespace.as_deref(), seen)).unwrap_or(false)
}

/// Whether the pod carries the mark that tells everybody else that it is meshed.
pub(crate) fn is_marked(pod: &Pod) -> bool {
    annotation(pod, mesh_api::well_known::INJECTED) == Some("true")
}

fn namespace_says(namespace: Option<&str>, seen: &Seen) -> Option<bool> {
    seen.namespaces.iter().find(|held| held.metadata.name.as_deref() == namespace).and_then(|held| inject(&held.metadata))
}

fn inject(metadata: &ObjectMeta) -> Option<bool> {
    match metadata.labels.as_ref()?.get(INJECT)?.as_str() {
        "enabled" => Some(true),
        _ => Some(false),
    }
}

/// The arguments of the sidecar of `pod` at `address`, whose files lie in `home`.
pub(crate) fn arguments(pod: &Pod, address: Ipv4Addr, home: &Path, config: &Config) -> Vec<String> {
    let inbound = annotation(pod, mesh_api::well_known::INBOUND_PORT)
        .and_then(|port| port.parse().ok())
        .unwrap_or(mesh_api::well_known::INBOUND_PORT_DEFAULT);
    let controls: Vec<String> = config.control.iter().map(ToString::to_string).collect();
    let mut arguments: Vec<String> = vec!["internal".into(), "proxy".into()];
    let mut flag = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    flag("outbound", format!("{address}:{OUTBOUND}"));
    flag("inbound", format!("{address}:{inbound}"));
    flag("app", address.to_string());
    flag("admin", format!("{address}:{ADMIN}"));
    flag("control", controls.join(","));
    flag("trust-domain", config.trust_domain.to_string());
    flag("cluster", config.cluster.to_string());
    flag("bundle", config.bundle.display().to_string());
    flag("token", home.join(TOKEN).display().to_string());
    flag("state-dir", home.join("proxy").display().to_string());
    flag("drain", DRAIN.to_string());
    let listeners = annotation(pod, TCP_LISTENERS).unwrap_or_default().split(',').map(str::trim);
    for listener in listeners.filter(|listener| !listener.is_empty()) {
        flag("tcp-listener", listener.replace("$(POD_IP)", &address.to_string()));
    }
    arguments
}

/// The address of a sidecar's HTTP proxy.
pub(crate) fn http_proxy(address: Ipv4Addr) -> String {
    format!("http://{address}:{OUTBOUND}")
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The name of the projected token in a pod's home.
pub(crate) const TOKEN: &str = "token";

/// Where a sidecar's outbound side listens.
pub(crate) const OUTBOUND: u16 = 4140;

/// Where a sidecar says whether it is ready.
pub(crate) const ADMIN: u16 = 4191;

/// How many seconds a sidecar gives its connections to end. Its containers have ended by then.
const DRAIN: u8 = 3;

const INJECT: &str = "isthmus.dev/inject";
const TCP_LISTENERS: &str = "isthmus.dev/tcp-listeners";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::plan::testing::pod;
    use k8s_openapi::api::core::v1::Namespace;
    use std::sync::Arc;

    fn labelled(value: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            name: Some("shop".into()),
            labels: value.map(|value| [(INJECT.to_owned(), value.to_owned())].into()),
            ..ObjectMeta::default()
        }
    }

    fn check(namespace: Option<&str>, of_pod: Option<&str>, meshed: bool) {
        let namespace = Namespace { metadata: labelled(namespace), ..Namespace::default() };
        let seen = Seen { namespaces: vec![Arc::new(namespace)], ..Seen::default() };
        let mut pod = pod("shop/cart");
        pod.metadata.labels = labelled(of_pod).labels;
        assert_eq!(pod_is_meshed(&pod, &seen), meshed, "{of_pod:?}");
    }

    #[test]
    fn the_pods_label_decides_else_the_namespaces_else_no() {
        check(None, None, false);
        check(Some("enabled"), None, true);
        check(Some("enabled"), Some("disabled"), false);
        check(Some("disabled"), Some("enabled"), true);
    }
}
