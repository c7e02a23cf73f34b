//! Kubernetes objects as plain values. What can't be read is told in the log, and what that means is said by its table
//! ([`crate::observed::Seen`]). A Link or a Peer is read as a whole or not at all: half of one would withdraw the other half.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use mesh_api::crd;
use mesh_api::crd::mcs::ImportType;
use mesh_api::inject::Inbound;
use mesh_api::translate::{Transport, is_headless, offered_ports, offered_properties};
use mesh_api::well_known::{
    ALLOW_UNMESHED, BUNDLE_KEY, HANDLE, HOSTNAME, IDENTITIES, INBOUND, INBOUND_PORT, INBOUND_PORT_DEFAULT, INJECTED, LINK, MIRROR,
    MIRROR_CLUSTER, MIRROR_CLUSTER_SET, MIRROR_STAND_IN, MIRRORED_SERVICE, PROXYLESS,
};
use mesh_names::{Protocol, ServiceId, ServicePort, SpiffeId, TrustDomain, TunnelPort};
use mesh_topology::{Gateway, ImportKind, LinkHealth, Port};
use mesh_trust::{Bundle, Issuer};

use crate::handles::Handles;
use crate::observed::{
    BundleText, Facts, Link, Mirror, Namespace, ObjectName, Peer, Pod, PodRef, Requirement, Selector, Service, ServiceExport,
    ServiceImport, Slice, SliceEndpoint, SlicePort,
};

pub(super) fn facts(of: core::ConfigMap) -> Option<Facts> {
    let data = of.data.unwrap_or_default();
    let ranges = data.get("ranges").map(String::as_str).unwrap_or_default();
    Some(Facts {
        cluster: parsed("facts.cluster", data.get("cluster")?)?,
        trust_domain: parsed("facts.trustDomain", data.get("trustDomain")?)?,
        ranges: words(ranges).filter_map(|range| parsed("facts.ranges", range)).collect(),
        allow_unmeshed: data.get("allowUnmeshed").is_some_and(|text| text == "true"),
        inbound: data.get("inbound").and_then(|text| parsed("facts.inbound", text)).unwrap_or_default(),
    })
}

pub(super) fn bundle(of: core::ConfigMap) -> Option<BundleText> {
    of.data?.remove(BUNDLE_KEY).map(BundleText)
}

pub(super) fn issuer(of: core::Secret) -> Option<Issuer> {
    let data = of.data.unwrap_or_default();
    let text = |key: &str| data.get(key).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let read = Issuer::from_pem(text("tls.crt")?, text("tls.key")?);
    read.inspect_err(|error| tracing::error!(%error, "the issuer's Secret can't be used")).ok()
}

pub(super) fn handles(of: core::Secret) -> Option<Handles> {
    Handles::new(&of.data?.get(HANDLE_KEY)?.0)
}

pub(super) fn service(of: core::Service) -> Option<Service> {
    let id = service_id(&of.metadata)?;
    let mirror = mirror(&of.metadata)?;
    let spec = of.spec?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let (ports, properties, headless) =
        (offered_ports(spec.ports.as_deref().unwrap_or_default()), offered_properties(&spec), is_headless(&spec));
    let ips = spec.cluster_ips.unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
    let addresses = ips.iter().filter(|ip| *ip != "None").filter_map(|ip| parsed("service.clusterIPs", ip)).collect();
    Some(Service { id, addresses, headless, ports, mirror, properties })
}

/// `None` when the labels are a mirror's but can't be read; `Some(None)` for what is no mirror.
#[expect(clippy::option_option, reason = "unreadable, no mirror and a mirror are three things, asked at one place")]
fn mirror(of: &ObjectMeta) -> Option<Option<Mirror>> {
    let labels = of.labels.clone().unwrap_or_default();
    let annotations = of.annotations.clone().unwrap_or_default();
    let Some(kind) = labels.get(MIRROR) else { return Some(None) };
    let service = ServiceId::parse(of.namespace.as_deref()?, labels.get(MIRRORED_SERVICE)?).ok()?;
    let link = || parsed("mirror.link", labels.get(LINK)?);
    let mirror = match kind.as_str() {
        MIRROR_CLUSTER_SET => Mirror::ClusterSet(service),
        MIRROR_CLUSTER => Mirror::Cluster {
            link: link()?,
            service,
            identities: words(annotations.get(IDENTITIES).map(String::as_str).unwrap_or_default())
                .filter_map(|id| parsed("mirror.identities", id))
                .collect(),
            proxyless: annotations.get(PROXYLESS).is_some_and(|text| text == "true"),
        },
        MIRROR_STAND_IN => Mirror::StandIn {
            link: link()?,
            service,
            hostname: labels.get(HOSTNAME).and_then(|name| parsed("mirror.hostname", name)),
            handle: parsed("mirror.handle", annotations.get(HANDLE)?)?,
        },
        _ => return None,
    };
    Some(Some(mirror))
}

pub(super) fn slice(of: EndpointSlice) -> Option<Slice> {
    let labels = of.metadata.labels.as_ref()?;
    let service = ServiceId::parse(of.metadata.namespace.as_deref()?, labels.get(SERVICE_NAME)?).ok()?;
    let namespace: Box<str> = service.namespace().as_str().into();
    Some(Slice {
        ports: of.ports.unwrap_or_default().into_iter().filter_map(slice_port).collect(),
        endpoints: of.endpoints.into_iter().filter_map(|endpoint| slice_endpoint(endpoint, &namespace)).collect(),
        service,
    })
}

fn slice_port(of: EndpointPort) -> Option<SlicePort> {
    Some(SlicePort {
        number: u32::try_from(of.port?).ok()?.try_into().ok()?,
        protocol: Protocol::declared(of.protocol.as_deref(), of.app_protocol.as_deref(), of.name.as_deref()),
        name: of.name.unwrap_or_default().into(),
    })
}

fn slice_endpoint(of: Endpoint, namespace: &str) -> Option<SliceEndpoint> {
    let conditions = of.conditions.unwrap_or_default();
    let pod = of.target_ref.filter(|target| target.kind.as_deref() == Some("Pod")).and_then(|target| {
        let uid = target.uid.and_then(|uid| parsed("endpointslice.targetRef.uid", &uid));
        Some(PodRef { name: ObjectName { namespace: namespace.into(), name: target.name?.into() }, uid })
    });
    Some(SliceEndpoint {
        address: parsed("endpointslice.addresses", of.addresses.first()?)?,
        ready: conditions.ready != Some(false),
        hostname: of.hostname.and_then(|hostname| parsed("endpointslice.hostname", &hostname)),
        zone: of.zone.and_then(|zone| parsed("endpointslice.zone", &zone)),
        pod,
    })
}

pub(super) fn pod(of: core::Pod) -> Option<Pod> {
    let annotations = of.metadata.annotations.unwrap_or_default();
    let spec = of.spec?;
    let inbound = (annotations.get(INJECTED).map(String::as_str) == Some("true")).then(|| {
        let said = annotations.get(INBOUND_PORT).and_then(|port| parsed::<TunnelPort>("pod.inbound-port", port));
        said.or_else(|| INBOUND_PORT_DEFAULT.try_into().ok())
    });
    let status = of.status.unwrap_or_default();
    let has_ended = status.phase.as_deref().is_some_and(|phase| ["Succeeded", "Failed"].contains(&phase));
    let shares_addresses = spec.host_network == Some(true) || has_ended;
    let addresses = status.pod_ips.unwrap_or_default().into_iter().map(|one| one.ip).chain(status.pod_ip).filter(|_| !shares_addresses);
    Some(Pod {
        uid: parsed("pod.uid", &of.metadata.uid?)?,
        addresses: addresses.filter_map(|address| parsed("pod.podIPs", &address)).collect(),
        account: spec.service_account_name.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned()).into(),
        inbound: inbound.flatten(),
    })
}

pub(super) fn namespace(of: core::Namespace) -> Option<Namespace> {
    let inbound = of.metadata.annotations.as_ref().and_then(|held| held.get(INBOUND));
    Some(Namespace {
        allow_unmeshed: allow_unmeshed(&of.metadata),
        // What can't be read refuses rather than lets in.
        inbound: inbound.map(|text| parsed("namespace.inbound", text).unwrap_or(Inbound::Strict)),
    })
}

pub(super) fn export(of: crd::ServiceExport) -> Option<ServiceExport> {
    Some(ServiceExport {
        id: service_id(&of.metadata)?,
        allow_unmeshed: allow_unmeshed(&of.metadata),
        created_at: of.metadata.creation_timestamp.map(|time| time.0.as_second()).unwrap_or_default(),
        labels: of.metadata.labels.unwrap_or_default(),
        exported_labels: of.spec.exported_labels.unwrap_or_default(),
        exported_annotations: of.spec.exported_annotations.unwrap_or_default(),
    })
}

pub(super) fn import(of: crd::ServiceImport) -> Option<ServiceImport> {
    let port = |port: crd::mcs::ImportPort| {
        if Transport::read(&port.protocol)? == Transport::Sctp {
            return None;
        }
        let protocol = Protocol::declared(Some(&port.protocol), port.app_protocol.as_deref(), port.name.as_deref());
        let number: ServicePort = u32::try_from(port.port).ok()?.try_into().ok()?;
        Some(Port { name: port.name.and_then(|name| parsed("serviceimport.ports.name", &name)), number, protocol })
    };
    let clusters = of.status.unwrap_or_default().clusters;
    Some(ServiceImport {
        id: service_id(&of.metadata)?,
        addresses: of.spec.ips.iter().filter_map(|ip| parsed("serviceimport.ips", ip)).collect(),
        kind: match of.spec.kind {
            ImportType::ClusterSetIP => ImportKind::ClusterSetIp,
            ImportType::Headless => ImportKind::Headless,
        },
        ports: of.spec.ports.into_iter().filter_map(port).collect(),
        clusters: clusters.iter().filter_map(|one| parsed("serviceimport.clusters", &one.cluster)).collect(),
    })
}

pub(super) fn link(of: crd::Link) -> Option<Link> {
    let spec = of.spec;
    let trust_domain: TrustDomain = parsed("link.trustDomain", &spec.trust_domain)?;
    let gateway = |gateway: &crd::LinkGateway| {
        let identity: SpiffeId = parsed("link.gateways.identity", &gateway.identity)?;
        let address: IpAddr = parsed("link.gateways.address", &gateway.address)?;
        if *identity.trust_domain() != trust_domain || gateway.port == 0 {
            tracing::warn!(%identity, port = gateway.port, %trust_domain, "a link's gateway is of another trust domain or has no port");
            return None;
        }
        Some(Gateway { address: SocketAddr::new(address, gateway.port), identity })
    };
    let gateways: Vec<Gateway> = spec.gateways.iter().map(gateway).collect::<Option<_>>()?;
    if gateways.is_empty() {
        tracing::warn!("a link has no gateway");
        return None;
    }
    Some(Link {
        bundle: linked_bundle(&trust_domain, &spec.bundle)?,
        link: mesh_topology::Link {
            name: parsed("link.name", of.metadata.name.as_deref()?)?,
            id: parsed("link.clusterId", &spec.cluster_id)?,
            gateways,
            health: LinkHealth::Unknown,
            priority: spec.priority.try_into().unwrap_or_default(),
            trust_domain,
        },
    })
}

pub(super) fn peer(of: crd::Peer) -> Option<Peer> {
    let spec = of.spec;
    let trust_domain: TrustDomain = parsed("peer.trustDomain", &spec.trust_domain)?;
    let caller: SpiffeId = parsed("peer.caller", &spec.caller)?;
    if *caller.trust_domain() != trust_domain {
        tracing::warn!(%caller, %trust_domain, "a peer's caller is of another trust domain");
        return None;
    }
    Some(Peer {
        name: parsed("peer.name", of.metadata.name.as_deref()?)?,
        id: parsed("peer.clusterId", &spec.cluster_id)?,
        bundle: linked_bundle(&trust_domain, &spec.bundle)?,
        namespaces: spec.grant.namespaces,
        selector: spec.grant.selector.map(selector),
        told: of.status.and_then(|status| status.exported_services),
        trust_domain,
        caller,
    })
}

fn selector(of: LabelSelector) -> Selector {
    let equal = of.match_labels.unwrap_or_default().into_iter().map(|(key, value)| Requirement::In(key, vec![value]));
    let expressions = of.match_expressions.unwrap_or_default().into_iter().map(|one| {
        let values = one.values.unwrap_or_default();
        match one.operator.as_str() {
            "In" => Requirement::In(one.key, values),
            "NotIn" => Requirement::NotIn(one.key, values),
            "Exists" => Requirement::Exists(one.key),
            "DoesNotExist" => Requirement::Missing(one.key),
            _ => Requirement::Unknown,
        }
    });
    Selector(equal.chain(expressions).collect())
}

fn linked_bundle(trust_domain: &TrustDomain, json: &str) -> Option<Bundle> {
    let read = Bundle::from_spiffe_json(trust_domain.clone(), json.as_bytes());
    read.inspect_err(|error| tracing::warn!(%error, "a linked cluster's bundle can't be used")).ok()
}

fn allow_unmeshed(of: &ObjectMeta) -> Option<bool> {
    match of.annotations.as_ref()?.get(ALLOW_UNMESHED)?.as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn service_id(of: &ObjectMeta) -> Option<ServiceId> {
    ServiceId::parse(of.namespace.as_deref()?, of.name.as_deref()?).ok()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn parsed<T: FromStr<Err: Display>>(field: &'static str, text: &str) -> Option<T> {
    text.parse().inspect_err(|error| tracing::warn!(field, %error, "not readable")).ok()
}

/// The label that ties an EndpointSlice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The member of the Secret of handles.
pub(crate) const HANDLE_KEY: &str = "key";

#[cfg(test)]
mod tests {
    use mesh_api::crd::LinkSpec;
    use serde_json::json;

    use super::*;

    fn link_of(change: impl FnOnce(&mut LinkSpec)) -> Option<Link> {
        let gateway =
            |address| json!({ "address": address, "port": 4143, "identity": "spiffe://east.mesh/ns/isthmus-system/sa/mesh-gateway" });
        let mut spec: LinkSpec = serde_json::from_value(json!({
            "clusterId": "id-east",
            "trustDomain": "east.mesh",
            "bundle": r#"{"keys":[]}"#,
            "control": "spiffe://east.mesh/ns/isthmus-system/sa/mesh-control",
            "gateways": [gateway("10.0.0.1"), gateway("10.0.0.2")],
        }))
        .unwrap();
        change(&mut spec);
        link(crd::Link::new("east", spec))
    }

    #[test]
    fn a_pod_has_the_addresses_that_nobody_shares_with_it() {
        let check = |network: bool, phase: &str, expected: &[&str]| {
            let pod: core::Pod = serde_json::from_value(json!({
                "metadata": { "uid": "uid-web" },
                "spec": { "containers": [], "hostNetwork": network },
                "status": { "phase": phase, "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }] },
            }))
            .unwrap();
            let read: std::collections::BTreeSet<String> = super::pod(pod).unwrap().addresses.iter().map(ToString::to_string).collect();
            assert_eq!(read, expected.iter().map(|address| (*address).to_owned()).collect());
        };
        check(false, "Running", &["10.0.0.1", "fd00::1"]);
        check(true, "Running", &[]);
        check(false, "Succeeded", &[]);
    }

    #[test]
    fn a_link_is_read_as_a_whole_or_not_at_all() {
        assert_eq!(link_of(|_| {}).unwrap().link.gateways.len(), 2);
        assert_eq!(link_of(|spec| spec.bundle.truncate(5)), None);
        assert_eq!(link_of(|spec| spec.gateways[1].address.push('x')), None);
        assert_eq!(link_of(|spec| spec.gateways[0].port = 0), None);
        assert_eq!(link_of(|spec| spec.gateways[0].identity = "spiffe://north.mesh/ns/a/sa/b".to_owned()), None);
        assert_eq!(link_of(|spec| spec.gateways.clear()), None);
    }
}
