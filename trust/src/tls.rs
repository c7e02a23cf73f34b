//! TLS configurations: 1.3 only, hybrid post-quantum key exchange first, both sides authenticated by the one [`Verifier`].
//!
//! There is no resumption, because a resumed handshake verifies nobody, and no 0-RTT. Names in the handshake are not used: who answers is
//! checked by SPIFFE id. A peer's refusal reaches a client at its first read, not at the end of its handshake (TLS 1.3).

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use mesh_names::SpiffeId;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{KeyPair, Purpose, Refused, Svid, SvidError, VerifiedPeer, Verifier};

/// Whether a server insists on a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Without one the handshake fails; give the failure to [`Refusals::handshake_failed`](crate::Refusals::handshake_failed).
    Required,
    /// One is checked when it is presented: for `Identity`, whose callers have none yet.
    Optional,
}

/// Whom a client expects to answer. Nothing else is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// One of these ids.
    OneOf(BTreeSet<SpiffeId>),
}

impl Expected {
    /// Exactly this id.
    #[must_use]
    pub fn only(id: SpiffeId) -> Self {
        Self::OneOf(BTreeSet::from([id]))
    }

    /// Whether `id` is expected.
    #[must_use]
    pub fn contains(&self, id: &SpiffeId) -> bool {
        match self {
            Self::OneOf(ids) => ids.contains(id),
        }
    }
}

impl FromIterator<SpiffeId> for Expected {
    fn from_iter<I: IntoIterator<Item = SpiffeId>>(ids: I) -> Self {
        Self::OneOf(ids.into_iter().collect())
    }
}

/// The configuration of a server that is `svid`.
#[must_use]
pub fn server_config(svid: &Svid, verifier: &Verifier, alpn: &[&[u8]], clients: ClientAuth) -> Arc<ServerConfig> {
    let verifier = Arc::new(CheckClient { verifier: verifier.clone(), clients });
    let mut config = with_versions(ServerConfig::builder_with_provider(provider()))
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(svid.certified()))));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// The configuration of a server that anybody may call and that is known by a DNS name: HTTP/1.1, no client certificate.
///
/// # Errors
/// When the key can't sign, or is another certificate's.
pub fn web_config(key: &KeyPair, chain: Vec<CertificateDer<'static>>) -> Result<Arc<ServerConfig>, SvidError> {
    let certified = key.certified(chain)?;
    certified.keys_match().map_err(|error| SvidError::Key(error.into()))?;
    let mut config = with_versions(ServerConfig::builder_with_provider(provider()))
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::new(certified))));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The configuration of a client that is `svid` (or nobody yet) and expects one of `expected` to answer.
#[must_use]
pub fn client_config(svid: Option<&Svid>, verifier: &Verifier, expected: Expected, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let verifier = Arc::new(CheckServer { verifier: verifier.clone(), expected });
    let builder = with_versions(ClientConfig::builder_with_provider(provider())).dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match svid {
        Some(svid) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(svid.certified())))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Arc::new(config)
}

/// Who the other side of a finished handshake is. `chain` is what the connection's `peer_certificates` gives; it is checked again, against
/// the bundles of this moment.
///
/// # Errors
/// When the peer is not, or no longer, to be trusted; counted.
pub fn peer_of(
    verifier: &Verifier,
    chain: Option<&[CertificateDer<'_>]>,
    now: UnixTime,
    purpose: Purpose,
) -> Result<VerifiedPeer, Refused> {
    verifier.verify(chain.unwrap_or_default(), now, purpose)
}

/// The name that clients hand to rustls, which asks for one; it is neither sent nor checked.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST).into())
}

/// The one crypto provider: aws-lc-rs, TLS 1.3 suites, X25519MLKEM768 before X25519.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let all = aws_lc_rs::default_provider();
        let tls13 = |suite: &SupportedCipherSuite| suite.tls13().is_some();
        Arc::new(CryptoProvider {
            cipher_suites: all.cipher_suites.iter().copied().filter(tls13).collect(),
            kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
            ..all
        })
    });
    Arc::clone(&PROVIDER)
}

#[expect(clippy::expect_used, reason = "the provider above has TLS 1.3 suites and groups; nothing else can be wrong")]
fn with_versions<S: rustls::ConfigSide>(
    builder: rustls::ConfigBuilder<S, rustls::WantsVersions>,
) -> rustls::ConfigBuilder<S, rustls::WantsVerifier> {
    builder.with_protocol_versions(VERSIONS).expect("the provider supports TLS 1.3")
}

#[derive(Debug)]
struct CheckClient {
    verifier: Verifier,
    clients: ClientAuth,
}

#[derive(Debug)]
struct CheckServer {
    verifier: Verifier,
    expected: Expected,
}

impl ClientCertVerifier for CheckClient {
    fn client_auth_mandatory(&self) -> bool {
        self.clients == ClientAuth::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        verify(&self.verifier, end_entity, intermediates, now, Purpose::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for CheckServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let peer = verify(&self.verifier, end_entity, intermediates, now, Purpose::Server)?;
        if !self.expected.contains(peer.id()) {
            self.verifier.refusals().count(Refused::UnexpectedIdentity);
            return Err(refused(Refused::UnexpectedIdentity));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn verify(
    verifier: &Verifier,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    purpose: Purpose,
) -> Result<VerifiedPeer, Error> {
    let chain: Vec<CertificateDer<'_>> =
        [end_entity].into_iter().chain(intermediates).map(|certificate| certificate.as_ref().into()).collect();
    verifier.verify(&chain, now, purpose).map_err(refused)
}

fn refused(why: Refused) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

/// Never asked: only TLS 1.3 is offered.
fn no_tls12() -> Error {
    Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic)
}

/// Named in every configuration, so that no feature of a dependency can widen it.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
