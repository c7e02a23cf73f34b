//! What is counted, for `/metrics`. Every label is a closed enum, and every counter is looked up once, at start: counting a request
//! is one addition.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Which way an exchange goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Direction {
    /// From the workload.
    #[expect(non_camel_case_types, reason = "the label's value")]
    outbound,
    /// To the workload.
    #[expect(non_camel_case_types, reason = "the label's value")]
    inbound,
}

/// What an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Kind {
    /// A request.
    #[expect(non_camel_case_types, reason = "the label's value")]
    http,
    /// A raw connection.
    #[expect(non_camel_case_types, reason = "the label's value")]
    raw,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Ended {
    /// It was answered to its end, with a status below 500.
    #[expect(non_camel_case_types, reason = "the label's value")]
    answered,
    /// It was answered to its end, with a status of 500 or more.
    #[expect(non_camel_case_types, reason = "the label's value")]
    error,
    /// It broke, or never reached anybody.
    #[expect(non_camel_case_types, reason = "the label's value")]
    failed,
    /// It was not allowed, or named nothing.
    #[expect(non_camel_case_types, reason = "the label's value")]
    refused,
    /// Its client went away.
    #[expect(non_camel_case_types, reason = "the label's value")]
    cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    direction: Direction,
    kind: Kind,
    ended: Ended,
}

/// The proxy's counters.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    exchanges: [[[Counter; ENDED.len()]; 2]; 2],
    /// Attempts after the first.
    pub(crate) retries: Counter,
    /// Gateways that are watched now and do not answer.
    pub(crate) dark_gateways: Gauge,
}

impl Metrics {
    /// Counters that `registry` shows.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let family = Family::<Labels, Counter>::default();
        registry.register("mesh_requests", "Requests and raw connections, by direction, kind and how they ended", family.clone());
        let exchanges = [Direction::outbound, Direction::inbound].map(|direction| {
            [Kind::http, Kind::raw].map(|kind| ENDED.map(|ended| family.get_or_create(&Labels { direction, kind, ended }).clone()))
        });
        let (retries, dark_gateways) = (Counter::default(), Gauge::default());
        registry.register("mesh_retries", "Attempts after a request's first", retries.clone());
        registry.register("mesh_dark_gateways", "Gateways in use that do not answer this proxy", dark_gateways.clone());
        Self { exchanges, retries, dark_gateways }
    }

    /// Counts one exchange.
    pub(crate) fn count(&self, direction: Direction, kind: Kind, ended: Ended) {
        self.exchanges[direction as usize][kind as usize][ended as usize].inc();
    }
}

const ENDED: [Ended; 5] = [Ended::answered, Ended::error, Ended::failed, Ended::refused, Ended::cancelled];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_counted_once_under_its_labels() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.count(Direction::inbound, Kind::raw, Ended::refused);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains(r#"mesh_requests_total{direction="inbound",kind="raw",ended="refused"} 1"#), "{text}");
        assert!(text.contains(r#"mesh_requests_total{direction="outbound",kind="http",ended="answered"} 0"#), "{text}");
    }
}
