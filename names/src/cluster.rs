//! What a cluster is called: the name people give it, and the id that never changes.

use std::str::FromStr;
use std::sync::Arc;

use crate::label::check_label;
use crate::{Label, ParseError, text_identifier};

/// A cluster's name: a DNS label given at install; used in object names and `.mesh` names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(Label);

impl ClusterName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for ClusterName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        check_label(text).map_err(|why| ParseError::new("cluster name", text, why))?;
        text.parse().map(Self)
    }
}

text_identifier!(ClusterName);

/// A cluster's id, the uid of its `kube-system` namespace by default: RFC 1123 labels joined by dots, under 128 characters (KEP-2149).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(Arc<str>);

impl ClusterId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = |why| ParseError::new("cluster id", text, why);
        if text.len() >= CLUSTER_ID_LIMIT {
            return Err(error("it is 128 characters or longer"));
        }
        text.split('.').try_for_each(check_label).map_err(error)?;
        Ok(Self(text.into()))
    }
}

text_identifier!(ClusterId);

/// KEP-2149: under 128 characters.
const CLUSTER_ID_LIMIT: usize = 128;
