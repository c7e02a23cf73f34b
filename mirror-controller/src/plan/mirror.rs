//! What one link's exports look like here: `<name>-<cluster>` with its slices, and a stand-in for each endpoint of a headless service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesh_api::translate::{ExportedEndpoint, ExportedPort, Transport};
use mesh_names::{ClusterName, Label, ServiceId};

use super::merge::named;
use super::{Believed, Refusal, Wanted};
use crate::model::{Kind, MirrorService, MirrorSlice, Object, ObjectId, Owner, SeenLink, SliceOf, SlicePort, StandsFor, Wish};

/// Wants the mirrors of what is believed of a link.
pub(super) fn want(
    wanted: &mut Wanted<'_>,
    link: &SeenLink,
    believed: &BTreeMap<ServiceId, Believed>,
    refused: &mut BTreeSet<(ServiceId, Refusal)>,
) {
    let owner = Owner { name: link.name.clone(), uid: link.uid.clone() };
    for (id, one) in believed {
        match name_for(wanted, id.namespace(), &format!("{}-{}", id.name(), link.name)) {
            Ok(name) => want_service(wanted, &owner, id, one, &name),
            Err(why) => {
                refused.insert((id.clone(), why));
            }
        }
        if one.exported.headless {
            want_stand_ins(wanted, &owner, id, one, refused);
        }
    }
}

/// Wants what a link has already, at the gateways of now.
pub(super) fn keep(wanted: &mut Wanted<'_>, link: &ClusterName) {
    for found in wanted.seen.objects.values().filter(|found| found.link.as_ref() == Some(link)) {
        match &found.object {
            Some(Object::Slice(slice)) => {
                let addresses = gateways(wanted, slice.v6);
                wanted.insert(Object::Slice(MirrorSlice { addresses, ..slice.clone() }));
            }
            Some(object) => wanted.insert(object.clone()),
            None => {}
        }
    }
    // What can't be read stays as it is, too.
    let unread = wanted.seen.objects.iter().filter(|(_, found)| found.link.as_ref() == Some(link) && found.object.is_none());
    wanted.untouched.extend(unread.map(|(id, _)| id.clone()));
}

fn want_service(wanted: &mut Wanted<'_>, owner: &Owner, id: &ServiceId, one: &Believed, name: &ServiceId) {
    let ports = named(one.exported.ports.clone());
    want_slices(wanted, name, name.name().as_str(), &SliceOf::Link(owner.clone()), &ports);
    wanted.insert(Object::Service(MirrorService {
        id: name.clone(),
        stands_for: StandsFor::Cluster { link: owner.clone(), service: id.name().clone() },
        ports,
        identities: one.identities.clone(),
        proxyless: one.exported.proxyless,
        address: Wish(None),
        families: Wish(None),
    }));
}

fn want_stand_ins(wanted: &mut Wanted<'_>, owner: &Owner, id: &ServiceId, one: &Believed, refused: &mut BTreeSet<(ServiceId, Refusal)>) {
    let mut endpoints: Vec<&ExportedEndpoint> = one.exported.endpoints.iter().collect();
    endpoints.sort_by_key(|endpoint| (endpoint.hostname.clone(), endpoint.handle.clone()));
    if endpoints.len() > STAND_INS_MAX {
        refused.insert((id.clone(), Refusal::TooManyEndpoints));
    }
    for endpoint in endpoints.into_iter().take(STAND_INS_MAX) {
        let Some(hostname) = endpoint.hostname.clone().or_else(|| short(endpoint)) else { continue };
        match name_for(wanted, id.namespace(), &format!("{hostname}-{}-{}", id.name(), owner.name)) {
            Ok(name) => wanted.insert(Object::Service(MirrorService {
                id: name,
                stands_for: StandsFor::Endpoint {
                    link: owner.clone(),
                    service: id.name().clone(),
                    hostname,
                    handle: endpoint.handle.clone(),
                },
                ports: named(one.exported.ports.clone()),
                identities: Vec::new(),
                proxyless: false,
                address: Wish(None),
                families: Wish(None),
            })),
            Err(why) => {
                refused.insert((id.clone(), why));
            }
        }
    }
}

/// Slices of a mirror Service: one for each family of our gateways' addresses. What the mesh can't carry (SCTP) has no way out.
pub(super) fn want_slices(wanted: &mut Wanted<'_>, service: &ServiceId, stem: &str, of: &SliceOf, ports: &[ExportedPort]) {
    let carried = ports.iter().filter(|port| port.transport != Transport::Sctp);
    let ports: Vec<SlicePort> = carried
        .filter_map(|port| {
            let number = wanted.egress.port(service, port)?;
            Some(SlicePort { name: port.name.clone(), transport: port.transport, app_protocol: port.app_protocol.clone(), number })
        })
        .collect();
    for v6 in [false, true] {
        let addresses = gateways(wanted, v6);
        // The first stands without a gateway, too: it is the record of the ports.
        if v6 && addresses.is_empty() {
            continue;
        }
        wanted.insert(Object::Slice(MirrorSlice {
            namespace: service.namespace().clone(),
            name: format!("{stem}-{}", if v6 { "ipv6" } else { "ipv4" }),
            service: service.name().clone(),
            of: of.clone(),
            v6,
            addresses,
            ports: ports.clone(),
        }));
    }
}

fn gateways(wanted: &Wanted<'_>, v6: bool) -> BTreeSet<IpAddr> {
    wanted.seen.gateways.iter().copied().filter(|address| address.is_ipv6() == v6).collect()
}

/// The name, if a Service of ours may have it.
pub(super) fn name_for(wanted: &Wanted<'_>, namespace: &Label, name: &str) -> Result<ServiceId, Refusal> {
    let name: Label = name.parse().map_err(|_| Refusal::NameTooLong)?;
    let id = ServiceId::new(namespace.clone(), name);
    let taken = wanted.seen.taken.contains(&(Kind::Service, id.clone())) || wanted.objects.contains_key(&ObjectId::service(&id));
    if taken { Err(Refusal::NameTaken) } else { Ok(id) }
}

/// What an endpoint without a hostname is called: the beginning of its handle.
fn short(endpoint: &ExportedEndpoint) -> Option<Label> {
    endpoint.handle.as_str().get(..SHORT)?.parse().ok()
}

/// Stand-ins of one service: its quota.
const STAND_INS_MAX: usize = 64;
/// Handles have at least this many characters.
const SHORT: usize = 8;
