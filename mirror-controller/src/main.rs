//! `mesh-mirror-controller`: see the library.

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    mesh_mirror_controller::main(mesh_mirror_controller::Flags::parse())
}
