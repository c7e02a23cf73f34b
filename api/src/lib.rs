//! The wire formats and Kubernetes kinds of the mesh, their one translation to the mesh's own types, and the clients.
//!
//! Invariant: generated and Kubernetes types are read here and in the few files that talk to an API; everything behind
//! [`translate`] carries parsed names and bounded sizes only. The clients own no transport: each is handed its [`connect::Connector`].

pub mod client;
pub mod connect;
pub mod crd;
pub mod inject;
pub mod proto;
pub mod translate;
pub mod well_known;
