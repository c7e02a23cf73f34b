//! Certificates for the peers' pairs: one P-256 authority, one leaf for each side, written as PEM.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// The files that a pair needs.
pub(crate) struct Files {
    /// The authority's certificate.
    pub(crate) authority: PathBuf,
    /// Leaf, then its key, in one file (as HAProxy wants it).
    pub(crate) both: PathBuf,
    /// The leaf alone.
    pub(crate) certificate: PathBuf,
    /// The key alone.
    pub(crate) key: PathBuf,
}

/// Makes an authority and a leaf for `peer.bench` in `dir`. Both sides of a pair use it: what is measured does not depend on the name.
pub(crate) fn write(dir: &Path) -> anyhow::Result<Files> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "bench authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec![NAME.to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, NAME);
    let leaf = leaf.signed_by(&key, &issuer)?;
    let files = Files {
        authority: dir.join("authority.pem"),
        both: dir.join("both.pem"),
        certificate: dir.join("leaf.pem"),
        key: dir.join("leaf.key"),
    };
    std::fs::write(&files.authority, authority_certificate.pem())?;
    std::fs::write(&files.certificate, leaf.pem())?;
    std::fs::write(&files.key, key.serialize_pem())?;
    std::fs::write(&files.both, leaf.pem() + &key.serialize_pem())?;
    Ok(files)
}

/// The name in the leaf, which the client side of a pair checks.
pub(crate) const NAME: &str = "peer.bench";
