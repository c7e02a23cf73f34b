//! Follows a control's discovery stream into one shared snapshot, and keeps a copy on disk to start from when no control answers.
//!
//! Invariant: a broken stream, a missing control or a held listing changes nothing: readers go on with what was last complete.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_runtime::clock;
use mesh_runtime::drain::Drain;
use mesh_topology::{Own, Snapshot};
use mesh_trust::SharedBundles;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::causes::Causes;
use super::files;
use super::hold::Hold;
use super::retry::Retry;
use super::state::State;
use crate::connect::{ConnectError, Connector, ControlAddress, MESSAGE_MAX};
use crate::proto;
pub use crate::proto::Kind;
use crate::proto::discovery_client::DiscoveryClient;
use crate::proto::discovery_request::Message;

/// What to follow, and how.
#[derive(Debug)]
pub struct Follow {
    /// The controls of the own cluster.
    pub control: Vec<ControlAddress>,
    /// How to reach them.
    pub connector: Connector,
    /// What to subscribe to; empty means everything.
    pub kinds: Vec<Kind>,
    /// The cluster that this process runs in.
    pub own: Own,
    /// Written when bundles change.
    pub bundles: SharedBundles,
    /// The folder of the copy on disk; none keeps no copy.
    pub state_dir: Option<PathBuf>,
}

/// What readers hold. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// The last complete state.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Counts the states: changes after each new one is in `snapshot`.
    pub changed: watch::Receiver<u64>,
    /// How the stream is.
    pub health: watch::Receiver<Health>,
}

/// How a discovery stream is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether a control answers.
    pub connected: bool,
    /// Why the newest listing is not used, if it is not.
    pub held: Option<Hold>,
}

impl Discovery {
    /// Waits until there is a complete state: at once after a restart with a copy on disk.
    pub async fn complete(&mut self) {
        while !self.snapshot.load().is_complete() {
            if self.changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Starts from the copy on disk, if there is one. The second value does the following.
#[must_use]
pub fn follow(config: Follow) -> (Discovery, Follower) {
    let mut state = State::new(config.own.clone());
    let file = config.state_dir.as_ref().map(|folder| folder.join(COPY));
    if let Some(copy) = file.as_deref().and_then(read_copy) {
        let outcome = state.on_update(copy);
        tracing::info!(used = outcome.changed, passed_over = outcome.invalid.len(), "snapshot read from disk");
    }
    let snapshot = Arc::new(ArcSwap::from_pointee(state.snapshot().clone()));
    config.bundles.rcu(|held| state.bundles(held));
    let (changed, changed_receiver) = watch::channel(0);
    let (health, health_receiver) = watch::channel(Health::default());
    let discovery = Discovery { snapshot: Arc::clone(&snapshot), changed: changed_receiver, health: health_receiver };
    let retry = Retry::new(config.control.clone(), clock::draw());
    let copy = Copy { file, dirty_since: None };
    (discovery, Follower { config, state, snapshot, changed, health, retry, copy })
}

/// Follows until it is told to stop.
#[derive(Debug)]
pub struct Follower {
    config: Follow,
    state: State,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changed: watch::Sender<u64>,
    health: watch::Sender<Health>,
    retry: Retry,
    copy: Copy,
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("no control address was given: pass --control")]
    NoControl,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the discovery stream broke: {}", .0.message())]
    Stream(#[source] Box<tonic::Status>),
    #[error("control ended the discovery stream")]
    Ended,
    #[error("this control is behind: another one is asked")]
    Behind(#[source] Hold),
}

impl From<tonic::Status> for Broken {
    fn from(status: tonic::Status) -> Self {
        Self::Stream(Box::new(status))
    }
}

impl Follower {
    /// Follows until the drain has ended: a draining process still needs to know where things are.
    pub async fn run(mut self, drain: Drain) {
        loop {
            let broken = tokio::select! {
                () = drain.ended() => break,
                broken = self.stream() => broken,
            };
            self.state.on_disconnect();
            self.health.send_if_modified(|health| std::mem::replace(&mut health.connected, false));
            let pause = self.retry.on_failure(clock::draw());
            let Err(error) = broken;
            tracing::warn!(error = %Causes(&error), ?pause, "discovery interrupted");
            tokio::select! {
                () = drain.ended() => break,
                () = tokio::time::sleep(pause) => {}
                () = self.copy.due() => self.copy.write(&self.state).await,
            }
        }
        self.copy.write(&self.state).await;
    }

    async fn stream(&mut self) -> Result<Infallible, Broken> {
        let address = self.retry.address().ok_or(Broken::NoControl)?;
        let channel = self.config.connector.channel(address).await?;
        let mut client = DiscoveryClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let subscribe =
            proto::Subscribe { kinds: self.config.kinds.iter().map(|kind| i32::from(*kind)).collect(), resume: self.state.resume() };
        // The queue is empty, so there is room.
        let _ = requests.try_send(request(Message::Subscribe(subscribe)));
        let mut updates = client.stream(ReceiverStream::new(receiver)).await?.into_inner();
        loop {
            let update = tokio::select! {
                update = updates.message() => update?.ok_or(Broken::Ended)?,
                () = self.copy.due() => {
                    self.copy.write(&self.state).await;
                    continue;
                }
            };
            let version = update.version.clone();
            if let Some(why @ Hold::Older { .. }) = self.take(update) {
                // It may catch up without a change to tell of, so waiting for one could take for ever.
                return Err(Broken::Behind(why));
            }
            self.retry.on_success();
            // A full queue means that control does not read: a later ack says the same and more.
            let _ = requests.try_send(request(Message::Ack(self.ack(version))));
        }
    }

    /// Takes an update; returns why what it completes is held, if it is.
    fn take(&mut self, update: proto::DiscoveryUpdate) -> Option<Hold> {
        let outcome = self.state.on_update(update);
        for error in &outcome.invalid {
            tracing::warn!(error = %Causes(error), "resource passed over");
        }
        if outcome.changed {
            self.config.bundles.rcu(|held| self.state.bundles(held));
            self.snapshot.store(Arc::new(self.state.snapshot().clone()));
            self.changed.send_modify(|count| *count += 1);
            self.copy.dirty_since.get_or_insert_with(Instant::now);
        }
        let now = Health { connected: true, held: outcome.held.clone() };
        self.health.send_if_modified(|health| {
            let changed = *health != now;
            if let Some(why) = now.held.as_ref().filter(|_| changed) {
                tracing::error!(%why, "listing held: the last state stays in use");
            }
            *health = now;
            changed
        });
        outcome.held
    }

    fn ack(&self, version: Option<proto::Version>) -> proto::Ack {
        let held = self.config.bundles.load();
        let sequence = |bundle: &Arc<mesh_trust::Bundle>| proto::BundleSequence {
            trust_domain: bundle.trust_domain().to_string(),
            sequence: bundle.sequence(),
        };
        proto::Ack { version, bundles: held.iter().map(sequence).collect() }
    }
}

/// The copy on disk, written a moment after a change so that a burst costs one write.
#[derive(Debug)]
struct Copy {
    file: Option<PathBuf>,
    dirty_since: Option<Instant>,
}

impl Copy {
    async fn due(&self) {
        match (self.dirty_since, &self.file) {
            (Some(since), Some(_)) => tokio::time::sleep_until(since + COPY_AFTER).await,
            _ => std::future::pending().await,
        }
    }

    async fn write(&mut self, state: &State) {
        if self.dirty_since.take().is_none() {
            return;
        }
        let (Some(file), Some(copy)) = (self.file.clone(), state.to_copy()) else { return };
        let written = tokio::task::spawn_blocking(move || files::replace(&file, &copy.encode_to_vec())).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "snapshot not kept on disk");
        }
    }
}

fn read_copy(file: &Path) -> Option<proto::DiscoveryUpdate> {
    let bytes = files::read(file).inspect_err(|error| tracing::warn!(%error, "snapshot on disk not read")).ok()??;
    let copy = proto::DiscoveryUpdate::decode(bytes.as_slice());
    copy.inspect_err(|error| tracing::warn!(%error, "snapshot on disk not used")).ok()
}

fn request(message: Message) -> proto::DiscoveryRequest {
    proto::DiscoveryRequest { message: Some(message) }
}

const COPY: &str = "snapshot.pb";
const COPY_AFTER: Duration = Duration::from_millis(500);
const REQUESTS_MAX: usize = 16;
