//! What a peer is told of an exported service.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::translate::{Exported, ExportedEndpoint};
use mesh_names::SpiffeId;
use mesh_topology::{Endpoint, Export, Mesh, Service};

use super::Context;
use crate::observed::ObjectName;

impl Context<'_> {
    /// An export whose endpoints all lack a proxy, and may be served so, is marked proxyless; where some have one, only those are told,
    /// because a caller must know before dialling whether it will meet the workload or the gateway.
    pub(super) fn exported(&self, service: &Service, export: &Export) -> Option<Exported> {
        let name = ObjectName { namespace: service.id.namespace().as_str().into(), name: service.id.name().as_str().into() };
        let (made, observed) = (self.complete.seen.exports.get(&name)?, self.complete.seen.services.get(&name)?);
        let proxied = |endpoint: &&Arc<Endpoint>| endpoint.mesh != Mesh::Plain;
        let proxyless = export.allow_unmeshed && !service.endpoints.is_empty() && !service.endpoints.iter().any(|one| proxied(&one));
        let told: Vec<&Arc<Endpoint>> = service.endpoints.iter().filter(|endpoint| proxyless || proxied(endpoint)).collect();
        let identities: BTreeSet<SpiffeId> = told.iter().filter(|endpoint| proxied(endpoint)).map(|one| one.identity.clone()).collect();
        Some(Exported {
            id: service.id.clone(),
            headless: observed.headless,
            // Those that the mesh can't carry (SCTP), too: they are part of the import.
            ports: observed.ports.clone(),
            identities: identities.into_iter().collect(),
            endpoints: told.into_iter().map(|endpoint| told_of(endpoint)).collect(),
            created_at: made.created_at,
            proxyless,
            allow_unmeshed: export.allow_unmeshed,
            properties: observed.properties.clone().with_metadata(&made.exported_labels, &made.exported_annotations),
        })
    }
}

fn told_of(endpoint: &Endpoint) -> ExportedEndpoint {
    ExportedEndpoint {
        handle: endpoint.handle.clone(),
        hostname: endpoint.hostname.clone(),
        ready: endpoint.ready,
        weight: endpoint.weight,
    }
}
