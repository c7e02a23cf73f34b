//! Chooses where a request goes. Pure: the same snapshot, request, loads and draw give the same route.
//!
//! The own cluster is the first tier, links follow by priority. A tier that has lost endpoints gives a part of its requests to the next
//! one, never all at once. Inside a tier two are drawn by weight and the cheaper one is taken (`loads`). What is ejected, dark, or was
//! already tried for this request is passed over; only when nothing else is left is it tried again, so that a wrong guess of ours
//! never turns into an outage of ours.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_names::{AppPort, ClusterId, ClusterName, EndpointName, Handle, Protocol, ServiceId, ServicePort, SpiffeId};

use crate::loads::{EndpointKey, Loads};
use crate::locality::{Caution, Tier, link_tiers};
use crate::model::{Endpoint, Gateway, Link, Mesh, Remote, RemoteEndpoint, Service};
use crate::pick::{Draw, Subset, pick};
use crate::snapshot::Snapshot;
use crate::target::{NoRoute, RequestKey, Target};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To an endpoint of the own cluster.
    Local(LocalRoute),
    /// Through a gateway of a linked cluster.
    Remote(RemoteRoute),
}

/// The way to an endpoint of the own cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRoute {
    /// The service.
    pub service: ServiceId,
    /// The endpoint: only its identity is accepted there.
    pub endpoint: Arc<Endpoint>,
    /// The endpoint's own port.
    pub port: AppPort,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// The way through a gateway of a linked cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRoute {
    /// The link.
    pub link: Arc<Link>,
    /// The service as the other cluster exports it.
    pub remote: Arc<Remote>,
    /// The service's port.
    pub port: ServicePort,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The endpoint; none lets the gateway choose.
    pub endpoint: Option<Arc<RemoteEndpoint>>,
    /// Which of the link's gateways is to be used.
    pub gateway: usize,
}

impl Route {
    /// What answers at its end is measured under this key: the endpoint, or the gateway that chooses one.
    #[must_use]
    pub fn endpoint_key(&self) -> EndpointKey {
        match self {
            Self::Local(local) => EndpointKey::Local(local.endpoint.name.clone()),
            Self::Remote(remote) => match &remote.endpoint {
                Some(endpoint) => EndpointKey::Handle(remote.link.name.clone(), endpoint.handle.clone()),
                None => EndpointKey::Gateway(remote.gateway().address),
            },
        }
    }

    /// The gateway that it passes, when it leaves the cluster.
    #[must_use]
    pub fn gateway_key(&self) -> Option<EndpointKey> {
        match self {
            Self::Local(_) => None,
            Self::Remote(remote) => Some(EndpointKey::Gateway(remote.gateway().address)),
        }
    }

    /// What is spoken at its end.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Local(local) => local.protocol,
            Self::Remote(remote) => remote.protocol,
        }
    }

    /// The service at its end.
    #[must_use]
    pub fn service(&self) -> &ServiceId {
        match self {
            Self::Local(local) => &local.service,
            Self::Remote(remote) => &remote.remote.service,
        }
    }
}

impl LocalRoute {
    /// Where its inbound proxy accepts sessions; none when it is known to have no proxy.
    #[must_use]
    pub fn session_address(&self) -> Option<SocketAddr> {
        match self.endpoint.mesh {
            Mesh::Proxy(port) => Some(SocketAddr::new(self.endpoint.address, port.get())),
            Mesh::Plain => None,
        }
    }

    /// Where the application itself listens.
    #[must_use]
    pub fn app_address(&self) -> SocketAddr {
        SocketAddr::new(self.endpoint.address, self.port.get())
    }

    /// The only identities that are accepted there.
    #[must_use]
    pub fn expected(&self) -> &[SpiffeId] {
        std::slice::from_ref(&self.endpoint.identity)
    }
}

impl RemoteRoute {
    /// The gateway to use.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.link.gateways[self.gateway]
    }

    /// All of the link's gateways, the one to use first.
    pub fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        self.link.gateways[self.gateway..].iter().chain(&self.link.gateways[..self.gateway])
    }

    /// The endpoint's handle; none lets the gateway choose.
    #[must_use]
    pub fn handle(&self) -> Option<&Handle> {
        self.endpoint.as_ref().map(|endpoint| &endpoint.handle)
    }

    /// The id of the other cluster, which a tunnel names.
    #[must_use]
    pub fn cluster_id(&self) -> &ClusterId {
        &self.link.id
    }

    /// The only identities that are accepted at the session's end: the export's, or for one without proxies the gateway's.
    #[must_use]
    pub fn expected(&self) -> Vec<SpiffeId> {
        if self.remote.proxyless {
            return vec![self.gateway().identity.clone()];
        }
        self.remote.identities.clone()
    }
}

impl Snapshot {
    /// Where `request` goes. `loads` is the worker's own table of latency, requests in flight and ejections.
    ///
    /// # Errors
    /// When nothing has the name, or nobody serves it that can be reached.
    pub fn route(&self, request: &RequestKey, loads: &Loads, draw: Draw) -> Result<Route, NoRoute> {
        let mut attempt = Attempt { snapshot: self, request, loads, draw };
        match &request.target {
            Target::ClusterSet(service) => attempt.cluster_set(service),
            Target::Own(service) => attempt.own(service),
            Target::In { cluster, service } => attempt.linked(cluster, service),
            Target::OwnEndpoint { service, endpoint, port } => attempt.own_endpoint(service, endpoint, *port),
            Target::RemoteEndpoint { cluster, service, handle } => attempt.remote_endpoint(cluster, service, handle),
        }
    }
}

/// One run of the decision.
struct Attempt<'a> {
    snapshot: &'a Snapshot,
    request: &'a RequestKey,
    loads: &'a Loads,
    draw: Draw,
}

impl Attempt<'_> {
    fn cluster_set(&mut self, id: &ServiceId) -> Result<Route, NoRoute> {
        let import = self.snapshot.import(id).ok_or_else(|| unknown(id, "the cluster set"))?;
        if self.snapshot.import_port(import, self.request.port).is_none() {
            return Err(self.unknown_port(id));
        }
        let own = if import.own { self.snapshot.service(id).filter(|service| service.port(self.request.port).is_some()) } else { None };
        for caution in Caution::ALL {
            let own_share = own.map_or(0.0, |service| self.share(service, caution));
            if let Some(service) = own
                && own_share >= 1.0
            {
                return self.pick_endpoint(service, caution).ok_or_else(|| nothing_ready(id));
            }
            let tiers = link_tiers(self.snapshot, import, self.request, self.loads, (self.draw.at, caution));
            let chosen = self.choose_tier(own_share, &tiers);
            let route = match (chosen, own) {
                (Chosen::Own, Some(service)) => self.pick_endpoint(service, caution),
                (Chosen::Links(at), _) => self.pick_link(&tiers[at], caution),
                (Chosen::Own | Chosen::None, _) => None,
            };
            if let Some(route) = route {
                return Ok(route);
            }
        }
        Err(nothing_ready(id))
    }

    fn own(&mut self, id: &ServiceId) -> Result<Route, NoRoute> {
        let service = self.snapshot.service(id).ok_or_else(|| unknown(id, self.snapshot.own().cluster.as_str()))?;
        if service.port(self.request.port).is_none() {
            return Err(self.unknown_port(id));
        }
        Caution::ALL.into_iter().find_map(|caution| self.pick_endpoint(service, caution)).ok_or_else(|| nothing_ready(id))
    }

    fn linked(&mut self, cluster: &ClusterName, id: &ServiceId) -> Result<Route, NoRoute> {
        let (link, remote) = self.link_and_remote(cluster, id)?;
        for caution in Caution::ALL {
            let tier = Tier::of_one(&link, &remote, self.request, self.loads, (self.draw.at, caution));
            if let Some(route) = tier.and_then(|tier| self.pick_link(&tier, caution)) {
                return Ok(route);
            }
        }
        Err(nothing_ready(id))
    }

    fn own_endpoint(&mut self, id: &ServiceId, name: &EndpointName, port: Option<AppPort>) -> Result<Route, NoRoute> {
        let service = self.snapshot.service(id).ok_or_else(|| unknown(id, self.snapshot.own().cluster.as_str()))?;
        let endpoint = service
            .endpoints
            .iter()
            .find(|endpoint| endpoint.name == *name)
            .ok_or_else(|| NoRoute::UnknownEndpoint { service: id.clone(), endpoint: name.to_string() })?;
        let app_port = port.or_else(|| endpoint.ports.get(&self.request.port).copied()).ok_or_else(|| self.unknown_port(id))?;
        let protocol = match port {
            Some(port) => protocol_at(service, endpoint, port),
            None => service.port(self.request.port).map_or(Protocol::Unknown, |port| port.protocol),
        };
        Ok(Route::Local(LocalRoute { service: id.clone(), endpoint: Arc::clone(endpoint), port: app_port, protocol }))
    }

    fn remote_endpoint(&mut self, cluster: &ClusterName, id: &ServiceId, handle: &Handle) -> Result<Route, NoRoute> {
        let (link, remote) = self.link_and_remote(cluster, id)?;
        let endpoint = remote
            .endpoints
            .iter()
            .find(|endpoint| endpoint.handle == *handle)
            .ok_or_else(|| NoRoute::UnknownEndpoint { service: id.clone(), endpoint: handle.to_string() })?
            .clone();
        for caution in Caution::ALL {
            if let Some(gateway) = self.gateway(&link, caution) {
                return Ok(self.remote(&link, &remote, Some(endpoint), gateway));
            }
        }
        Err(nothing_ready(id))
    }

    fn link_and_remote(&self, cluster: &ClusterName, id: &ServiceId) -> Result<(Arc<Link>, Arc<Remote>), NoRoute> {
        let link = self.snapshot.link(cluster).ok_or_else(|| NoRoute::UnknownCluster { cluster: cluster.to_string() })?;
        let remote = self.snapshot.remote(cluster, id).ok_or_else(|| unknown(id, cluster.as_str()))?;
        if remote.port(self.request.port).is_none() {
            return Err(self.unknown_port(id));
        }
        Ok((Arc::clone(link), Arc::clone(remote)))
    }

    /// The part of its requests that the own cluster can take: all, while no more than its headroom is lost.
    fn share(&self, service: &Service, caution: Caution) -> f64 {
        let (mut healthy, mut all) = (0_u64, 0_u64);
        for endpoint in service.endpoints.iter().filter(|endpoint| endpoint.ports.contains_key(&self.request.port)) {
            all += u64::from(endpoint.weight);
            if self.usable(endpoint, caution) {
                healthy += u64::from(endpoint.weight);
            }
        }
        if all == 0 { 0.0 } else { (ratio(healthy, all) * HEADROOM).min(1.0) }
    }

    fn choose_tier(&mut self, own_share: f64, tiers: &[Tier<'_>]) -> Chosen {
        let drawn = self.draw.fraction();
        let (mut taken, mut first) = (own_share, if own_share > 0.0 { Chosen::Own } else { Chosen::None });
        if own_share > 0.0 && drawn < own_share {
            return Chosen::Own;
        }
        for (at, tier) in tiers.iter().enumerate() {
            if tier.share <= 0.0 {
                continue;
            }
            if first == Chosen::None {
                first = Chosen::Links(at);
            }
            taken += (1.0 - taken) * tier.share;
            if drawn < taken {
                return Chosen::Links(at);
            }
        }
        first
    }

    fn pick_endpoint(&mut self, service: &Service, caution: Caution) -> Option<Route> {
        let port = service.port(self.request.port)?;
        let (loads, now) = (self.loads, self.draw.at);
        let candidates = |endpoint: &Arc<Endpoint>| {
            let serves = endpoint.ports.contains_key(&port.number) && self.usable(endpoint, caution);
            if serves { endpoint.weight } else { 0 }
        };
        let cost = |endpoint: &Arc<Endpoint>| loads.cost(&EndpointKey::Local(endpoint.name.clone()), now);
        let mut draw = self.draw;
        let subset = Subset::of(&service.endpoints, loads, |endpoint| EndpointKey::Local(endpoint.name.clone()));
        let endpoint = pick(&service.endpoints, |endpoint| if subset.has(endpoint) { candidates(endpoint) } else { 0 }, cost, &mut draw)
            .or_else(|| pick(&service.endpoints, candidates, cost, &mut draw))?;
        self.draw = draw;
        let app_port = *endpoint.ports.get(&port.number)?;
        Some(Route::Local(LocalRoute {
            service: service.id.clone(),
            endpoint: Arc::clone(endpoint),
            port: app_port,
            protocol: port.protocol,
        }))
    }

    fn pick_link(&mut self, tier: &Tier<'_>, caution: Caution) -> Option<Route> {
        let (loads, now) = (self.loads, self.draw.at);
        let mut draw = self.draw;
        let request = self.request;
        let cheapest = |link: &Link| {
            let allowed = link.gateways.iter().filter(|gateway| caution.allows_gateway(gateway, request, loads, now));
            allowed.map(|gateway| loads.cost(&EndpointKey::Gateway(gateway.address), now)).fold(f64::INFINITY, f64::min)
        };
        let way = pick(&tier.ways, |way| way.weight, |way| cheapest(way.link), &mut draw)?;
        self.draw = draw;
        let gateway = self.gateway(way.link, caution)?;
        let endpoint = self.handle(way.link, way.remote, caution);
        Some(self.remote(way.link, way.remote, endpoint, gateway))
    }

    /// One of the link's gateways that may be used.
    fn gateway(&mut self, link: &Link, caution: Caution) -> Option<usize> {
        let (loads, now, request) = (self.loads, self.draw.at, self.request);
        let mut draw = self.draw;
        let weight = |gateway: &Gateway| u32::from(caution.allows_gateway(gateway, request, loads, now));
        let chosen = pick(&link.gateways, weight, |gateway| loads.cost(&EndpointKey::Gateway(gateway.address), now), &mut draw);
        let at = chosen.and_then(|chosen| link.gateways.iter().position(|gateway| gateway == chosen));
        self.draw = draw;
        at
    }

    /// One of the remote endpoints; none lets the gateway choose.
    fn handle(&mut self, link: &Link, remote: &Remote, caution: Caution) -> Option<Arc<RemoteEndpoint>> {
        if !remote.handles_valid {
            return None;
        }
        let (loads, now, request) = (self.loads, self.draw.at, self.request);
        let mut draw = self.draw;
        let key = |endpoint: &Arc<RemoteEndpoint>| EndpointKey::Handle(link.name.clone(), endpoint.handle.clone());
        let weight = |endpoint: &Arc<RemoteEndpoint>| {
            let usable = endpoint.ready && caution.allows(&key(endpoint), request, loads, now);
            if usable { endpoint.weight } else { 0 }
        };
        let cost = |endpoint: &Arc<RemoteEndpoint>| loads.cost(&key(endpoint), now);
        let subset = Subset::of(&remote.endpoints, loads, key);
        let endpoint = pick(&remote.endpoints, |endpoint| if subset.has(endpoint) { weight(endpoint) } else { 0 }, cost, &mut draw)
            .or_else(|| pick(&remote.endpoints, weight, cost, &mut draw));
        self.draw = draw;
        endpoint.map(Arc::clone)
    }

    fn remote(&self, link: &Arc<Link>, remote: &Arc<Remote>, endpoint: Option<Arc<RemoteEndpoint>>, gateway: usize) -> Route {
        let protocol = remote.port(self.request.port).map_or(Protocol::Unknown, |port| port.protocol);
        Route::Remote(RemoteRoute {
            link: Arc::clone(link),
            remote: Arc::clone(remote),
            port: self.request.port,
            protocol,
            endpoint,
            gateway,
        })
    }

    fn usable(&self, endpoint: &Endpoint, caution: Caution) -> bool {
        let unburdened = self.loads.nothing_ejected() && self.request.avoid.is_empty();
        let key = || EndpointKey::Local(endpoint.name.clone());
        endpoint.ready && (unburdened || caution.allows(&key(), self.request, self.loads, self.draw.at))
    }

    fn unknown_port(&self, service: &ServiceId) -> NoRoute {
        NoRoute::UnknownPort { service: service.clone(), port: self.request.port }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Chosen {
    Own,
    Links(usize),
    None,
}

fn protocol_at(service: &Service, endpoint: &Endpoint, port: AppPort) -> Protocol {
    let number = endpoint.ports.iter().find(|(_, app)| **app == port).map(|(number, _)| *number);
    number.and_then(|number| service.port(number)).map_or(Protocol::Unknown, |port| port.protocol)
}

fn unknown(service: &ServiceId, place: &str) -> NoRoute {
    NoRoute::UnknownService { service: service.clone(), place: place.to_owned() }
}

fn nothing_ready(service: &ServiceId) -> NoRoute {
    NoRoute::NothingReady { service: service.clone() }
}

/// `part` of `whole`, for a share; precision beyond 2^52 does not matter.
#[expect(clippy::cast_precision_loss, reason = "weights add up to far less than 2^52")]
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// What a tier can take beyond its part: it gives requests away only when more than 2/7 of it is lost.
pub(crate) const HEADROOM: f64 = 1.4;
