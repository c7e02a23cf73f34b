//! Who this process is and whom it trusts, as every handshake sees it: one handle, changed while connections live.
//!
//! An SVID that is renewed is used by the next handshake; configurations of the one before are dropped. Accepting and opening TLS are here
//! so that no other file checks a peer.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mesh_trust::{Bundles, ClientAuth, Expected, Purpose, Refused, Svid, UnixTime, VerifiedPeer, Verifier};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// What a process proves and whom it believes. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Identity {
    svid: Arc<ArcSwap<Svid>>,
    verifier: Verifier,
}

/// Why a handshake ended without a peer.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It took longer than [`HANDSHAKE_MAX`].
    #[error("the TLS handshake did not end in {HANDSHAKE_MAX:?}")]
    TooSlow,
    /// The peer was refused by us; the verifier has counted it.
    #[error("the peer was refused: {}", .0.reason())]
    Refused(Refused),
    /// The handshake broke, or the peer refused us.
    #[error("the TLS handshake failed")]
    Broken(#[source] io::Error),
    /// The peer speaks another protocol.
    #[error("the peer does not speak {expected}")]
    Protocol {
        /// The ALPN protocol that was asked for.
        expected: &'static str,
    },
}

impl Identity {
    /// The identity whose SVID another part of the process keeps current in `svid`.
    #[must_use]
    pub fn new(svid: Arc<ArcSwap<Svid>>, verifier: Verifier) -> Self {
        Self { svid, verifier }
    }

    /// An identity that starts as `svid`.
    #[must_use]
    pub fn of(svid: Svid, verifier: Verifier) -> Self {
        Self::new(Arc::new(ArcSwap::from_pointee(svid)), verifier)
    }

    /// The SVID of this moment.
    #[must_use]
    pub fn svid(&self) -> Arc<Svid> {
        self.svid.load_full()
    }

    /// From now on handshakes prove `svid`.
    pub fn renew(&self, svid: impl Into<Arc<Svid>>) {
        self.svid.store(svid.into());
    }

    /// Whom this process believes.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The bundles of this moment.
    #[must_use]
    pub fn bundles(&self) -> Arc<Bundles> {
        self.verifier.bundles()
    }

    /// Opens TLS on `io` with a peer that must be one of `expected` and speak `alpn`.
    ///
    /// # Errors
    /// When the peer is another, is refused, speaks something else or is too slow.
    pub async fn connect<Io>(
        &self,
        io: Io,
        expected: Expected,
        alpn: &'static [u8],
    ) -> Result<(client::TlsStream<Io>, VerifiedPeer), TlsError>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let config = mesh_trust::client_config(Some(&self.svid()), &self.verifier, expected, &[alpn]);
        let connecting = TlsConnector::from(config).connect(mesh_trust::tls::server_name(), io);
        let stream = tokio::time::timeout(HANDSHAKE_MAX, connecting).await.map_err(|_| TlsError::TooSlow)?.map_err(broken)?;
        let (_, connection) = stream.get_ref();
        check_protocol(connection.alpn_protocol(), alpn)?;
        let peer = self.peer(connection.peer_certificates(), Purpose::Server)?;
        Ok((stream, peer))
    }

    fn peer(&self, chain: Option<&[CertificateDer<'_>]>, purpose: Purpose) -> Result<VerifiedPeer, TlsError> {
        mesh_trust::tls::peer_of(&self.verifier, chain, UnixTime::now(), purpose).map_err(TlsError::Refused)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", self.svid().id()).finish_non_exhaustive()
    }
}

/// The accepting side of TLS for one protocol; its configuration follows the identity.
pub struct Acceptor {
    identity: Identity,
    alpn: &'static [u8],
    current: ArcSwap<(Arc<Svid>, Arc<ServerConfig>)>,
}

impl Acceptor {
    /// Accepts peers that prove who they are and speak `alpn`.
    #[must_use]
    pub fn new(identity: Identity, alpn: &'static [u8]) -> Self {
        let current = ArcSwap::from_pointee(configured(&identity, alpn));
        Self { identity, alpn, current }
    }

    /// The identity that it proves.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Accepts TLS on `io`. A refusal is counted by the verifier, one without a certificate too.
    ///
    /// # Errors
    /// When the peer is refused, speaks something else or is too slow.
    pub async fn accept<Io>(&self, io: Io) -> Result<(server::TlsStream<Io>, VerifiedPeer), TlsError>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let accepting = TlsAcceptor::from(self.config()).accept(io);
        let accepted = tokio::time::timeout(HANDSHAKE_MAX, accepting).await.map_err(|_| TlsError::TooSlow)?;
        let stream = accepted.map_err(|error| match self.identity.verifier.refusals().handshake_failed(&error) {
            Some(refused) => TlsError::Refused(refused),
            None => TlsError::Broken(error),
        })?;
        let (_, connection) = stream.get_ref();
        check_protocol(connection.alpn_protocol(), self.alpn)?;
        let peer = self.identity.peer(connection.peer_certificates(), Purpose::Client)?;
        Ok((stream, peer))
    }

    fn config(&self) -> Arc<ServerConfig> {
        let current = self.current.load();
        if Arc::ptr_eq(&current.0, &self.identity.svid.load()) {
            return Arc::clone(&current.1);
        }
        let next = configured(&self.identity, self.alpn);
        let config = Arc::clone(&next.1);
        self.current.store(Arc::new(next));
        config
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("identity", &self.identity).finish_non_exhaustive()
    }
}

fn configured(identity: &Identity, alpn: &'static [u8]) -> (Arc<Svid>, Arc<ServerConfig>) {
    let svid = identity.svid();
    let config = mesh_trust::server_config(&svid, &identity.verifier, &[alpn], ClientAuth::Required);
    (svid, config)
}

fn broken(error: io::Error) -> TlsError {
    match Refused::of_handshake(&error) {
        Some(refused) => TlsError::Refused(refused),
        None => TlsError::Broken(error),
    }
}

fn check_protocol(spoken: Option<&[u8]>, expected: &'static [u8]) -> Result<(), TlsError> {
    if spoken == Some(expected) {
        return Ok(());
    }
    Err(TlsError::Protocol { expected: std::str::from_utf8(expected).unwrap_or("another protocol") })
}

/// How much longer `peer` and `own` may be used together: no session outlives either's SVID.
#[must_use]
pub fn life_left(own: &Svid, peer: &VerifiedPeer, now: SystemTime) -> Duration {
    own.not_after().min(peer.expires_at()).duration_since(now).unwrap_or(Duration::ZERO)
}

/// How long a handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
