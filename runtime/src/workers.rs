//! Workers: one thread, one single-threaded runtime and everything of its own each; connections are handed to them, never shared.
//!
//! Whoever accepts hands to the least loaded *active* worker through a bounded mailbox. One worker is active at first, because
//! work kept together is batched and costs less; another becomes active when the busiest one is busy, and the last rests again when one
//! fewer would do. Work never moves between workers.

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::drain::Drain;

/// The running workers, as whoever accepts connections sees them. Dropping it closes the mailboxes; [`Workers::join`] waits.
#[derive(Debug)]
pub struct Workers<T> {
    workers: Vec<Running<T>>,
    active: AtomicUsize,
}

#[derive(Debug)]
struct Running<T> {
    mailbox: mpsc::Sender<Handed<T>>,
    load: Arc<AtomicUsize>,
    runtime: Handle,
    thread: JoinHandle<()>,
}

/// What one worker is given when it starts.
#[derive(Debug)]
pub struct Worker<T> {
    /// Which one it is, from 0.
    pub index: usize,
    /// What is handed to it; ends when the acceptor is gone.
    pub mailbox: mpsc::Receiver<Handed<T>>,
    /// When to stop.
    pub drain: Drain,
}

/// Something handed to a worker; it counts as the worker's load until it is dropped, or its [`Held`] is.
#[derive(Debug)]
pub struct Handed<T> {
    /// What was handed: an accepted connection, mostly.
    pub value: T,
    /// Keep it as long as the work lasts.
    pub held: Held,
}

/// One unit of a worker's load.
#[derive(Debug)]
pub struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts `count` workers called `<name>-<index>`, each running what `main` makes of it until that returns.
///
/// # Errors
/// When a thread or a runtime cannot be made.
pub fn spawn<T, F, Fut>(count: NonZeroUsize, name: &str, drain: &Drain, main: F) -> io::Result<Workers<T>>
where
    T: Send + 'static,
    F: Fn(Worker<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let main = Arc::new(main);
    let workers = (0..count.get())
        .map(|index| {
            let (mailbox, receiver) = mpsc::channel(MAILBOX_MAX);
            let worker = Worker { index, mailbox: receiver, drain: drain.clone() };
            start(name, worker, mailbox, Arc::clone(&main))
        })
        .collect::<io::Result<Vec<_>>>()?;
    Ok(Workers { workers, active: AtomicUsize::new(1) })
}

fn start<T, F, Fut>(name: &str, worker: Worker<T>, mailbox: mpsc::Sender<Handed<T>>, main: Arc<F>) -> io::Result<Running<T>>
where
    T: Send + 'static,
    F: Fn(Worker<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let (told, started) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("{name}-{}", worker.index)).spawn(move || {
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = told.send(Err(error));
                return;
            }
        };
        let _ = told.send(Ok(runtime.handle().clone()));
        runtime.block_on(main(worker));
    })?;
    let runtime = started.recv().map_err(|_| io::Error::other("a worker ended while it started"))??;
    Ok(Running { mailbox, load: Arc::new(AtomicUsize::new(0)), runtime, thread })
}

impl<T: Send + 'static> Workers<T> {
    /// Hands `value` to the least loaded active worker; when its mailbox is full, to any other.
    ///
    /// # Errors
    /// Gives `value` back when every mailbox is full or closed: drop it, or stop accepting until there is room.
    pub fn hand(&self, value: T) -> Result<(), T> {
        let active = self.active.load(Ordering::Relaxed).clamp(1, self.workers.len());
        let mut order: Vec<usize> = (0..self.workers.len()).collect();
        order.sort_by_key(|index| (*index >= active, self.workers[*index].load.load(Ordering::Relaxed)));
        let mut value = value;
        for index in order {
            let running = &self.workers[index];
            running.load.fetch_add(1, Ordering::Relaxed);
            let handed = Handed { value, held: Held(Arc::clone(&running.load)) };
            match running.mailbox.try_send(handed) {
                Ok(()) => return Ok(()),
                Err(refused) => value = refused.into_inner().value,
            }
        }
        Err(value)
    }

    /// What each worker holds now.
    #[must_use]
    pub fn loads(&self) -> Vec<usize> {
        self.workers.iter().map(|running| running.load.load(Ordering::Relaxed)).collect()
    }

    /// How many workers get new work.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Keeps the number of active workers right, for ever: run it beside the acceptor.
    pub async fn adapt(&self) {
        let mut before: Vec<Duration> = self.busy();
        let mut since = Instant::now();
        loop {
            tokio::time::sleep(ADAPT_EVERY).await;
            let now = self.busy();
            let span = since.elapsed().as_secs_f64();
            let shares: Vec<f64> = now.iter().zip(&before).map(|(now, before)| now.saturating_sub(*before).as_secs_f64() / span).collect();
            (before, since) = (now, Instant::now());
            self.active.store(next_active(self.active(), &shares), Ordering::Relaxed);
        }
    }

    /// Closes the mailboxes and waits until every worker has ended.
    pub async fn join(self) {
        let threads: Vec<_> = self.workers.into_iter().map(|running| running.thread).collect();
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count());
        match joined.await {
            Ok(0) => {}
            Ok(panicked) => tracing::error!(panicked, "workers panicked"),
            Err(error) => tracing::error!(%error, "waiting for workers failed"),
        }
    }

    fn busy(&self) -> Vec<Duration> {
        self.workers.iter().map(|running| running.runtime.metrics().worker_total_busy_duration(0)).collect()
    }
}

/// How many workers get new work next, from the share of time that each was busy.
fn next_active(active: usize, busy: &[f64]) -> usize {
    let current = &busy[..active.clamp(1, busy.len())];
    let busiest = current.iter().copied().fold(0.0, f64::max);
    let sum: f64 = current.iter().sum();
    if busiest > BUSY && active < busy.len() {
        active + 1
    } else if active > 1 && sum < REST * (active - 1) as f64 {
        active - 1
    } else {
        active
    }
}

/// A worker busier than this share of the time calls for another one.
const BUSY: f64 = 0.7;

/// When one worker fewer would be less busy than this, the last one gets no new work.
const REST: f64 = 0.35;

const ADAPT_EVERY: Duration = Duration::from_millis(250);

/// What waits in one mailbox; past it other workers are tried, then the acceptor is told to stop.
const MAILBOX_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> NonZeroUsize {
        NonZeroUsize::new(2).unwrap()
    }

    #[test]
    fn workers_become_active_when_the_busiest_is_busy_and_rest_when_fewer_would_do() {
        assert_eq!(next_active(1, &[0.2, 0.0]), 1);
        assert_eq!(next_active(1, &[0.8, 0.0]), 2);
        assert_eq!(next_active(2, &[0.9, 0.9]), 2);
        assert_eq!(next_active(2, &[0.3, 0.3]), 2);
        assert_eq!(next_active(2, &[0.1, 0.1]), 1);
    }

    #[tokio::test]
    async fn what_is_handed_runs_on_the_active_worker_and_counts_until_dropped() {
        let (done, mut seen) = mpsc::channel(16);
        let drain = Drain::never();
        let workers = spawn(two(), "test", &drain, move |mut worker: Worker<u32>| {
            let done = done.clone();
            async move {
                while let Some(handed) = worker.mailbox.recv().await {
                    done.send((worker.index, handed)).await.unwrap();
                }
            }
        })
        .unwrap();
        workers.hand(1).unwrap();
        workers.hand(2).unwrap();
        let first = seen.recv().await.unwrap();
        let second = seen.recv().await.unwrap();
        assert_eq!((first.0, second.0), (0, 0), "one worker is active at first");
        assert_eq!(workers.loads(), [2, 0]);
        drop((first, second));
        assert_eq!(workers.loads(), [0, 0]);
        workers.join().await;
    }

    #[tokio::test]
    async fn a_full_mailbox_spills_to_the_other_worker_and_then_gives_back() {
        let drain = Drain::never();
        let workers = spawn(two(), "test", &drain, |worker: Worker<usize>| async move {
            let _mailbox = worker.mailbox;
            worker.drain.started().await;
        })
        .unwrap();
        for value in 0..2 * MAILBOX_MAX {
            workers.hand(value).unwrap();
        }
        assert_eq!(workers.hand(7), Err(7));
        assert_eq!(workers.loads(), [MAILBOX_MAX, MAILBOX_MAX]);
    }
}
