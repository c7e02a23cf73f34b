//! All that a process knows of the mesh at one moment. Immutable: readers load a pointer and see one consistent state.
//!
//! Each kind is a table of its own behind a pointer, so that the next snapshot shares what did not change ([`Snapshot::with`]).
//! Invariant: the table by address says exactly what services, imports and remotes say.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_names::{ClusterName, ServiceId, ServicePort, TrustDomain, TunnelPort};

use crate::model::{AddressOwner, Egress, Export, Import, Link, Own, Peer, Port, Remote, Service};

pub(crate) type Table<K, V> = Arc<HashMap<K, Arc<V>>>;

/// All that a process knows of the mesh at one moment. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub(crate) own: Own,
    pub(crate) complete: bool,
    pub(crate) services: Table<ServiceId, Service>,
    pub(crate) imports: Table<ServiceId, Import>,
    pub(crate) remotes: Table<(ClusterName, ServiceId), Remote>,
    pub(crate) links: Table<ClusterName, Link>,
    pub(crate) peers: Table<TrustDomain, Peer>,
    pub(crate) exports: Table<ServiceId, Export>,
    pub(crate) egress: Table<TunnelPort, Egress>,
    pub(crate) by_address: Arc<HashMap<IpAddr, Vec<AddressOwner>>>,
}

impl Snapshot {
    /// Nothing known yet, in the cluster `own`.
    #[must_use]
    pub fn empty(own: Own) -> Self {
        Self {
            own,
            complete: false,
            services: Table::default(),
            imports: Table::default(),
            remotes: Table::default(),
            links: Table::default(),
            peers: Table::default(),
            exports: Table::default(),
            egress: Table::default(),
            by_address: Arc::default(),
        }
    }

    /// The cluster that this process runs in.
    #[must_use]
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// Whether everything subscribed to was told at least once; before that, absent does not mean "not there".
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// A service of the own cluster.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.get(id)
    }

    /// Every service of the own cluster.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// A service of the cluster set.
    #[must_use]
    pub fn import(&self, id: &ServiceId) -> Option<&Arc<Import>> {
        self.imports.get(id)
    }

    /// A port of a service of the cluster set: of the import, else of any cluster that exports it. An older export takes a name away from
    /// the others' ports, but not their callers.
    #[must_use]
    pub fn import_port<'a>(&'a self, import: &'a Import, number: ServicePort) -> Option<&'a Port> {
        let own = || self.service(&import.id).filter(|_| import.own).and_then(|service| service.port(number));
        let remote = |cluster: &'a ClusterName| self.remote(cluster, &import.id)?.port(number);
        import.port(number).or_else(own).or_else(|| import.clusters.iter().find_map(remote))
    }

    /// Every service of the cluster set.
    pub fn imports(&self) -> impl Iterator<Item = &Arc<Import>> {
        self.imports.values()
    }

    /// A service as the cluster behind `link` exports it.
    #[must_use]
    pub fn remote(&self, link: &ClusterName, service: &ServiceId) -> Option<&Arc<Remote>> {
        self.remotes.get(&(link.clone(), service.clone()))
    }

    /// Every service of every linked cluster.
    pub fn remotes(&self) -> impl Iterator<Item = &Arc<Remote>> {
        self.remotes.values()
    }

    /// A link.
    #[must_use]
    pub fn link(&self, name: &ClusterName) -> Option<&Arc<Link>> {
        self.links.get(name)
    }

    /// Every link.
    pub fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.values()
    }

    /// The peer of a trust domain.
    #[must_use]
    pub fn peer(&self, domain: &TrustDomain) -> Option<&Arc<Peer>> {
        self.peers.get(domain)
    }

    /// Every peer.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.values()
    }

    /// The export of a service.
    #[must_use]
    pub fn export(&self, service: &ServiceId) -> Option<&Arc<Export>> {
        self.exports.get(service)
    }

    /// Every export.
    pub fn exports(&self) -> impl Iterator<Item = &Arc<Export>> {
        self.exports.values()
    }

    /// The gateways' way out that listens on `port`.
    #[must_use]
    pub fn egress_at(&self, port: TunnelPort) -> Option<&Arc<Egress>> {
        self.egress.get(&port)
    }

    /// Every listener of the gateways' way out.
    pub fn egress(&self) -> impl Iterator<Item = &Arc<Egress>> {
        self.egress.values()
    }

    /// What an address stands for; an endpoint that serves several services has an owner for each.
    #[must_use]
    pub fn owners_of(&self, address: IpAddr) -> &[AddressOwner] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }
}
