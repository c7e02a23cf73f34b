//! The server's own certificate authority and the certificate it serves with.

use std::{io, net::IpAddr, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::write_private;

/// The authority's certificate (PEM) and a TLS configuration with a certificate that it signed.
pub(crate) fn open(directory: &Path, address: IpAddr) -> io::Result<(String, Arc<ServerConfig>)> {
    let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
    if !certificate.exists() || !key.exists() {
        let made = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = params.self_signed(&made).map_err(io::Error::other)?;
        write_private(&key, made.serialize_pem().as_bytes())?;
        std::fs::write(&certificate, authority.pem())?;
    }
    let authority = std::fs::read_to_string(&certificate)?;
    let key = KeyPair::from_pem(&std::fs::read_to_string(&key)?).map_err(io::Error::other)?;
    let issuer = Issuer::from_ca_cert_pem(&authority, key).map_err(io::Error::other)?;
    let names =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "127.0.0.1"];
    let names = names.into_iter().map(str::to_owned).chain([address.to_string()]).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let own = KeyPair::generate().map_err(io::Error::other)?;
    let leaf = params.signed_by(&own, &issuer).map_err(io::Error::other)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((authority, Arc::new(config)))
}
