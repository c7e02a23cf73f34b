//! Our own objects, read back into what they were written as. The writing half is [`crate::apply`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use kube::{Resource, ResourceExt as _};
use mesh_api::crd::ServiceImport;
use mesh_api::crd::mcs::ImportType;
use mesh_api::translate::{ExportedPort, ExportedProperties, IpFamily, SessionAffinity, TrafficPolicy, Transport, offered_ports, travels};
use mesh_api::well_known::{HANDLE, HOSTNAME, IDENTITIES, LINK, MIRROR, MIRROR_CLUSTER, MIRROR_CLUSTER_SET, MIRROR_STAND_IN};
use mesh_api::well_known::{MCS_SERVICE_NAME, MCS_SOURCE_CLUSTER, MIRRORED_SERVICE, PROXYLESS};
use mesh_names::{ClusterName, Label, ServiceId};
use mesh_topology::ImportKind;

use super::{SERVICE_NAME, is_ours, service_id};
use crate::model::{
    Found, HeadlessSlice, Import, Kind, MirrorService, MirrorSlice, Object, ObjectId, Owner, SliceOf, SlicePort, StandsFor, Wish,
};

/// A Service of ours; none when it is not ours.
pub(crate) fn service(of: &Service) -> Option<(ObjectId, Found)> {
    let id = service_id(of).filter(|_| is_ours(of.labels()))?;
    let spec = of.spec.clone().unwrap_or_default();
    let object = mirror_service(of, &id, &spec.ports.unwrap_or_default()).map(Object::Service);
    let addresses = spec.cluster_ips.unwrap_or_default().iter().filter_map(|address| address.parse().ok()).collect();
    Some((ObjectId::service(&id), Found { object, addresses, ..found(of) }))
}

/// A slice of ours; none when it is not ours.
pub(crate) fn slice(of: &EndpointSlice) -> Option<(ObjectId, Found)> {
    let namespace: Label = of.namespace().filter(|_| is_ours(of.labels()))?.parse().ok()?;
    let id = ObjectId { kind: Kind::Slice, namespace: namespace.clone(), name: of.name_any() };
    let object = if of.labels().contains_key(SERVICE_NAME) {
        mirror_slice(of, namespace).map(Object::Slice)
    } else {
        headless_slice(of, namespace).map(Object::Headless)
    };
    Some((id, Found { object, ..found(of) }))
}

/// A ServiceImport of ours; none when it is not ours.
pub(crate) fn import(of: &ServiceImport) -> Option<(ObjectId, Found)> {
    let id = service_id(of).filter(|_| is_ours(of.labels()))?;
    let object = own_import(of, &id).map(Object::Import);
    Some((ObjectId { kind: Kind::Import, ..ObjectId::service(&id) }, Found { object, ..found(of) }))
}

fn found<K: Resource>(of: &K) -> Found {
    let link = of.labels().get(LINK).and_then(|link| link.parse::<ClusterName>().ok());
    Found { uid: of.uid().unwrap_or_default(), link, object: None, addresses: Vec::new() }
}

fn owner<K: Resource>(of: &K) -> Option<Owner> {
    let name: ClusterName = of.labels().get(LINK)?.parse().ok()?;
    let owner = of.owner_references().iter().find(|owner| owner.kind == "Link" && owner.name == name.as_str());
    Some(Owner { name, uid: owner.map(|owner| owner.uid.clone()).unwrap_or_default() })
}

fn mirror_service(of: &Service, id: &ServiceId, ports: &[k8s_openapi::api::core::v1::ServicePort]) -> Option<MirrorService> {
    let service: Label = of.labels().get(MIRRORED_SERVICE)?.parse().ok()?;
    let stands_for = match of.labels().get(MIRROR)?.as_str() {
        MIRROR_CLUSTER => StandsFor::Cluster { link: owner(of)?, service },
        MIRROR_CLUSTER_SET => StandsFor::ClusterSet { service },
        MIRROR_STAND_IN => StandsFor::Endpoint {
            link: owner(of)?,
            service,
            hostname: of.labels().get(HOSTNAME)?.parse().ok()?,
            handle: of.annotations().get(HANDLE)?.parse().ok()?,
        },
        _ => return None,
    };
    let identities = of.annotations().get(IDENTITIES).map(String::as_str).unwrap_or_default();
    let identities = identities.split(',').filter(|id| !id.is_empty()).map(str::parse).collect::<Result<_, _>>().ok()?;
    let proxyless = of.annotations().get(PROXYLESS).is_some_and(|value| value == "true");
    Some(MirrorService {
        id: id.clone(),
        stands_for,
        ports: offered_ports(ports),
        identities,
        proxyless,
        address: Wish(None),
        families: Wish(None),
    })
}

fn mirror_slice(of: &EndpointSlice, namespace: Label) -> Option<MirrorSlice> {
    let slice_of = if of.labels().contains_key(LINK) { SliceOf::Link(owner(of)?) } else { import_slice(of)? };
    let addresses = of.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    Some(MirrorSlice {
        namespace,
        name: of.name_any(),
        service: of.labels().get(SERVICE_NAME)?.parse().ok()?,
        of: slice_of,
        v6: of.address_type == "IPv6",
        addresses: addresses.filter_map(|address| address.parse().ok()).collect::<BTreeSet<IpAddr>>(),
        ports: slice_ports(of.ports.as_deref().unwrap_or_default())?,
    })
}

fn headless_slice(of: &EndpointSlice, namespace: Label) -> Option<HeadlessSlice> {
    let SliceOf::Import { service, uid, source } = import_slice(of)? else { return None };
    Some(HeadlessSlice {
        namespace,
        name: of.name_any(),
        service,
        uid,
        source,
        v6: of.address_type == "IPv6",
        endpoints: of.endpoints.iter().flat_map(endpoints).collect(),
        ports: slice_ports(of.ports.as_deref().unwrap_or_default())?,
    })
}

/// An endpoint's addresses with its hostname.
pub(super) fn endpoints(of: &Endpoint) -> impl Iterator<Item = (IpAddr, Option<Label>)> + use<> {
    let hostname: Option<Label> = of.hostname.as_deref().and_then(|hostname| hostname.parse().ok());
    let addresses: Vec<IpAddr> = of.addresses.iter().filter_map(|address| address.parse().ok()).collect();
    addresses.into_iter().map(move |address| (address, hostname.clone()))
}

pub(super) fn slice_ports(of: &[EndpointPort]) -> Option<Vec<SlicePort>> {
    let port = |port: &EndpointPort| {
        Some(SlicePort {
            name: port.name.as_deref().filter(|name| !name.is_empty()).and_then(|name| name.parse().ok()),
            transport: Transport::read(port.protocol.as_deref().unwrap_or_default())?,
            app_protocol: port.app_protocol.clone(),
            number: u16::try_from(port.port?).ok()?,
        })
    };
    of.iter().map(port).collect()
}

fn import_slice(of: &EndpointSlice) -> Option<SliceOf> {
    let owner = of.owner_references().iter().find(|owner| owner.kind == "ServiceImport");
    Some(SliceOf::Import {
        service: of.labels().get(MCS_SERVICE_NAME)?.parse().ok()?,
        uid: owner.map(|owner| owner.uid.clone()).unwrap_or_default(),
        source: of.labels().get(MCS_SOURCE_CLUSTER)?.clone(),
    })
}

fn own_import(of: &ServiceImport, id: &ServiceId) -> Option<Import> {
    let spec = &of.spec;
    let mut ports = Vec::new();
    for port in &spec.ports {
        ports.push(ExportedPort {
            name: port.name.as_deref().filter(|name| !name.is_empty()).and_then(|name| name.parse().ok()),
            number: u32::try_from(port.port).ok()?.try_into().ok()?,
            transport: Transport::read(&port.protocol)?,
            app_protocol: port.app_protocol.clone(),
        });
    }
    let status = of.status.clone().unwrap_or_default();
    let client_ip = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = client_ip.and_then(|config| config.timeout_seconds).and_then(|seconds| u32::try_from(seconds).ok());
    Some(Import {
        id: id.clone(),
        kind: match spec.kind {
            ImportType::ClusterSetIP => ImportKind::ClusterSetIp,
            ImportType::Headless => ImportKind::Headless,
        },
        ports,
        ips: spec.ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        clusters: status.clusters.iter().filter_map(|cluster| cluster.cluster.parse().ok()).collect(),
        properties: ExportedProperties {
            session_affinity: SessionAffinity::read(spec.session_affinity.as_deref().unwrap_or_default(), seconds.unwrap_or_default()),
            internal_traffic_policy: TrafficPolicy::read(spec.internal_traffic_policy.as_deref().unwrap_or_default()),
            traffic_distribution: spec.traffic_distribution.clone(),
            ip_families: IpFamily::read(&spec.ip_families),
            labels: travelled(of.labels()),
            annotations: travelled(of.annotations()),
        },
        ready: status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        pending: Wish(None),
    })
}

fn travelled(of: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    of.iter().filter(|(key, _)| travels(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}
