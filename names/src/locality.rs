//! Where a process runs: its cluster and, when known, its zone.

use std::str::FromStr;
use std::sync::Arc;

use crate::{ClusterName, ParseError, text_identifier};

/// A topology zone (`topology.kubernetes.io/zone`): 1 to 63 of `A-Z a-z 0-9 . - _`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Zone(Arc<str>);

impl Zone {
    /// The zone as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Zone {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fits = (1..=63).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')) {
            return Err(ParseError::new("zone", text, "it is not 1 to 63 of A-Z, a-z, 0-9, '.', '-' and '_'"));
        }
        Ok(Self(text.into()))
    }
}

text_identifier!(Zone);

/// Where a process runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Locality {
    /// The cluster.
    pub cluster: ClusterName,
    /// The zone, when the node has one.
    pub zone: Option<Zone>,
}
