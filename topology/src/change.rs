//! A delta of a snapshot, and the next snapshot that it makes.
//!
//! Cost: what did not change is shared with the snapshot before; the tables that did change copy their pointers, never their values.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_names::{ClusterId, ClusterName, ServiceId, TrustDomain, TunnelPort};

use crate::model::{AddressOwner, Egress, Export, Import, Link, Peer, Remote, Service};
use crate::snapshot::{Snapshot, Table};

/// One thing that is different now; `None` removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A service of the own cluster.
    Service(ServiceId, Option<Service>),
    /// A service of the cluster set.
    Import(ServiceId, Option<Import>),
    /// A service as one linked cluster exports it.
    Remote(ClusterName, ServiceId, Option<Remote>),
    /// A link.
    Link(ClusterName, Option<Link>),
    /// A peer.
    Peer(TrustDomain, Option<Peer>),
    /// An export of the own cluster.
    Export(ServiceId, Option<Export>),
    /// A listener of the gateways' way out.
    Egress(TunnelPort, Option<Egress>),
    /// The ranges of the own cluster's pods, Services and cluster-set addresses.
    Ranges(Vec<IpNet>),
    /// Everything subscribed to was told at least once, by the cluster with this id: from here on, absent means not there.
    Complete(ClusterId),
}

impl Snapshot {
    /// The next snapshot: this one with `changes`, applied in order.
    #[must_use]
    pub fn with(&self, changes: impl IntoIterator<Item = Change>) -> Self {
        let mut next = self.clone();
        for change in changes {
            next.apply(change);
        }
        next
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Service(id, service) => {
                let owners = |service: &Service| service_addresses(service);
                let (gone, come) = replace(&mut self.services, id, service, owners);
                self.readdress(gone, come);
            }
            Change::Import(id, import) => {
                let owners = |import: &Import| addresses(&import.addresses, &AddressOwner::Import(import.id.clone()));
                let (gone, come) = replace(&mut self.imports, id, import, owners);
                self.readdress(gone, come);
            }
            Change::Remote(link, service, remote) => {
                let (gone, come) = replace(&mut self.remotes, (link, service), remote, remote_addresses);
                self.readdress(gone, come);
            }
            Change::Link(name, link) => put(&mut self.links, name, link),
            Change::Peer(domain, peer) => put(&mut self.peers, domain, peer),
            Change::Export(service, export) => put(&mut self.exports, service, export),
            Change::Egress(port, egress) => put(&mut self.egress, port, egress),
            Change::Ranges(ranges) => self.own.ranges = ranges,
            Change::Complete(id) => {
                self.own.id = Some(id);
                self.complete = true;
            }
        }
    }

    fn readdress(&mut self, gone: Vec<(IpAddr, AddressOwner)>, come: Vec<(IpAddr, AddressOwner)>) {
        if gone == come {
            return;
        }
        let table = Arc::make_mut(&mut self.by_address);
        for (address, owner) in gone {
            if let Some(owners) = table.get_mut(&address) {
                owners.retain(|known| *known != owner);
                if owners.is_empty() {
                    table.remove(&address);
                }
            }
        }
        for (address, owner) in come {
            let owners = table.entry(address).or_default();
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
    }
}

type Owned = Vec<(IpAddr, AddressOwner)>;

fn put<K: Eq + std::hash::Hash + Clone, V>(table: &mut Table<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => {
            Arc::make_mut(table).insert(key, Arc::new(value));
        }
        None if table.contains_key(&key) => {
            Arc::make_mut(table).remove(&key);
        }
        None => {}
    }
}

fn replace<K: Eq + std::hash::Hash + Clone, V>(
    table: &mut Table<K, V>,
    key: K,
    value: Option<V>,
    owners: impl Fn(&V) -> Owned,
) -> (Owned, Owned) {
    let gone = table.get(&key).map(|old| owners(old)).unwrap_or_default();
    let come = value.as_ref().map(owners).unwrap_or_default();
    put(table, key, value);
    (gone, come)
}

fn addresses(of: &[IpAddr], owner: &AddressOwner) -> Owned {
    of.iter().map(|address| (*address, owner.clone())).collect()
}

fn service_addresses(service: &Service) -> Owned {
    let mut owned = addresses(&service.addresses, &AddressOwner::Service(service.id.clone()));
    let endpoints = service.endpoints.iter();
    owned.extend(endpoints.map(|endpoint| (endpoint.address, AddressOwner::Endpoint(service.id.clone(), endpoint.name.clone()))));
    owned
}

fn remote_addresses(remote: &Remote) -> Owned {
    let mut owned = addresses(&remote.addresses, &AddressOwner::Remote(remote.link.clone(), remote.service.clone()));
    owned.extend(remote.endpoints.iter().filter_map(|endpoint| {
        let owner = AddressOwner::RemoteEndpoint(remote.link.clone(), remote.service.clone(), endpoint.handle.clone());
        endpoint.stand_in.map(|address| (address, owner))
    }));
    owned
}
