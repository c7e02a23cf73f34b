//! Who may call what, decided at the inbound proxy.
//!
//! A workload of the own trust domain names a port of the pod; a caller from another trust domain names an export, never a port, and gets
//! only what is exported to its own trust domain. The gateway has asked the same before; this check does not rely on it.

use mesh_names::{AppPort, ServiceId, ServicePort, TrustDomain};

use crate::VerifiedPeer;

/// What a caller asks for inside a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A port of the workload.
    Port(AppPort),
    /// A port of an exported service.
    Export {
        /// The service.
        service: ServiceId,
        /// Its port.
        port: ServicePort,
    },
}

/// Why a caller may not have what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// A caller from another trust domain named a port.
    #[error("a caller from another trust domain named a port instead of an export")]
    PortFromOutside,
    /// Not exported to this caller, or there is no such export: the same answer.
    #[error("not exported to this caller, or unknown")]
    NotExported,
}

impl Denied {
    /// The reason as a metric label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::PortFromOutside => "port-from-outside",
            Self::NotExported => "not-exported",
        }
    }
}

/// The port of the workload that `peer` may reach. `exported` answers from the current snapshot: the workload's own port behind an export
/// that is granted to that trust domain.
///
/// # Errors
/// When the peer may not have it.
pub fn decide(
    own: &TrustDomain,
    peer: &VerifiedPeer,
    target: &Target,
    exported: impl FnOnce(&TrustDomain, &ServiceId, ServicePort) -> Option<AppPort>,
) -> Result<AppPort, Denied> {
    match target {
        Target::Port(port) if peer.id().trust_domain() == own => Ok(*port),
        Target::Port(_) => Err(Denied::PortFromOutside),
        Target::Export { service, port } => exported(peer.id().trust_domain(), service, *port).ok_or(Denied::NotExported),
    }
}
