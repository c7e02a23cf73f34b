//! The warm sessions of one worker, by the way that they took. Nothing here is shared with another thread.
//!
//! Invariants: a session is used only while its peer is among those expected, is trusted by the bundles of this moment, has not been told to
//! go away and is not near the end of its life; and one way is dialled once, however many streams wait for it.

mod dial;

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use http::{HeaderValue, Request, Response};
use http_body::Body;
use mesh_names::Handle;
use mesh_runtime::tasks::Tasks;
use mesh_topology::loads::Stage;

use crate::identity::Identity;
use crate::plan::{Plan, Way};
use crate::session::{Limits, RawStream, RecvBody, Session, StreamError, StreamTarget};
use crate::tunnel::Timeouts;
pub use dial::{DialError, DialFailure};

/// How sessions are opened and kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What a peer may ask of a session.
    pub limits: Limits,
    /// How long the steps of opening one may take.
    pub timeouts: Timeouts,
    /// A session without a stream for this long is closed.
    pub idle: Duration,
    /// Sessions that one way may have; past it streams wait in the one with the fewest.
    pub sessions_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limits: Limits::default(), timeouts: Timeouts::default(), idle: Duration::from_secs(60), sessions_max: 16 }
    }
}

/// A worker's pool. Clones are the same pool.
#[derive(Clone)]
pub struct Pool {
    inner: Rc<Inner>,
}

struct Inner {
    identity: Identity,
    settings: Settings,
    ways: RefCell<HashMap<Way, Kept>>,
    /// The tasks that move the sessions' bytes, and the dials under way.
    tasks: RefCell<Tasks>,
}

#[derive(Default)]
struct Kept {
    sessions: Vec<Opened>,
    dialing: Option<Dialing>,
    /// The target of the last stream and its header: most streams of a way name the same.
    named: Option<(StreamTarget, HeaderValue)>,
}

/// A session, and the endpoint's handle when the gateway chose it.
#[derive(Clone, Debug)]
struct Opened {
    session: Session,
    handle: Option<Handle>,
}

type Dialing = Shared<LocalBoxFuture<'static, Result<Opened, Arc<DialError>>>>;

/// A session checked out for one stream.
#[derive(Clone, Debug)]
pub struct Lease {
    opened: Opened,
    target: StreamTarget,
    header: HeaderValue,
    reused: bool,
}

impl Pool {
    /// An empty pool that opens sessions as `identity`. Its owner runs [`Pool::maintain`] beside it.
    #[must_use]
    pub fn new(identity: Identity, settings: Settings) -> Self {
        Self { inner: Rc::new(Inner { identity, settings, ways: RefCell::default(), tasks: RefCell::default() }) }
    }

    /// A session for one stream of `plan`: a warm one, else a new one. When callers give up, a dial under way goes on for the next.
    ///
    /// # Errors
    /// When it could not be opened, with the stage that failed.
    pub async fn checkout(&self, plan: &Plan) -> Result<Lease, Arc<DialError>> {
        let mut joined = false;
        loop {
            if let Some((opened, header)) = self.warm(plan) {
                return Ok(Lease { opened, target: plan.target.clone(), header, reused: !joined });
            }
            let (dialing, own) = self.dial(plan);
            let opened = dialing.await?;
            joined = true;
            // Another caller's dial may have expected others; then ours follows.
            if own || plan.expected.contains(opened.session.peer().id()) {
                return Ok(Lease { opened, target: plan.target.clone(), header: plan.target.to_header(), reused: false });
            }
        }
    }

    /// Streams in flight and sessions kept, over all ways.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let ways = self.inner.ways.borrow();
        let sessions = ways.values().flat_map(|kept| &kept.sessions);
        sessions.fold(Usage::default(), |usage, opened| Usage {
            sessions: usage.sessions + 1,
            streams: usage.streams + opened.session.in_flight(),
        })
    }

    /// Closes what is idle, and ends at once what is no longer trusted; for ever, every second.
    pub async fn maintain(&self) {
        loop {
            tokio::time::sleep(MAINTAIN_EVERY).await;
            self.sweep();
        }
    }

    /// One round of [`Pool::maintain`].
    pub fn sweep(&self) {
        let bundles = self.inner.identity.bundles();
        let idle = self.inner.settings.idle;
        self.inner.ways.borrow_mut().retain(|_, kept| {
            kept.sessions.retain(|opened| {
                let session = &opened.session;
                if bundles.get(session.peer().id().trust_domain()).is_none() {
                    session.end();
                    return false;
                }
                session.is_open() && session.idle() < idle
            });
            !kept.sessions.is_empty() || kept.dialing.is_some()
        });
    }

    /// Forgets every session: new streams dial anew, running ones finish.
    pub fn clear(&self) {
        self.inner.ways.borrow_mut().clear();
    }

    /// The warm session with the fewest streams that may be used for `plan`, when it has room or no more may be opened.
    fn warm(&self, plan: &Plan) -> Option<(Opened, HeaderValue)> {
        let mut ways = self.inner.ways.borrow_mut();
        let kept = ways.get_mut(&plan.way)?;
        kept.sessions.retain_mut(|opened| opened.session.stays_open());
        let full = kept.sessions.len() >= self.inner.settings.sessions_max;
        let bundles = self.inner.identity.bundles();
        let usable = |opened: &&Opened| {
            let peer = opened.session.peer().id();
            plan.expected.contains(peer) && bundles.get(peer.trust_domain()).is_some()
        };
        let least = kept.sessions.iter().filter(usable).min_by_key(|opened| opened.session.in_flight())?;
        if !full && !least.session.has_room() {
            return None;
        }
        let opened = least.clone();
        Some((opened, kept.header(&plan.target)))
    }

    /// Joins the dial that is under way, or starts one; tells whether it is this caller's own.
    fn dial(&self, plan: &Plan) -> (Dialing, bool) {
        let mut ways = self.inner.ways.borrow_mut();
        let kept = ways.entry(plan.way.clone()).or_default();
        if let Some(dialing) = &kept.dialing {
            return (dialing.clone(), false);
        }
        let dialing = Self::open(Rc::downgrade(&self.inner), plan.clone()).boxed_local().shared();
        kept.dialing = Some(dialing.clone());
        self.inner.tasks.borrow_mut().spawn_local(dialing.clone().map(drop));
        (dialing, true)
    }

    async fn open(pool: std::rc::Weak<Inner>, plan: Plan) -> Result<Opened, Arc<DialError>> {
        let gone = || Arc::new(DialError::new(&plan.way, Stage::Dial, DialFailure::PoolGone));
        let (identity, settings) = {
            let inner = pool.upgrade().ok_or_else(gone)?;
            (inner.identity.clone(), inner.settings.clone())
        };
        let dialled = dial::dial(&identity, &settings, &plan).await;
        let inner = pool.upgrade().ok_or_else(gone)?;
        let mut ways = inner.ways.borrow_mut();
        let kept = ways.entry(plan.way.clone()).or_default();
        kept.dialing = None;
        let dial::Dialled { session, driver, handle } = dialled.map_err(Arc::new)?;
        inner.tasks.borrow_mut().spawn_local(driver);
        let opened = Opened { session, handle };
        kept.sessions.push(opened.clone());
        Ok(opened)
    }
}

impl Kept {
    fn header(&mut self, target: &StreamTarget) -> HeaderValue {
        match &self.named {
            Some((named, header)) if named == target => header.clone(),
            _ => {
                let header = target.to_header();
                self.named = Some((target.clone(), header.clone()));
                header
            }
        }
    }
}

/// What a pool holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sessions kept.
    pub sessions: usize,
    /// Streams in flight in them.
    pub streams: usize,
}

impl Lease {
    /// The session.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.opened.session
    }

    /// Whether it was warm; one that breaks at once may just have been closed, and another attempt is due.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The endpoint, when the gateway chose it.
    #[must_use]
    pub fn handle(&self) -> Option<&Handle> {
        self.opened.handle.as_ref()
    }

    /// Sends a request for the plan's target ([`Session::request`]).
    ///
    /// # Errors
    /// When the stream or the session breaks, or the request's body does.
    pub async fn request<B>(&self, request: Request<B>) -> Result<Response<RecvBody>, StreamError>
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.opened.session.request_to(self.header.clone(), request).await
    }

    /// Opens a raw connection to the plan's target ([`Session::raw`]).
    ///
    /// # Errors
    /// When the peer refuses it, or the session breaks.
    pub async fn raw(&self) -> Result<RawStream, StreamError> {
        self.opened.session.raw(&self.target).await
    }
}

const MAINTAIN_EVERY: Duration = Duration::from_secs(1);
