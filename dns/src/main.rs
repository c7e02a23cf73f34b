//! `mesh-dns`: flags, then run.

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    mesh_dns::main(&mesh_dns::Flags::parse())
}
