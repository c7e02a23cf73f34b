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

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{Bundle, Bundles, Csr, KeyPair, Purpose, Root, UnixTime, Verifier};

    const HOUR: Duration = Duration::from_secs(3600);

    fn peer_of(domain: &str) -> VerifiedPeer {
        let trust_domain: TrustDomain = domain.parse().unwrap();
        let root = Root::generate("root", SystemTime::UNIX_EPOCH, HOUR).unwrap();
        let issuer = root.issuer_for(&trust_domain, SystemTime::UNIX_EPOCH, HOUR).unwrap();
        let csr = Csr::parse(&KeyPair::generate().unwrap().csr_der().unwrap()).unwrap();
        let id = format!("spiffe://{domain}/ns/shop/sa/web").parse().unwrap();
        let chain = issuer.issue(&csr, &id, SystemTime::UNIX_EPOCH, HOUR).unwrap().chain;
        let bundle = Bundle::new(trust_domain, 1, vec![root.certificate().clone()]).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(60));
        Verifier::fixed(Bundles::of(bundle)).verify(&chain, now, Purpose::Client).unwrap()
    }

    fn check(peer: &str, target: &Target, expected: Result<u16, Denied>) {
        let exported = |peer: &TrustDomain, service: &ServiceId, port: ServicePort| {
            let granted = peer.as_str() == "west.mesh" && service.name().as_str() == "catalog" && port.get() == 80;
            granted.then(|| 8080_u16.try_into().unwrap())
        };
        let verdict = decide(&"east.mesh".parse().unwrap(), &peer_of(peer), target, exported);
        assert_eq!(verdict.map(AppPort::get), expected, "{peer} {target:?}");
    }

    #[test]
    fn the_own_domain_names_ports_and_others_name_exports() {
        let port = Target::Port(9999_u16.try_into().unwrap());
        let export =
            |name: &str, port: u16| Target::Export { service: ServiceId::parse("shop", name).unwrap(), port: port.try_into().unwrap() };
        check("east.mesh", &port, Ok(9999));
        check("west.mesh", &port, Err(Denied::PortFromOutside));
        check("west.mesh", &export("catalog", 80), Ok(8080));
        check("west.mesh", &export("catalog", 81), Err(Denied::NotExported));
        check("west.mesh", &export("ledger", 80), Err(Denied::NotExported));
        check("north.mesh", &export("catalog", 80), Err(Denied::NotExported));
    }
}
