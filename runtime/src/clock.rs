//! The one place that reads the clock and draws jitter for shells; pure code gets both as arguments.

use std::fmt;
use std::str::FromStr;
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

/// A span of time as flags have it: a whole number and `ms`, `s`, `m` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Why text is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a span of time: write a whole number and ms, s, m or h, such as 30s")]
pub struct SpanError(String);

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let error = || SpanError(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| error())?;
        let milliseconds = match &text[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(error()),
        };
        number.checked_mul(milliseconds).map(|all| Self(Duration::from_millis(all))).ok_or_else(error)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            all if all % 1_000 != 0 => write!(f, "{all}ms"),
            all => write!(f, "{}s", all / 1_000),
        }
    }
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

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        for (text, milliseconds) in [("30s", 30_000), ("250ms", 250), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(text.parse::<Span>().unwrap().0, Duration::from_millis(milliseconds));
        }
        assert_eq!("90s".parse::<Span>().unwrap().to_string(), "90s");
        for bad in ["", "s", "30", "-1s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
