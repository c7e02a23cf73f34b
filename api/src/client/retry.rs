//! Pauses between attempts, and which control to try next. Jittered, so that ten thousand proxies do not return to a replica together.

use std::time::Duration;

use crate::connect::ControlAddress;

/// Attempts in a row.
#[derive(Debug)]
pub(super) struct Retry {
    addresses: Vec<ControlAddress>,
    next: usize,
    failures: u32,
}

impl Retry {
    /// Begins anywhere among `addresses`: `draw` is of 0 ≤ x < 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a small index")]
    pub(super) fn new(addresses: Vec<ControlAddress>, draw: f64) -> Self {
        let next = (draw * addresses.len() as f64) as usize;
        Self { addresses, next, failures: 0 }
    }

    /// The address to try; none when there are no addresses.
    pub(super) fn address(&self) -> Option<&ControlAddress> {
        self.addresses.get(self.next % self.addresses.len().max(1))
    }

    /// The attempt worked.
    pub(super) fn on_success(&mut self) {
        self.failures = 0;
    }

    /// The attempt, or what it led to, ended: the next address is tried after this pause. A round of all addresses is quick.
    pub(super) fn on_failure(&mut self, draw: f64) -> Duration {
        let round = self.failures / u32::try_from(self.addresses.len().max(1)).unwrap_or(1);
        self.next = self.next.wrapping_add(1);
        self.failures = self.failures.saturating_add(1);
        (FIRST * 2_u32.saturating_pow(round.min(10))).min(LONGEST).mul_f64(0.5 + draw)
    }
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_is_tried_before_the_pause_grows() {
        let addresses = ["a:1", "b:1"].map(|address| address.parse().unwrap()).to_vec();
        let mut retry = Retry::new(addresses, 0.6);
        let mut tried = Vec::new();
        for _ in 0..5 {
            let address = retry.address().unwrap().to_string();
            tried.push((address, retry.on_failure(0.5).as_millis()));
        }
        let expected = [("b:1", 100), ("a:1", 100), ("b:1", 200), ("a:1", 200), ("b:1", 400)];
        assert_eq!(tried, expected.map(|(address, pause)| (address.to_owned(), pause)));
        retry.on_success();
        assert_eq!(retry.on_failure(0.5).as_millis(), 100);
    }
}
