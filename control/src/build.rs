//! What is where, computed from what was observed: one snapshot for the own cluster, and one view of its exports for each peer.
//!
//! Pure: equal observations give equal results, in equal order, so that publishing can tell what has changed. Handles, weights and
//! readiness of imported endpoints come from the mirror controller; what stands for them here comes from the Kubernetes API. Without the
//! mirror controller the latter is enough: services are then called without handles.

mod exported;
mod remote;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::client::imports::Imports;
use mesh_api::translate::Exported;
use mesh_names::{ServiceId, SpiffeId, TrustDomain};
use mesh_topology::{Change, Grant, Import, Own, Peer, Snapshot};
use mesh_trust::Bundles;

use crate::observed::{self, Complete, Mirror, ObjectName, Versions};

/// All that control says, to its own cluster and to each peer.
#[derive(Clone, Debug)]
pub struct Built {
    /// What Discovery tells.
    pub snapshot: Snapshot,
    /// Whom this cluster trusts.
    pub bundles: Bundles,
    /// What Exports tells, by the peer's trust domain.
    pub views: BTreeMap<TrustDomain, View>,
    /// How new what it was built from is, by kind.
    pub versions: BTreeMap<&'static str, Versions>,
}

/// What one peer may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The one identity that may ask.
    pub caller: SpiffeId,
    /// The services exported to that peer.
    pub exported: BTreeMap<ServiceId, Arc<Exported>>,
}

/// What everything here reads.
pub(crate) struct Context<'a> {
    pub(crate) complete: &'a Complete,
    pub(crate) imports: &'a Imports,
    slices: BTreeMap<&'a ServiceId, Vec<&'a observed::Slice>>,
    /// The pods with a proxy, by their addresses.
    meshed: BTreeMap<IpAddr, NamedPod<'a>>,
}

type NamedPod<'a> = (&'a ObjectName, &'a observed::Pod);

/// Computes what control says.
#[must_use]
pub fn build(complete: &Complete, imports: &Imports) -> Built {
    let context = Context { complete, imports, slices: slices(complete), meshed: meshed(complete) };
    let peers = peers(complete);
    let services = context.services();
    let exports = context.exports(&services);
    let exported: BTreeMap<ServiceId, Arc<Exported>> =
        exports.iter().filter_map(|(id, export)| Some((id.clone(), Arc::new(context.exported(services.get(id)?, export)?)))).collect();
    let views = peers.values().map(|(peer, _)| {
        let may_have = |id: &ServiceId| exports.get(id).is_some_and(|export| peer.may_have(export));
        let exported = exported.iter().filter(|(id, _)| may_have(id)).map(|(id, one)| (id.clone(), Arc::clone(one))).collect();
        (peer.trust_domain.clone(), View { caller: peer.control_caller.clone(), exported })
    });
    let views = views.collect();
    let mut changes: Vec<Change> = Vec::new();
    changes.extend(context.imported(&exports).into_iter().map(|import| Change::Import(import.id.clone(), Some(import))));
    changes.extend(context.links().into_iter().map(|link| Change::Link(link.name.clone(), Some(link))));
    changes.extend(context.remotes().into_iter().map(|((link, service), remote)| Change::Remote(link, service, Some(remote))));
    changes.extend(context.egress().into_iter().map(|egress| Change::Egress(egress.port, Some(egress))));
    changes.extend(peers.values().map(|(peer, _)| Change::Peer(peer.trust_domain.clone(), Some(peer.clone()))));
    changes.extend(exports.into_iter().map(|(id, export)| Change::Export(id, Some(export))));
    changes.extend(services.into_iter().map(|(id, service)| Change::Service(id, Some(service))));
    changes.push(Change::Complete(complete.id.clone()));
    Built {
        snapshot: Snapshot::empty(own(complete)).with(changes),
        bundles: bundles(complete, &peers),
        views,
        versions: complete.seen.versions(),
    }
}

fn own(complete: &Complete) -> Own {
    Own {
        cluster: complete.facts.cluster.clone(),
        id: Some(complete.id.clone()),
        trust_domain: complete.facts.trust_domain.clone(),
        ranges: complete.facts.ranges.clone(),
    }
}

fn slices(complete: &Complete) -> BTreeMap<&ServiceId, Vec<&observed::Slice>> {
    let mut slices: BTreeMap<&ServiceId, Vec<&observed::Slice>> = BTreeMap::new();
    for slice in complete.seen.slices.iter() {
        slices.entry(&slice.service).or_default().push(slice);
    }
    slices
}

fn meshed(complete: &Complete) -> BTreeMap<IpAddr, NamedPod<'_>> {
    let pods = complete.seen.pods.entries().filter(|(_, pod)| pod.inbound.is_some());
    pods.flat_map(|(name, pod)| pod.addresses.iter().map(move |address| (*address, (name, pod.as_ref())))).collect()
}

/// Each peer by its trust domain. One that claims the own trust domain is none, and of two that claim the same one the first by name is.
fn peers(complete: &Complete) -> BTreeMap<TrustDomain, (Peer, &observed::Peer)> {
    let mut peers = BTreeMap::new();
    for peer in complete.seen.peers.iter().filter(|peer| peer.trust_domain != complete.facts.trust_domain) {
        peers.entry(peer.trust_domain.clone()).or_insert_with(|| {
            let granted = Peer {
                name: peer.name.clone(),
                id: peer.id.clone(),
                trust_domain: peer.trust_domain.clone(),
                grant: grant(complete, peer),
                control_caller: peer.caller.clone(),
            };
            (granted, peer.as_ref())
        });
    }
    peers
}

fn grant(complete: &Complete, peer: &observed::Peer) -> Grant {
    let everywhere = peer.namespaces.iter().any(|namespace| namespace == "*");
    if everywhere && peer.selector.is_none() {
        return Grant::All;
    }
    let fits = |export: &observed::ServiceExport| {
        let namespace = everywhere || peer.namespaces.iter().any(|granted| granted == export.id.namespace().as_str());
        namespace && peer.selector.as_ref().is_none_or(|selector| selector.fits(&export.labels))
    };
    let granted: BTreeSet<ServiceId> = complete.seen.exports.iter().filter(|export| fits(export)).map(|export| export.id.clone()).collect();
    Grant::Services(granted)
}

/// The own bundle, and those of links and peers. Nobody else's object can replace the own one.
fn bundles(complete: &Complete, peers: &BTreeMap<TrustDomain, (Peer, &observed::Peer)>) -> Bundles {
    let links = complete.seen.links.iter().map(|link| link.bundle.clone());
    let peers = peers.values().map(|(_, peer)| peer.bundle.clone());
    let others = links.chain(peers).filter(|bundle| *bundle.trust_domain() != complete.facts.trust_domain);
    others.fold(Bundles::of(complete.bundle.clone()), Bundles::with)
}

impl Context<'_> {
    /// The services of the cluster set. What the own cluster contributes is said by its exports, the rest by the merged ServiceImport.
    fn imported(&self, exports: &BTreeMap<ServiceId, mesh_topology::Export>) -> Vec<Import> {
        let links: Vec<_> = self.complete.seen.links.iter().collect();
        let services = self.complete.seen.services.iter();
        let addresses: BTreeMap<&ServiceId, &[IpAddr]> = services
            .filter_map(|service| match &service.mirror {
                Some(Mirror::ClusterSet(of)) => Some((of, service.addresses.as_slice())),
                _ => None,
            })
            .collect();
        let import = |import: &Arc<observed::ServiceImport>| {
            // An import that has become headless keeps the address that clients have: they go on with it.
            let address = || addresses.get(&import.id).copied().unwrap_or_default().to_vec();
            let contributes = |link: &&Arc<observed::Link>| import.clusters.contains(&link.link.id);
            Import {
                id: import.id.clone(),
                addresses: if import.addresses.is_empty() { address() } else { import.addresses.clone() },
                kind: import.kind,
                ports: import.ports.clone(),
                own: exports.contains_key(&import.id),
                clusters: links.iter().copied().filter(contributes).map(|link| link.link.name.clone()).collect(),
            }
        };
        self.complete.seen.imports.iter().map(import).collect()
    }

    fn links(&self) -> Vec<mesh_topology::Link> {
        let own = &self.complete.facts.trust_domain;
        let links = self.complete.seen.links.iter().filter(|link| link.link.trust_domain != *own);
        let probed = |link: &Arc<observed::Link>| {
            let health = self.imports.links.get(&link.link.name).copied().unwrap_or_default();
            mesh_topology::Link { health, ..link.link.clone() }
        };
        links.map(probed).collect()
    }
}

#[cfg(test)]
mod tests;
