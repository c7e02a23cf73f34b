//! What a host or an address means: a service or endpoint of the mesh, something outside of it, or nothing that may be called.
//!
//! Inside the own cluster's ranges an address that nobody is known to have is refused: it might be a meshed pod that discovery has not
//! told of yet, and plain text to one of those is never right. Outside the ranges, traffic passes untouched.

use std::net::{IpAddr, SocketAddr};

use mesh_names::{AppPort, ClusterId, Host, Label, MeshName, Protocol, ServiceId, ServicePort};

use crate::model::{AddressOwner, Endpoint};

use crate::snapshot::Snapshot;
use crate::target::{NoRoute, RequestKey, Target};

/// What a host or an address means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// A service or an endpoint of the mesh.
    Mesh {
        /// What to ask [`Snapshot::route`].
        key: RequestKey,
        /// What is spoken there.
        protocol: Protocol,
    },
    /// Not the mesh's: it passes untouched.
    Passthrough,
    /// Inside the mesh, but nothing that may be called.
    Refused(Refused),
}

/// Why a host or an address inside the mesh may not be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It names nothing that exists.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// The address lies in the cluster's ranges, and nobody is known to have it.
    #[error("address {0} belongs to this cluster, and no pod or Service is known there")]
    UnknownAddress(IpAddr),
    /// The host ends like a name of the mesh and is none.
    #[error("{0} ends in a zone of the mesh and names no service there")]
    MalformedName(Host),
}

impl Refused {
    /// One word for a metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoRoute(no_route) => no_route.reason(),
            Self::UnknownAddress(_) => "unknown_address",
            Self::MalformedName(_) => "malformed_name",
        }
    }
}

impl Snapshot {
    /// What `host`, as a client named it, means on `port`.
    #[must_use]
    pub fn resolve(&self, host: &Host, port: ServicePort) -> Resolved {
        if let Some(name) = host.mesh_name() {
            return self.target_of(&name).and_then(|target| self.on_port(target, port)).unwrap_or_else(|no_route| refused(no_route.into()));
        }
        if let Ok(address) = host.as_str().parse::<IpAddr>() {
            return self.resolve_address(SocketAddr::new(address, port.get()));
        }
        let ours = [".clusterset.local", ".mesh", ".svc.cluster.local"].iter().any(|zone| host.as_str().ends_with(zone));
        if ours { refused(Refused::MalformedName(host.clone())) } else { Resolved::Passthrough }
    }

    /// What a connection to `address` means.
    #[must_use]
    pub fn resolve_address(&self, address: SocketAddr) -> Resolved {
        let Ok(port) = ServicePort::try_from(address.port()) else { return refused(Refused::UnknownAddress(address.ip())) };
        let owners = self.owners_of(address.ip());
        if owners.is_empty() {
            let inside = self.own.ranges.iter().any(|range| range.contains(&address.ip()));
            return if inside { refused(Refused::UnknownAddress(address.ip())) } else { Resolved::Passthrough };
        }
        let mut last = NoRoute::UnknownEndpoint { service: owner_service(&owners[0]).clone(), endpoint: address.to_string() };
        for owner in owners {
            match self.by_owner(owner, address, port) {
                Ok(resolved) => return resolved,
                Err(no_route) => last = no_route,
            }
        }
        match owners.iter().find_map(|owner| self.unlisted_port(owner, address, port)) {
            Some(resolved) => resolved,
            None => refused(last.into()),
        }
    }

    /// What is spoken on the own port `port` of the endpoint at `address`, as the services that it serves declare it.
    #[must_use]
    pub fn protocol_at(&self, address: IpAddr, port: AppPort) -> Protocol {
        let declared = self.owners_of(address).iter().filter_map(|owner| {
            let AddressOwner::Endpoint(service, name) = owner else { return None };
            let service = self.service(service)?;
            let endpoint = service.endpoints.iter().find(|endpoint| endpoint.name == *name)?;
            let number = endpoint.ports.iter().find(|(_, app)| **app == port)?.0;
            service.port(*number).map(|port| port.protocol)
        });
        declared.reduce(|first, next| if first == Protocol::Unknown { next } else { first }).unwrap_or_default()
    }

    fn target_of(&self, name: &MeshName) -> Result<Target, NoRoute> {
        Ok(match name {
            MeshName::ClusterSet(service) => Target::ClusterSet(service.clone()),
            MeshName::Own(service) => Target::Own(service.clone()),
            MeshName::InCluster { service, cluster } if *cluster == self.own.cluster => Target::Own(service.clone()),
            MeshName::InCluster { service, cluster } => Target::In { cluster: cluster.clone(), service: service.clone() },
            MeshName::OwnEndpoint { hostname, service } => self.own_endpoint(service, hostname)?,
            MeshName::InClusterEndpoint { hostname, service, cluster } if *cluster == self.own.cluster => {
                self.own_endpoint(service, hostname)?
            }
            MeshName::InClusterEndpoint { hostname, service, cluster } => self.remote_endpoint(cluster, service, hostname)?,
            MeshName::ClusterSetEndpoint { hostname, cluster, service } if Some(cluster) == self.own.id.as_ref() => {
                self.own_endpoint(service, hostname)?
            }
            MeshName::ClusterSetEndpoint { hostname, cluster, service } => {
                let link = self.link_to(cluster).ok_or_else(|| NoRoute::UnknownCluster { cluster: cluster.to_string() })?;
                self.remote_endpoint(&link, service, hostname)?
            }
        })
    }

    fn link_to(&self, cluster: &ClusterId) -> Option<mesh_names::ClusterName> {
        self.links().find(|link| link.id == *cluster).map(|link| link.name.clone())
    }

    fn own_endpoint(&self, service: &ServiceId, hostname: &Label) -> Result<Target, NoRoute> {
        let unknown = || NoRoute::UnknownService { service: service.clone(), place: self.own.cluster.to_string() };
        let endpoints = &self.service(service).ok_or_else(unknown)?.endpoints;
        let endpoint = endpoints.iter().find(|endpoint| called(endpoint, hostname));
        let endpoint = endpoint.ok_or_else(|| NoRoute::UnknownEndpoint { service: service.clone(), endpoint: hostname.to_string() })?;
        Ok(Target::OwnEndpoint { service: service.clone(), endpoint: endpoint.name.clone(), port: None })
    }

    fn remote_endpoint(&self, cluster: &mesh_names::ClusterName, service: &ServiceId, hostname: &Label) -> Result<Target, NoRoute> {
        let unknown = || NoRoute::UnknownService { service: service.clone(), place: cluster.to_string() };
        let endpoints = &self.remote(cluster, service).ok_or_else(unknown)?.endpoints;
        let endpoint = endpoints.iter().find(|endpoint| endpoint.hostname.as_ref() == Some(hostname));
        let endpoint = endpoint.ok_or_else(|| NoRoute::UnknownEndpoint { service: service.clone(), endpoint: hostname.to_string() })?;
        Ok(Target::RemoteEndpoint { cluster: cluster.clone(), service: service.clone(), handle: endpoint.handle.clone() })
    }

    /// `target` with what is spoken on `port`.
    fn on_port(&self, target: Target, port: ServicePort) -> Result<Resolved, NoRoute> {
        let service = target.service();
        let unknown = |place: &str| NoRoute::UnknownService { service: service.clone(), place: place.to_owned() };
        let known = match &target {
            Target::ClusterSet(id) => self.import_port(self.import(id).ok_or_else(|| unknown("the cluster set"))?, port),
            Target::Own(id) | Target::OwnEndpoint { service: id, .. } => {
                self.service(id).ok_or_else(|| unknown(self.own.cluster.as_str()))?.port(port)
            }
            Target::In { cluster, service: id } | Target::RemoteEndpoint { cluster, service: id, .. } => {
                if self.link(cluster).is_none() {
                    return Err(NoRoute::UnknownCluster { cluster: cluster.to_string() });
                }
                self.remote(cluster, id).ok_or_else(|| unknown(cluster.as_str()))?.port(port)
            }
        };
        let protocol = known.ok_or_else(|| NoRoute::UnknownPort { service: service.clone(), port })?.protocol;
        Ok(Resolved::Mesh { key: RequestKey::new(target, port), protocol })
    }

    fn by_owner(&self, owner: &AddressOwner, address: SocketAddr, port: ServicePort) -> Result<Resolved, NoRoute> {
        let target = match owner {
            AddressOwner::Service(id) => Target::Own(id.clone()),
            AddressOwner::Import(id) => Target::ClusterSet(id.clone()),
            AddressOwner::Remote(cluster, id) => Target::In { cluster: cluster.clone(), service: id.clone() },
            AddressOwner::RemoteEndpoint(cluster, id, handle) => {
                Target::RemoteEndpoint { cluster: cluster.clone(), service: id.clone(), handle: handle.clone() }
            }
            AddressOwner::Endpoint(id, name) => {
                let unknown = || NoRoute::UnknownEndpoint { service: id.clone(), endpoint: address.to_string() };
                let service = self.service(id).ok_or_else(unknown)?;
                let endpoint = service.endpoints.iter().find(|endpoint| endpoint.name == *name).ok_or_else(unknown)?;
                let listed = endpoint.ports.iter().find(|(_, app)| app.get() == address.port());
                let (number, app) = listed.ok_or_else(|| NoRoute::UnknownPort { service: id.clone(), port })?;
                let protocol = service.port(*number).map_or(Protocol::Unknown, |port| port.protocol);
                let target = Target::OwnEndpoint { service: id.clone(), endpoint: name.clone(), port: Some(*app) };
                return Ok(Resolved::Mesh { key: RequestKey::new(target, *number), protocol });
            }
        };
        self.on_port(target, port)
    }

    /// A port of a pod that no service lists: callers of the own trust domain may use every port of a pod.
    fn unlisted_port(&self, owner: &AddressOwner, address: SocketAddr, port: ServicePort) -> Option<Resolved> {
        let AddressOwner::Endpoint(service, endpoint) = owner else { return None };
        let app = address.port().try_into().ok()?;
        let target = Target::OwnEndpoint { service: service.clone(), endpoint: endpoint.clone(), port: Some(app) };
        Some(Resolved::Mesh { key: RequestKey::new(target, port), protocol: Protocol::Unknown })
    }
}

/// A pod answers to its hostname, or when it has none to its address with dashes.
fn called(endpoint: &Endpoint, hostname: &Label) -> bool {
    match &endpoint.hostname {
        Some(own) => own == hostname,
        None => endpoint.address.to_string().replace(['.', ':'], "-") == hostname.as_str(),
    }
}

fn owner_service(owner: &AddressOwner) -> &ServiceId {
    match owner {
        AddressOwner::Service(id) | AddressOwner::Import(id) | AddressOwner::Remote(_, id) => id,
        AddressOwner::Endpoint(id, _) | AddressOwner::RemoteEndpoint(_, id, _) => id,
    }
}

fn refused(why: Refused) -> Resolved {
    Resolved::Refused(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, east_and_west};

    fn check(name: &str, port: u16, expected: &str) {
        let snapshot = east_and_west();
        let text = match snapshot.resolve(&name.parse().unwrap(), testing::port(port)) {
            Resolved::Mesh { key, protocol } => format!("{:?} {protocol:?}", testing::target(&key.target)),
            Resolved::Passthrough => "passthrough".into(),
            Resolved::Refused(why) => why.reason().into(),
        };
        assert_eq!(text.replace('"', ""), expected, "{name}:{port}");
    }

    #[test]
    fn a_name_of_each_zone_means_what_the_design_says() {
        check("cart.shop.svc.clusterset.local", 80, "set shop/cart Http");
        check("CART.shop.svc.clusterset.local.", 80, "set shop/cart Http");
        check("cart.shop.svc.east.mesh", 80, "in east shop/cart Http");
        check("cart.shop.svc.west.mesh", 80, "own shop/cart Http");
        check("cart.shop.svc.cluster.local", 80, "own shop/cart Http");
        check("cart.shop.svc", 80, "own shop/cart Http");
        check("stock-0.east-id.stock.shop.svc.clusterset.local", 80, "handle east shop/stock eaststock0 Http");
        check("stock-0.stock.shop.svc.east.mesh", 80, "handle east shop/stock eaststock0 Http");
        check("127-2-64-1.cart.shop.svc.cluster.local", 80, "endpoint shop/cart cart-0 Http");
    }

    #[test]
    fn a_name_of_a_mesh_zone_that_is_unknown_is_refused_with_its_reason() {
        check("nope.shop.svc.clusterset.local", 80, "unknown_service");
        check("cart.shop.svc.clusterset.local", 81, "unknown_port");
        check("cart.shop.svc.mars.mesh", 80, "unknown_cluster");
        check("stock-9.east-id.stock.shop.svc.clusterset.local", 80, "unknown_endpoint");
        check("stock-0.mars-id.stock.shop.svc.clusterset.local", 80, "unknown_cluster");
        check("what.clusterset.local", 80, "malformed_name");
    }

    #[test]
    fn other_hosts_pass() {
        check("example.org", 80, "passthrough");
        check("192.0.2.1", 80, "passthrough");
    }

    #[test]
    fn an_address_means_the_service_or_endpoint_that_has_it() {
        check("127.2.128.1", 80, "own shop/cart Http");
        check("127.2.128.2", 80, "set shop/cart Http");
        check("127.2.128.3", 80, "in east shop/cart Http");
        check("127.2.128.4", 80, "handle east shop/stock eaststock0 Http");
        check("127.2.64.1", 8080, "endpoint shop/cart cart-0 at 8080 Http");
        check("127.2.64.1", 9999, "endpoint shop/cart cart-0 at 9999 Unknown");
        check("127.2.128.1", 99, "unknown_port");
    }

    #[test]
    fn what_is_spoken_on_a_workloads_own_port_is_what_its_services_declare() {
        let at = |address: &str, port: u16| east_and_west().protocol_at(address.parse().unwrap(), port.try_into().unwrap());
        assert_eq!(at("127.2.64.1", 8080), Protocol::Http);
        assert_eq!(at("127.2.64.1", 9999), Protocol::Unknown);
        assert_eq!(at("127.9.9.9", 8080), Protocol::Unknown);
    }

    #[test]
    fn an_address_of_the_cluster_that_nobody_is_known_to_have_is_refused() {
        check("127.2.64.200", 80, "unknown_address");
    }
}
