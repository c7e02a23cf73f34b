//! Tasks with an owner: dropping the owner ends them, a panic in one is reported and never lost.

use std::future::Future;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

/// The tasks of one owner. Bound how many there are before spawning; this set only owns.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<()>,
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that may run on any thread of the runtime.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.reap();
        self.set.spawn(task);
    }

    /// Starts a task on this thread (a worker's, or inside a `LocalSet`).
    pub fn spawn_local(&mut self, task: impl Future<Output = ()> + 'static) {
        self.reap();
        self.set.spawn_local(task);
    }

    /// How many have not ended, as far as was looked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Waits for one task to end; for ever when there is none, so that it can stand in a `select!` loop.
    pub async fn ended(&mut self) {
        match self.set.join_next().await {
            Some(ended) => report(ended),
            None => std::future::pending().await,
        }
    }

    /// Waits until all have ended; at `deadline` the rest is aborted. Returns how many were.
    pub async fn finish(&mut self, deadline: Instant) -> usize {
        while !self.set.is_empty() {
            match tokio::time::timeout_at(deadline, self.set.join_next()).await {
                Ok(Some(ended)) => report(ended),
                Ok(None) => break,
                Err(_) => {
                    let left = self.set.len();
                    self.set.shutdown().await;
                    return left;
                }
            }
        }
        0
    }

    /// Forgets what has ended already, so that a long-lived owner does not keep results.
    fn reap(&mut self) {
        while let Some(ended) = self.set.try_join_next() {
            report(ended);
        }
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "task panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn what_has_not_finished_at_the_deadline_is_aborted_and_counted() {
        let mut tasks = Tasks::new();
        tasks.spawn(async {});
        tasks.spawn(std::future::pending());
        assert_eq!(tasks.finish(Instant::now() + Duration::from_millis(20)).await, 1);
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_only() {
        let mut tasks = Tasks::new();
        tasks.spawn(async { panic!("deliberate") });
        tasks.ended().await;
        assert!(tasks.is_empty());
    }
}
