//! `mesh-control`: watches one cluster and serves its proxies.

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    mesh_control::main(mesh_control::Flags::parse())
}
