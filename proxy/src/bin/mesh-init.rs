//! `mesh-init`: redirects a pod's connections to its proxy, before anything of the pod runs.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    mesh_proxy::redirect::init(&mesh_proxy::redirect::InitFlags::parse())
}
