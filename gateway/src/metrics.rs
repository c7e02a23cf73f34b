//! What a gateway counts. Labels come from the snapshot or are constants: a name that a peer made up is `other`.

use mesh_runtime::denied::Denied;
use mesh_transport::tunnel::Status;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of one gateway. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    tunnels: Family<TunnelLabels, Counter>,
    open: Family<ClusterLabels, Gauge>,
    bytes: Family<ByteLabels, Counter>,
    egress: Family<EgressLabels, Counter>,
    /// What was refused, by reason.
    pub denied: Denied,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TunnelLabels {
    src_cluster: String,
    dst_service: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabels {
    src_cluster: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByteLabels {
    src_cluster: String,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EgressLabels {
    dst_service: String,
    outcome: &'static str,
}

impl Metrics {
    /// The metrics, shown in `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let denied = Denied::register(registry, "gateway");
        let metrics =
            Self { tunnels: Family::default(), open: Family::default(), bytes: Family::default(), egress: Family::default(), denied };
        registry.register("mesh_gateway_tunnels", "Tunnel requests answered, by what came of them", metrics.tunnels.clone());
        registry.register("mesh_gateway_tunnels_open", "Tunnels that are open now", metrics.open.clone());
        registry.register("mesh_gateway_bytes", "Bytes copied in tunnels", metrics.bytes.clone());
        registry.register("mesh_gateway_egress", "Connections of clients without a proxy", metrics.egress.clone());
        metrics
    }

    /// One connection of a client without a proxy has been answered.
    pub(crate) fn egress(&self, dst_service: &str, outcome: &'static str) {
        self.egress.get_or_create(&EgressLabels { dst_service: dst_service.to_owned(), outcome }).inc();
    }
}

/// One tunnel from its request to its end; counted once, when it is answered or dropped.
#[derive(Debug)]
pub(crate) struct Tunnel {
    metrics: Metrics,
    labels: TunnelLabels,
    answered: bool,
    open: bool,
}

impl Tunnel {
    pub(crate) fn asked(metrics: &Metrics, src_cluster: &str, dst_service: String) -> Self {
        let labels = TunnelLabels { src_cluster: src_cluster.to_owned(), dst_service, status: ABANDONED };
        Self { metrics: metrics.clone(), labels, answered: false, open: false }
    }

    pub(crate) fn answered(&mut self, status: Status) {
        self.labels.status = status.as_str();
        self.metrics.tunnels.get_or_create(&self.labels).inc();
        self.answered = true;
        if status == Status::Accepted {
            self.open = true;
            self.metrics.open.get_or_create(&self.cluster()).inc();
        }
    }

    pub(crate) fn copied(&self, inward: u64, outward: u64) {
        for (direction, bytes) in [("in", inward), ("out", outward)] {
            let labels = ByteLabels { src_cluster: self.labels.src_cluster.clone(), direction };
            self.metrics.bytes.get_or_create(&labels).inc_by(bytes);
        }
    }

    fn cluster(&self) -> ClusterLabels {
        ClusterLabels { src_cluster: self.labels.src_cluster.clone() }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if !self.answered {
            self.metrics.tunnels.get_or_create(&self.labels).inc();
        }
        if self.open {
            self.metrics.open.get_or_create(&self.cluster()).dec();
        }
    }
}

/// The status of a tunnel whose asker left before it was answered.
const ABANDONED: &str = "abandoned";
