//! What is counted. Labels are link names, which are objects of this cluster, and reasons, which are a closed enum.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::plan::Plan;

/// The metrics of a mirror controller.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    imported: Family<Link, Gauge>,
    refused: Family<Refused, Gauge>,
    /// Objects that were written or deleted.
    pub writes: Counter,
    /// Writes that failed.
    pub failed: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Link {
    link: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    link: String,
    reason: &'static str,
}

impl Metrics {
    /// Metrics that `registry` shows.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register("mesh_imported_services", "Services imported over each link", this.imported.clone());
        registry.register(
            "mesh_imports_refused",
            "Exports of each link that are not imported, or not whole, by reason",
            this.refused.clone(),
        );
        registry.register("mesh_mirror_writes", "Objects written or deleted", this.writes.clone());
        registry.register("mesh_mirror_writes_failed", "Writes that failed and are tried again", this.failed.clone());
        this
    }

    /// Shows what was decided; a link that is gone is shown no more.
    pub fn show(&self, plan: &Plan) {
        self.imported.clear();
        self.refused.clear();
        for (link, services) in &plan.believed {
            let count = i64::try_from(services.len()).unwrap_or(i64::MAX);
            self.imported.get_or_create(&Link { link: link.to_string() }).set(count);
        }
        for (link, refused) in &plan.refused {
            for (_, why) in refused {
                self.refused.get_or_create(&Refused { link: link.to_string(), reason: why.reason() }).inc();
            }
        }
    }
}
