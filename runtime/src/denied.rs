//! What was refused, and why: the one metric family `mesh_denied_total{component, reason}`.
//!
//! Both labels are constants of the code, never a peer's text, so the number of series is bounded. A reason has one spelling,
//! `lower-case-with-dashes`, whichever component says it: an alert on one must not miss the other half. Each refusal is counted; the event in the
//! log is held to one per component and reason in [`TELL_EVERY`], with the number of those it stands for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counts refusals of one component (`gateway`, `inbound`, …). Clones count into the same family.
#[derive(Clone, Debug)]
pub struct Denied {
    component: &'static str,
    family: Family<Labels, Counter>,
    told: Arc<Mutex<HashMap<Labels, Told>>>,
}

/// When an event was last written, and how many refusals there have been since.
#[derive(Debug)]
struct Told {
    at: Instant,
    since: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    component: &'static str,
    reason: &'static str,
}

impl Denied {
    /// A family for this process, shown in `registry`; `component` is the first user.
    #[must_use]
    pub fn register(registry: &mut Registry, component: &'static str) -> Self {
        let family = Family::default();
        registry.register("mesh_denied", "Requests, tunnels and handshakes refused, by component and reason", family.clone());
        Self { component, family, told: Arc::default() }
    }

    /// One that nothing shows: for tests and clients.
    #[must_use]
    pub fn unregistered(component: &'static str) -> Self {
        Self { component, family: Family::default(), told: Arc::default() }
    }

    /// The same family, counted under another component.
    #[must_use]
    pub fn of(&self, component: &'static str) -> Self {
        Self { component, family: self.family.clone(), told: Arc::clone(&self.told) }
    }

    /// Counts one refusal.
    pub fn count(&self, reason: &'static str) {
        debug_assert!(is_spelt(reason), "{reason} is not spelt like-this");
        let labels = Labels { component: self.component, reason };
        self.family.get_or_create(&labels).inc();
        if let Some(times) = self.tell(labels, Instant::now()) {
            tracing::info!(component = self.component, reason, times, "denied");
        }
    }

    /// How many refusals an event stands for that is due now.
    fn tell(&self, labels: Labels, now: Instant) -> Option<u64> {
        let mut told = self.told.lock();
        match told.get_mut(&labels) {
            Some(last) if now.saturating_duration_since(last.at) < TELL_EVERY => {
                last.since += 1;
                None
            }
            Some(last) => {
                let times = last.since + 1;
                *last = Told { at: now, since: 0 };
                Some(times)
            }
            None => {
                told.insert(labels, Told { at: now, since: 0 });
                Some(1)
            }
        }
    }

    /// How often `reason` was counted here.
    #[must_use]
    pub fn counted(&self, reason: &'static str) -> u64 {
        self.family.get_or_create(&Labels { component: self.component, reason }).get()
    }
}

/// Whether a reason is spelt as all are.
fn is_spelt(reason: &str) -> bool {
    reason.split('-').all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()))
}

/// How often the log tells of the same kind of refusal.
pub const TELL_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_of_a_kind_are_one_event_that_says_how_many() {
        let denied = Denied::unregistered("gateway");
        let (labels, begun) = (Labels { component: "gateway", reason: "expired" }, Instant::now());
        assert_eq!(denied.tell(labels.clone(), begun), Some(1));
        assert_eq!(denied.tell(labels.clone(), begun), None);
        assert_eq!(denied.tell(labels.clone(), begun + TELL_EVERY / 2), None);
        assert_eq!(denied.tell(labels.clone(), begun + TELL_EVERY), Some(3));
        assert_eq!(denied.tell(Labels { reason: "hops", ..labels }, begun), Some(1));
    }

    #[test]
    fn a_reason_has_one_spelling() {
        for (reason, expected) in
            [("expired", true), ("not-exported", true), ("not_exported", false), ("Alpn", false), ("no--route", false)]
        {
            assert_eq!(is_spelt(reason), expected, "{reason}");
        }
    }

    #[test]
    fn a_refusal_is_shown_with_its_component_and_reason() {
        let mut registry = Registry::default();
        let denied = Denied::register(&mut registry, "gateway");
        denied.count("expired");
        denied.of("inbound").count("expired");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains(r#"mesh_denied_total{component="gateway",reason="expired"} 1"#), "{text}");
        assert_eq!(denied.counted("expired"), 1);
    }
}
