//! Services of linked clusters, and the gateways' way out to them.
//!
//! A remote service is there while its Link is, and either the mirror controller or a mirror Service names it. Its ids are believed only
//! inside the peer's trust domain and the service's own namespace, and never for the mesh's own components: the mirror controller checks
//! the same, and this does not rely on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::well_known::SYSTEM_NAMESPACE;
use mesh_names::{ClusterName, PortName, ServiceId, SpiffeId, TrustDomain};
use mesh_topology::{Egress, Remote, RemoteEndpoint};

use super::{Context, service};
use crate::observed::{self, Mirror};

type RemoteKey = (ClusterName, ServiceId);

/// What the Kubernetes API says of a remote service.
#[derive(Default)]
struct Mirrored<'a> {
    service: Option<&'a observed::Service>,
    stand_ins: Vec<(&'a observed::Service, RemoteEndpoint)>,
}

impl Context<'_> {
    pub(super) fn remotes(&self) -> BTreeMap<RemoteKey, Remote> {
        let mut mirrored = self.mirrored();
        let keys: BTreeSet<RemoteKey> = mirrored.keys().chain(self.imports.remotes.keys()).cloned().collect();
        let domains: BTreeMap<ClusterName, TrustDomain> = self.links().into_iter().map(|link| (link.name, link.trust_domain)).collect();
        let mut remotes = BTreeMap::new();
        for key in keys {
            let Some(peer) = domains.get(&key.0) else { continue };
            let mut remote = self.remote(&key, &mirrored.remove(&key).unwrap_or_default());
            remote.identities.retain(|id| believable(id, peer, &key.1));
            remotes.insert(key, remote);
        }
        remotes
    }

    /// The listeners of the gateways' way out, as the mirror objects' slices record them.
    pub(super) fn egress(&self) -> Vec<Egress> {
        let mut egress = BTreeMap::new();
        for mirror in self.complete.seen.services.iter() {
            let (service, cluster) = match &mirror.mirror {
                Some(Mirror::Cluster { link, service, .. }) => (service, Some(link)),
                Some(Mirror::ClusterSet(service)) => (service, None),
                Some(Mirror::StandIn { .. }) | None => continue,
            };
            for slice_port in self.slices.get(&mirror.id).into_iter().flatten().flat_map(|slice| &slice.ports) {
                let named =
                    |port: &&mesh_api::translate::ExportedPort| *slice_port.name == *port.name.as_ref().map_or("", PortName::as_str);
                let Some(port) = mirror.ports.iter().find(named) else { continue };
                let Ok(listener) = slice_port.number.get().try_into() else { continue };
                let (service, cluster) = (service.clone(), cluster.cloned());
                let one = Egress { port: listener, service, cluster, service_port: port.number, protocol: port.protocol() };
                egress.entry(listener).or_insert(one);
            }
        }
        egress.into_values().collect()
    }

    fn mirrored(&self) -> BTreeMap<RemoteKey, Mirrored<'_>> {
        let mut mirrored: BTreeMap<RemoteKey, Mirrored<'_>> = BTreeMap::new();
        for mirror in self.complete.seen.services.iter() {
            match &mirror.mirror {
                Some(Mirror::Cluster { link, service, .. }) => {
                    mirrored.entry((link.clone(), service.clone())).or_default().service = Some(mirror);
                }
                Some(Mirror::StandIn { link, service, hostname, handle }) => {
                    let endpoint = RemoteEndpoint {
                        handle: handle.clone(),
                        hostname: hostname.clone(),
                        ready: true,
                        weight: 1,
                        stand_in: mirror.addresses.first().copied(),
                    };
                    mirrored.entry((link.clone(), service.clone())).or_default().stand_ins.push((mirror, endpoint));
                }
                Some(Mirror::ClusterSet(_)) | None => {}
            }
        }
        mirrored
    }

    fn remote(&self, (link, service): &RemoteKey, mirrored: &Mirrored<'_>) -> Remote {
        let addresses = mirrored.service.map(|mirror| mirror.addresses.clone()).unwrap_or_default();
        if let Some(told) = self.imports.remotes.get(&(link.clone(), service.clone())) {
            let stand_ins: BTreeMap<_, IpAddr> =
                mirrored.stand_ins.iter().filter_map(|(_, one)| Some((&one.handle, one.stand_in?))).collect();
            let endpoint = |of: &Arc<RemoteEndpoint>| match stand_ins.get(&of.handle).copied() {
                stand_in if stand_in == of.stand_in => Arc::clone(of),
                stand_in => Arc::new(RemoteEndpoint { stand_in, ..of.as_ref().clone() }),
            };
            return Remote { addresses, endpoints: told.endpoints.iter().map(endpoint).collect(), ..told.as_ref().clone() };
        }
        let (identities, proxyless) = match mirrored.service.and_then(|mirror| mirror.mirror.as_ref()) {
            Some(Mirror::Cluster { identities, proxyless, .. }) => (identities.clone(), *proxyless),
            _ => (Vec::new(), false),
        };
        Remote {
            link: link.clone(),
            service: service.clone(),
            ports: mirrored.service.map(|mirror| service::carried(&mirror.ports)).unwrap_or_default(),
            identities,
            addresses,
            endpoints: mirrored.stand_ins.iter().map(|(_, endpoint)| Arc::new(endpoint.clone())).collect(),
            handles_valid: false,
            proxyless,
        }
    }
}

fn believable(id: &SpiffeId, peer: &TrustDomain, service: &ServiceId) -> bool {
    let inside =
        id.namespace_and_account().is_some_and(|(namespace, _)| namespace == service.namespace().as_str() && namespace != SYSTEM_NAMESPACE);
    inside && id.trust_domain() == peer
}
