//! Services of the own cluster and their endpoints, and the ports that every kind of service has.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_names::Protocol;
use mesh_topology::{Endpoint, Mesh, Port, Service};

use super::{
    ENDPOINTS_MAX, IDENTITIES_MAX, Invalid, PORTS_MAX, address, addresses, bounded, each, name, name_if_any, number, service_id,
    service_ref, text_if_any, texts,
};
use crate::proto;

impl From<&Service> for proto::Service {
    fn from(of: &Service) -> Self {
        Self {
            id: Some(service_ref(&of.id)),
            addresses: texts(&of.addresses),
            ports: of.ports.iter().map(Into::into).collect(),
            identities: texts(&of.identities),
            endpoints: of.endpoints.iter().map(|endpoint| endpoint.as_ref().into()).collect(),
        }
    }
}

impl TryFrom<&proto::Service> for Service {
    type Error = Invalid;

    fn try_from(of: &proto::Service) -> Result<Self, Invalid> {
        Ok(Self {
            id: service_id("service.id", of.id.as_ref())?,
            addresses: addresses("service.addresses", &of.addresses)?,
            ports: ports("service.ports", &of.ports)?,
            identities: each("service.identities", IDENTITIES_MAX, &of.identities, |id| name("service.identities", id))?,
            endpoints: each("service.endpoints", ENDPOINTS_MAX, &of.endpoints, |endpoint| endpoint.try_into().map(Arc::new))?,
        })
    }
}

impl From<&Endpoint> for proto::Endpoint {
    fn from(of: &Endpoint) -> Self {
        let mapping = |(service, app): (&mesh_names::ServicePort, &mesh_names::AppPort)| proto::PortMapping {
            service_port: service.get().into(),
            app_port: app.get().into(),
        };
        Self {
            name: of.name.to_string(),
            handle: of.handle.to_string(),
            address: of.address.to_string(),
            ports: of.ports.iter().map(mapping).collect(),
            hostname: text_if_any(of.hostname.as_ref()),
            identity: of.identity.to_string(),
            inbound_port: match of.mesh {
                Mesh::Proxy(port) => port.get().into(),
                Mesh::Plain => 0,
            },
            ready: of.ready,
            zone: text_if_any(of.zone.as_ref()),
            weight: of.weight,
        }
    }
}

impl TryFrom<&proto::Endpoint> for Endpoint {
    type Error = Invalid;

    fn try_from(of: &proto::Endpoint) -> Result<Self, Invalid> {
        bounded("endpoint.ports", of.ports.len(), PORTS_MAX)?;
        let mut ports = BTreeMap::new();
        for mapping in &of.ports {
            ports
                .insert(number("endpoint.ports.service_port", mapping.service_port)?, number("endpoint.ports.app_port", mapping.app_port)?);
        }
        Ok(Self {
            name: name("endpoint.name", &of.name)?,
            handle: name("endpoint.handle", &of.handle)?,
            address: address("endpoint.address", &of.address)?,
            ports,
            hostname: name_if_any("endpoint.hostname", &of.hostname)?,
            identity: name("endpoint.identity", &of.identity)?,
            mesh: if of.inbound_port == 0 { Mesh::Plain } else { Mesh::Proxy(number("endpoint.inbound_port", of.inbound_port)?) },
            ready: of.ready,
            zone: name_if_any("endpoint.zone", &of.zone)?,
            weight: of.weight,
        })
    }
}

impl From<&Port> for proto::Port {
    fn from(of: &Port) -> Self {
        Self { name: text_if_any(of.name.as_ref()), number: of.number.get().into(), protocol: protocol_said(of.protocol) }
    }
}

pub(super) fn ports(field: &'static str, of: &[proto::Port]) -> Result<Vec<Port>, Invalid> {
    each(field, PORTS_MAX, of, |port| {
        Ok(Port { name: name_if_any(field, &port.name)?, number: number(field, port.number)?, protocol: protocol(port.protocol) })
    })
}

pub(super) fn protocol_said(of: Protocol) -> i32 {
    let said = match of {
        Protocol::Http => proto::Protocol::Http,
        Protocol::Http2 => proto::Protocol::Http2,
        Protocol::Tcp => proto::Protocol::Tcp,
        Protocol::Udp => proto::Protocol::Udp,
        Protocol::Unknown => proto::Protocol::Unknown,
    };
    said.into()
}

/// A protocol of a later release is one that nobody named: looked at, or carried as bytes.
pub(super) fn protocol(said: i32) -> Protocol {
    match proto::Protocol::try_from(said).unwrap_or_default() {
        proto::Protocol::Unknown => Protocol::Unknown,
        proto::Protocol::Http => Protocol::Http,
        proto::Protocol::Http2 => Protocol::Http2,
        proto::Protocol::Tcp => Protocol::Tcp,
        proto::Protocol::Udp => Protocol::Udp,
    }
}
