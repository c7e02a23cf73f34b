//! Waiting for a condition: polled until it holds or the deadline passes.

use std::time::{Duration, Instant};

/// Polls `condition` until it gives a value; fails with `what` and the last reason when the deadline passes. Returns the value and the time
/// it took.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> anyhow::Result<T>) -> (T, Duration) {
    let begun = Instant::now();
    loop {
        match condition() {
            Ok(value) => return (value, begun.elapsed()),
            Err(reason) if begun.elapsed() > DEADLINE => panic!("not within {DEADLINE:?}: {what}; at last: {reason:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

const DEADLINE: Duration = Duration::from_secs(60);
