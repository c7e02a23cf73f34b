//! What is to change in this cluster so that it shows what its links export. Pure.
//!
//! Invariant: only objects that are ours change, and only in namespaces that exist and are granted. A link that has not said everything yet
//! keeps all that it has: absence means nothing before its listing is complete.

mod believe;
mod cluster_set;
mod egress;
mod headless;
mod merge;
mod mirror;
mod properties;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::client::exports::Exports;
use mesh_api::client::hold::Complete;
use mesh_names::{ClusterName, ServiceId};

pub use believe::{Believed, Refusal, believe};
pub use cluster_set::{ExportSays, Failed};
pub use egress::EgressRange;
pub use merge::Conflict;
pub use properties::PropertyChange;

use crate::model::{HeadlessSlice, Kind, MirrorSlice, Object, ObjectId, Seen};

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
    /// The writes of this cluster's properties.
    pub properties: Vec<PropertyChange>,
}

/// Decides what is to change.
#[must_use]
pub fn plan(seen: &Seen, told: &Told, range: EgressRange) -> Plan {
    let mut plan = Plan::default();
    let mut wanted = Wanted::new(seen, range);
    for (name, link) in &seen.links {
        if let (Ok(link), Some(exports)) = (link, told.get(name)) {
            let (believed, refused) = believe(seen, link, exports.get());
            plan.believed.insert(name.clone(), believed);
            plan.refused.insert(name.clone(), refused);
        }
    }
    // First, so that no mirror takes the name of a cluster-set Service.
    plan.exports = cluster_set::want(&mut wanted, &plan.believed);
    for (name, link) in &seen.links {
        match (link, plan.believed.get(name), plan.refused.get_mut(name)) {
            (Ok(link), Some(believed), Some(refused)) => mirror::want(&mut wanted, link, believed, refused),
            // It exists and has not said everything: what it has stays.
            _ => mirror::keep(&mut wanted, name),
        }
    }
    plan.changes = wanted.changes();
    plan.properties = properties::want(seen);
    plan
}

/// The objects that are wanted so far.
struct Wanted<'a> {
    seen: &'a Seen,
    objects: BTreeMap<ObjectId, Object>,
    untouched: BTreeSet<ObjectId>,
    slices: BTreeMap<ServiceId, Vec<&'a MirrorSlice>>,
    headless: BTreeMap<ServiceId, Vec<&'a HeadlessSlice>>,
    stand_ins: headless::StandIns<'a>,
    egress: egress::Assigned,
}

impl<'a> Wanted<'a> {
    fn new(seen: &'a Seen, range: EgressRange) -> Self {
        let slices = seen.objects.values().filter_map(|found| match &found.object {
            Some(Object::Slice(slice)) => Some(slice),
            _ => None,
        });
        let egress = egress::Assigned::recorded(range, slices.clone());
        let mut by_service: BTreeMap<ServiceId, Vec<&'a MirrorSlice>> = BTreeMap::new();
        for slice in slices {
            by_service.entry(ServiceId::new(slice.namespace.clone(), slice.service.clone())).or_default().push(slice);
        }
        let mut headless: BTreeMap<ServiceId, Vec<&'a HeadlessSlice>> = BTreeMap::new();
        for found in seen.objects.values() {
            let Some(Object::Headless(slice)) = &found.object else { continue };
            headless.entry(ServiceId::new(slice.namespace.clone(), slice.service.clone())).or_default().push(slice);
        }
        let stand_ins = headless::stand_ins(&seen.objects);
        Self { seen, objects: BTreeMap::new(), untouched: BTreeSet::new(), slices: by_service, headless, stand_ins, egress }
    }

    /// The uid of the import as it is.
    fn import_uid(&self, id: &ServiceId) -> Option<String> {
        let import = self.seen.objects.get(&ObjectId { kind: Kind::Import, ..ObjectId::service(id) })?;
        Some(import.uid.clone())
    }

    /// The slices of a Service as they are.
    fn slices_of(&self, service: &ServiceId) -> &[&'a MirrorSlice] {
        self.slices.get(service).map_or(&[], Vec::as_slice)
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

#[cfg(test)]
pub(crate) mod tests;
