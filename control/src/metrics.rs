//! What control counts. Labels are words of this file, never anybody's text.

use mesh_runtime::denied::Denied;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The counters of one control. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// What was refused, and why.
    pub denied: Denied,
    /// SVIDs issued.
    pub issued: Counter,
    /// States built.
    pub built: Counter,
    /// Kinds whose fresh listing is held.
    pub held: Gauge,
    readers: Family<Service, Gauge>,
    updates: Family<Service, Counter>,
    /// Acknowledgements of readers.
    pub acks: Counter,
    reported: Family<Outcome, Counter>,
}

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stream {
    /// To the own cluster.
    Discovery,
    /// To a peer.
    Exports,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Service {
    service: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// A stream that is open; it counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Reading(Gauge);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Counters that `registry` shows.
    #[must_use]
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            denied: Denied::register(registry, "control"),
            issued: Counter::default(),
            built: Counter::default(),
            held: Gauge::default(),
            readers: Family::default(),
            updates: Family::default(),
            acks: Counter::default(),
            reported: Family::default(),
        };
        registry.register("mesh_control_issued", "SVIDs issued", metrics.issued.clone());
        registry.register("mesh_control_built", "States computed from what was observed", metrics.built.clone());
        registry.register("mesh_control_held_kinds", "Kinds whose fresh listing is held", metrics.held.clone());
        registry.register("mesh_control_readers", "Open streams, by service", metrics.readers.clone());
        registry.register("mesh_control_updates", "Updates sent, by service", metrics.updates.clone());
        registry.register("mesh_control_acks", "Acknowledgements of readers", metrics.acks.clone());
        registry.register("mesh_control_reported_requests", "Requests that proxies have reported, by outcome", metrics.reported.clone());
        metrics
    }

    /// A stream was opened.
    #[must_use]
    pub(crate) fn reading(&self, stream: Stream) -> Reading {
        let gauge = self.readers.get_or_create(&Service { service: stream.name() }).clone();
        gauge.inc();
        Reading(gauge)
    }

    /// An update was sent.
    pub(crate) fn updated(&self, stream: Stream) {
        self.updates.get_or_create(&Service { service: stream.name() }).inc();
    }

    /// A proxy has reported so many requests, by what became of them.
    pub(crate) fn reported(&self, sums: [(&'static str, u64); 3]) {
        for (outcome, sum) in sums {
            self.reported.get_or_create(&Outcome { outcome }).inc_by(sum);
        }
    }
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Exports => "exports",
        }
    }
}
