//! Opens one session by a plan, and says which stage failed, so that the right party is blamed: the gateway, the endpoint that it could not
//! reach, or the session with the endpoint.

use std::net::SocketAddr;
use std::time::SystemTime;
use std::{fmt, io};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use mesh_names::Handle;
use mesh_topology::loads::Stage;
use mesh_trust::Expected;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Settings;
use crate::identity::{Identity, TlsError, life_left};
use crate::plan::{Plan, Way};
use crate::session::{Session, SessionError};
use crate::tunnel::{self, Status, TunnelError};
use crate::{SESSION_ALPN, tcp};

/// A session could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("no session with {to} (at {stage})", stage = stage_name(self.stage))]
pub struct DialError {
    /// What was dialled: the inbound proxy, or the gateway.
    pub to: SocketAddr,
    /// Where it failed.
    pub stage: Stage,
    /// Why.
    #[source]
    pub source: DialFailure,
}

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialFailure {
    /// The inbound proxy does not accept connections.
    #[error("could not connect")]
    Connect(#[source] io::Error),
    /// The tunnel could not be opened.
    #[error("no tunnel")]
    Tunnel(#[source] TunnelError),
    /// The endpoint did not prove an identity that is expected, or refused ours.
    #[error("no TLS with the endpoint")]
    Tls(#[source] TlsError),
    /// TLS is up, but no HTTP/2 in it.
    #[error("no session in TLS")]
    Session(#[source] SessionError),
    /// The worker that owned the pool has ended.
    #[error("the pool has ended")]
    PoolGone,
}

impl DialError {
    pub(super) fn new(way: &Way, stage: Stage, source: DialFailure) -> Self {
        let to = match way {
            Way::Local(address) => *address,
            Way::Through { gateway, .. } => gateway.address,
        };
        Self { to, stage, source }
    }

    /// What the gateway said, when it said no.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match &self.source {
            DialFailure::Tunnel(TunnelError::Refused(reply)) => Some(reply.status),
            DialFailure::Tunnel(_) | DialFailure::Connect(_) | DialFailure::Tls(_) | DialFailure::Session(_) | DialFailure::PoolGone => {
                None
            }
        }
    }
}

/// A session that is up; whoever keeps it spawns the driver.
pub(super) struct Dialled {
    pub(super) session: Session,
    pub(super) driver: LocalBoxFuture<'static, ()>,
    pub(super) handle: Option<Handle>,
}

impl fmt::Debug for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialled").field("session", &self.session).finish_non_exhaustive()
    }
}

pub(super) async fn dial(identity: &Identity, settings: &Settings, plan: &Plan) -> Result<Dialled, DialError> {
    let error = |stage, source| DialError::new(&plan.way, stage, source);
    match &plan.way {
        Way::Local(address) => {
            let stream = tcp::connect(*address, settings.timeouts.connect)
                .await
                .map_err(|source| error(Stage::Dial, DialFailure::Connect(source)))?;
            session(identity, settings, plan, stream, None).await
        }
        Way::Through { gateway, export, hops } => {
            let request = Way::request(export, *hops);
            let (reply, tunnel) = tunnel::connect(identity, gateway, &request, &settings.timeouts)
                .await
                .map_err(|source| error(stage_of(&source), DialFailure::Tunnel(source)))?;
            session(identity, settings, plan, tunnel, reply.handle).await
        }
    }
}

async fn session<Io>(identity: &Identity, settings: &Settings, plan: &Plan, io: Io, handle: Option<Handle>) -> Result<Dialled, DialError>
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let error = |source| DialError::new(&plan.way, Stage::Session, source);
    let own = identity.svid();
    let expected = Expected::OneOf(plan.expected.ids());
    let (stream, peer) = identity.connect(io, expected, SESSION_ALPN).await.map_err(|source| error(DialFailure::Tls(source)))?;
    let life = life_left(&own, &peer, SystemTime::now());
    let opened = Session::open(stream, peer, life, &settings.limits).await;
    let (session, driver) = opened.map_err(|source| error(DialFailure::Session(source)))?;
    Ok(Dialled { session, driver: driver.boxed_local(), handle })
}

/// Whom a failed tunnel is charged to: the gateway, unless it did its part and said that the endpoint is not to be had.
fn stage_of(error: &TunnelError) -> Stage {
    match error {
        TunnelError::Connect { .. }
        | TunnelError::Tls { .. }
        | TunnelError::Broken(_)
        | TunnelError::TooSlow(_)
        | TunnelError::Malformed(_) => Stage::Gateway,
        TunnelError::Refused(reply) => match reply.status {
            Status::Busy | Status::Draining => Stage::Gateway,
            Status::Accepted | Status::NotExportedOrUnknown | Status::Denied | Status::NoEndpoint | Status::TooManyHops => Stage::Dial,
        },
    }
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Gateway => "the gateway",
        Stage::Dial => "reaching the endpoint",
        Stage::Session => "the session",
        Stage::Response => "the response",
    }
}
