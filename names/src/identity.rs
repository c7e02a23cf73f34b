//! SPIFFE ids and trust domains, as `SPIFFE-ID.md` has them.

use std::str::FromStr;
use std::sync::Arc;

use crate::{Label, ParseError, text_identifier};

/// A SPIFFE trust domain: 1 to 255 of lower-case `a-z 0-9 . - _` (SPIFFE-ID section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The trust domain as text, without a scheme.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the trust domain itself (no path), as signers carry it.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("spiffe://{}", self.0)
    }

    /// The trust domain that a cluster has unless its install says otherwise: `<name>.mesh`.
    #[must_use]
    pub fn default_for(cluster: &crate::ClusterName) -> Self {
        Self(format!("{cluster}.mesh").into())
    }
}

impl FromStr for TrustDomain {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = |why| ParseError::new("trust domain", text, why);
        if text.is_empty() {
            return Err(error("it is empty"));
        }
        if text.len() > 255 {
            return Err(error("it is longer than 255 characters"));
        }
        if !text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')) {
            return Err(error("only a-z, 0-9, '.', '-' and '_' are allowed"));
        }
        Ok(Self(text.into()))
    }
}

text_identifier!(TrustDomain);

/// A workload's SPIFFE id: a trust domain and a path that is not empty. At most 2048 bytes (SPIFFE-ID section 2.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
}

impl SpiffeId {
    /// The id of a service account's workloads: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    ///
    /// # Errors
    /// When `service_account` is no path segment (Kubernetes allows dots there, SPIFFE too).
    pub fn workload(trust_domain: &TrustDomain, namespace: &Label, service_account: &str) -> Result<Self, ParseError> {
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The whole id, `spiffe://…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path, with its leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[SCHEME.len() + self.trust_domain.as_str().len()..]
    }

    /// Namespace and service account, when the path has the mesh's own form.
    #[must_use]
    pub fn namespace_and_account(&self) -> Option<(&str, &str)> {
        let mut segments = self.path().split('/').skip(1);
        match (segments.next(), segments.next(), segments.next(), segments.next(), segments.next()) {
            (Some("ns"), Some(namespace), Some("sa"), Some(account), None) => Some((namespace, account)),
            _ => None,
        }
    }
}

impl FromStr for SpiffeId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = |why| ParseError::new("SPIFFE id", text, why);
        if text.len() > 2048 {
            return Err(error("it is longer than 2048 bytes"));
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| error("it does not start with spiffe://"))?;
        let (domain, path) = rest.split_once('/').ok_or_else(|| error("it has no path"))?;
        let trust_domain = domain.parse().map_err(|_| error("its trust domain is not valid"))?;
        for segment in path.split('/') {
            if segment.is_empty() {
                return Err(error("a path segment is empty"));
            }
            if segment == "." || segment == ".." {
                return Err(error("a path segment is '.' or '..'"));
            }
            if !segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')) {
                return Err(error("a path segment has a character other than A-Z, a-z, 0-9, '.', '-' and '_'"));
            }
        }
        Ok(Self { text: text.into(), trust_domain })
    }
}

text_identifier!(SpiffeId);

const SCHEME: &str = "spiffe://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_is_what_the_standard_says() {
        let id: SpiffeId = "spiffe://west.mesh/ns/shop/sa/web".parse().unwrap();
        assert_eq!(id.trust_domain().as_str(), "west.mesh");
        assert_eq!(id.path(), "/ns/shop/sa/web");
        assert_eq!(id.namespace_and_account(), Some(("shop", "web")));
        for bad in [
            "",
            "spiffe://",
            "spiffe://west.mesh",
            "spiffe://west.mesh/",
            "spiffe:///ns",
            "spiffe://West.mesh/a",
            "spiffe://w/a/",
            "spiffe://w/a//b",
            "spiffe://w/../b",
            "spiffe://w/./b",
            "spiffe://w/a?x",
            "spiffe://w/a#x",
            "spiffe://w/%61",
            "spiffe://u@w/a",
            "spiffe://w:1/a",
            "https://w/a",
            "SPIFFE://w/a",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_of_another_form_has_no_account() {
        for other in ["spiffe://w/ns/a/sa/b/c", "spiffe://w/ns/a", "spiffe://w/x/a/sa/b"] {
            assert_eq!(other.parse::<SpiffeId>().unwrap().namespace_and_account(), None);
        }
    }
}
