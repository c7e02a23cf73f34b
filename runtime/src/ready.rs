//! Readiness: a process is ready when each of its named gates is open, and says which are not.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The gates of one process. Clones share them. Without any gate the process is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    gates: Arc<Mutex<BTreeMap<&'static str, bool>>>,
}

/// One condition of readiness, held by whoever knows it.
#[derive(Clone, Debug)]
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Ready, until a gate is made.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A closed gate called `name` (constant, lower case); a name taken twice is the same gate.
    #[must_use]
    pub fn gate(&self, name: &'static str) -> Gate {
        self.gates.lock().entry(name).or_insert(false);
        Gate { name, readiness: self.clone() }
    }

    /// Whether every gate is open.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.gates.lock().values().all(|open| *open)
    }

    /// The gates that are still closed.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.gates.lock().iter().filter(|(_, open)| !**open).map(|(name, _)| *name).collect()
    }
}

impl Gate {
    /// The condition holds.
    pub fn open(&self) {
        self.readiness.gates.lock().insert(self.name, true);
    }

    /// The condition does not hold (any more).
    pub fn close(&self) {
        self.readiness.gates.lock().insert(self.name, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_gate_is_open() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (identity, discovery) = (readiness.gate("identity"), readiness.gate("discovery"));
        identity.open();
        assert_eq!(readiness.waiting_for(), ["discovery"]);
        discovery.open();
        assert!(readiness.is_ready());
        identity.close();
        assert!(!readiness.is_ready());
    }
}
