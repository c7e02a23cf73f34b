//! Clusters that are linked both ways come to the same imports, whatever they heard in which order, and whatever was cut off meanwhile.

use mesh_api::proto;
use mesh_api::translate::Exported;
use mesh_names::ClusterId;
use proptest::prelude::*;

use super::world::{applied, exporting, linked, listed_as};
use super::*;
use crate::model::{Import, OwnExport, OwnService, Wish};
use crate::plan::merge::tests::{any_ports, any_properties};

const CLUSTERS: [&str; 3] = ["east", "north", "west"];
const SERVICES: [&str; 2] = ["shop/cart", "shop/web"];

/// What happens to a cluster set.
#[derive(Clone, Debug)]
enum Step {
    /// A cluster exports a service, or exports it otherwise; without one it unexports it.
    Export(usize, usize, Option<OwnExport>),
    /// A cluster hears what another exports now.
    Hear(usize, usize),
    /// A cluster's mirror controller starts again, and has heard nothing.
    Restart(usize),
    /// A cluster does what it plans.
    Act(usize),
}

/// Clusters, each with what it has heard.
struct Set {
    seen: Vec<Seen>,
    told: Vec<Told>,
}

impl Set {
    fn new() -> Self {
        let others = |own: &str| CLUSTERS.into_iter().filter(|name| *name != own).collect::<Vec<_>>();
        let seen = CLUSTERS.into_iter().map(|own| linked(own, &others(own))).collect();
        Self { seen, told: vec![Told::new(); CLUSTERS.len()] }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Export(at, service, export) => {
                let id = SERVICES[service].parse().unwrap();
                match export {
                    Some(export) => self.seen[at].exports.insert(id, export),
                    None => self.seen[at].exports.remove(&id),
                };
            }
            Step::Hear(at, of) if at != of => {
                let said = self.seen[of].exports.iter().filter_map(|(id, export)| said(id, export)).collect();
                self.told[at].insert(CLUSTERS[of].parse().unwrap(), listed_as(CLUSTERS[of], said));
            }
            Step::Hear(..) => {}
            Step::Restart(at) => self.told[at].clear(),
            Step::Act(at) => {
                let changes = decide(&self.seen[at], &self.told[at]).changes;
                self.seen[at] = applied(self.seen[at].clone(), changes);
            }
        }
    }

    /// Everybody hears everybody, and acts until nothing is left to do.
    fn heal(mut self) -> Self {
        for (at, of) in pairs() {
            self.step(Step::Hear(at, of));
        }
        for at in 0..CLUSTERS.len() {
            self.seen[at] = settled(self.seen[at].clone(), &self.told[at]);
        }
        self
    }

    /// A cluster's imports as the standard has them: its own addresses aside.
    fn imports(&self, at: usize) -> Vec<Import> {
        let imports = self.seen[at].objects.values().filter_map(|found| match &found.object {
            Some(Object::Import(import)) => Some(import.clone()),
            _ => None,
        });
        imports.map(|import| Import { ips: Vec::new(), pending: Wish(None), ..import }).collect()
    }

    /// What the exporters of each service are told, by cluster.
    fn said(&self, at: usize) -> BTreeMap<ServiceId, ExportSays> {
        decide(&self.seen[at], &self.told[at]).exports
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..CLUSTERS.len()).flat_map(|at| (0..CLUSTERS.len()).map(move |of| (at, of)))
}

/// An export as its cluster says it to a peer.
fn said(id: &ServiceId, export: &OwnExport) -> Option<proto::ExportedService> {
    let service = export.service.as_ref().ok()?;
    let exported = Exported {
        id: id.clone(),
        headless: service.headless,
        ports: service.ports.clone(),
        identities: Vec::new(),
        endpoints: Vec::new(),
        created_at: export.created_at,
        proxyless: false,
        allow_unmeshed: false,
        properties: service.properties.clone(),
    };
    Some((&exported).into())
}

fn any_export() -> impl Strategy<Value = OwnExport> {
    let service = (any::<bool>(), any_ports(), any_properties());
    let service = service.prop_map(|(headless, ports, properties)| OwnService { headless, ports, properties });
    (0_i64..3, service).prop_map(|(created_at, service)| OwnExport { created_at, service: Ok(service) })
}

fn any_step() -> impl Strategy<Value = Step> {
    let cluster = || 0..CLUSTERS.len();
    prop_oneof![
        3 => (cluster(), 0..SERVICES.len(), prop::option::weighted(0.7, any_export())).prop_map(|(at, id, export)| Step::Export(at, id, export)),
        3 => (cluster(), cluster()).prop_map(|(at, of)| Step::Hear(at, of)),
        1 => cluster().prop_map(Step::Restart),
        3 => cluster().prop_map(Step::Act),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_cluster_has_the_same_imports_after_any_history(steps in prop::collection::vec(any_step(), 0..40)) {
        let mut set = Set::new();
        for step in steps {
            set.step(step);
        }
        let set = set.heal();
        let mut fresh = Set::new();
        for at in 0..CLUSTERS.len() {
            fresh.seen[at].exports = set.seen[at].exports.clone();
        }
        let fresh = fresh.heal();
        for (at, cluster) in CLUSTERS.into_iter().enumerate() {
            prop_assert_eq!(set.imports(at), fresh.imports(0), "{} agrees, and so does one without a past", cluster);
            prop_assert_eq!(set.said(at), fresh.said(at));
        }
    }

    #[test]
    fn all_who_take_part_are_told_of_the_same_conflicts(steps in prop::collection::vec(any_step(), 0..20)) {
        let mut set = Set::new();
        for step in steps {
            set.step(step);
        }
        let set = set.heal();
        for service in SERVICES {
            let id: ServiceId = service.parse().unwrap();
            let told: Vec<_> = (0..CLUSTERS.len()).filter_map(|at| set.said(at).get(&id).map(|says| says.conflicts.clone())).collect();
            prop_assert!(told.iter().all(|one| one.is_some() && *one == told[0]), "{service}: {told:?}");
        }
    }

    #[test]
    fn an_exporter_s_slice_has_its_own_ports_and_no_other(steps in prop::collection::vec(any_step(), 0..20)) {
        let mut set = Set::new();
        for step in steps {
            set.step(step);
        }
        let set = set.heal();
        for (at, of) in pairs() {
            let id: ClusterId = format!("id-{}", CLUSTERS[of]).parse().unwrap();
            for (service, export) in &set.seen[of].exports {
                let Ok(exported) = &export.service else { continue };
                let Some(ports) = exporting(&set.seen[at], service, &id) else { continue };
                let carried = exported.ports.iter().filter(|port| port.transport != Transport::Sctp);
                let carried: BTreeSet<_> = carried.map(|port| (port.transport, port.number)).collect();
                prop_assert_eq!(ports, carried, "{} of {} in {}", service, CLUSTERS[of], CLUSTERS[at]);
            }
        }
    }
}
