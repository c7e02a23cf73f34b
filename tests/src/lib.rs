//! The product's specification: worlds of real clusters on loopback, clients that call in them, and faults.
//!
//! A [`World`] is `mesh demo` as a user starts it: real processes, real sockets, the embedded API server. Specs (in `specs/`) say what a user sees.
//! They wait for conditions with a deadline of 30 s and never sleep for luck.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, reason = "this crate is tests")]

pub mod client;
pub mod eventually;
pub mod faults;
pub mod load;
pub mod tools;
pub mod world;

pub use client::{Answer, Client};
pub use eventually::eventually;
pub use world::World;
