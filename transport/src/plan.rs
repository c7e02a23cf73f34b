//! How a route is dialled: the one translation from where a request goes (`mesh-topology`) to what the pool keeps sessions by. The
//! outbound proxy and the gateways' way out both use it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_names::SpiffeId;
use mesh_topology::route::{LocalRoute, RemoteRoute, Route};
use mesh_topology::{Endpoint, Gateway, Remote};

use crate::session::StreamTarget;
use crate::tunnel::{self, Target, TunnelRequest};

/// What to dial for a stream, whom to expect there, and what to ask of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The way to the peer. Sessions are kept by it.
    pub way: Way,
    /// Who may answer at its end.
    pub expected: Answering,
    /// What each stream names.
    pub target: StreamTarget,
}

/// Who may answer. Made for each request, so it points to what the route holds and copies no ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answering {
    /// This endpoint of the own cluster.
    Endpoint(Arc<Endpoint>),
    /// Whoever serves this export.
    Export(Arc<Remote>),
    /// These.
    OneOf(Arc<BTreeSet<SpiffeId>>),
}

impl Answering {
    /// Whether `id` is among them.
    #[must_use]
    pub fn contains(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Endpoint(endpoint) => endpoint.identity == *id,
            Self::Export(remote) => remote.identities.contains(id),
            Self::OneOf(ids) => ids.contains(id),
        }
    }

    /// All of them.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<SpiffeId> {
        match self {
            Self::Endpoint(endpoint) => BTreeSet::from([endpoint.identity.clone()]),
            Self::Export(remote) => remote.identities.iter().cloned().collect(),
            Self::OneOf(ids) => ids.as_ref().clone(),
        }
    }
}

/// The way to the serving proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// In the own cluster: its inbound proxy, directly.
    Local(SocketAddr),
    /// In another cluster: a tunnel.
    Through {
        /// The gateway that is asked.
        gateway: Gateway,
        /// What it is asked for.
        export: tunnel::Export,
        /// How many gateways the caller's own request has crossed.
        hops: u32,
    },
}

/// A route's endpoint has no proxy, so no session can reach it: it is called in plain text, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint has no proxy, so no session can be opened with it")]
pub struct NoProxy;

impl Plan {
    /// How `route` is dialled.
    ///
    /// # Errors
    /// When it ends at an endpoint of the own cluster without a proxy.
    pub fn of(route: &Route) -> Result<Self, NoProxy> {
        match route {
            Route::Local(local) => Self::local(local),
            Route::Remote(remote) => Ok(Self::remote(remote)),
        }
    }

    fn local(route: &LocalRoute) -> Result<Self, NoProxy> {
        Ok(Self {
            way: Way::Local(route.session_address().ok_or(NoProxy)?),
            expected: Answering::Endpoint(Arc::clone(&route.endpoint)),
            target: StreamTarget::Port(route.port),
        })
    }

    fn remote(route: &RemoteRoute) -> Self {
        let export = tunnel::Export {
            cluster: route.cluster_id().clone(),
            service: route.remote.service.clone(),
            port: route.port,
            handle: route.handle().cloned(),
        };
        let target = StreamTarget::Export { cluster: export.cluster.clone(), service: export.service.clone(), port: export.port };
        Self {
            way: Way::Through { gateway: route.gateway().clone(), export, hops: 0 },
            expected: if route.remote.proxyless {
                Answering::OneOf(Arc::new(route.expected().into_iter().collect()))
            } else {
                Answering::Export(Arc::clone(&route.remote))
            },
            target,
        }
    }
}

impl Way {
    /// The gateway that it passes, when it leaves the cluster.
    #[must_use]
    pub fn gateway(&self) -> Option<&Gateway> {
        match self {
            Self::Local(_) => None,
            Self::Through { gateway, .. } => Some(gateway),
        }
    }

    pub(crate) fn request(export: &tunnel::Export, hops: u32) -> TunnelRequest {
        TunnelRequest { target: Target::Export(export.clone()), hops }
    }
}
