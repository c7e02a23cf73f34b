//! Small worlds for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::client::exports::{Exports, ExportsState};
use mesh_api::client::hold::Complete;
use mesh_api::proto;
use mesh_api::translate::{IpFamily, Transport};
use mesh_names::{ClusterId, ClusterName, ServiceId, ServicePort};
use mesh_topology::Gateway;
use mesh_trust::Bundle;

use crate::model::{Found, Namespaces, Object, ObjectId, Seen, SeenLink, SliceOf, source_of};
use crate::plan::Change;

/// A link to `name` whose id is `id-<name>`.
pub(crate) fn link(name: &str) -> SeenLink {
    let id = |account: &str| format!("spiffe://{name}.mesh/ns/isthmus-system/sa/{account}").parse().unwrap();
    SeenLink {
        name: name.parse().unwrap(),
        uid: format!("uid-{name}"),
        id: format!("id-{name}").parse().unwrap(),
        trust_domain: format!("{name}.mesh").parse().unwrap(),
        gateways: vec![Gateway { address: "127.1.0.5:4143".parse().unwrap(), identity: id("mesh-gateway") }],
        control: id("mesh-control"),
        bundle: Bundle::new(format!("{name}.mesh").parse().unwrap(), 1, Vec::new()).unwrap(),
        grant: Namespaces::All,
        sameness: Namespaces::All,
    }
}

/// What `cluster` exports, complete: `namespace/name`, with one HTTP port; `~` behind it makes it headless with one endpoint `pod-0`.
pub(crate) fn listed(cluster: &str, services: &[&str]) -> Arc<Complete<Exports>> {
    let exported = services.iter().map(|service| exported(cluster, service)).collect();
    listed_as(cluster, exported)
}

/// What `cluster` exports, complete.
pub(crate) fn listed_as(cluster: &str, upserts: Vec<proto::ExportedService>) -> Arc<Complete<Exports>> {
    let id = format!("id-{cluster}");
    let mut state = ExportsState::new(id.parse().unwrap());
    let update = proto::ExportsUpdate {
        full: true,
        upserts,
        complete: Some(proto::Complete { cluster_id: id }),
        lease_seconds: u32::try_from(Duration::from_secs(30).as_secs()).unwrap(),
        ..proto::ExportsUpdate::default()
    };
    let invalid = state.on_update(update).unwrap();
    assert!(invalid.is_empty(), "{invalid:?}");
    Arc::new(state.exports().unwrap().clone())
}

/// One exported service.
pub(crate) fn exported(cluster: &str, service: &str) -> proto::ExportedService {
    let (name, headless) = service.strip_suffix('~').map_or((service, false), |name| (name, true));
    let (namespace, name) = name.split_once('/').unwrap();
    let endpoint = proto::ExportedEndpoint { handle: "0123456789".into(), hostname: "pod-0".into(), ready: true, weight: 1 };
    proto::ExportedService {
        id: Some(proto::ServiceRef { namespace: namespace.into(), name: name.into() }),
        headless,
        ports: vec![proto::ExportedPort { name: "http".into(), number: 80, transport: "TCP".into(), app_protocol: String::new() }],
        identities: vec![format!("spiffe://{cluster}.mesh/ns/{namespace}/sa/{name}")],
        endpoints: vec![endpoint],
        created_at: 1,
        ..proto::ExportedService::default()
    }
}

/// West, with one gateway and the namespaces `shop` and `kube-system`, linked to `links`.
pub(crate) fn west(links: &[&str]) -> Seen {
    linked("west", links)
}

/// The cluster `own`, with one gateway and the namespaces `shop` and `kube-system`, linked to `links`.
pub(crate) fn linked(own: &str, links: &[&str]) -> Seen {
    Seen {
        id: format!("id-{own}").parse().unwrap(),
        links: links.iter().map(|name| (name.parse().unwrap(), Ok(link(name)))).collect::<BTreeMap<ClusterName, _>>(),
        namespaces: ["shop", "kube-system", "isthmus-system"].iter().map(|name| name.parse().unwrap()).collect(),
        gateways: ["127.2.0.5".parse().unwrap()].into(),
        families: [IpFamily::V4].into(),
        exports: BTreeMap::new(),
        taken: [].into(),
        pods: BTreeMap::new(),
        objects: BTreeMap::new(),
        properties: None,
        member: None,
    }
}

/// The world after these changes, as the next round sees it: each new cluster-set Service has got an address.
pub(crate) fn applied(mut seen: Seen, changes: Vec<Change>) -> Seen {
    for change in changes {
        match change {
            Change::Create(object) | Change::Update(object) => {
                let link = match &object {
                    Object::Service(it) => it.stands_for.link().map(|owner| owner.name.clone()),
                    Object::Slice(it) => it.of.link().map(|owner| owner.name.clone()),
                    Object::Headless(_) | Object::Import(_) => None,
                };
                let addresses = match &object {
                    Object::Service(_) => vec!["127.2.128.1".parse().unwrap()],
                    Object::Slice(_) | Object::Headless(_) | Object::Import(_) => Vec::new(),
                };
                let uid = format!("uid of {}", object.id());
                seen.objects.insert(object.id(), Found { uid, link, object: Some(object), addresses });
            }
            Change::Delete(id, _) => {
                seen.objects.remove(&id);
            }
        }
    }
    seen
}

/// The ports that the slice of `cluster` gives callers of the cluster set's service `id`; none when it has no address.
pub(crate) fn exporting(seen: &Seen, id: &ServiceId, cluster: &ClusterId) -> Option<BTreeSet<(Transport, ServicePort)>> {
    let service = ServiceId::parse(id.namespace().as_str(), &format!("{}-clusterset", id.name())).unwrap();
    let Some(Object::Service(service)) = &seen.objects.get(&ObjectId::service(&service))?.object else { return None };
    let slices = seen.objects.values().filter_map(|found| match &found.object {
        Some(Object::Slice(slice)) if slice.service == *service.id.name() => Some(slice),
        _ => None,
    });
    let theirs = slices.filter(|slice| matches!(&slice.of, SliceOf::Import { source, .. } if *source == source_of(cluster)));
    let names: BTreeSet<_> = theirs.flat_map(|slice| &slice.ports).map(|port| &port.name).collect();
    let ports = service.ports.iter().filter(|port| names.contains(&port.name));
    Some(ports.map(|port| (port.transport, port.number)).collect())
}
