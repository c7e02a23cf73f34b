//! Why a peer was refused, and the counter of each reason.
//!
//! The enum is closed so that `mesh_denied_total{reason}` has a fixed set of labels; a test walks [`Refused::ALL`] and triggers each.
//! Counting is done by the verifier itself, so no caller can forget it. The one refusal that rustls makes without asking a verifier, a
//! client that presents no certificate, is counted by [`Refusals::handshake_failed`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! refused {
    ($($(#[$doc:meta])* $variant:ident = $reason:literal, $text:literal;)*) => {
        /// Why a peer's certificate was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
        pub enum Refused {
            $($(#[$doc])* #[error($text)] $variant,)*
        }

        impl Refused {
            /// Every reason, in the order of the checks.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The reason as a metric label: fixed, kebab-case.
            #[must_use]
            pub fn reason(self) -> &'static str {
                match self {
                    $(Self::$variant => $reason,)*
                }
            }
        }
    };
}

refused! {
    /// No certificate was presented.
    NoCertificate = "no-certificate", "the peer presented no certificate";
    /// More certificates than any chain of ours has.
    ChainTooLong = "chain-too-long", "the peer's chain has more than 5 certificates";
    /// A certificate could not be read.
    Malformed = "malformed-certificate", "a certificate of the peer could not be read";
    /// The certificate is signed by its own key.
    SelfSigned = "self-signed", "the peer's certificate is signed by its own key";
    /// A signer's certificate was used to authenticate.
    IsAuthority = "is-authority", "the peer authenticated with a signer's certificate";
    /// There is no URI SAN, or there are several.
    NotExactlyOneUri = "not-exactly-one-uri", "the peer's certificate does not have exactly one URI SAN";
    /// The URI SAN is no SPIFFE id with a path.
    BadSpiffeId = "bad-spiffe-id", "the URI SAN of the peer's certificate is no SPIFFE id of a workload";
    /// The subject is empty and the SAN extension is not critical.
    SanNotCritical = "san-not-critical", "the peer's certificate has an empty subject and its SAN extension is not critical";
    /// Key usage is missing, not critical, lacks digitalSignature or allows signing certificates.
    KeyUsage = "key-usage", "the key usage of the peer's certificate is not a workload's";
    /// Extended key usage is there and does not allow both sides of TLS.
    ExtendedKeyUsage = "extended-key-usage", "the extended key usage of the peer's certificate does not allow both sides of TLS";
    /// No bundle is held for the certificate's trust domain.
    UnknownTrustDomain = "unknown-trust-domain", "the peer's trust domain is not linked with this cluster";
    /// The certificate's life is over.
    Expired = "expired", "the peer's certificate has expired";
    /// The certificate's life has not begun.
    NotYetValid = "not-yet-valid", "the peer's certificate is not valid yet: compare the clocks";
    /// A signer's life, or its authority's, is over or has not begun.
    IssuerNotValidNow = "issuer-not-valid-now", "an issuer of the peer's certificate has expired, or is not valid yet";
    /// No path leads to an authority of the bundle.
    UntrustedIssuer = "untrusted-issuer", "no authority of the peer's trust domain stands behind its certificate";
    /// An issuer carries another trust domain, or none although it is not the authority.
    IssuerOfOtherTrustDomain = "issuer-of-other-trust-domain", "the peer's certificate was issued by another trust domain's issuer";
    /// An issuer is no authority, or its path length does not allow what it signed.
    IssuerNotAuthority = "issuer-not-authority", "an issuer of the peer's certificate may not sign certificates";
    /// An issuer's key usage is missing, not critical or lacks keyCertSign.
    IssuerKeyUsage = "issuer-key-usage", "the key usage of an issuer of the peer's certificate does not allow signing certificates";
    /// An issuer's own id has a path, is no SPIFFE id, or there are several.
    IssuerId = "issuer-id", "an issuer of the peer's certificate carries an id that is not that of a trust domain";
    /// An issuer has URI name constraints (never checked by the TLS library), or its constraints are violated.
    NameConstraints = "name-constraints", "an issuer of the peer's certificate has name constraints that can't be honoured";
    /// The peer is genuine, but not the one that was to answer.
    UnexpectedIdentity = "unexpected-identity", "the peer is not the one that was expected";
}

impl Refused {
    /// The reason behind a failed handshake, when it was a refusal of ours.
    #[must_use]
    pub fn of_handshake(error: &std::io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        match error {
            rustls::Error::NoCertificatesPresented => Some(Self::NoCertificate),
            rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => other.0.downcast_ref::<Self>().copied(),
            _ => None,
        }
    }
}

/// The counters of one component's refusals. Cheap to clone; clones count together.
#[derive(Clone, Default)]
pub struct Refusals {
    counts: Arc<Counts>,
    observer: Option<Arc<dyn Fn(Refused) + Send + Sync>>,
}

impl Refusals {
    /// Counters that also tell `observer` of each refusal: the program's metric and its rate-limited audit event.
    pub fn observed(observer: impl Fn(Refused) + Send + Sync + 'static) -> Self {
        Self { counts: Arc::default(), observer: Some(Arc::new(observer)) }
    }

    /// Counts one refusal.
    pub fn count(&self, refused: Refused) {
        self.counts.0[refused as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(observer) = &self.observer {
            observer(refused);
        }
    }

    /// How often this reason was given.
    #[must_use]
    pub fn of(&self, refused: Refused) -> u64 {
        self.counts.0[refused as usize].load(Ordering::Relaxed)
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Refused, u64)> + '_ {
        Refused::ALL.iter().map(|refused| (*refused, self.of(*refused)))
    }

    /// To be called with every failed handshake: tells why it failed, if it was a refusal, and counts the one that rustls makes itself
    /// (a required client certificate that was not presented).
    pub fn handshake_failed(&self, error: &std::io::Error) -> Option<Refused> {
        let refused = Refused::of_handshake(error)?;
        if refused == Refused::NoCertificate {
            self.count(refused);
        }
        Some(refused)
    }
}

impl std::fmt::Debug for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter().filter(|(_, count)| *count > 0).map(|(refused, count)| (refused.reason(), count))).finish()
    }
}

struct Counts([AtomicU64; Refused::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}
