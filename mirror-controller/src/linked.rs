//! The links that run: for each, one session with the peer's control through its gateways, and the probes of its data path.
//!
//! Each link stands alone: its tasks, its state, its pauses. What it was last told stays while it can't be reached, and while it reconnects
//! to other gateways; it is forgotten with the Link.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_api::client::causes::Causes;
use mesh_api::client::exports::{self, Exports, ExportsState, FollowError};
use mesh_api::client::hold::{Complete, Hold};
use mesh_api::connect::{ConnectError, channel_over};
use mesh_names::ClusterName;
use mesh_runtime::clock;
use mesh_runtime::tasks::Tasks;
use mesh_topology::LinkHealth;
use mesh_transport::identity::life_left;
use mesh_transport::tunnel::{self, Control, Target, Timeouts, TunnelError, TunnelRequest};
use mesh_transport::{Identity, SESSION_ALPN, TlsError};
use mesh_trust::{Bundle, Expected};
use tokio::sync::{Notify, watch};

use crate::model::SeenLink;
use crate::probe;

/// What a link was told.
#[derive(Clone, Debug, Default)]
pub struct LinkTold {
    /// What the peer exports, once it has said everything.
    pub exports: Option<Arc<Complete<Exports>>>,
    /// Whether a session with the peer's control runs, or why not; none before the first attempt ended.
    pub connected: Option<Result<(), String>>,
    /// Why the peer's newest listing is not used, if it is not.
    pub held: Option<Hold>,
    /// Whether the peer's certificate was refused.
    pub refused: bool,
    /// The sequence of the bundle that the peer says is its own.
    pub bundle_sequence: Option<u64>,
    /// When the peer last said anything.
    pub heard_at: Option<Instant>,
}

impl LinkTold {
    /// Whether the handles still hold: the peer spoke within its lease.
    #[must_use]
    pub fn handles_valid(&self, now: Instant) -> bool {
        let lease = self.exports.as_ref().map(|exports| exports.get().lease);
        match (self.heard_at, lease) {
            (Some(heard), Some(lease)) => now < heard + lease,
            _ => false,
        }
    }
}

/// Every link that runs.
pub struct Links {
    identity: Identity,
    changed: Arc<Notify>,
    running: BTreeMap<ClusterName, Running>,
}

struct Running {
    link: watch::Sender<SeenLink>,
    told: watch::Receiver<LinkTold>,
    health: watch::Receiver<LinkHealth>,
    /// Dropped with the link: that ends them.
    _tasks: Tasks,
}

impl Links {
    /// None yet. `changed` is notified whenever a link was told something.
    #[must_use]
    pub fn new(identity: Identity, changed: Arc<Notify>) -> Self {
        Self { identity, changed, running: BTreeMap::new() }
    }

    /// Runs exactly the links of `wanted` from now on.
    pub fn follow<'a>(&mut self, wanted: impl Iterator<Item = &'a SeenLink>) {
        let wanted: BTreeMap<&ClusterName, &SeenLink> = wanted.map(|link| (&link.name, link)).collect();
        // The Link object, or the cluster behind it, is another one: what the last one said is nobody's any more.
        let same = |running: &Running, link: &SeenLink| {
            let held = running.link.borrow();
            held.id == link.id && held.uid == link.uid && held.trust_domain == link.trust_domain
        };
        self.running.retain(|name, running| wanted.get(name).is_some_and(|link| same(running, link)));
        for (name, link) in wanted {
            match self.running.get(name) {
                Some(running) => {
                    running.link.send_if_modified(|held| {
                        let changed = held != link;
                        held.clone_from(link);
                        changed
                    });
                }
                None => {
                    let running = self.start(link.clone());
                    self.running.insert(name.clone(), running);
                }
            }
        }
    }

    /// What a link was told.
    #[must_use]
    pub fn told(&self, name: &ClusterName) -> LinkTold {
        self.running.get(name).map(|running| running.told.borrow().clone()).unwrap_or_default()
    }

    /// What the probes of a link say.
    #[must_use]
    pub fn health(&self, name: &ClusterName) -> LinkHealth {
        self.running.get(name).map(|running| *running.health.borrow()).unwrap_or_default()
    }

    fn start(&self, link: SeenLink) -> Running {
        let (link_sender, link_receiver) = watch::channel(link);
        let (told_sender, told) = watch::channel(LinkTold::default());
        let (health_sender, health) = watch::channel(LinkHealth::Unknown);
        let mut tasks = Tasks::new();
        let session =
            Session { identity: self.identity.clone(), link: link_receiver.clone(), told: told_sender, changed: Arc::clone(&self.changed) };
        tasks.spawn(session.run());
        tasks.spawn(probe::run(self.identity.clone(), link_receiver, health_sender, Arc::clone(&self.changed)));
        Running { link: link_sender, told, health, _tasks: tasks }
    }
}

/// Keeps one session with a peer's control.
struct Session {
    identity: Identity,
    link: watch::Receiver<SeenLink>,
    told: watch::Sender<LinkTold>,
    changed: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("no tunnel to the peer's control through {gateway}")]
    Tunnel {
        gateway: std::net::SocketAddr,
        #[source]
        source: TunnelError,
    },
    #[error("no session with the peer's control")]
    Session(#[source] TlsError),
    #[error(transparent)]
    Channel(#[from] ConnectError),
    #[error("the peer's control broke off")]
    Follow(#[from] FollowError),
    #[error("the link has no gateway")]
    NoGateway,
}

/// Why a session ended.
enum End {
    Broken(Broken),
    /// A certificate is about to expire: the next session has the next one.
    Expiring,
    /// The Link says something else now.
    Changed,
}

impl Session {
    async fn run(mut self) {
        let mut state = ExportsState::new(self.link.borrow().id.clone());
        let (mut next, mut failures) = (0_usize, 0_u32);
        loop {
            let link = self.link.borrow_and_update().clone();
            let mut changed = self.link.clone();
            let heard = self.told.borrow().heard_at;
            let end = tokio::select! {
                ended = self.session(&link, next, &mut state) => ended,
                Ok(()) = changed.changed() => End::Changed,
            };
            state.on_disconnect();
            let End::Broken(error) = end else { continue };
            if self.told.borrow().heard_at != heard {
                failures = 0;
            }
            next = next.wrapping_add(1);
            let pause = clock::jittered((PAUSE_FIRST * 2_u32.pow(failures.min(6))).min(PAUSE_LONGEST), 0.5);
            failures = failures.saturating_add(1);
            tracing::warn!(link = %link.name, error = %Causes(&error), ?pause, "not connected");
            self.tell(|told| {
                told.refused = is_refusal(&error);
                told.connected = Some(Err(Causes(&error).to_string()));
            });
            tokio::time::sleep(pause).await;
        }
    }

    async fn session(&self, link: &SeenLink, nth: usize, state: &mut ExportsState) -> End {
        let opened = self.open(link, nth).await;
        let (channel, life) = match opened {
            Ok(opened) => opened,
            Err(error) => return End::Broken(error),
        };
        let told = |state: &ExportsState, invalid: &[mesh_api::translate::Invalid]| {
            for error in invalid {
                tracing::warn!(link = %link.name, error = %Causes(error), "export passed over");
            }
            self.on_told(link, state);
        };
        match tokio::time::timeout(life, exports::follow(channel, state, told)).await {
            Err(_) => End::Expiring,
            Ok(Err(error)) => End::Broken(error.into()),
            Ok(Ok(never)) => match never {},
        }
    }

    async fn open(&self, link: &SeenLink, nth: usize) -> Result<(tonic::transport::Channel, Duration), Broken> {
        let gateway = link.gateways.get(nth % link.gateways.len().max(1)).ok_or(Broken::NoGateway)?;
        let request = TunnelRequest::new(Target::Control(Control::Exports));
        let (_, tunnel) = tunnel::connect(&self.identity, gateway, &request, &Timeouts::default())
            .await
            .map_err(|source| Broken::Tunnel { gateway: gateway.address, source })?;
        let expected = Expected::only(link.control.clone());
        let (stream, peer) = self.identity.connect(tunnel, expected, SESSION_ALPN).await.map_err(Broken::Session)?;
        let life = life_left(&self.identity.svid(), &peer, clock::wall()).saturating_sub(LIFE_MARGIN);
        Ok((channel_over(stream).await?, life))
    }

    fn on_told(&self, link: &SeenLink, state: &ExportsState) {
        self.tell(|told| {
            told.connected = Some(Ok(()));
            told.refused = false;
            told.held = state.held().cloned();
            told.heard_at = Some(clock::now());
            let Some(exports) = state.exports() else { return };
            if told.exports.as_ref().is_none_or(|held| **held != *exports) {
                told.exports = Some(Arc::new(exports.clone()));
            }
            if let Ok(bundle) = Bundle::from_spiffe_json(link.trust_domain.clone(), &exports.get().bundle) {
                told.bundle_sequence = Some(bundle.sequence());
            }
        });
    }

    fn tell(&self, change: impl FnOnce(&mut LinkTold)) {
        self.told.send_modify(change);
        self.changed.notify_one();
    }
}

fn is_refusal(error: &Broken) -> bool {
    matches!(
        error,
        Broken::Session(TlsError::Refused(_)) | Broken::Tunnel { source: TunnelError::Tls { source: TlsError::Refused(_), .. }, .. }
    )
}

const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LONGEST: Duration = Duration::from_secs(2);
/// A session is replaced this long before a certificate of it ends.
const LIFE_MARGIN: Duration = Duration::from_secs(30);
