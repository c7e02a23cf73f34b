//! Links, namespaces, gateways and this cluster's own exports, as plain values.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Namespace, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use mesh_api::client::causes::Causes;
use mesh_api::crd::{Link, LinkGateway, ServiceExport};
use mesh_api::translate::{ExportedPort, ExportedProperties, Transport};
use mesh_names::{Label, TrustDomain, TunnelPort};
use mesh_topology::Gateway;
use mesh_trust::Bundle;

use crate::model::{Namespaces, NotExported, OwnExport, OwnService, SeenLink};

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
    let labels = export.spec.exported_labels.clone().unwrap_or_default();
    let annotations = export.spec.exported_annotations.clone().unwrap_or_default();
    let client_ip = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    Ok(OwnService {
        headless: spec.cluster_ip.as_deref() == Some("None"),
        ports: ports(spec.ports.as_deref().unwrap_or_default()),
        properties: ExportedProperties {
            session_affinity: spec.session_affinity.unwrap_or_default(),
            session_affinity_timeout: client_ip
                .and_then(|config| config.timeout_seconds)
                .and_then(|seconds| u32::try_from(seconds).ok())
                .unwrap_or_default(),
            internal_traffic_policy: spec.internal_traffic_policy.unwrap_or_default(),
            traffic_distribution: spec.traffic_distribution.unwrap_or_default(),
            labels: without_reserved(labels),
            annotations: without_reserved(annotations),
        },
    })
}

/// A Service's ports; one that the mesh can't name is passed over.
pub(super) fn ports(of: &[ServicePort]) -> Vec<ExportedPort> {
    let port = |port: &ServicePort| {
        Some(ExportedPort {
            name: port.name.as_deref().filter(|name| !name.is_empty()).and_then(|name| name.parse().ok()),
            number: u32::try_from(port.port).ok()?.try_into().ok()?,
            transport: Transport::read(port.protocol.as_deref().unwrap_or_default())?,
            app_protocol: port.app_protocol.clone(),
        })
    };
    of.iter().filter_map(port).collect()
}

/// Labels and annotations that Kubernetes and the mesh give a meaning never travel.
pub(super) fn without_reserved(mut of: BTreeMap<String, String>) -> BTreeMap<String, String> {
    of.retain(|key, _| !is_reserved(key));
    of
}

fn is_reserved(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    ["kubernetes.io", "k8s.io", "isthmus.dev"].iter().any(|ours| domain == *ours || domain.ends_with(&format!(".{ours}")))
}
