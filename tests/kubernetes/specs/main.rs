//! What holds on real API servers (levels 1 and 2): one pair of clusters, east and west, shared by all that follows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod behaviour;
mod definitions;
mod eventually;
mod install;
mod leadership;
mod lifecycle;
mod linking;
mod mesh;
mod world;
