//! Roots and issuers: what `mesh trust init` and `mesh trust issue` make, and what control signs SVIDs with.
//!
//! An issuer of ours carries its trust domain as URI SAN and has path length 0; a root carries none, so that clusters can share it. Of a
//! signing request only the public key is used: rcgen would copy whatever names, usages and CA bits it asks for. Both ends of every
//! validity are set, and nothing outlives its issuer.

use std::time::{Duration, SystemTime};

use mesh_names::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use crate::certificate::Certificate;
use crate::svid::{KeyPair, SvidError};
use crate::{Refused, pem};

/// Why something can't be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The signing request is not one, or not signed by the key in it.
    #[error("the signing request can't be used: {why}")]
    Csr {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The id is of another trust domain than the issuer.
    #[error("the issuer of {issuer} can't issue {id}")]
    OtherTrustDomain {
        /// The issuer's trust domain.
        issuer: TrustDomain,
        /// The id that was asked for.
        id: SpiffeId,
    },
    /// The issuer's own life is over, or begins later.
    #[error("the issuer is not valid at the time of issuing: issue a new one with `mesh trust issue`")]
    IssuerNotValidNow,
    /// A signer's certificate or key is not usable.
    #[error("the signer's certificate is not usable: {}", .0.reason())]
    Signer(Refused),
    /// A key is not usable, or is another certificate's.
    #[error("the signer's key is not usable")]
    Key(#[source] SvidError),
    /// The text is no PEM with a certificate.
    #[error("the text is no PEM with the certificate of a signer")]
    NotPem,
    /// Writing the certificate failed.
    #[error("the certificate could not be written")]
    Write(#[from] rcgen::Error),
}

/// A root that issuers of several clusters may share.
#[derive(Debug)]
pub struct Root(Signer);

impl Root {
    /// A new root. `name` is its common name.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn generate(name: &str, not_before: SystemTime, lifetime: Duration) -> Result<Self, IssueError> {
        let key = KeyPair::generate().map_err(IssueError::Key)?;
        let mut params = signer_params(name, BasicConstraints::Unconstrained);
        params.not_before = not_before.into();
        params.not_after = (not_before + lifetime).into();
        let certificate = params.self_signed(&key.signer().map_err(IssueError::Key)?)?;
        Ok(Self(Signer::new(vec![certificate.der().clone()], key)?))
    }

    /// Reads a root from its certificate and key.
    ///
    /// # Errors
    /// When they are not a signer's, or not of one another.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, IssueError> {
        Signer::from_pem(certificate, key).map(Self)
    }

    /// Its certificate and its key.
    #[must_use]
    pub fn to_pem(&self) -> (String, Zeroizing<String>) {
        self.0.to_pem()
    }

    /// Its certificate: the authority of every bundle below it.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.0.authority()
    }

    /// When its life ends.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.0.not_after
    }

    /// Signs an issuer for one cluster's trust domain. It does not outlive the root.
    ///
    /// # Errors
    /// When the root's own life is over.
    pub fn issuer_for(&self, trust_domain: &TrustDomain, not_before: SystemTime, lifetime: Duration) -> Result<Issuer, IssueError> {
        let key = KeyPair::generate().map_err(IssueError::Key)?;
        let mut params = signer_params(&format!("issuer of {trust_domain}"), BasicConstraints::Constrained(0));
        params.subject_alt_names = vec![SanType::URI(trust_domain.uri().try_into()?)];
        let certificate = self.0.sign(params, &key.signer().map_err(IssueError::Key)?, not_before, lifetime)?.0;
        let chain = [certificate].into_iter().chain(self.0.chain.iter().cloned()).collect();
        Signer::new(chain, key).map(Issuer)
    }
}

/// What signs the SVIDs of one cluster.
#[derive(Debug)]
pub struct Issuer(Signer);

/// A leaf with the issuers that a peer needs to reach its authority.
#[derive(Clone, Debug)]
pub struct IssuedChain {
    /// Leaf first, without the authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// When the leaf's life ends.
    pub not_after: SystemTime,
}

impl Issuer {
    /// Reads an issuer from its chain (its own certificate first, its authority last) and key: a `kubernetes.io/tls` Secret's content.
    ///
    /// # Errors
    /// When they are not a signer's, or not of one another.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, IssueError> {
        Signer::from_pem(chain, key).map(Self)
    }

    /// Its chain and its key.
    #[must_use]
    pub fn to_pem(&self) -> (String, Zeroizing<String>) {
        self.0.to_pem()
    }

    /// The trust domain that it carries; `None` for one that somebody brought without.
    #[must_use]
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.0.trust_domain.as_ref()
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.chain[0]
    }

    /// Its own certificate, those above it, its authority last.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }

    /// What belongs into the bundle of its trust domain: the last certificate of its chain, which is itself if there is no other.
    #[must_use]
    pub fn bundle_authority(&self) -> &CertificateDer<'static> {
        self.0.authority()
    }

    /// When its life ends.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.0.not_after
    }

    /// Certifies the request's key for `id`. The certificate does not outlive the issuer.
    ///
    /// # Errors
    /// When `id` is of another trust domain than the issuer, or the issuer's life is over.
    pub fn issue(&self, csr: &Csr, id: &SpiffeId, not_before: SystemTime, lifetime: Duration) -> Result<IssuedChain, IssueError> {
        if let Some(issuer) = self.trust_domain().filter(|issuer| *issuer != id.trust_domain()) {
            return Err(IssueError::OtherTrustDomain { issuer: issuer.clone(), id: id.clone() });
        }
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let params = leaf_params(vec![SanType::URI(id.as_str().try_into()?)], usages);
        let (leaf, not_after) = self.0.sign(params, &csr.public_key, not_before, lifetime)?;
        let between = self.0.chain.len() - 1;
        let chain = [leaf].into_iter().chain(self.0.chain[..between].iter().cloned()).collect();
        Ok(IssuedChain { chain, not_after })
    }

    /// Certifies the request's key for the DNS name of a server whose callers know no ids. It carries no id, so no verifier of the mesh
    /// takes it for anybody. Its caller trusts the issuer's own certificate, so the leaf is the whole chain.
    ///
    /// # Errors
    /// When the name is none, or the issuer's life is over.
    pub fn issue_web(&self, csr: &Csr, name: &str, not_before: SystemTime, lifetime: Duration) -> Result<IssuedChain, IssueError> {
        let params = leaf_params(vec![SanType::DnsName(name.try_into()?)], vec![ExtendedKeyUsagePurpose::ServerAuth]);
        let (leaf, not_after) = self.0.sign(params, &csr.public_key, not_before, lifetime)?;
        Ok(IssuedChain { chain: vec![leaf], not_after })
    }
}

fn leaf_params(names: Vec<SanType>, usages: Vec<ExtendedKeyUsagePurpose>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    params
}

/// A signing request whose sender has proved to hold the key. Nothing but that key is taken from it.
#[derive(Clone, Debug)]
pub struct Csr {
    public_key: SubjectPublicKeyInfo,
}

impl Csr {
    /// Reads a PKCS#10 request and checks its signature by the key in it.
    ///
    /// # Errors
    /// When it is none, is signed by another key, or its key is not ECDSA P-256, P-384 or Ed25519.
    pub fn parse(der: &[u8]) -> Result<Self, IssueError> {
        let error = |why| IssueError::Csr { why };
        if der.len() > CSR_MAX {
            return Err(error("it is larger than 16 KiB"));
        }
        let (rest, request) = x509_parser::certification_request::X509CertificationRequest::from_der(der)
            .map_err(|_| error("it is no PKCS#10 request in DER"))?;
        if !rest.is_empty() {
            return Err(error("bytes follow it"));
        }
        if request.signature_value.unused_bits != 0 {
            return Err(error("its signature is no whole number of bytes"));
        }
        request.verify_signature().map_err(|_| error("it is not signed by the key that it names"))?;
        let public_key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
            .map_err(|_| error("its key is of an unknown kind"))?;
        let allowed = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        if !allowed.contains(&rcgen::PublicKeyData::algorithm(&public_key)) {
            return Err(error("its key is not ECDSA P-256, ECDSA P-384 or Ed25519"));
        }
        Ok(Self { public_key })
    }
}

/// A certificate that may sign, the ones above it, and its key.
#[derive(Debug)]
struct Signer {
    chain: Vec<CertificateDer<'static>>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    key: KeyPair,
    trust_domain: Option<TrustDomain>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Signer {
    fn new(chain: Vec<CertificateDer<'static>>, key: KeyPair) -> Result<Self, IssueError> {
        let own = chain.first().ok_or(IssueError::NotPem)?;
        let parsed = Certificate::parse(own).map_err(IssueError::Signer)?;
        let trust_domain = parsed.signer().map_err(IssueError::Signer)?;
        let (not_before, not_after) = parsed.validity();
        for above in &chain[1..] {
            Certificate::parse(above).and_then(|parsed| parsed.signer()).map_err(IssueError::Signer)?;
        }
        let certified = key.certified(chain.clone()).map_err(IssueError::Key)?;
        certified.keys_match().map_err(|error| IssueError::Key(SvidError::Key(error.into())))?;
        let issuer = rcgen::Issuer::from_ca_cert_der(own, key.signer().map_err(IssueError::Key)?)?;
        Ok(Self { chain, issuer, key, trust_domain, not_before, not_after })
    }

    fn from_pem(chain: &str, key: &str) -> Result<Self, IssueError> {
        let chain = pem::certificates(chain).map_err(|_| IssueError::NotPem)?;
        Self::new(chain, KeyPair::from_pem(key).map_err(IssueError::Key)?)
    }

    fn to_pem(&self) -> (String, Zeroizing<String>) {
        (pem::of_certificates(&self.chain), self.key.to_pem())
    }

    fn authority(&self) -> &CertificateDer<'static> {
        &self.chain[self.chain.len() - 1]
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        public_key: &impl rcgen::PublicKeyData,
        not_before: SystemTime,
        lifetime: Duration,
    ) -> Result<(CertificateDer<'static>, SystemTime), IssueError> {
        let not_before = not_before.max(self.not_before);
        let not_after = (not_before + lifetime).min(self.not_after);
        if not_after <= not_before {
            return Err(IssueError::IssuerNotValidNow);
        }
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        params.use_authority_key_identifier_extension = true;
        Ok((params.signed_by(public_key, &self.issuer)?.der().clone(), not_after))
    }
}

fn signer_params(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Isthmus");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A request past this is not read.
const CSR_MAX: usize = 16 * 1024;
