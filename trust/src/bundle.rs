//! The authorities of one trust domain, and the bundles of every domain that is trusted, as SPIFFE bundle documents.
//!
//! Domains are never merged: a [`Bundles`] is asked for one domain's bundle and gives no other. An empty bundle is a statement (every
//! SVID of that domain is invalid) and not the same as none. Authorities are read once, here, so that a check at each handshake is cheap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mesh_names::TrustDomain;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::{Refused, pem};

/// The bundles that every verifier of a process reads; written by whoever follows the control plane.
pub type SharedBundles = Arc<ArcSwap<Bundles>>;

/// The authorities of one trust domain. Its sequence rises with each change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    trust_domain: TrustDomain,
    sequence: u64,
    authorities: Vec<Authority>,
}

/// One authority: a signer's certificate that was read and found to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    trust_domain: Option<TrustDomain>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// Why a bundle can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The text is no bundle document.
    #[error("the bundle of {trust_domain} is no SPIFFE bundle document")]
    NotADocument {
        /// Whose bundle it was to be.
        trust_domain: TrustDomain,
        /// What the reader says.
        #[source]
        source: serde_json::Error,
    },
    /// The text is no PEM.
    #[error("the bundle of {trust_domain} is no PEM")]
    NotPem {
        /// Whose bundle it was to be.
        trust_domain: TrustDomain,
    },
    /// An authority's certificate is not usable.
    #[error("an authority in the bundle of {trust_domain} is not usable: {}", .refused.reason())]
    Authority {
        /// Whose bundle it was to be.
        trust_domain: TrustDomain,
        /// The rule that it breaks.
        refused: Refused,
    },
    /// The document is larger than any bundle is.
    #[error("the bundle of {trust_domain} is larger than 1 MiB or has more than 64 authorities")]
    TooLarge {
        /// Whose bundle it was to be.
        trust_domain: TrustDomain,
    },
}

impl Bundle {
    /// A bundle of these authorities.
    ///
    /// # Errors
    /// When one of them is no signer's certificate, or there are too many.
    pub fn new(trust_domain: TrustDomain, sequence: u64, authorities: Vec<CertificateDer<'static>>) -> Result<Self, BundleError> {
        if authorities.len() > AUTHORITIES_MAX {
            return Err(BundleError::TooLarge { trust_domain });
        }
        let read = authorities.into_iter().map(Authority::read).collect::<Result<_, _>>();
        match read {
            Ok(authorities) => Ok(Self { trust_domain, sequence, authorities }),
            Err(refused) => Err(BundleError::Authority { trust_domain, refused }),
        }
    }

    /// Reads a SPIFFE bundle document. Keys of other uses and kinds are passed over; an empty list of keys is a bundle that trusts nobody.
    ///
    /// # Errors
    /// When it is no bundle document, too large, or an `x509-svid` key is no signer's certificate.
    pub fn from_spiffe_json(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        if json.len() > DOCUMENT_MAX {
            return Err(BundleError::TooLarge { trust_domain });
        }
        let document: Document = match serde_json::from_slice(json) {
            Ok(document) => document,
            Err(source) => return Err(BundleError::NotADocument { trust_domain, source }),
        };
        let ours = |key: &Key| key.usage.as_deref() == Some(X509_SVID) && KINDS.contains(&key.kty.as_str());
        let mut authorities = Vec::new();
        for certificate in document.keys.iter().filter(|key| ours(key)).filter_map(|key| key.x5c.first()) {
            match STANDARD.decode(certificate) {
                Ok(der) => authorities.push(der.into()),
                Err(_) => return Err(BundleError::Authority { trust_domain, refused: Refused::Malformed }),
            }
        }
        Self::new(trust_domain, document.sequence, authorities)
    }

    /// Reads authorities from PEM certificates.
    ///
    /// # Errors
    /// When it is no PEM, or one of them is no signer's certificate.
    pub fn from_pem(trust_domain: TrustDomain, sequence: u64, text: &str) -> Result<Self, BundleError> {
        match pem::certificates(text) {
            Ok(authorities) => Self::new(trust_domain, sequence, authorities),
            Err(_) => Err(BundleError::NotPem { trust_domain }),
        }
    }

    /// The bundle as a SPIFFE bundle document.
    #[must_use]
    pub fn to_spiffe_json(&self) -> String {
        let keys = self.authorities.iter().map(Authority::key).collect();
        let document = Document { keys, sequence: self.sequence, refresh_hint: Some(REFRESH_HINT) };
        serde_json::to_string(&document).unwrap_or_default()
    }

    /// Whose bundle it is.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Its sequence.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Its authorities.
    #[must_use]
    pub fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    pub(crate) fn anchors(&self) -> impl Iterator<Item = TrustAnchor<'_>> {
        self.authorities.iter().map(|authority| TrustAnchor {
            subject: authority.anchor.subject.as_ref().into(),
            subject_public_key_info: authority.anchor.subject_public_key_info.as_ref().into(),
            name_constraints: authority.anchor.name_constraints.as_ref().map(|constraints| constraints.as_ref().into()),
        })
    }

    /// The authorities with this name, key and constraints: more than one while a root is renewed by signing its key again.
    pub(crate) fn authorities_of<'a>(&'a self, anchor: &TrustAnchor<'a>) -> impl Iterator<Item = &'a Authority> {
        self.authorities.iter().filter(move |authority| authority.anchor == *anchor)
    }
}

impl Authority {
    fn read(der: CertificateDer<'static>) -> Result<Self, Refused> {
        let certificate = Certificate::parse(&der)?;
        let trust_domain = certificate.signer()?;
        let (not_before, not_after) = certificate.validity();
        let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|_| Refused::Malformed)?.to_owned();
        Ok(Self { anchor, trust_domain, not_before, not_after, der })
    }

    /// Its certificate.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The trust domain that it carries itself; a shared root carries none.
    #[must_use]
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.trust_domain.as_ref()
    }

    /// When its life begins.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When its life ends.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    fn key(&self) -> Key {
        let mut key = Key { usage: Some(X509_SVID.to_owned()), x5c: vec![STANDARD.encode(&self.der)], ..Key::default() };
        if let Some(words) = Certificate::parse(&self.der).ok().and_then(|certificate| certificate.public_key()) {
            words.kind.clone_into(&mut key.kty);
            key.crv = words.curve.map(str::to_owned);
            for (member, value) in words.members {
                let value = Some(URL_SAFE_NO_PAD.encode(value));
                match member {
                    "x" => key.x = value,
                    "y" => key.y = value,
                    "n" => key.n = value,
                    _ => key.e = value,
                }
            }
        }
        key
    }
}

/// The bundles of every trust domain that is trusted: the own one and each linked peer's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundles(BTreeMap<TrustDomain, Arc<Bundle>>);

impl Bundles {
    /// This bundle alone.
    #[must_use]
    pub fn of(bundle: Bundle) -> Self {
        Self::default().with(bundle)
    }

    /// One trust domain's bundle.
    #[must_use]
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Arc<Bundle>> {
        self.0.get(trust_domain)
    }

    /// These bundles and `bundle`; an older one of the same domain is replaced, a newer one stays: a sequence never goes back.
    #[must_use]
    pub fn with(mut self, bundle: Bundle) -> Self {
        let newer = self.0.get(&bundle.trust_domain).is_none_or(|held| held.sequence <= bundle.sequence);
        if newer {
            self.0.insert(bundle.trust_domain.clone(), Arc::new(bundle));
        }
        self
    }

    /// These bundles without that domain's: from now on nothing of it is accepted.
    #[must_use]
    pub fn without(mut self, trust_domain: &TrustDomain) -> Self {
        self.0.remove(trust_domain);
        self
    }

    /// Every bundle, by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        self.0.values()
    }

    /// The handle that verifiers share.
    #[must_use]
    pub fn shared(self) -> SharedBundles {
        Arc::new(ArcSwap::from_pointee(self))
    }
}

impl FromIterator<Bundle> for Bundles {
    fn from_iter<I: IntoIterator<Item = Bundle>>(bundles: I) -> Self {
        bundles.into_iter().fold(Self::default(), Self::with)
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    keys: Vec<Key>,
    #[serde(rename = "spiffe_sequence", default)]
    sequence: u64,
    #[serde(rename = "spiffe_refresh_hint", skip_serializing_if = "Option::is_none", default)]
    refresh_hint: Option<u64>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Key {
    kty: String,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    x5c: Vec<String>,
}

const X509_SVID: &str = "x509-svid";
const KINDS: [&str; 3] = ["EC", "RSA", "OKP"];
/// Seconds after which readers ask again.
const REFRESH_HINT: u64 = 300;
/// A bundle document past this is refused unread.
const DOCUMENT_MAX: usize = 1 << 20;
/// Authorities that one trust domain may have at once: rotation needs two or three.
const AUTHORITIES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Root;

    fn west() -> TrustDomain {
        "west.mesh".parse().unwrap()
    }

    fn root() -> Root {
        Root::generate("root", SystemTime::UNIX_EPOCH, Duration::from_secs(3600)).unwrap()
    }

    fn bundle(sequence: u64, roots: &[&Root]) -> Bundle {
        Bundle::new(west(), sequence, roots.iter().map(|root| root.certificate().clone()).collect()).unwrap()
    }

    #[test]
    fn a_bundle_reads_back_what_it_prints() {
        let bundle = bundle(7, &[&root(), &root()]);
        let json = bundle.to_spiffe_json();
        assert_eq!(Bundle::from_spiffe_json(west(), json.as_bytes()).unwrap(), bundle);
        let document: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&document["keys"][0]["kty"], &document["keys"][0]["crv"]), (&"EC".into(), &"P-256".into()));
        assert_eq!(document["keys"][0]["kid"], serde_json::Value::Null);
    }

    #[test]
    fn keys_of_other_uses_and_kinds_are_passed_over() {
        let mut document: serde_json::Value = serde_json::from_str(&bundle(1, &[&root()]).to_spiffe_json()).unwrap();
        let keys = document["keys"].as_array_mut().unwrap();
        keys.push(serde_json::json!({"kty": "EC", "use": "jwt-svid", "kid": "a"}));
        keys.push(serde_json::json!({"kty": "quantum", "use": "x509-svid", "x5c": ["AAAA"]}));
        keys.push(serde_json::json!({"kty": "EC", "use": "x509-svid"}));
        keys.push(serde_json::json!({"kty": "EC"}));
        let read = Bundle::from_spiffe_json(west(), document.to_string().as_bytes()).unwrap();
        assert_eq!(read.authorities().len(), 1);
    }

    #[test]
    fn an_empty_list_is_a_bundle_and_a_missing_one_is_none() {
        assert_eq!(Bundle::from_spiffe_json(west(), br#"{"keys":[]}"#).unwrap().authorities().len(), 0);
        assert!(matches!(Bundle::from_spiffe_json(west(), b"{}"), Err(BundleError::NotADocument { .. })));
    }

    #[test]
    fn an_authority_that_is_no_signer_is_refused_by_name() {
        let json = br#"{"keys":[{"kty":"EC","use":"x509-svid","x5c":["AAAA"]}]}"#;
        let error = Bundle::from_spiffe_json(west(), json).unwrap_err();
        assert_eq!(error.to_string(), "an authority in the bundle of west.mesh is not usable: malformed-certificate");
    }

    #[test]
    fn a_sequence_never_goes_back() {
        let (old, new) = (root(), root());
        let bundles = Bundles::of(bundle(2, &[&new])).with(bundle(1, &[&old]));
        assert_eq!(bundles.get(&west()).unwrap().sequence(), 2);
        assert!(bundles.without(&west()).get(&west()).is_none());
    }
}
