//! When to ask for a new SVID: a state machine that is handed the time and the randomness.
//!
//! An SVID lives 48 h and is renewed every 12 h, so a control plane that is gone for a day and a half costs nobody an identity. Failures
//! are retried with a growing pause. Jitter keeps ten thousand proxies that started together from asking together.

use std::time::{Duration, SystemTime};

use crate::Svid;

/// How long an SVID lives unless it is said otherwise.
pub const SVID_LIFETIME: Duration = Duration::from_secs(48 * 3600);

/// When SVIDs are renewed and failures are retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Renewal after this, or after half of the SVID's life if that is sooner.
    pub renew_after: Duration,
    /// The first pause after a failure; it doubles with each.
    pub retry_first: Duration,
    /// The longest pause.
    pub retry_longest: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            renew_after: Duration::from_secs(12 * 3600),
            retry_first: Duration::from_millis(500),
            retry_longest: Duration::from_secs(60),
        }
    }
}

/// A random number from 0 up to 1, drawn by the caller.
#[derive(Clone, Copy, Debug)]
pub struct Jitter(pub f64);

impl Jitter {
    /// `duration`, up to `share` shorter or longer.
    #[must_use]
    pub fn around(self, duration: Duration, share: f64) -> Duration {
        duration.mul_f64((1.0 + share * (2.0 * self.0.clamp(0.0, 1.0) - 1.0)).max(0.0))
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for an SVID.
    Request,
    /// Nothing before then.
    WaitUntil(SystemTime),
}

/// The renewal of one SVID.
#[derive(Clone, Debug)]
pub struct Rotation {
    timing: Timing,
    due: Option<SystemTime>,
    retry_at: Option<SystemTime>,
    failures: u32,
}

impl Rotation {
    /// With nothing held: an SVID is asked for at once.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self { timing, due: None, retry_at: None, failures: 0 }
    }

    /// What to do at `now`. Asking twice changes nothing.
    #[must_use]
    pub fn step(&self, now: SystemTime) -> Step {
        match self.due.max(self.retry_at) {
            Some(due) if now < due => Step::WaitUntil(due),
            _ => Step::Request,
        }
    }

    /// An SVID was issued, or read from disk.
    pub fn on_issued(&mut self, svid: &Svid, jitter: Jitter) {
        self.on_issued_for(svid.not_before(), svid.not_after(), jitter);
    }

    /// A request failed at `now`; the SVID that is held, if any, stays in use.
    pub fn on_refused(&mut self, now: SystemTime, jitter: Jitter) {
        let doubled = self.timing.retry_first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + jitter.around(doubled.min(self.timing.retry_longest), RETRY_SHARE));
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn on_issued_for(&mut self, not_before: SystemTime, not_after: SystemTime, jitter: Jitter) {
        let life = not_after.duration_since(not_before).unwrap_or_default();
        self.due = Some(not_before + jitter.around(self.timing.renew_after.min(life / 2), RENEW_SHARE));
        self.retry_at = None;
        self.failures = 0;
    }
}

/// Renewals spread over a fifth of their period.
const RENEW_SHARE: f64 = 0.1;
/// Retries spread over their whole pause.
const RETRY_SHARE: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MIDDLE: Jitter = Jitter(0.5);

    fn at(hours: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + HOUR * hours
    }

    fn holding(from: u32, to: u32) -> Rotation {
        let mut rotation = Rotation::new(Timing::default());
        rotation.on_issued_for(at(from), at(to), MIDDLE);
        rotation
    }

    #[test]
    fn without_an_svid_one_is_asked_for_at_once() {
        assert_eq!(Rotation::new(Timing::default()).step(at(0)), Step::Request);
    }

    #[test]
    fn an_svid_of_two_days_is_renewed_after_twelve_hours() {
        let rotation = holding(0, 48);
        assert_eq!(rotation.step(at(11)), Step::WaitUntil(at(12)));
        assert_eq!(rotation.step(at(12)), Step::Request);
    }

    #[test]
    fn a_short_one_is_renewed_at_half_of_its_life() {
        assert_eq!(holding(0, 4).step(at(1)), Step::WaitUntil(at(2)));
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_a_limit_and_success_forgets_them() {
        let mut rotation = Rotation::new(Timing::default());
        let mut pauses = Vec::new();
        for _ in 0..10 {
            rotation.on_refused(at(0), MIDDLE);
            if let Step::WaitUntil(then) = rotation.step(at(0)) {
                pauses.push(then.duration_since(at(0)).unwrap().as_millis());
            }
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        rotation.on_issued_for(at(0), at(48), MIDDLE);
        assert_eq!((rotation.failures(), rotation.step(at(1))), (0, Step::WaitUntil(at(12))));
    }

    #[test]
    fn jitter_spreads_renewals_over_a_fifth_of_the_period() {
        let due = |jitter| {
            let mut rotation = Rotation::new(Timing::default());
            rotation.on_issued_for(at(0), at(48), Jitter(jitter));
            rotation.due.unwrap().duration_since(at(0)).unwrap().as_secs() / 60
        };
        assert_eq!((due(0.0), due(1.0)), (648, 792));
    }
}
