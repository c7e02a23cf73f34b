//! Who may not come in: each wrong certificate is refused at the gateway, with its own counter, and a name issued by another domain's issuer is wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_tests::{World, eventually};
use mesh_trust::authority::{Csr, Issuer, Root};
use mesh_trust::svid::KeyPair;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncReadExt as _;

#[tokio::test]
async fn every_wrong_certificate_is_refused_with_its_own_counter() {
    let (_alone, world) = crate::world(2).await;
    let gateway = world.address("east", "gateway");
    let east = issuer_of_east(&world);
    let cases = [
        ("no-certificate", None),
        ("unknown-trust-domain", Some(unknown())),
        ("expired", Some(expired(&east))),
        ("self-signed", Some(self_signed())),
        ("issuer-of-other-trust-domain", Some(forged(&east))),
    ];
    for (reason, identity) in cases {
        let before = denied(&world, gateway, reason).await.unwrap();
        let outcome = handshake(gateway, identity).await;
        assert!(outcome.is_err(), "{reason}: the gateway let the client in");
        eventually(reason, async || {
            let after = denied(&world, gateway, reason).await?;
            anyhow::ensure!(after > before, "mesh_denied_total for {reason} is {after}, as before");
            Ok(())
        })
        .await;
    }
}

async fn denied(world: &World, gateway: SocketAddr, reason: &str) -> anyhow::Result<f64> {
    let admin = SocketAddr::new(gateway.ip(), 4191);
    world.metric(admin, "mesh_denied_total", &[&format!("reason=\"{reason}\"")]).await
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// A TLS 1.3 client learns that it was refused at its first read.
async fn handshake(to: SocketAddr, identity: Option<Identity>) -> anyhow::Result<()> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain, identity.key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"isthmus-tunnel/1".to_vec()];
    let stream = tokio::net::TcpStream::connect(to).await?;
    let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect("gateway.test".try_into()?, stream).await?;
    let read = tokio::time::timeout(Duration::from_secs(5), tls.read_u8()).await;
    match read {
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

struct EastIssuer {
    chain: String,
    key: String,
}

fn issuer_of_east(world: &World) -> EastIssuer {
    let (chain, key) = world.issuer("east").unwrap();
    EastIssuer { chain, key }
}

fn unknown() -> Identity {
    let root = Root::generate("nowhere", SystemTime::now(), DAY).unwrap();
    let issuer = root.issuer_for(&"nowhere.mesh".parse().unwrap(), SystemTime::now(), DAY).unwrap();
    issued(&issuer, "spiffe://nowhere.mesh/ns/shop/sa/storefront", SystemTime::now())
}

/// A workload of east whose certificate ended long ago.
fn expired(east: &EastIssuer) -> Identity {
    let mut params = leaf("spiffe://east.mesh/ns/shop/sa/storefront");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    signed_by_east(east, &params)
}

fn issued(issuer: &Issuer, id: &str, not_before: SystemTime) -> Identity {
    let key = KeyPair::generate().unwrap();
    let csr = Csr::parse(&key.csr_der().unwrap()).unwrap();
    let chain = issuer.issue(&csr, &id.parse().unwrap(), not_before, HOUR).unwrap();
    Identity { chain: chain.chain.clone(), key: PrivatePkcs8KeyDer::from(key.pkcs8().to_vec()).into() }
}

fn self_signed() -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = leaf("spiffe://east.mesh/ns/shop/sa/storefront").self_signed(&key).unwrap();
    Identity { chain: vec![certificate.der().clone()], key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
}

/// A workload of west, issued by east's own issuer.
fn forged(east: &EastIssuer) -> Identity {
    signed_by_east(east, &leaf("spiffe://west.mesh/ns/shop/sa/storefront"))
}

fn signed_by_east(east: &EastIssuer, params: &CertificateParams) -> Identity {
    let issuer_key = rcgen::KeyPair::from_pem(&east.key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&east.chain, issuer_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let mut chain = vec![certificate.der().clone()];
    chain.extend(CertificateDer::pem_slice_iter(east.chain.as_bytes()).map(Result::unwrap));
    Identity { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
}

fn leaf(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "workload");
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// The attacker does not care who the server is.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
