//! The table: medians per candidate, each figure beside its ratio to `direct` or to another candidate.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

/// One candidate's figures of one round, or the medians of all rounds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Requests per second, saturated.
    pub(crate) saturated_rps: f64,
    /// CPU seconds of the proxies per 100,000 requests there.
    pub(crate) cpu_per_100k: f64,
    /// p99 there, microseconds.
    pub(crate) saturated_p99_us: f64,
    /// p50 at 1,000 requests a second.
    pub(crate) p50_at_1000_us: f64,
    /// p99 at 4,000 requests a second.
    pub(crate) p99_at_4000_us: f64,
    /// CPU seconds of the proxies per 100,000 requests at 4,000 a second.
    pub(crate) cpu_at_4000_per_100k: f64,
    /// Peak memory of the proxies together.
    pub(crate) peak_mib: f64,
    /// Requests that failed, in all stages.
    pub(crate) errors: f64,
}

/// The median of each figure over the rounds.
pub(crate) fn medians(rounds: &[Figures]) -> Figures {
    let median = |of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Figures {
        saturated_rps: median(|f| f.saturated_rps),
        cpu_per_100k: median(|f| f.cpu_per_100k),
        saturated_p99_us: median(|f| f.saturated_p99_us),
        p50_at_1000_us: median(|f| f.p50_at_1000_us),
        p99_at_4000_us: median(|f| f.p99_at_4000_us),
        cpu_at_4000_per_100k: median(|f| f.cpu_at_4000_per_100k),
        peak_mib: median(|f| f.peak_mib),
        errors: rounds.iter().map(|f| f.errors).sum(),
    }
}

/// The table as text, candidates in the order given; ratios to the first one (`direct`) in brackets.
pub(crate) fn render(candidates: &[(String, Figures)]) -> String {
    let mut text = format!("{:<24}", "");
    for (name, _) in candidates {
        let _ = write!(text, "{name:>22}");
    }
    text.push('\n');
    let rows: [Row; 8] = [
        ("saturated rps", |f| f.saturated_rps, true),
        ("p99 there, us", |f| f.saturated_p99_us, true),
        ("CPU s/100k there", |f| f.cpu_per_100k, false),
        ("p50 at 1,000/s, us", |f| f.p50_at_1000_us, true),
        ("p99 at 4,000/s, us", |f| f.p99_at_4000_us, true),
        ("CPU s/100k at 4,000/s", |f| f.cpu_at_4000_per_100k, false),
        ("peak MiB", |f| f.peak_mib, false),
        ("errors", |f| f.errors, false),
    ];
    for (name, of, with_ratio) in rows {
        let _ = write!(text, "{name:<24}");
        let base = candidates.first().map_or(0.0, |(_, figures)| of(figures));
        for (_, figures) in candidates {
            let value = of(figures);
            let cell = if with_ratio && base > 0.0 { format!("{value:.0} ({:.2})", value / base) } else { format!("{value:.2}") };
            let _ = write!(text, "{cell:>22}");
        }
        text.push('\n');
    }
    text
}

/// A row's name, its figure, and whether the ratio to the first candidate is shown.
type Row = (&'static str, fn(&Figures) -> f64, bool);

/// Ratios of CPU per request that the budgets speak of.
pub(crate) fn verdicts(candidates: &BTreeMap<String, Figures>) -> Vec<String> {
    let cpu = |name: &str| candidates.get(name).map(|figures| figures.cpu_per_100k).filter(|value| *value > 0.0);
    let mut lines = Vec::new();
    let mut say = |ours: &str, theirs: &str| {
        if let (Some(a), Some(b)) = (cpu(ours), cpu(theirs)) {
            lines.push(format!("CPU per request, saturated: {ours} = {:.2} x {theirs}", a / b));
        }
    };
    say("proxies", "haproxy");
    say("proxies", "envoy");
    say("proxies+gateway", "proxies");
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_round_counts_and_errors_add_up() {
        let round = |rps: f64| Figures { saturated_rps: rps, errors: 1.0, ..Figures::default() };
        let all = medians(&[round(3.0), round(1.0), round(2.0)]);
        assert_eq!((all.saturated_rps, all.errors), (2.0, 3.0));
    }

    #[test]
    fn ratios_are_to_the_first_candidate() {
        let of = |rps: f64| Figures { saturated_rps: rps, ..Figures::default() };
        let text = render(&[("direct".into(), of(100.0)), ("proxies".into(), of(40.0))]);
        assert!(text.contains("40 (0.40)"), "{text}");
    }
}
