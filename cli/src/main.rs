//! The `mesh` command, and every program of the mesh under `mesh internal`.
#![allow(clippy::print_stdout, reason = "what a command answers goes to standard output")]

mod args;
mod check;
mod clusters;
mod completions;
#[cfg(feature = "demo")]
mod demo;
mod dns;
mod inject;
mod install;
mod internal;
mod multicluster;
mod output;
mod trust;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Err(error) = mesh_runtime::process::die_with_parent() {
        return output::failure(&error.into());
    }
    args::Mesh::parse().run().unwrap_or_else(|error| output::failure(&error))
}
