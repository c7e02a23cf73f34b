//! What is to change in this cluster so that it shows what its links export. Pure.
//!
//! Invariant: only objects that are ours change, and only in namespaces that exist and are granted. A link that has not said everything yet
//! keeps all that it has: absence means nothing before its listing is complete.

mod believe;
mod cluster_set;
mod egress;
mod mirror;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::client::exports::Exports;
use mesh_api::client::hold::Complete;
use mesh_api::translate::ExportedPort;
use mesh_names::{ClusterName, ServiceId};

pub use believe::{Believed, Refusal, believe};
pub use cluster_set::ExportSays;
pub use egress::EgressRange;

use crate::model::{Object, ObjectId, Seen};

/// What each link exports, of the links whose first listing is complete.
pub type Told = BTreeMap<ClusterName, Arc<Complete<Exports>>>;

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make an object that is not there.
    Create(Object),
    /// Make one of our objects say this.
    Update(Object),
    /// Delete one of our objects, if it is still the one with this uid.
    Delete(ObjectId, String),
}

/// What is to change, and what to tell people.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The writes.
    pub changes: Vec<Change>,
    /// For each complete link, what is imported over it.
    pub believed: BTreeMap<ClusterName, BTreeMap<ServiceId, Believed>>,
    /// For each complete link, what is not, or not whole, and why.
    pub refused: BTreeMap<ClusterName, BTreeSet<(ServiceId, Refusal)>>,
    /// What to say on this cluster's own exports.
    pub exports: BTreeMap<ServiceId, ExportSays>,
}

/// Decides what is to change.
#[must_use]
pub fn plan(seen: &Seen, told: &Told, range: EgressRange) -> Plan {
    let mut plan = Plan::default();
    let mut wanted = Wanted::new(seen, range);
    for (name, link) in &seen.links {
        match (link, told.get(name)) {
            (Ok(link), Some(exports)) => {
                let (believed, mut refused) = believe(seen, link, exports.get());
                mirror::want(&mut wanted, link, &believed, &mut refused);
                plan.believed.insert(name.clone(), believed);
                plan.refused.insert(name.clone(), refused);
            }
            // It exists and has not said everything: what it has stays.
            _ => mirror::keep(&mut wanted, name),
        }
    }
    plan.exports = cluster_set::want(&mut wanted, &plan.believed);
    plan.changes = wanted.changes();
    plan
}

/// The objects that are wanted so far.
struct Wanted<'a> {
    seen: &'a Seen,
    objects: BTreeMap<ObjectId, Object>,
    untouched: BTreeSet<ObjectId>,
    egress: egress::Assigned,
}

impl<'a> Wanted<'a> {
    fn new(seen: &'a Seen, range: EgressRange) -> Self {
        let slices = seen.objects.values().filter_map(|found| match &found.object {
            Some(Object::Slice(slice)) => Some(slice),
            _ => None,
        });
        Self { seen, objects: BTreeMap::new(), untouched: BTreeSet::new(), egress: egress::Assigned::recorded(range, slices) }
    }

    fn insert(&mut self, object: Object) {
        self.objects.insert(object.id(), object);
    }

    fn changes(self) -> Vec<Change> {
        let stale = self.seen.objects.iter().filter(|(id, _)| !self.objects.contains_key(*id) && !self.untouched.contains(*id));
        let mut changes: Vec<Change> = stale.map(|(id, found)| Change::Delete(id.clone(), found.uid.clone())).collect();
        for (id, object) in self.objects {
            match self.seen.objects.get(&id) {
                None => changes.push(Change::Create(object)),
                Some(found) if found.object.as_ref() != Some(&object) => changes.push(Change::Update(object)),
                Some(_) => {}
            }
        }
        changes
    }
}

/// Kubernetes wants a name for each of several ports.
fn named(ports: &[ExportedPort]) -> Vec<ExportedPort> {
    let mut named = ports.to_vec();
    if named.len() > 1 {
        for port in named.iter_mut().filter(|port| port.name.is_none()) {
            port.name = format!("port-{}-{}", port.number, port.transport.as_str().to_ascii_lowercase()).parse().ok();
        }
    }
    named
}

#[cfg(test)]
pub(crate) mod tests;
