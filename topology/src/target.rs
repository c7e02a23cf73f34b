//! What a request asks for, and why it may go nowhere.

use mesh_names::{AppPort, ClusterName, EndpointName, Handle, ServiceId, ServicePort};

use crate::loads::EndpointKey;
use crate::route::Route;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Whom it is for.
    pub target: Target,
    /// The port, as the caller named it.
    pub port: ServicePort,
    /// What was tried for it already and failed.
    pub avoid: Vec<EndpointKey>,
}

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Every cluster that serves it.
    ClusterSet(ServiceId),
    /// One linked cluster.
    In {
        /// The link.
        cluster: ClusterName,
        /// The service there.
        service: ServiceId,
    },
    /// The own cluster.
    Own(ServiceId),
    /// One endpoint of the own cluster.
    OwnEndpoint {
        /// A service that it serves.
        service: ServiceId,
        /// Its name.
        endpoint: EndpointName,
        /// Its own port, when it was called by its own address; otherwise the request's port is the service's.
        port: Option<AppPort>,
    },
    /// One endpoint of a linked cluster.
    RemoteEndpoint {
        /// The link.
        cluster: ClusterName,
        /// The service there.
        service: ServiceId,
        /// The endpoint.
        handle: Handle,
    },
}

/// Why a request goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Nothing has this name.
    #[error("no service {service} is known in {place}")]
    UnknownService {
        /// The name.
        service: ServiceId,
        /// Where it was looked for.
        place: String,
    },
    /// No link has this name.
    #[error("no link to a cluster {cluster} exists here")]
    UnknownCluster {
        /// The cluster's name or id.
        cluster: String,
    },
    /// The service has no such port.
    #[error("service {service} has no port {port}")]
    UnknownPort {
        /// The service.
        service: ServiceId,
        /// The port.
        port: ServicePort,
    },
    /// The service has no such endpoint.
    #[error("service {service} has no endpoint {endpoint}")]
    UnknownEndpoint {
        /// The service.
        service: ServiceId,
        /// The endpoint's hostname or name.
        endpoint: String,
    },
    /// Nobody serves it at the moment.
    #[error("service {service} has no endpoint that is ready, in no cluster that can be reached from here")]
    NothingReady {
        /// The service.
        service: ServiceId,
    },
}

impl NoRoute {
    /// One word for a metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownService { .. } => "unknown_service",
            Self::UnknownCluster { .. } => "unknown_cluster",
            Self::UnknownPort { .. } => "unknown_port",
            Self::UnknownEndpoint { .. } => "unknown_endpoint",
            Self::NothingReady { .. } => "nothing_ready",
        }
    }
}

impl Target {
    /// The service that it belongs to.
    #[must_use]
    pub fn service(&self) -> &ServiceId {
        match self {
            Self::ClusterSet(service) | Self::Own(service) => service,
            Self::In { service, .. } | Self::OwnEndpoint { service, .. } | Self::RemoteEndpoint { service, .. } => service,
        }
    }
}

impl RequestKey {
    /// A first attempt at `target`.
    #[must_use]
    pub fn new(target: Target, port: ServicePort) -> Self {
        Self { target, port, avoid: Vec::new() }
    }

    /// Passes over what `route` tried, in the next attempt. `stage` failures at the gateway blame the gateway, others the endpoint.
    pub fn avoid(&mut self, route: &Route, at_gateway: bool) {
        self.avoid.push(match route {
            Route::Remote(remote) if at_gateway => EndpointKey::Gateway(remote.gateway().address),
            _ => route.endpoint_key(),
        });
    }
}
