//! What a gateway may join a peer's tunnel to. A name is never turned into an address: it is looked up among what *this peer* may
//! import, and "not exported" is not told apart from "does not exist".

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_names::{AppPort, ClusterId, Handle, ServiceId, ServicePort, TrustDomain};

use crate::loads::{EndpointKey, Loads};
use crate::locality::Caution;
use crate::model::{Endpoint, Export, Mesh};
use crate::pick::{Draw, pick};
use crate::snapshot::Snapshot;
use crate::target::{RequestKey, Target};

/// An exported port, as callers of other clusters name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExportName {
    /// The cluster that exports it.
    pub cluster: ClusterId,
    /// The service.
    pub service: ServiceId,
    /// The service's port.
    pub port: ServicePort,
}

/// The endpoint that a tunnel is joined to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// The endpoint's own port for what was asked.
    pub port: AppPort,
}

/// Why a tunnel is joined to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RefusedDelivery {
    /// No link's other side has this trust domain.
    #[error("this trust domain belongs to no peer")]
    UnknownPeer,
    /// Not exported to this peer, or not there at all: the same answer for both.
    #[error("not exported to you, or unknown")]
    NotExportedOrUnknown,
    /// It is exported, but nothing serves it now (or this handle no longer).
    #[error("no endpoint is ready")]
    NoEndpoint,
}

impl RefusedDelivery {
    /// One word for a metric's label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnknownPeer => "unknown-peer",
            Self::NotExportedOrUnknown => "not-exported",
            Self::NoEndpoint => "no-endpoint",
        }
    }
}

impl Delivery {
    /// What the gateway dials: the inbound proxy, or the application itself when it has none.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let port = match self.endpoint.mesh {
            Mesh::Proxy(port) => port.get(),
            Mesh::Plain => self.port.get(),
        };
        SocketAddr::new(self.endpoint.address, port)
    }

    /// Whether the gateway has to end the session itself, because the endpoint has no proxy.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.endpoint.mesh == Mesh::Plain
    }
}

impl Snapshot {
    /// The endpoint that `peer` is joined to when it asks for `export`: the one with this handle, else a good one.
    ///
    /// # Errors
    /// When the peer may not have it, or nothing serves it.
    pub fn deliver(
        &self,
        peer: &TrustDomain,
        export: &ExportName,
        handle: Option<&Handle>,
        (loads, draw): (&Loads, Draw),
    ) -> Result<Delivery, RefusedDelivery> {
        let granted = self.granted(peer, export)?;
        let service = self.service(&export.service).ok_or(RefusedDelivery::NotExportedOrUnknown)?;
        let served =
            |endpoint: &Endpoint| endpoint.ports.contains_key(&export.port) && (endpoint.mesh != Mesh::Plain || granted.allow_unmeshed);
        let endpoint = match handle {
            Some(handle) => service.endpoints.iter().find(|endpoint| endpoint.handle == *handle && served(endpoint)),
            None => {
                let key = RequestKey::new(Target::Own(export.service.clone()), export.port);
                Caution::ALL.into_iter().find_map(|caution| {
                    let name = |endpoint: &Endpoint| EndpointKey::Local(endpoint.name.clone());
                    let weight = |endpoint: &Arc<Endpoint>| {
                        let usable = endpoint.ready && served(endpoint) && caution.allows(&name(endpoint), &key, loads, draw.at);
                        if usable { endpoint.weight } else { 0 }
                    };
                    pick(&service.endpoints, weight, |endpoint| loads.cost(&name(endpoint), draw.at), &mut draw.clone())
                })
            }
        };
        let endpoint = endpoint.ok_or(RefusedDelivery::NoEndpoint)?;
        let port = *endpoint.ports.get(&export.port).ok_or(RefusedDelivery::NoEndpoint)?;
        Ok(Delivery { endpoint: Arc::clone(endpoint), port })
    }

    /// Whether a tunnel that was joined to the endpoint `handle` may go on.
    ///
    /// # Errors
    /// When the peer may no longer have it, or the endpoint no longer serves it.
    pub fn still_delivers(&self, peer: &TrustDomain, export: &ExportName, handle: &Handle) -> Result<(), RefusedDelivery> {
        let granted = self.granted(peer, export)?;
        let service = self.service(&export.service).ok_or(RefusedDelivery::NotExportedOrUnknown)?;
        let joined = service.endpoints.iter().find(|endpoint| endpoint.handle == *handle).ok_or(RefusedDelivery::NoEndpoint)?;
        if !joined.ports.contains_key(&export.port) || (joined.mesh == Mesh::Plain && !granted.allow_unmeshed) {
            return Err(RefusedDelivery::NoEndpoint);
        }
        Ok(())
    }

    /// The own port of the endpoint at `address` that a caller from `peer` reaches when it names `export` inside a session.
    ///
    /// # Errors
    /// When the peer may not have it, or the endpoint at `address` does not serve it.
    pub fn inbound_export(&self, peer: &TrustDomain, address: IpAddr, export: &ExportName) -> Result<AppPort, RefusedDelivery> {
        self.granted(peer, export)?;
        let service = self.service(&export.service).ok_or(RefusedDelivery::NotExportedOrUnknown)?;
        let mut own = service.endpoints.iter().filter(|endpoint| endpoint.address == address);
        own.find_map(|endpoint| endpoint.ports.get(&export.port).copied()).ok_or(RefusedDelivery::NoEndpoint)
    }

    fn granted(&self, peer: &TrustDomain, name: &ExportName) -> Result<&Export, RefusedDelivery> {
        let peer = self.peer(peer).ok_or(RefusedDelivery::UnknownPeer)?;
        let here = self.own.id.as_ref() == Some(&name.cluster);
        let export = self.export(&name.service).filter(|export| here && export.ports.contains(&name.port) && peer.may_have(export));
        export.map(Arc::as_ref).ok_or(RefusedDelivery::NotExportedOrUnknown)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Change;
    use crate::model::{Grant, PeersAllowed};
    use crate::testing::{self, east_and_west, export, start};

    fn name(cluster: &str, service: &str, port: u16) -> ExportName {
        ExportName { cluster: cluster.parse().unwrap(), service: service.parse().unwrap(), port: testing::port(port) }
    }

    fn check(snapshot: &Snapshot, peer: &str, export: &ExportName, handle: Option<&str>, expected: &str) {
        let handle = handle.map(|handle| handle.parse().unwrap());
        let answer = snapshot.deliver(&peer.parse().unwrap(), export, handle.as_ref(), (&Loads::default(), Draw::new(start(), 1)));
        let text = answer.map_or_else(|why| why.reason().to_owned(), |delivery| delivery.address().to_string());
        assert_eq!(text, expected, "{peer} asks for {export:?} {handle:?}");
    }

    #[test]
    fn a_peer_gets_the_endpoint_that_it_names_or_a_good_one() {
        let snapshot = east_and_west();
        check(&snapshot, "east.mesh", &name("west-id", "shop/cart", 80), None, "127.2.64.1:4143");
        check(&snapshot, "east.mesh", &name("west-id", "shop/cart", 80), Some("westcart0"), "127.2.64.1:4143");
        check(&snapshot, "east.mesh", &name("west-id", "shop/cart", 80), Some("westcart9"), "no-endpoint");
    }

    #[test]
    fn not_exported_and_unknown_get_the_same_answer() {
        let snapshot = east_and_west();
        check(&snapshot, "east.mesh", &name("west-id", "shop/secret", 80), None, "not-exported");
        check(&snapshot, "east.mesh", &name("west-id", "shop/nothing", 80), None, "not-exported");
        check(&snapshot, "east.mesh", &name("west-id", "shop/cart", 9090), None, "not-exported");
        check(&snapshot, "east.mesh", &name("other-id", "shop/cart", 80), None, "not-exported");
        check(&snapshot, "mars.mesh", &name("west-id", "shop/cart", 80), None, "unknown-peer");
    }

    #[test]
    fn an_export_may_be_for_some_peers_only_and_a_peer_may_have_some_exports_only() {
        let mut only = export("shop/cart", &[80]);
        only.peers = PeersAllowed::Only(BTreeSet::from(["north.mesh".parse().unwrap()]));
        let narrowed = east_and_west().with([Change::Export(only.service.clone(), Some(only))]);
        check(&narrowed, "east.mesh", &name("west-id", "shop/cart", 80), None, "not-exported");

        let mut peer = crate::Peer::clone(east_and_west().peer(&"east.mesh".parse().unwrap()).unwrap());
        peer.grant = Grant::Services(BTreeSet::new());
        let narrowed = east_and_west().with([Change::Peer(peer.trust_domain.clone(), Some(peer))]);
        check(&narrowed, "east.mesh", &name("west-id", "shop/cart", 80), None, "not-exported");
    }

    #[test]
    fn an_endpoint_without_a_proxy_is_served_only_where_that_is_allowed() {
        let mut service = crate::Service::clone(east_and_west().service(&"shop/cart".parse().unwrap()).unwrap());
        Arc::make_mut(&mut service.endpoints[0]).mesh = Mesh::Plain;
        let plain = east_and_west().with([Change::Service(service.id.clone(), Some(service))]);
        check(&plain, "east.mesh", &name("west-id", "shop/cart", 80), None, "no-endpoint");
        let mut allowed = export("shop/cart", &[80]);
        allowed.allow_unmeshed = true;
        let allowed = plain.with([Change::Export(allowed.service.clone(), Some(allowed))]);
        check(&allowed, "east.mesh", &name("west-id", "shop/cart", 80), None, "127.2.64.1:8080");
    }

    #[test]
    fn a_joined_tunnel_ends_when_the_export_or_the_peer_goes() {
        let (snapshot, asked) = (east_and_west(), name("west-id", "shop/cart", 80));
        let (peer, handle) = ("east.mesh".parse().unwrap(), "westcart0".parse().unwrap());
        assert_eq!(snapshot.still_delivers(&peer, &asked, &handle), Ok(()));
        let unexported = snapshot.with([Change::Export(asked.service.clone(), None)]);
        assert_eq!(unexported.still_delivers(&peer, &asked, &handle), Err(RefusedDelivery::NotExportedOrUnknown));
        let unlinked = snapshot.with([Change::Peer(peer.clone(), None)]);
        assert_eq!(unlinked.still_delivers(&peer, &asked, &handle), Err(RefusedDelivery::UnknownPeer));
        let gone = snapshot.with([Change::Service(asked.service.clone(), None)]);
        assert!(gone.still_delivers(&peer, &asked, &handle).is_err());
    }

    #[test]
    fn an_inbound_proxy_maps_an_export_to_its_own_port_and_nothing_else() {
        let (snapshot, peer) = (east_and_west(), "east.mesh".parse().unwrap());
        let here = "127.2.64.1".parse().unwrap();
        let port = |export: &ExportName| snapshot.inbound_export(&peer, here, export).map(AppPort::get);
        assert_eq!(port(&name("west-id", "shop/cart", 80)), Ok(8080));
        assert_eq!(port(&name("west-id", "shop/cart", 9090)), Err(RefusedDelivery::NotExportedOrUnknown));
        assert_eq!(port(&name("west-id", "shop/secret", 80)), Err(RefusedDelivery::NotExportedOrUnknown));
        let elsewhere = snapshot.inbound_export(&peer, "127.2.64.9".parse().unwrap(), &name("west-id", "shop/cart", 80));
        assert_eq!(elsewhere, Err(RefusedDelivery::NoEndpoint));
    }
}
