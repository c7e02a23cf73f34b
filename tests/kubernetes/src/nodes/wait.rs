//! Waiting: what is waited for is looked at again and again, since processes and files of other namespaces tell nobody.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Looks until there is something to see.
pub fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        sleep(PAUSE);
    }
}

/// The same, but for `limit` at most.
pub fn until_at_most<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    until(|| look().map(Some).or_else(|| (begun.elapsed() > limit).then_some(None)))
}

const PAUSE: Duration = Duration::from_millis(50);
