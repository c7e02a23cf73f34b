//! PEM, both ways. Reading is `rustls-pki-types`; it has no writer, so the few lines of RFC 7468 are here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// Every certificate in `text`, in order; other sections are passed over.
///
/// # Errors
/// When a section is broken.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect()
}

/// The first private key in `text`, whatever its PEM label.
pub(crate) fn private_key(text: &str) -> Result<PrivateKeyDer<'static>, rustls_pki_types::pem::Error> {
    PrivateKeyDer::from_pem_slice(text.as_bytes())
}

/// The certificates as PEM sections, in order.
#[must_use]
pub fn of_certificates(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|certificate| section("CERTIFICATE", certificate)).collect()
}

/// A PKCS#8 key as a PEM section.
pub(crate) fn of_private_key(pkcs8: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(section("PRIVATE KEY", pkcs8))
}

fn section(label: &str, der: &[u8]) -> String {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut text = String::with_capacity(encoded.len() + encoded.len() / LINE + 64);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for (index, character) in encoded.chars().enumerate() {
        if index > 0 && index % LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

/// RFC 7468 section 2: lines of 64 characters.
const LINE: usize = 64;
