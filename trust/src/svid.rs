//! A workload's key and its certificate chain.
//!
//! A key is made where it is used and never leaves that machine but to a memory-backed file of mode 0600 ([`Svid::to_pem`]); its bytes are
//! wiped when dropped. The signing key that rustls needs is prepared once per SVID, so that a TLS configuration costs next to nothing.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_names::SpiffeId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::certificate::Certificate;
use crate::{Refused, pem, tls};

/// A private key (ECDSA P-256) whose certificate may not exist yet.
pub struct KeyPair {
    pkcs8: Zeroizing<Vec<u8>>,
}

/// Why a key and a chain make no SVID.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// Making or reading a key failed.
    #[error("the private key can't be used")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The chain has no certificate.
    #[error("the chain is empty")]
    Empty,
    /// The leaf is no workload's certificate.
    #[error("the certificate is no SVID: {}", .0.reason())]
    Leaf(Refused),
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate of {0}")]
    OtherKey(SpiffeId),
    /// The text is no PEM.
    #[error("the text is no PEM with a certificate chain and a private key")]
    NotPem,
}

impl KeyPair {
    /// A new key, from the operating system's randomness.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate() -> Result<Self, SvidError> {
        let key = rcgen::KeyPair::generate().map_err(|error| SvidError::Key(error.into()))?;
        Ok(Self { pkcs8: Zeroizing::new(key.serialize_der()) })
    }

    /// The request to certify this key. It names nobody: the issuer decides the id.
    ///
    /// # Errors
    /// When the key can't sign.
    pub fn csr_der(&self) -> Result<Vec<u8>, SvidError> {
        let key = self.signer()?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(|error| SvidError::Key(error.into()))?;
        Ok(request.der().to_vec())
    }

    /// The key as PKCS#8, for the Workload API.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub(crate) fn from_pem(text: &str) -> Result<Self, SvidError> {
        let der = pem::private_key(text).map_err(|_| SvidError::NotPem)?;
        let key = rcgen::KeyPair::try_from(&der).map_err(|error| SvidError::Key(error.into()))?;
        Ok(Self { pkcs8: Zeroizing::new(key.serialize_der()) })
    }

    pub(crate) fn to_pem(&self) -> Zeroizing<String> {
        pem::of_private_key(&self.pkcs8)
    }

    pub(crate) fn signer(&self) -> Result<rcgen::KeyPair, SvidError> {
        let der = PrivatePkcs8KeyDer::from(self.pkcs8.as_slice());
        rcgen::KeyPair::try_from(&der).map_err(|error| SvidError::Key(error.into()))
    }

    pub(crate) fn certified(&self, chain: Vec<CertificateDer<'static>>) -> Result<CertifiedKey, SvidError> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()));
        let key = tls::provider().key_provider.load_private_key(der).map_err(|error| SvidError::Key(error.into()))?;
        Ok(CertifiedKey::new(chain, key))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(secret)")
    }
}

/// A workload's identity document with its key. Invariant: the key belongs to the leaf, and the leaf is a workload's certificate.
#[derive(Debug)]
pub struct Svid {
    id: SpiffeId,
    key: KeyPair,
    certified: Arc<CertifiedKey>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Svid {
    /// Joins a key with the chain that was issued for it (leaf first).
    ///
    /// # Errors
    /// When the leaf is no workload's certificate or is for another key.
    pub fn new(key: KeyPair, chain: Vec<CertificateDer<'static>>) -> Result<Self, SvidError> {
        let leaf = Certificate::parse(chain.first().ok_or(SvidError::Empty)?).map_err(SvidError::Leaf)?;
        let id = leaf.workload().map_err(SvidError::Leaf)?;
        let (not_before, not_after) = leaf.validity();
        let certified = key.certified(chain)?;
        certified.keys_match().map_err(|_| SvidError::OtherKey(id.clone()))?;
        Ok(Self { id, key, certified: Arc::new(certified), not_before, not_after })
    }

    /// Reads what [`Svid::to_pem`] wrote.
    ///
    /// # Errors
    /// When the text holds no chain with its key.
    pub fn from_pem(text: &str) -> Result<Self, SvidError> {
        let chain = pem::certificates(text).map_err(|_| SvidError::NotPem)?;
        Self::new(KeyPair::from_pem(text)?, chain)
    }

    /// Chain and key as PEM, for a file that only its owner may read.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut text = pem::of_certificates(self.chain());
        text.push_str(&self.key.to_pem());
        Zeroizing::new(text)
    }

    /// Who this is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The certificates, leaf first, without the authority.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> &KeyPair {
        &self.key
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

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}
