//! `mesh-apiserver`: the embedded Kubernetes API as a process.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    mesh_apiserver::run(mesh_apiserver::Flags::parse())
}
