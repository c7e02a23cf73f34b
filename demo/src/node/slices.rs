//! Which EndpointSlices should exist: one for each Service that selects pods, true about who is ready and who is leaving. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource as _;

use super::observe::Seen;
use super::{plan, status};

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    /// It does not exist yet.
    Create(Box<EndpointSlice>),
    /// It exists and says something else.
    Replace(Box<EndpointSlice>),
    /// Its Service is gone, or selects nothing any more.
    Delete(Arc<EndpointSlice>),
}

/// The slices that differ from what they should be.
pub(crate) fn plan(seen: &Seen) -> Vec<Write> {
    let wanted: Vec<EndpointSlice> = seen.services.iter().filter_map(|service| slice(service, &seen.pods)).collect();
    let held = |wanted: &EndpointSlice| seen.slices.iter().find(|held| id(held) == id(wanted));
    let mut writes: Vec<Write> = Vec::new();
    for slice in &wanted {
        match held(slice) {
            None => writes.push(Write::Create(Box::new(slice.clone()))),
            Some(held) if says_the_same(held, slice) => {}
            Some(held) => {
                let mut slice = slice.clone();
                slice.metadata.resource_version.clone_from(&held.metadata.resource_version);
                writes.push(Write::Replace(Box::new(slice)));
            }
        }
    }
    let stale = seen.slices.iter().filter(|held| is_ours(held) && !wanted.iter().any(|wanted| id(wanted) == id(held)));
    writes.extend(stale.filter(|held| held.metadata.deletion_timestamp.is_none()).cloned().map(Write::Delete));
    writes
}

fn id(slice: &EndpointSlice) -> (Option<&str>, Option<&str>) {
    (slice.metadata.namespace.as_deref(), slice.metadata.name.as_deref())
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == CONTROLLER)
}

fn says_the_same(held: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    held.endpoints == wanted.endpoints && held.ports == wanted.ports && held.metadata.labels == wanted.metadata.labels
}

/// The slice of one Service; `None` for one that selects nothing: somebody else keeps its slices.
fn slice(service: &Service, pods: &[Arc<Pod>]) -> Option<EndpointSlice> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    if service.metadata.deletion_timestamp.is_some() || spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let namespace = service.metadata.namespace.as_deref();
    let mut chosen: Vec<&Arc<Pod>> =
        pods.iter().filter(|pod| pod.metadata.namespace.as_deref() == namespace && selects(selector, pod)).collect();
    chosen.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.to_owned());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    let suffix: String = plan::hash_of(&service.metadata.uid).chars().take(5).collect();
    Some(EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: chosen.iter().filter_map(|pod| endpoint(pod, name, spec)).collect(),
        metadata: ObjectMeta {
            name: Some(format!("{name}-{suffix}")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: service.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        ports: Some(spec.ports.iter().flatten().filter_map(|port| slice_port(port, &chosen)).collect()),
    })
}

fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
}

/// A pod with an address that has not ended. One that leaves says so, and serves while its processes still do.
fn endpoint(pod: &Pod, service: &str, spec: &ServiceSpec) -> Option<Endpoint> {
    let address = pod.status.as_ref()?.pod_ip.clone().filter(|address| !address.is_empty())?;
    if status::is_ended(pod) {
        return None;
    }
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = container_ready(pod);
    let ready = spec.publish_not_ready_addresses == Some(true) || (status::is_ready(pod) && !terminating);
    let pod_spec = pod.spec.as_ref()?;
    let hostname = pod_spec.hostname.clone().filter(|_| pod_spec.subdomain.as_deref() == Some(service));
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) }),
        hostname,
        node_name: pod_spec.node_name.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

/// Whether the containers say that they are ready, also while the pod is being deleted.
fn container_ready(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    !statuses.is_empty() && statuses.iter().all(|status| status.ready)
}

fn slice_port(port: &ServicePort, pods: &[&Arc<Pod>]) -> Option<EndpointPort> {
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => pods.iter().find_map(|pod| named_port(pod, name))?,
    };
    Some(EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    })
}

fn named_port(pod: &Pod, name: &str) -> Option<i32> {
    let containers = pod.spec.as_ref()?.containers.iter();
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port)
}

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

#[cfg(test)]
mod tests {
    use super::super::plan::testing::{pod, ready};
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    fn service(spec: Value) -> Arc<Service> {
        let service = json!({ "metadata": { "name": "cart", "namespace": "shop", "uid": "s" }, "spec": spec });
        Arc::new(serde_json::from_value(service).unwrap())
    }

    /// A pod `name@address`; `!` is not ready, `~` being deleted.
    fn member(text: &str) -> Arc<Pod> {
        let (name, address) = text.trim_end_matches(['!', '~']).split_once('@').unwrap();
        let plain = pod(&format!("shop/{name}"));
        let mut pod = ready(plain);
        let status = pod.status.as_mut().unwrap();
        status.pod_ip = Some(address.into());
        let is_ready = !text.ends_with('!');
        status.container_statuses =
            serde_json::from_value(json!([{ "name": "c", "image": "", "imageID": "", "ready": is_ready, "restartCount": 0 }])).unwrap();
        if !is_ready {
            status.conditions = None;
        }
        if text.ends_with('~') {
            pod.metadata.deletion_timestamp = Some(status::time(std::time::SystemTime::UNIX_EPOCH));
        }
        pod.metadata.labels = Some([("app".to_owned(), "cart".to_owned())].into());
        let spec = pod.spec.as_mut().unwrap();
        (spec.hostname, spec.subdomain) = (Some(name.into()), Some("cart".into()));
        spec.containers = serde_json::from_value(json!([{ "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }] }])).unwrap();
        Arc::new(pod)
    }

    fn check(spec: Value, pods: &[&str], expected: &Expect) {
        let seen = Seen { services: vec![service(spec)], pods: pods.iter().map(|text| member(text)).collect(), ..Seen::default() };
        let mut written = String::new();
        for write in plan(&seen) {
            let Write::Create(slice) = write else { panic!("{write:?}") };
            let ports: Vec<String> =
                slice.ports.iter().flatten().map(|port| format!("{}:{}", port.name.as_ref().unwrap(), port.port.unwrap())).collect();
            written += &format!("ports {}\n", ports.join(" "));
            for endpoint in &slice.endpoints {
                let said = endpoint.conditions.as_ref().unwrap();
                let said = [("ready", said.ready), ("serving", said.serving), ("terminating", said.terminating)];
                let said: Vec<&str> = said.iter().filter(|(_, is)| *is == Some(true)).map(|(word, _)| *word).collect();
                written += &format!("{} {} {}\n", endpoint.addresses[0], endpoint.hostname.as_deref().unwrap_or("-"), said.join(" "));
            }
        }
        expected.assert_eq(&written);
    }

    #[test]
    fn a_slice_tells_who_is_ready_and_who_leaves() {
        let spec = json!({ "selector": { "app": "cart" }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }, { "name": "raw", "port": 9 }] });
        check(
            spec,
            &["cart-0@127.10.64.1", "cart-1@127.10.64.2!", "cart-2@127.10.64.3~"],
            &expect![[r#"
            ports http:8080 raw:9
            127.10.64.1 cart-0 ready serving
            127.10.64.2 cart-1 
            127.10.64.3 cart-2 serving terminating
        "#]],
        );
    }

    #[test]
    fn a_service_without_a_selector_is_somebody_elses() {
        check(json!({ "ports": [{ "port": 80 }] }), &["cart-0@127.10.64.1"], &expect![""]);
    }

    #[test]
    fn a_slice_that_says_the_same_is_left_alone_and_one_without_a_service_goes() {
        let spec = json!({ "selector": { "app": "cart" }, "ports": [{ "port": 80 }] });
        let mut seen = Seen { services: vec![service(spec)], ..Seen::default() };
        let Some(Write::Create(slice)) = plan(&seen).pop() else { panic!() };
        seen.slices = vec![Arc::new(*slice)];
        assert_eq!(plan(&seen), []);
        seen.pods = vec![member("cart-0@127.10.64.1")];
        assert!(matches!(plan(&seen).as_slice(), [Write::Replace(_)]));
        seen.services.clear();
        assert!(matches!(plan(&seen).as_slice(), [Write::Delete(_)]));
    }
}
