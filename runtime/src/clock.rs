//! The one place that reads the clock and draws jitter for shells; pure code gets both as arguments.

use std::time::{Duration, Instant, SystemTime};

/// Now, for intervals.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Now, for certificates and what people read.
#[must_use]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// A uniformly drawn number of 0 ≤ x < 1.
#[must_use]
pub fn draw() -> f64 {
    rand::random()
}

/// `duration` spread by up to ± `share` of itself (0.2: ± 20 %), so that many processes do not act at once.
#[must_use]
pub fn jittered(duration: Duration, share: f64) -> Duration {
    duration.mul_f64((1.0 + share.clamp(0.0, 1.0) * (2.0 * draw() - 1.0)).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_share() {
        for _ in 0..1000 {
            let drawn = jittered(Duration::from_secs(10), 0.2);
            assert!((8.0..=12.0).contains(&drawn.as_secs_f64()), "{drawn:?}");
        }
    }
}
