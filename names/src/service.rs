//! A service inside one cluster, and the opaque name of one of its endpoints outside that cluster.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Label, ParseError, text_identifier};

/// A service inside one cluster. Invariant: both parts are DNS labels. Written `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId {
    namespace: Label,
    name: Label,
}

impl ServiceId {
    /// The service `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: Label, name: Label) -> Self {
        Self { namespace, name }
    }

    /// Parses both parts.
    ///
    /// # Errors
    /// When one of them is no DNS label.
    pub fn parse(namespace: &str, name: &str) -> Result<Self, ParseError> {
        Ok(Self { namespace: namespace.parse()?, name: name.parse()? })
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Label {
        &self.namespace
    }

    /// Its name in the namespace.
    #[must_use]
    pub fn name(&self) -> &Label {
        &self.name
    }
}

impl FromStr for ServiceId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (namespace, name) =
            text.split_once('/').ok_or_else(|| ParseError::new("service", text, "it is not of the form namespace/name"))?;
        Self::parse(namespace, name)
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl serde::Serialize for ServiceId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ServiceId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An endpoint's opaque name outside its cluster: 8 to 64 of `a-z 0-9`, a keyed hash that tells nothing about the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(Arc<str>);

impl Handle {
    /// The handle as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Handle {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if !(8..=64).contains(&text.len()) {
            return Err(ParseError::new("handle", text, "it is not 8 to 64 characters long"));
        }
        if !text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9')) {
            return Err(ParseError::new("handle", text, "only a-z and 0-9 are allowed"));
        }
        Ok(Self(text.into()))
    }
}

text_identifier!(Handle);

/// What an endpoint is called inside its own cluster: the pod's uid, or another string unique per endpoint (1 to 128 printable characters).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointName(Arc<str>);

impl EndpointName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EndpointName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() || text.len() > 128 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ParseError::new("endpoint name", text, "it is not 1 to 128 printable characters"));
        }
        Ok(Self(text.into()))
    }
}

text_identifier!(EndpointName);
