//! Bytes between two mesh workloads: sessions (mTLS with HTTP/2 inside), the tunnels that carry them through gateways, and the pool that
//! keeps them warm.
//!
//! Nothing here decides where a request goes: callers come with a [`plan::Plan`]. Invariant: every connection proves both its ends by the
//! one verifier of `mesh-trust`, and a session is only ever used while its peer is among those expected.

pub mod gateways;
pub mod identity;
pub mod plan;
pub mod pool;
pub mod session;
pub mod splice;
pub mod tcp;
pub mod tunnel;

pub use gateways::Gateways;
pub use identity::{Acceptor, Identity, TlsError};
pub use plan::Plan;
pub use pool::{Lease, Pool};
pub use session::Session;

/// The ALPN protocol of a session, inside a cluster and inside a tunnel.
pub const SESSION_ALPN: &[u8] = b"isthmus/1";

/// The ALPN protocol of a tunnel's outer connection.
pub const TUNNEL_ALPN: &[u8] = b"isthmus-tunnel/1";

/// Makes aws-lc-rs the process's TLS provider, for the libraries that ask for a default one. Every configuration of the mesh names
/// its provider itself. Calling it again changes nothing.
pub fn install_crypto() {
    let _ = rustls::crypto::CryptoProvider::install_default(mesh_trust::tls::provider().as_ref().clone());
}
