//! `shop`: the demo's workload as a program of its own, for its image.

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    mesh_demo::shop::main(mesh_demo::shop::Flags::parse())
}
