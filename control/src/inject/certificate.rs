//! The injector's certificate, and which issuers the API server is told of. Decides, and writes nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::well_known::{SYSTEM_NAMESPACE, WEBHOOK_SERVICE};
use mesh_trust::{CertificateDer, Csr, IssueError, Issuer, KeyPair, SvidError, tls};
use rustls::ServerConfig;

/// A certificate for the webhook's Service, and what TLS needs of it.
#[derive(Debug)]
pub(crate) struct WebCertificate {
    pub(crate) config: Arc<ServerConfig>,
    issuer: CertificateDer<'static>,
    renew_at: SystemTime,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    /// The issuer refuses.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The key is not usable.
    #[error(transparent)]
    Key(#[from] SvidError),
}

impl WebCertificate {
    /// A new key and its certificate.
    pub(crate) fn make(issuer: &Issuer, now: SystemTime) -> Result<Self, WebError> {
        let key = KeyPair::generate()?;
        let name = format!("{WEBHOOK_SERVICE}.{SYSTEM_NAMESPACE}.svc");
        let issued = issuer.issue_web(&Csr::parse(&key.csr_der()?)?, &name, now - SKEW, LIFE)?;
        let life = issued.not_after.duration_since(now).unwrap_or_default();
        Ok(Self { config: tls::web_config(&key, issued.chain)?, issuer: issuer.certificate().clone(), renew_at: now + life / 2 })
    }

    /// Whether it is this issuer's.
    pub(crate) fn is_of(&self, issuer: &Issuer) -> bool {
        self.issuer == *issuer.certificate()
    }

    /// Whether it is time for another.
    pub(crate) fn is_due(&self, now: SystemTime) -> bool {
        now >= self.renew_at
    }
}

/// What the configuration is to hold: the issuer that signs now first, then the one before it, which other replicas may still serve
/// under. None when it holds that already.
pub(crate) fn trusted(held: &[CertificateDer<'static>], issuer: &CertificateDer<'static>) -> Option<Vec<CertificateDer<'static>>> {
    if held.first() == Some(issuer) {
        return None;
    }
    let before = held.iter().filter(|other| *other != issuer).take(1).cloned();
    Some([issuer.clone()].into_iter().chain(before).collect())
}

/// For API servers whose clocks are behind.
const SKEW: Duration = Duration::from_secs(300);
const LIFE: Duration = Duration::from_secs(48 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn der(byte: u8) -> CertificateDer<'static> {
        vec![byte].into()
    }

    #[test]
    fn a_new_issuer_is_trusted_beside_the_one_before_and_no_other() {
        assert_eq!(trusted(&[], &der(1)), Some(vec![der(1)]));
        assert_eq!(trusted(&[der(1)], &der(1)), None);
        assert_eq!(trusted(&[der(1)], &der(2)), Some(vec![der(2), der(1)]));
        assert_eq!(trusted(&[der(2), der(1)], &der(2)), None);
        assert_eq!(trusted(&[der(2), der(1)], &der(3)), Some(vec![der(3), der(2)]));
        assert_eq!(trusted(&[der(2), der(1)], &der(1)), Some(vec![der(1), der(2)]), "an issuer that came back");
    }

    #[test]
    fn it_is_renewed_at_half_its_life_and_for_another_issuer() {
        let now = SystemTime::UNIX_EPOCH + 1000 * HOUR;
        let root = mesh_trust::Root::generate("root", now - HOUR, 1000 * HOUR).unwrap();
        let issuer = || root.issuer_for(&"west.mesh".parse().unwrap(), now - HOUR, 1000 * HOUR).unwrap();
        let (one, other) = (issuer(), issuer());
        let made = WebCertificate::make(&one, now).unwrap();
        assert!(made.is_of(&one) && !made.is_of(&other));
        assert!(!made.is_due(now + 23 * HOUR) && made.is_due(now + 25 * HOUR));
        assert!(WebCertificate::make(&one, now + 2000 * HOUR).is_err(), "an issuer whose life is over issues nothing");
    }
}
