//! One certificate, read: the questions that the SPIFFE rules ask of it, each answered with the reason to refuse it.
//!
//! This is the only file that sees x509-parser. Path validation and signatures are webpki's, which knows nothing of URI SANs and passes
//! over key usage; what it passes over is checked here (`X509-SVID.md` sections 2 to 5).

use std::time::{Duration, SystemTime};

use mesh_names::{SpiffeId, TrustDomain};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, KeyUsage};
use x509_parser::prelude::FromDer as _;

use crate::Refused;

/// A certificate whose DER was read to its end.
pub(crate) struct Certificate<'a>(X509Certificate<'a>);

impl<'a> Certificate<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, Refused> {
        if der.len() > CERTIFICATE_MAX {
            return Err(Refused::Malformed);
        }
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(Self(certificate)),
            _ => Err(Refused::Malformed),
        }
    }

    /// Signed by its own key, whatever else it is.
    pub(crate) fn is_self_signed(&self) -> bool {
        self.0.subject().as_raw() == self.0.issuer().as_raw() && self.0.verify_signature(None).is_ok()
    }

    /// The checks of a workload's own certificate that need no path; its id when all of them hold.
    pub(crate) fn workload(&self) -> Result<SpiffeId, Refused> {
        if self.is_authority()? {
            return Err(Refused::IsAuthority);
        }
        let id = self.workload_id()?;
        if self.0.subject().as_raw() == EMPTY_NAME && !self.san_is_critical()? {
            return Err(Refused::SanNotCritical);
        }
        let usage = self.critical_key_usage()?.ok_or(Refused::KeyUsage)?;
        if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
            return Err(Refused::KeyUsage);
        }
        let extended = self.0.extended_key_usage().map_err(|_| Refused::Malformed)?;
        if extended.is_some_and(|usage| !(usage.value.server_auth && usage.value.client_auth)) {
            return Err(Refused::ExtendedKeyUsage);
        }
        Ok(id)
    }

    /// The checks of a signer that need no path; the trust domain that it carries when all of them hold, if it carries one.
    pub(crate) fn signer(&self) -> Result<Option<TrustDomain>, Refused> {
        if !self.is_authority()? {
            return Err(Refused::IssuerNotAuthority);
        }
        let usage = self.critical_key_usage()?.ok_or(Refused::IssuerKeyUsage)?;
        if !usage.key_cert_sign() {
            return Err(Refused::IssuerKeyUsage);
        }
        let constraints = self.0.name_constraints().map_err(|_| Refused::Malformed)?;
        if constraints.is_some_and(|found| {
            let subtrees = [&found.value.permitted_subtrees, &found.value.excluded_subtrees];
            subtrees.into_iter().flatten().flatten().any(|subtree| matches!(subtree.base, GeneralName::URI(_)))
        }) {
            return Err(Refused::NameConstraints);
        }
        match self.uris()?.as_slice() {
            [] => Ok(None),
            [uri] => uri.strip_prefix("spiffe://").and_then(|domain| domain.parse().ok()).map(Some).ok_or(Refused::IssuerId),
            _ => Err(Refused::IssuerId),
        }
    }

    /// The id in the one URI SAN.
    pub(crate) fn workload_id(&self) -> Result<SpiffeId, Refused> {
        match self.uris()?.as_slice() {
            [uri] => uri.parse().map_err(|_| Refused::BadSpiffeId),
            _ => Err(Refused::NotExactlyOneUri),
        }
    }

    /// First and last moment of its life.
    pub(crate) fn validity(&self) -> (SystemTime, SystemTime) {
        let validity = self.0.validity();
        (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()))
    }

    /// The public key as a bundle document spells it; `None` for kinds that it has no words for.
    pub(crate) fn public_key(&self) -> Option<PublicKeyWords> {
        use x509_parser::public_key::PublicKey;
        let info = self.0.public_key();
        match info.parsed().ok()? {
            PublicKey::EC(point) => {
                let (curve, size) = match point.key_size() {
                    256 => ("P-256", 32),
                    384 => ("P-384", 48),
                    _ => return None,
                };
                let (x, y) = point.data().get(1..)?.split_at_checked(size)?;
                Some(PublicKeyWords { kind: "EC", curve: Some(curve), members: vec![("x", x.to_vec()), ("y", y.to_vec())] })
            }
            PublicKey::RSA(key) => {
                let unsigned = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
                let members = vec![("n", unsigned(key.modulus)), ("e", unsigned(key.exponent))];
                Some(PublicKeyWords { kind: "RSA", curve: None, members })
            }
            _ => {
                let members = vec![("x", info.subject_public_key.data.to_vec())];
                Some(PublicKeyWords { kind: "OKP", curve: Some("Ed25519"), members })
            }
        }
    }

    fn is_authority(&self) -> Result<bool, Refused> {
        let constraints = self.0.basic_constraints().map_err(|_| Refused::Malformed)?;
        Ok(constraints.is_some_and(|constraints| constraints.value.ca))
    }

    fn critical_key_usage(&self) -> Result<Option<&KeyUsage>, Refused> {
        let usage = self.0.key_usage().map_err(|_| Refused::Malformed)?;
        Ok(usage.filter(|usage| usage.critical).map(|usage| usage.value))
    }

    fn san_is_critical(&self) -> Result<bool, Refused> {
        let names = self.0.subject_alternative_name().map_err(|_| Refused::Malformed)?;
        Ok(names.is_some_and(|names| names.critical))
    }

    fn uris(&self) -> Result<Vec<&str>, Refused> {
        let names = self.0.subject_alternative_name().map_err(|_| Refused::Malformed)?;
        Ok(names.map_or_else(Vec::new, |names| {
            let uri = |name| if let &GeneralName::URI(uri) = name { Some(uri) } else { None };
            names.value.general_names.iter().filter_map(uri).collect()
        }))
    }
}

/// A public key in the words of a JSON Web Key.
pub(crate) struct PublicKeyWords {
    pub(crate) kind: &'static str,
    pub(crate) curve: Option<&'static str>,
    pub(crate) members: Vec<(&'static str, Vec<u8>)>,
}

/// Seconds since 1970 as a time; a certificate from before then is one of 1970.
fn at(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0))
}

/// Past this a certificate is not read.
const CERTIFICATE_MAX: usize = 16 * 1024;
/// An empty RDNSequence.
const EMPTY_NAME: &[u8] = &[0x30, 0x00];
