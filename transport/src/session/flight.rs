//! Counts the streams in flight of a session, and when the last one ended: what idle closing and placement ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The count of one session.
#[derive(Debug)]
pub(crate) struct Flights {
    open: AtomicUsize,
    since: Instant,
    /// Milliseconds after `since` at which the last stream ended.
    last: AtomicU64,
}

/// One stream in flight.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Flights>);

impl Flights {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), since: Instant::now(), last: AtomicU64::new(0) })
    }

    pub(crate) fn start(self: &Arc<Self>) -> InFlight {
        self.open.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// For how long nothing has been in flight.
    pub(crate) fn idle(&self) -> Duration {
        if self.open() > 0 {
            return Duration::ZERO;
        }
        self.since.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            let now = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.0.last.store(now, Ordering::Relaxed);
        }
    }
}
