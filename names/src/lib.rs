//! Every identifier of the mesh, parsed once at the edge and carried as a type from there on.
//!
//! Invariant: a value of one of these types is well formed; the only ways in are `FromStr`, `TryFrom` and constructors that check.
//! Strings that come from people, clients, peers or the Kubernetes API are parsed here and never re-checked inside.

mod cluster;
mod host;
mod identity;
mod label;
mod locality;
mod port;
mod service;

pub use cluster::{ClusterId, ClusterName};
pub use host::{Host, HostError, MeshName};
pub use identity::{SpiffeId, TrustDomain};
pub use label::Label;
pub use locality::{Locality, Zone};
pub use port::{AppPort, PortName, Protocol, ServicePort, TunnelPort};
pub use service::{EndpointName, Handle, ServiceId};

/// Why a string is not the identifier it was parsed as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {what}: {why}")]
pub struct ParseError {
    what: &'static str,
    value: String,
    why: &'static str,
}

impl ParseError {
    /// An error that names the kind of identifier, the offending text (cut to 80 characters) and the rule it breaks.
    #[must_use]
    pub fn new(what: &'static str, value: &str, why: &'static str) -> Self {
        Self { what, value: value.chars().take(80).collect(), why }
    }
}

/// Implements `Display`, `Serialize` and `Deserialize` through `as_str` and `FromStr`, so that no identifier enters unchecked.
macro_rules! text_identifier {
    ($name:ty) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_identifier;
