//! `mesh-gateway`: the one door between clusters.

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    mesh_gateway::main(mesh_gateway::Flags::parse())
}
