//! Services of the own cluster with what serves them, and which of them are exported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::translate::{ExportedPort, Transport};
use mesh_names::{AppPort, EndpointName, PortName, ServiceId, ServicePort, SpiffeId};
use mesh_topology::{Endpoint, Export, Mesh, PeersAllowed, Port, Service};

use super::Context;
use crate::observed;

impl Context<'_> {
    /// Every service that is not a mirror.
    pub(super) fn services(&self) -> BTreeMap<ServiceId, Service> {
        let own = self.complete.seen.services.iter().filter(|service| service.mirror.is_none());
        own.map(|service| (service.id.clone(), self.service(service))).collect()
    }

    /// The services that have a ServiceExport. What has no Service, or is a mirror, is exported to nobody.
    pub(super) fn exports(&self, services: &BTreeMap<ServiceId, Service>) -> BTreeMap<ServiceId, Export> {
        let export = |export: &Arc<observed::ServiceExport>| {
            let service = services.get(&export.id)?;
            let made = Export {
                service: export.id.clone(),
                ports: service.ports.iter().map(|port| port.number).collect(),
                peers: PeersAllowed::All,
                allow_unmeshed: self.allow_unmeshed(export),
            };
            Some((export.id.clone(), made))
        };
        self.complete.seen.exports.iter().filter_map(export).collect()
    }

    fn service(&self, of: &observed::Service) -> Service {
        let mut endpoints: BTreeMap<EndpointName, Arc<Endpoint>> = BTreeMap::new();
        for slice in self.slices.get(&of.id).into_iter().flatten() {
            let ports = port_mapping(&of.ports, &slice.ports);
            for endpoint in slice.endpoints.iter().filter_map(|endpoint| self.endpoint(&of.id, endpoint, &ports)) {
                endpoints.entry(endpoint.name.clone()).or_insert_with(|| Arc::new(endpoint));
            }
        }
        let proxied = endpoints.values().filter(|endpoint| endpoint.mesh != Mesh::Plain);
        let identities: BTreeSet<SpiffeId> = proxied.map(|endpoint| endpoint.identity.clone()).collect();
        Service {
            id: of.id.clone(),
            addresses: of.addresses.clone(),
            ports: carried(&of.ports),
            identities: identities.into_iter().collect(),
            endpoints: endpoints.into_values().collect(),
        }
    }

    /// An endpoint that is no pod (somebody wrote the slice) is named by its address and has no proxy, unless a pod with a proxy has that
    /// address: then it is that pod. One whose pod is not known, not yet or not any more, is left out: to say that it has no proxy would let
    /// callers speak to it in plain text.
    fn endpoint(&self, service: &ServiceId, of: &observed::SliceEndpoint, ports: &BTreeMap<ServicePort, AppPort>) -> Option<Endpoint> {
        let (namespace, pod) = match &of.pod {
            None => match self.meshed.get(&of.address) {
                None => (service.namespace().clone(), None),
                Some((name, pod)) => (name.namespace.parse().ok()?, Some(*pod)),
            },
            Some(known) => {
                let pod = self.complete.seen.pods.get(&known.name)?.as_ref();
                if known.uid.as_ref().is_some_and(|uid| *uid != pod.uid) {
                    return None;
                }
                (service.namespace().clone(), Some(pod))
            }
        };
        let name = pod.map_or_else(|| of.address.to_string().parse().ok(), |pod| Some(pod.uid.clone()))?;
        let account = pod.map_or(NO_ACCOUNT, |pod| &pod.account);
        Some(Endpoint {
            handle: self.complete.handles.of(&name),
            identity: SpiffeId::workload(&self.complete.facts.trust_domain, &namespace, account).ok()?,
            name,
            address: of.address,
            ports: ports.clone(),
            hostname: of.hostname.clone(),
            mesh: pod.and_then(|pod| pod.inbound).map_or(Mesh::Plain, Mesh::Proxy),
            ready: of.ready,
            zone: of.zone.clone(),
            weight: 1,
        })
    }

    /// What the export says, else its namespace, else the install.
    fn allow_unmeshed(&self, export: &observed::ServiceExport) -> bool {
        let name = observed::ObjectName { namespace: "".into(), name: export.id.namespace().as_str().into() };
        let namespace = || self.complete.seen.namespaces.get(&name).and_then(|namespace| namespace.allow_unmeshed);
        export.allow_unmeshed.or_else(namespace).unwrap_or(self.complete.facts.allow_unmeshed)
    }
}

/// A slice's ports are the service's by name. Where a number stands for a port for streams and one for datagrams, the former is meant.
fn port_mapping(service: &[ExportedPort], slice: &[observed::SlicePort]) -> BTreeMap<ServicePort, AppPort> {
    let app_port = |port: &ExportedPort| {
        let name = port.name.as_ref().map_or("", PortName::as_str);
        slice.iter().find(|candidate| *candidate.name == *name).map(|found| (port.number, found.number))
    };
    let (datagrams, streams): (Vec<_>, Vec<_>) = service.iter().partition(|port| port.transport == Transport::Udp);
    datagrams.into_iter().chain(streams).filter_map(app_port).collect()
}

/// A service's ports as topology has them: those that the mesh can carry.
pub(super) fn carried(of: &[ExportedPort]) -> Vec<Port> {
    let carried = of.iter().filter(|port| port.transport != Transport::Sctp);
    carried.map(|port| Port { name: port.name.clone(), number: port.number, protocol: port.protocol() }).collect()
}

/// The service account of an endpoint that is no pod; without a proxy it proves nothing anyway.
const NO_ACCOUNT: &str = "default";
