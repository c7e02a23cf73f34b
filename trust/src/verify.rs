//! The one verifier. DESIGN.md's rule: a peer's certificate is checked against the bundle of its own trust domain only, never a merged
//! pool, and every issuer between leaf and authority carries that same trust domain in its URI SAN.
//!
//! So a shared root gives no cluster power over another's names: a west workload's name issued by east's issuer is refused, although the
//! path to the root is sound. An issuer without a URI SAN can only be the bundle's authority itself. Each refusal is counted here.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_names::SpiffeId;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::bundle::{Authority, Bundle, Bundles, SharedBundles};
use crate::certificate::Certificate;
use crate::{Refusals, Refused, tls};

/// A peer whose certificate was checked. Made by [`Verifier::verify`] and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerifiedPeer {
    id: SpiffeId,
    expires_at: SystemTime,
}

impl VerifiedPeer {
    /// Who the peer is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// When its certificate ends: no session with it outlives this.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}

/// Which side of TLS the peer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The peer opened the connection.
    Client,
    /// The peer accepted the connection.
    Server,
}

/// Checks peers against the bundles that are current when it is asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Verifier {
    bundles: SharedBundles,
    refusals: Refusals,
}

impl Verifier {
    /// A verifier that reads `bundles` anew at each check and counts in `refusals`.
    #[must_use]
    pub fn new(bundles: SharedBundles, refusals: Refusals) -> Self {
        Self { bundles, refusals }
    }

    /// A verifier over bundles that never change, for tools and tests.
    #[must_use]
    pub fn fixed(bundles: Bundles) -> Self {
        Self::new(Arc::new(arc_swap::ArcSwap::from_pointee(bundles)), Refusals::default())
    }

    /// The counters of what it refused.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// The bundles that it checks against now.
    #[must_use]
    pub fn bundles(&self) -> Arc<Bundles> {
        self.bundles.load_full()
    }

    /// Checks `chain` (leaf first) at `now`.
    ///
    /// # Errors
    /// The first rule that is broken; it has been counted.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime, purpose: Purpose) -> Result<VerifiedPeer, Refused> {
        check(&self.bundles.load(), chain, now, purpose).inspect_err(|refused| self.refusals.count(*refused))
    }
}

fn check(bundles: &Bundles, chain: &[CertificateDer<'_>], now: UnixTime, purpose: Purpose) -> Result<VerifiedPeer, Refused> {
    let (leaf, issuers) = chain.split_first().ok_or(Refused::NoCertificate)?;
    if chain.len() > CHAIN_MAX {
        return Err(Refused::ChainTooLong);
    }
    let parsed = Certificate::parse(leaf)?;
    if parsed.is_self_signed() {
        return Err(Refused::SelfSigned);
    }
    let id = parsed.workload()?;
    let bundle = bundles.get(id.trust_domain()).ok_or(Refused::UnknownTrustDomain)?;
    let (not_before, expires_at) = parsed.validity();
    let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
    if moment < not_before {
        return Err(Refused::NotYetValid);
    }
    if moment > expires_at {
        return Err(Refused::Expired);
    }
    check_path(bundle, leaf, issuers, now, purpose)?;
    Ok(VerifiedPeer { id, expires_at })
}

/// RFC 5280 through webpki with this bundle's authorities; the SPIFFE rules are asked of each path that it finds sound.
fn check_path(
    bundle: &Bundle,
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    now: UnixTime,
    purpose: Purpose,
) -> Result<(), Refused> {
    let end_entity = EndEntityCert::try_from(leaf).map_err(|_| Refused::Malformed)?;
    let anchors: Vec<TrustAnchor<'_>> = bundle.anchors().collect();
    let usage = match purpose {
        Purpose::Client => KeyUsage::client_auth(),
        Purpose::Server => KeyUsage::server_auth(),
    };
    let refused = Cell::new(None);
    let check_issuers = |path: &VerifiedPath<'_>| {
        check_issuers(bundle, path, now).map_err(|why| {
            refused.set(Some(why));
            webpki::Error::UnknownIssuer
        })
    };
    let algorithms = tls::provider().signature_verification_algorithms.all;
    match end_entity.verify_for_usage(algorithms, &anchors, issuers, now, usage, None, Some(&check_issuers)) {
        Ok(_) => Ok(()),
        Err(error) => Err(refused.get().or_else(|| unsound_issuer(issuers)).unwrap_or_else(|| reason_of(&error))),
    }
}

/// Every issuer of a sound path, from the leaf's up to the authority.
fn check_issuers(bundle: &Bundle, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), Refused> {
    for issuer in path.intermediate_certificates() {
        let der = issuer.der();
        match Certificate::parse(&der)?.signer()? {
            Some(domain) if domain == *bundle.trust_domain() => {}
            Some(_) | None => return Err(Refused::IssuerOfOtherTrustDomain),
        }
    }
    let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
    let mut refused = Refused::UntrustedIssuer;
    for authority in bundle.authorities_of(path.anchor()) {
        match check_authority(bundle, authority, moment) {
            Ok(()) => return Ok(()),
            Err(why) => refused = why,
        }
    }
    Err(refused)
}

fn check_authority(bundle: &Bundle, authority: &Authority, moment: SystemTime) -> Result<(), Refused> {
    if authority.trust_domain().is_some_and(|domain| domain != bundle.trust_domain()) {
        return Err(Refused::IssuerOfOtherTrustDomain);
    }
    if moment < authority.not_before() || moment > authority.not_after() {
        return Err(Refused::IssuerNotValidNow);
    }
    Ok(())
}

/// webpki names what it disliked last; an issuer that breaks a SPIFFE rule by itself is the better reason.
fn unsound_issuer(issuers: &[CertificateDer<'_>]) -> Option<Refused> {
    issuers.iter().find_map(|issuer| Certificate::parse(issuer).and_then(|parsed| parsed.signer()).err())
}

/// What webpki refuses, in our words. The leaf's own life and usage have been checked before it was asked.
fn reason_of(error: &webpki::Error) -> Refused {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } | E::CertNotValidYet { .. } | E::InvalidCertValidity => Refused::IssuerNotValidNow,
        E::EndEntityUsedAsCa | E::PathLenConstraintViolated => Refused::IssuerNotAuthority,
        E::CaUsedAsEndEntity => Refused::IsAuthority,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Refused::ExtendedKeyUsage,
        E::NameConstraintViolation | E::MalformedNameConstraint | E::MaximumNameConstraintComparisonsExceeded => Refused::NameConstraints,
        E::BadDer
        | E::BadDerTime
        | E::ExtensionValueInvalid
        | E::InvalidSerialNumber
        | E::MalformedExtensions
        | E::TrailingData(_)
        | E::UnsupportedCertVersion
        | E::UnsupportedCriticalExtension => Refused::Malformed,
        _ => Refused::UntrustedIssuer,
    }
}

/// A leaf, and one more issuer than anything of ours has.
const CHAIN_MAX: usize = 5;

#[cfg(test)]
mod tests;
