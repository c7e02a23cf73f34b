//! How often a worker may send a request a second time: retries must never become the load that keeps a sick service down.
//!
//! It covers retries after something was sent. An attempt that failed before anything was sent costs the service nothing and is free.

use std::time::Instant;

/// A worker's budget: each request earns a part of a retry, and a few a second are always there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    tokens: f64,
    filled: Instant,
}

impl Budget {
    /// A full budget.
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: TOKENS_MAX, filled: now }
    }

    /// A request came.
    pub(crate) fn earn(&mut self) {
        self.tokens = (self.tokens + PER_REQUEST).min(TOKENS_MAX);
    }

    /// Takes one retry out of the budget, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + since * PER_SECOND).min(TOKENS_MAX);
        let some = self.tokens >= 1.0;
        if some {
            self.tokens -= 1.0;
        }
        some
    }
}

/// What a request earns: one retry for five requests.
const PER_REQUEST: f64 = 0.2;
/// Retries a second that need no requests.
const PER_SECOND: f64 = 10.0;
/// What can be saved up.
const TOKENS_MAX: f64 = 100.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retries_end_when_they_are_more_than_a_fifth_of_the_requests() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let spent = (0..1000).filter(|_| budget.take(start)).count();
        assert_eq!(spent, 100);
        for _ in 0..52 {
            budget.earn();
        }
        assert_eq!((0..1000).filter(|_| budget.take(start)).count(), 10);
        assert!(budget.take(start + Duration::from_secs(1)), "a few a second are always there");
    }
}
