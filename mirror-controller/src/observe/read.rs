//! Links, namespaces, gateways and this cluster's own exports, as plain values.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use mesh_api::client::causes::Causes;
use mesh_api::crd::{ClusterProperty, Link, LinkGateway, ServiceExport};
use mesh_api::translate::{IpFamily, is_headless, offered_ports, offered_properties};
use mesh_api::well_known::{MANAGED_BY, MANAGED_BY_ISTHMUS};
use mesh_names::{Label, ServiceId, TrustDomain, TunnelPort};
use mesh_topology::Gateway;
use mesh_trust::Bundle;

use super::{SERVICE_NAME, objects};
use crate::model::{FoundProperty, Namespaces, NotExported, OwnExport, OwnPods, OwnService, SeenLink};

/// A Link, or what is wrong with its spec.
pub(super) fn link(of: &Link) -> Result<SeenLink, String> {
    let text = |error: &dyn std::error::Error| Causes(error).to_string();
    let spec = &of.spec;
    let trust_domain: TrustDomain = spec.trust_domain.parse().map_err(|error| text(&error))?;
    let bundle = Bundle::from_spiffe_json(trust_domain.clone(), spec.bundle.as_bytes()).map_err(|error| text(&error))?;
    let gateways = spec.gateways.iter().map(gateway).collect::<Result<Vec<Gateway>, String>>()?;
    if gateways.is_empty() {
        return Err("spec.gateways is empty: link again, or add the address of a gateway".to_owned());
    }
    Ok(SeenLink {
        name: of.name_any().parse().map_err(|error| text(&error))?,
        uid: of.uid().unwrap_or_default(),
        id: spec.cluster_id.parse().map_err(|error| text(&error))?,
        control: spec.control.parse().map_err(|error| text(&error))?,
        gateways,
        bundle,
        grant: namespaces(&spec.grant.namespaces),
        sameness: namespaces(&spec.sameness),
        trust_domain,
    })
}

fn gateway(of: &LinkGateway) -> Result<Gateway, String> {
    let address: IpAddr = of.address.parse().map_err(|_| format!("gateway address {:?} is not an IP address", of.address))?;
    let port = TunnelPort::try_from(of.port).map_err(|error| error.to_string())?;
    let identity = of.identity.parse().map_err(|error: mesh_names::ParseError| error.to_string())?;
    Ok(Gateway { address: SocketAddr::new(address, port.get()), identity })
}

/// What is no namespace's name grants nothing.
fn namespaces(of: &[String]) -> Namespaces {
    if of.iter().any(|name| name == "*") {
        return Namespaces::All;
    }
    Namespaces::Only(of.iter().filter_map(|name| name.parse().ok()).collect())
}

/// A namespace that can be written to.
pub(super) fn namespace(of: &Namespace) -> Option<Label> {
    if of.metadata.deletion_timestamp.is_some() {
        return None;
    }
    of.name_any().parse().ok()
}

/// The addresses of a slice's endpoints that do not say they are not ready.
pub(super) fn addresses(of: &EndpointSlice) -> Vec<IpAddr> {
    let ready = of.endpoints.iter().filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
    ready.flat_map(|endpoint| &endpoint.addresses).filter_map(|address| address.parse().ok()).collect()
}

/// A ServiceExport with its Service.
pub(super) fn export(of: &ServiceExport, service: Option<&Service>) -> OwnExport {
    OwnExport {
        created_at: of.metadata.creation_timestamp.as_ref().map_or(0, |at| at.0.as_second()),
        service: service.ok_or(NotExported::NoService).and_then(|service| own_service(of, service)),
    }
}

fn own_service(export: &ServiceExport, service: &Service) -> Result<OwnService, NotExported> {
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err(NotExported::InvalidServiceType);
    }
    let none = BTreeMap::new();
    let labels = export.spec.exported_labels.as_ref().unwrap_or(&none);
    let annotations = export.spec.exported_annotations.as_ref().unwrap_or(&none);
    Ok(OwnService {
        headless: is_headless(&spec),
        ports: offered_ports(spec.ports.as_deref().unwrap_or_default()),
        properties: offered_properties(&spec).with_metadata(labels, annotations),
    })
}

/// The families of a Service's addresses.
pub(super) fn families(of: &Service) -> Vec<IpFamily> {
    let ips = of.spec.as_ref().and_then(|spec| spec.cluster_ips.as_deref()).unwrap_or_default();
    ips.iter().filter_map(|ip| ip.parse().ok()).map(IpFamily::of).collect()
}

/// A property of the cluster.
pub(super) fn property(of: &ClusterProperty) -> (String, FoundProperty) {
    let ours = of.labels().get(MANAGED_BY).is_some_and(|by| by == MANAGED_BY_ISTHMUS);
    (of.name_any(), FoundProperty { value: of.spec.value.clone(), uid: of.uid().unwrap_or_default(), ours })
}

/// What a slice of a headless Service adds to what serves it: the endpoints that are ready.
pub(super) fn pods(of: &EndpointSlice, into: &mut BTreeMap<ServiceId, OwnPods>) {
    let service = of.labels().get(SERVICE_NAME).zip(of.namespace());
    let Some(id) = service.and_then(|(name, namespace)| ServiceId::parse(&namespace, name).ok()) else { return };
    let Some(ports) = objects::slice_ports(of.ports.as_deref().unwrap_or_default()) else { return };
    let pods = into.entry(id).or_default();
    let ready = of.endpoints.iter().filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
    pods.endpoints.extend(ready.flat_map(objects::endpoints));
    for port in ports {
        if !pods.ports.contains(&port) {
            pods.ports.push(port);
        }
    }
}
