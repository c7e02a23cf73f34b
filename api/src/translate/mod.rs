//! The one translation between wire messages and the mesh's own types, both ways.
//!
//! Invariant: every string, number and list of a message is parsed and bounded here, so that what lies behind carries typed names only; an
//! error names the field that was wrong. What a message has that this release does not know is passed over.

mod discovery;
mod exports;
mod metadata;
mod offered;
mod remote;
mod service;

pub use discovery::{Told, bundle_said, key_of, kind_of, own, said, told, told_removed};
pub use exports::{Exported, ExportedEndpoint, ExportedPort, ExportedProperties, IpFamily, SessionAffinity, TrafficPolicy, Transport};
pub use metadata::travels;
pub use offered::{is_headless, offered_ports, offered_properties};

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use mesh_names::{ParseError, ServiceId};

use crate::proto;

/// Why a message was not understood.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// A name or number is none.
    #[error("field {field} is not valid")]
    Name {
        /// The field, by its path.
        field: &'static str,
        /// The rule that it breaks.
        #[source]
        source: ParseError,
    },
    /// An address is none.
    #[error("field {field} is not an IP address or range: {value:?}")]
    Address {
        /// The field, by its path.
        field: &'static str,
        /// What stood there, cut to 80 characters.
        value: String,
    },
    /// Something that must be there is not.
    #[error("field {field} is missing")]
    Missing {
        /// The field, by its path.
        field: &'static str,
    },
    /// There is more of it than the mesh takes.
    #[error("field {field} has {found} entries or bytes; at most {limit} are taken")]
    TooMuch {
        /// The field, by its path.
        field: &'static str,
        /// How many there were.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A bundle can't be read.
    #[error("field {field} is not a bundle")]
    Bundle {
        /// The field, by its path.
        field: &'static str,
        /// What the reader says.
        #[source]
        source: mesh_trust::bundle::BundleError,
    },
}

fn name<T: FromStr<Err = ParseError>>(field: &'static str, text: &str) -> Result<T, Invalid> {
    text.parse().map_err(|source| Invalid::Name { field, source })
}

fn name_if_any<T: FromStr<Err = ParseError>>(field: &'static str, text: &str) -> Result<Option<T>, Invalid> {
    if text.is_empty() { Ok(None) } else { name(field, text).map(Some) }
}

fn number<T: TryFrom<u32, Error = ParseError>>(field: &'static str, number: u32) -> Result<T, Invalid> {
    number.try_into().map_err(|source| Invalid::Name { field, source })
}

fn address<T: FromStr>(field: &'static str, text: &str) -> Result<T, Invalid> {
    text.parse().map_err(|_| Invalid::Address { field, value: text.chars().take(80).collect() })
}

fn service_id(field: &'static str, of: Option<&proto::ServiceRef>) -> Result<ServiceId, Invalid> {
    let of = of.ok_or(Invalid::Missing { field })?;
    ServiceId::parse(&of.namespace, &of.name).map_err(|source| Invalid::Name { field, source })
}

fn bounded(field: &'static str, found: usize, limit: usize) -> Result<(), Invalid> {
    if found <= limit { Ok(()) } else { Err(Invalid::TooMuch { field, found, limit }) }
}

/// A list of at most `limit`, each translated by `one`.
fn each<T, U>(field: &'static str, limit: usize, of: &[T], one: impl FnMut(&T) -> Result<U, Invalid>) -> Result<Vec<U>, Invalid> {
    bounded(field, of.len(), limit)?;
    of.iter().map(one).collect()
}

fn addresses(field: &'static str, of: &[String]) -> Result<Vec<IpAddr>, Invalid> {
    each(field, ADDRESSES_MAX, of, |text| address(field, text))
}

fn texts<T: Display>(of: impl IntoIterator<Item = T>) -> Vec<String> {
    of.into_iter().map(|one| one.to_string()).collect()
}

fn text_if_any<T: Display>(of: Option<&T>) -> String {
    of.map(ToString::to_string).unwrap_or_default()
}

fn service_ref(of: &ServiceId) -> proto::ServiceRef {
    proto::ServiceRef { namespace: of.namespace().to_string(), name: of.name().to_string() }
}

const ADDRESSES_MAX: usize = 16;
const PORTS_MAX: usize = 256;
const IDENTITIES_MAX: usize = 256;
const ENDPOINTS_MAX: usize = 16_384;
