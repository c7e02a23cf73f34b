//! Draining: one trigger tells every part of a process to stop taking new work and to finish what it has before a deadline.
//!
//! Invariant: it starts once and its deadline never moves away; a second SIGINT or SIGTERM brings the deadline to now.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

/// Starts the drain that its [`Drain`]s wait for. Dropping it without starting leaves them waiting for ever.
#[derive(Debug)]
pub struct Trigger {
    deadline: watch::Sender<Option<Instant>>,
    grace: Duration,
}

/// What a part of the process holds to learn that draining has started, and until when it may go on.
#[derive(Clone, Debug)]
pub struct Drain {
    deadline: watch::Receiver<Option<Instant>>,
}

/// A trigger whose drain lasts at most `grace`, and the first watcher (clone it for others).
#[must_use]
pub fn channel(grace: Duration) -> (Trigger, Drain) {
    let (sender, receiver) = watch::channel(None);
    (Trigger { deadline: sender, grace }, Drain { deadline: receiver })
}

impl Trigger {
    /// Starts draining; once it has started this changes nothing.
    pub fn start(&self) {
        let deadline = Instant::now() + self.grace;
        self.deadline.send_if_modified(|slot| slot.is_none() && slot.replace(deadline).is_none());
    }

    /// Ends the grace: whatever still drains stops now.
    pub fn hurry(&self) {
        self.deadline.send_replace(Some(Instant::now()));
    }

    /// Starts draining at the first SIGTERM or SIGINT, hurries at the second, and never returns: its owner ends it.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signals(self) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            let mut seen = 0_u32;
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                seen += 1;
                if seen == 1 {
                    tracing::info!(grace = ?self.grace, "draining");
                    self.start();
                } else {
                    self.hurry();
                }
            }
        })
    }
}

impl Drain {
    /// A drain that never starts: for tests and one-shot commands.
    #[must_use]
    pub fn never() -> Self {
        Self { deadline: watch::channel(None).1 }
    }

    /// Whether draining has started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.deadline.borrow().is_some()
    }

    /// When what is left is ended; `None` while nothing drains.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        *self.deadline.borrow()
    }

    /// Returns the deadline once draining has started.
    pub async fn started(&self) -> Instant {
        let mut watcher = self.deadline.clone();
        loop {
            let seen = *watcher.borrow_and_update();
            match seen {
                Some(deadline) => return deadline,
                None if watcher.changed().await.is_err() => std::future::pending::<()>().await,
                None => {}
            }
        }
    }

    /// Returns when the deadline has passed, also one that moved closer meanwhile.
    pub async fn ended(&self) {
        self.started().await;
        let mut watcher = self.deadline.clone();
        loop {
            let Some(deadline) = *watcher.borrow_and_update() else { return };
            if deadline <= Instant::now() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return,
                Ok(()) = watcher.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_starts_once_and_ends_at_its_deadline() {
        let (trigger, drain) = channel(Duration::from_millis(50));
        assert!(!drain.is_started());
        let begun = Instant::now();
        trigger.start();
        let deadline = drain.started().await;
        trigger.start();
        assert_eq!(drain.started().await, deadline);
        drain.ended().await;
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }

    #[tokio::test]
    async fn a_hurried_drain_ends_at_once() {
        let (trigger, drain) = channel(Duration::from_secs(3600));
        trigger.start();
        let ended = tokio::spawn(async move { drain.ended().await });
        tokio::task::yield_now().await;
        trigger.hurry();
        tokio::time::timeout(Duration::from_secs(1), ended).await.unwrap().unwrap();
    }
}
