//! What is where in the mesh, and where a request goes. Pure: no socket, task, clock or random source.
//!
//! A [`Snapshot`] is immutable; its one writer makes the next from a [`Change`]. Everything that decides reads one snapshot: what a host
//! or an address means ([`resolve`]), where a request goes ([`route`]), and what a gateway or an inbound proxy may hand to a peer
//! ([`deliver`]). What a worker measures itself is in [`loads`]; whether a link lives is decided in [`health`].

pub mod change;
pub mod deliver;
pub mod health;
pub mod loads;
mod locality;
pub mod model;
mod pick;
pub mod resolve;
pub mod route;
#[cfg(test)]
mod route_tests;
pub mod snapshot;
pub mod target;
#[cfg(test)]
mod testing;

pub use change::Change;
pub use deliver::{Delivery, ExportName, RefusedDelivery};
pub use health::{Evidence, GatewayProbe, LinkProbe, ProbeState, ProbeStep};
pub use loads::{EndpointKey, Loads, Outcome, Stage};
pub use model::{
    AddressOwner, Egress, Endpoint, Export, Gateway, Grant, Import, ImportKind, Link, LinkHealth, Mesh, Own, Peer, PeersAllowed, Port,
    Remote, RemoteEndpoint, Service,
};
pub use pick::Draw;
pub use resolve::{Refused, Resolved};
pub use route::{LocalRoute, RemoteRoute, Route};
pub use snapshot::Snapshot;
pub use target::{NoRoute, RequestKey, Target};
