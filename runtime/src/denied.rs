//! What was refused, and why: the one metric family `mesh_denied_total{component, reason}`.
//!
//! Both labels are constants of the code, never a peer's text, so the number of series is bounded.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counts refusals of one component (`gateway`, `inbound`, …). Clones count into the same family.
#[derive(Clone, Debug)]
pub struct Denied {
    component: &'static str,
    family: Family<Labels, Counter>,
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
        Self { component, family }
    }

    /// One that nothing shows: for tests and clients.
    #[must_use]
    pub fn unregistered(component: &'static str) -> Self {
        Self { component, family: Family::default() }
    }

    /// The same family, counted under another component.
    #[must_use]
    pub fn of(&self, component: &'static str) -> Self {
        Self { component, family: self.family.clone() }
    }

    /// Counts one refusal.
    pub fn count(&self, reason: &'static str) {
        self.family.get_or_create(&Labels { component: self.component, reason }).inc();
        tracing::debug!(component = self.component, reason, "denied");
    }

    /// How often `reason` was counted here.
    #[must_use]
    pub fn counted(&self, reason: &'static str) -> u64 {
        self.family.get_or_create(&Labels { component: self.component, reason }).get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
