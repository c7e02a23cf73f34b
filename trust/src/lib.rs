//! Who is who: issuers, SVIDs, bundles, and the one verifier that every TLS configuration of the mesh goes through.
//!
//! Invariant: a [`VerifiedPeer`] exists only where a certificate was checked against the bundle of its own trust domain, and no other.
//! The crate is pure (making keys aside): it has no clock and no socket; every function that depends on the time is handed it.

pub mod authority;
pub mod bundle;
mod certificate;
pub mod pem;
pub mod policy;
pub mod refusal;
pub mod rotation;
pub mod svid;
pub mod tls;
pub mod verify;

pub use authority::{Csr, IssueError, IssuedChain, Issuer, Root};
pub use bundle::{Bundle, BundleError, Bundles, SharedBundles};
pub use refusal::{Refusals, Refused};
pub use rotation::{Jitter, Rotation, Step, Timing};
pub use svid::{KeyPair, Svid, SvidError};
pub use tls::{ClientAuth, Expected, client_config, server_config};
pub use verify::{Purpose, VerifiedPeer, Verifier};

/// A DER-encoded certificate, as rustls names it.
pub use rustls_pki_types::CertificateDer;
/// The time that a certificate is checked at, as rustls names it.
pub use rustls_pki_types::UnixTime;
