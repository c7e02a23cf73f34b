//! `mesh-proxy`: the data plane beside a workload.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    mesh_proxy::main(mesh_proxy::Flags::parse())
}
