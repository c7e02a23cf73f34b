//! A steady load: a fixed number of requests a second on kept-alive and on new connections, every outcome kept with its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, Connection};

/// One request's outcome.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub at: Instant,
    pub url: String,
    /// The answering cluster, or why the request failed.
    pub result: Result<String, String>,
}

/// A running load; `stop` gives what was seen.
pub struct Load {
    stopped: Arc<AtomicBool>,
    workers: Vec<tokio::task::JoinHandle<Vec<Outcome>>>,
}

/// Whether a worker keeps its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    Kept,
    New,
}

impl Load {
    /// Starts `rate` requests a second in all, spread over workers that each call one of `urls`.
    #[must_use]
    pub fn start(client: Client, urls: &[&str], rate: u32, connections: &[Connections]) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let combos: Vec<(String, Connections)> =
            urls.iter().flat_map(|url| connections.iter().map(move |kind| ((*url).to_owned(), *kind))).collect();
        let lanes = combos.len() * LANES;
        let every = Duration::from_secs_f64(lanes as f64 / f64::from(rate));
        let workers = combos
            .into_iter()
            .cycle()
            .take(lanes)
            .enumerate()
            .map(|(number, (url, kind))| {
                let offset = every.mul_f64(number as f64 / lanes as f64);
                tokio::spawn(worker(client, url, kind, every, offset, Arc::clone(&stopped)))
            })
            .collect();
        Self { stopped, workers }
    }

    /// Ends the load and gives every outcome, oldest first.
    ///
    /// # Panics
    /// When a worker panicked.
    pub async fn stop(self) -> Vec<Outcome> {
        self.stopped.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for worker in self.workers {
            all.extend(worker.await.expect("a load worker"));
        }
        all.sort_by_key(|outcome| outcome.at);
        all
    }
}

async fn worker(
    client: Client,
    url: String,
    kind: Connections,
    every: Duration,
    offset: Duration,
    stopped: Arc<AtomicBool>,
) -> Vec<Outcome> {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut kept: Option<Connection> = None;
    let mut seen = Vec::new();
    while !stopped.load(Ordering::Relaxed) {
        ticks.tick().await;
        let at = Instant::now();
        let result = tokio::time::timeout(REQUEST_DEADLINE, once(client, &url, kind, &mut kept)).await;
        let result = result.unwrap_or_else(|_| Err(format!("no answer within {REQUEST_DEADLINE:?}")));
        if result.is_err() {
            kept = None;
        }
        seen.push(Outcome { at, url: url.clone(), result });
    }
    seen
}

async fn once(client: Client, url: &str, kind: Connections, kept: &mut Option<Connection>) -> Result<String, String> {
    let mut connection = match kept.take() {
        Some(connection) if kind == Connections::Kept => connection,
        _ => Connection::open(client.outbound).await.map_err(|error| format!("{error:#}"))?,
    };
    let answer = connection.get(url).await.map_err(|error| format!("{error:#}"))?;
    let cluster = answer.cluster().map(ToOwned::to_owned).ok_or_else(|| format!("{} {}", answer.status, answer.body))?;
    if kind == Connections::Kept {
        *kept = Some(connection);
    }
    Ok(cluster)
}

/// Requests in flight per URL and kind of connection, at most.
const LANES: usize = 32;
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Failures, each reason with its count: what a failing spec prints.
#[must_use]
pub fn failures(outcomes: &[Outcome]) -> Vec<(String, usize)> {
    let mut counted = std::collections::BTreeMap::new();
    for reason in outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err()) {
        *counted.entry(reason.clone()).or_insert(0) += 1;
    }
    counted.into_iter().collect()
}
