//! A DNS label (RFC 1123): the shape of namespaces, service names and cluster names.

use std::str::FromStr;
use std::sync::Arc;

use crate::{ParseError, text_identifier};

/// A lower-case RFC 1123 label: 1 to 63 of `a-z 0-9 -`, neither first nor last a hyphen. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

impl Label {
    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        check_label(text).map_err(|why| ParseError::new("DNS label", text, why))?;
        Ok(Self(text.into()))
    }
}

text_identifier!(Label);

/// The rule of RFC 1123, in lower case as Kubernetes has it.
pub(crate) fn check_label(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > LABEL_MAX {
        return Err("it is longer than 63 characters");
    }
    if !text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return Err("only a-z, 0-9 and - are allowed");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("it must start and end with a letter or digit");
    }
    Ok(())
}

/// RFC 1035 section 2.3.4.
pub(crate) const LABEL_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_what_rfc_1123_says() {
        for good in ["a", "web", "a-b", "0", "9x", &"a".repeat(63)] {
            assert!(good.parse::<Label>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", "a\n", &"a".repeat(64)] {
            assert!(bad.parse::<Label>().is_err(), "{bad:?}");
        }
    }
}
