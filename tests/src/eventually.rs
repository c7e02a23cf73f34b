//! Waiting for a condition: polled until it holds, or the deadline of every spec (30 s) passes.

use std::time::{Duration, Instant};

/// Polls `condition` every 50 ms until it gives a value; fails with `what` and the last reason after 30 s. Returns the value and the time it took.
///
/// # Panics
/// After the deadline.
pub async fn eventually<T, E: std::fmt::Display>(what: &str, mut condition: impl AsyncFnMut() -> Result<T, E>) -> (T, Duration) {
    let begun = Instant::now();
    loop {
        match condition().await {
            Ok(value) => return (value, begun.elapsed()),
            Err(reason) if begun.elapsed() > DEADLINE => panic!("not within {DEADLINE:?}: {what}; at last: {reason}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Lets time pass where time itself is what is specified: a load that must hold for so long.
pub async fn time_passes(lasting: Duration) {
    tokio::time::sleep(lasting).await;
}

/// How long any condition may take.
pub const DEADLINE: Duration = Duration::from_secs(30);
