//! What is where in the mesh, and where a request goes. Pure: no socket, task, clock or random source.
//!
//! A [`Snapshot`] is immutable; its one writer makes the next from a [`Change`]. Everything that decides reads one snapshot: what a host
//! or an address means (`resolve`), where a request goes (`route`), what a gateway may hand to a peer (`deliver`) and what an
//! inbound proxy may (`inbound`). What a worker measures itself is in `loads`; whether a link lives is decided in `health`.

pub mod change;
pub mod model;
pub mod snapshot;

pub use change::Change;
pub use model::{
    AddressOwner, Egress, Endpoint, Export, Gateway, Grant, Import, ImportKind, Link, LinkHealth, Mesh, Own, Peer, PeersAllowed, Port,
    Remote, RemoteEndpoint, Service,
};
pub use snapshot::Snapshot;
