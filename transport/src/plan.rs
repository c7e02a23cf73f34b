//! How a route is dialled: the one translation from where a request goes (`mesh-topology`) to what the pool keeps sessions by. The
//! outbound proxy and the gateways' way out both use it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_names::SpiffeId;
use mesh_topology::Gateway;
use mesh_topology::route::{LocalRoute, RemoteRoute, Route};

use crate::session::StreamTarget;
use crate::tunnel::{self, Target, TunnelRequest};

/// What to dial for a stream, whom to expect there, and what to ask of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The way to the peer. Sessions are kept by it.
    pub way: Way,
    /// Who may answer at its end.
    pub expected: Arc<BTreeSet<SpiffeId>>,
    /// What each stream names.
    pub target: StreamTarget,
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
            expected: Arc::new(route.expected().iter().cloned().collect()),
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
            expected: Arc::new(route.expected().into_iter().collect()),
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
