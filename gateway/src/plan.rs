//! What a gateway does with a tunnel request. Pure: the same snapshot, peer, request, loads and draw give the same verdict.
//!
//! The snapshot is the table of what *this peer* may import; a name that is not in it gets the same answer whether it exists or not.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_names::{EndpointName, Handle, SpiffeId};
use mesh_topology::{Draw, ExportName, Loads, Peer, RefusedDelivery, Snapshot};
use mesh_transport::tunnel::{Control, Export, Status, Target, TunnelRequest};

/// What to do with a tunnel request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Dial this endpoint, then say `accepted`.
    Join(Join),
    /// Dial the cluster's own control plane, then say `accepted`.
    Control,
    /// Say `accepted`, and answer pings.
    Watch,
    /// Say no.
    Refuse(Refusal),
}

/// An endpoint to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Join {
    /// Its inbound proxy.
    pub(crate) address: SocketAddr,
    /// Its name in this cluster, which its load is measured by.
    pub(crate) endpoint: EndpointName,
    /// Its name outside.
    pub(crate) handle: Handle,
    /// What was asked for.
    pub(crate) export: ExportName,
}

/// A no, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What the peer is told.
    pub(crate) status: Status,
    /// What is counted.
    pub(crate) reason: &'static str,
}

/// Who asks, as far as the snapshot knows.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    /// A workload of the own trust domain.
    Own,
    /// A workload of a linked cluster.
    Peer(Arc<Peer>),
}

impl Asker {
    /// Who the verified caller `id` is; none when its trust domain is neither our own nor a peer's.
    pub(crate) fn of(snapshot: &Snapshot, id: &SpiffeId) -> Option<Self> {
        if let Some(peer) = snapshot.peer(id.trust_domain()) {
            return Some(Self::Peer(Arc::clone(peer)));
        }
        (snapshot.own().trust_domain == *id.trust_domain()).then_some(Self::Own)
    }
}

/// Decides on `request` of the verified caller `id`.
pub(crate) fn decide(
    snapshot: &Snapshot,
    (asker, id): (&Asker, &SpiffeId),
    request: &TunnelRequest,
    draining: bool,
    (loads, draw): (&Loads, Draw),
) -> Verdict {
    if request.hops >= HOPS_MAX {
        return refuse(Status::TooManyHops, "hops");
    }
    match &request.target {
        Target::Watch => Verdict::Watch,
        _ if draining => refuse(Status::Draining, "draining"),
        Target::Control(control) => match (asker, control) {
            (Asker::Peer(peer), Control::Exports | Control::Bundle) if peer.control_caller == *id => Verdict::Control,
            (Asker::Peer(_) | Asker::Own, Control::Exports | Control::Bundle | Control::Operations) => {
                refuse(Status::Denied, "control-caller")
            }
        },
        Target::Export(export) => match asker {
            Asker::Own => refuse(Status::NotExportedOrUnknown, "not-exported"),
            Asker::Peer(peer) => join(snapshot, peer, export, (loads, draw)),
        },
    }
}

fn join(snapshot: &Snapshot, peer: &Peer, export: &Export, chance: (&Loads, Draw)) -> Verdict {
    let name = ExportName { cluster: export.cluster.clone(), service: export.service.clone(), port: export.port };
    match snapshot.deliver(&peer.trust_domain, &name, export.handle.as_ref(), chance) {
        Ok(delivery) if delivery.is_plain() => refuse(Status::NoEndpoint, "no-proxy"),
        Ok(delivery) => Verdict::Join(Join {
            address: delivery.address(),
            endpoint: delivery.endpoint.name.clone(),
            handle: delivery.endpoint.handle.clone(),
            export: name,
        }),
        Err(refused) => {
            let status = match refused {
                RefusedDelivery::UnknownPeer => Status::Denied,
                RefusedDelivery::NotExportedOrUnknown => Status::NotExportedOrUnknown,
                RefusedDelivery::NoEndpoint => Status::NoEndpoint,
            };
            refuse(status, refused.reason())
        }
    }
}

fn refuse(status: Status, reason: &'static str) -> Verdict {
    Verdict::Refuse(Refusal { status, reason })
}

/// Whether an open tunnel may go on under `snapshot`. An endpoint that is no longer listed does not end it: its own proxy drains, and a
/// connection that is up cannot reach another.
pub(crate) fn still_allowed(snapshot: &Snapshot, id: &SpiffeId, held: &Held) -> Result<(), &'static str> {
    let Some(asker) = Asker::of(snapshot, id) else { return Err("unknown-peer") };
    match (held, asker) {
        (Held::Watch, Asker::Own | Asker::Peer(_)) => Ok(()),
        (Held::Control, Asker::Peer(peer)) if peer.control_caller == *id => Ok(()),
        (Held::Control, Asker::Own | Asker::Peer(_)) => Err("control-caller"),
        (Held::Export(join), Asker::Own | Asker::Peer(_)) => match snapshot.still_delivers(id.trust_domain(), &join.export, &join.handle) {
            Ok(()) | Err(RefusedDelivery::NoEndpoint) => Ok(()),
            Err(refused @ (RefusedDelivery::UnknownPeer | RefusedDelivery::NotExportedOrUnknown)) => Err(refused.reason()),
        },
    }
}

/// What an open tunnel was opened for.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// An endpoint.
    Export(Box<Join>),
    /// The control plane.
    Control,
    /// Pings.
    Watch,
}

/// A request that has crossed this many gateways crosses no further one.
const HOPS_MAX: u32 = 2;

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
