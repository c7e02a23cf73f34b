//! The specification, one module per promise. One world runs at a time: each is dozens of processes, and specs measure what users see.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::large_futures,
    reason = "this crate is tests"
)]

mod calls;
mod cluster_set;
mod exports;
mod failover;
mod refusals;
mod secrecy;
mod survival;
mod transcripts;
mod tunnels;
mod unlinking;

use mesh_tests::World;
use tokio::sync::{Mutex, MutexGuard};

/// A world of the first `clusters` clusters; no other runs until it is dropped.
async fn world(clusters: usize) -> (MutexGuard<'static, ()>, World) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let alone = ONE_AT_A_TIME.lock().await;
    (alone, World::of(clusters).await)
}
