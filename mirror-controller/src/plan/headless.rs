//! Slices of a headless service of the cluster set: for each exporting cluster its endpoints under their hostnames, pods here and stand-ins of
//! pods elsewhere. DNS does not need them; they are there for whoever reads the standard's EndpointSlices.
//!
//! They say nothing of remote readiness, which never enters the Kubernetes API.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesh_api::translate::{ExportedPort, Transport};
use mesh_names::{ClusterId, ClusterName, Handle, Label, ServiceId};

use super::{Believed, Wanted};
use crate::model::{Found, HeadlessSlice, Object, ObjectId, SeenLink, SlicePort, StandsFor, source_of};

/// What stands for the endpoints of linked clusters' headless services, by link and service.
pub(super) type StandIns<'a> = BTreeMap<(ClusterName, ServiceId), Vec<StandIn<'a>>>;

/// What stands for one endpoint.
pub(super) struct StandIn<'a> {
    hostname: &'a Label,
    handle: &'a Handle,
    addresses: &'a [IpAddr],
}

/// The stand-ins that are there.
pub(super) fn stand_ins(objects: &BTreeMap<ObjectId, Found>) -> StandIns<'_> {
    let mut all = StandIns::new();
    for found in objects.values() {
        let Some(Object::Service(it)) = &found.object else { continue };
        let StandsFor::Endpoint { link, service, hostname, handle } = &it.stands_for else { continue };
        let of = ServiceId::new(it.id.namespace().clone(), service.clone());
        all.entry((link.name.clone(), of)).or_default().push(StandIn { hostname, handle, addresses: &found.addresses });
    }
    all
}

/// Wants the slices of one headless import.
pub(super) fn want(wanted: &mut Wanted<'_>, id: &ServiceId, remotes: &[(&SeenLink, &Believed)], own: bool, silent: &BTreeSet<String>) {
    let seen = wanted.seen;
    let held: Vec<HeadlessSlice> = wanted.headless.get(id).into_iter().flatten().map(|slice| (*slice).clone()).collect();
    let Some(uid) = wanted.import_uid(id).or_else(|| held.first().map(|slice| slice.uid.clone())) else { return };
    for (link, one) in remotes.iter().filter(|(_, one)| one.exported.headless) {
        let there: BTreeSet<&Handle> = one.exported.endpoints.iter().map(|endpoint| &endpoint.handle).collect();
        let stand_ins = wanted.stand_ins.get(&(link.name.clone(), id.clone())).into_iter().flatten();
        let endpoints = stand_ins
            .filter(|stand_in| there.contains(stand_in.handle))
            .flat_map(|stand_in| stand_in.addresses.iter().map(move |address| (*address, Some(stand_in.hostname.clone()))));
        let endpoints = endpoints.collect();
        want_slices(wanted, id, (uid.as_str(), &link.id), &endpoints, &ports(&one.exported.ports));
    }
    if let Some(pods) = seen.pods.get(id).filter(|_| own) {
        want_slices(wanted, id, (uid.as_str(), &seen.id), &pods.endpoints, &pods.ports);
    }
    for slice in held.into_iter().filter(|slice| silent.contains(&slice.source)) {
        wanted.insert(Object::Headless(slice));
    }
}

fn want_slices(
    wanted: &mut Wanted<'_>,
    id: &ServiceId,
    (uid, cluster): (&str, &ClusterId),
    endpoints: &BTreeSet<(IpAddr, Option<Label>)>,
    ports: &[SlicePort],
) {
    for v6 in [false, true] {
        let of_family = endpoints.iter().filter(|(address, _)| address.is_ipv6() == v6);
        let endpoints: BTreeSet<_> = of_family.take(ENDPOINTS_MAX).cloned().collect();
        if endpoints.is_empty() {
            continue;
        }
        wanted.insert(Object::Headless(HeadlessSlice {
            namespace: id.namespace().clone(),
            name: format!("{}-headless-{cluster}-{}", id.name(), if v6 { "ipv6" } else { "ipv4" }),
            service: id.name().clone(),
            uid: uid.to_owned(),
            source: source_of(cluster),
            v6,
            endpoints,
            ports: ports.to_vec(),
        }));
    }
}

/// A stand-in is called on the service's own ports.
fn ports(of: &[ExportedPort]) -> Vec<SlicePort> {
    let port = |port: &ExportedPort| SlicePort {
        name: port.name.clone(),
        transport: port.transport,
        app_protocol: port.app_protocol.clone(),
        number: port.number.get(),
    };
    of.iter().filter(|port| port.transport != Transport::Sctp).map(port).collect()
}

/// Kubernetes' own limit for one slice.
const ENDPOINTS_MAX: usize = 1000;
