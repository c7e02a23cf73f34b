//! Two real control planes in a network of their own, started once. What they write stays in the target folder until the next run, for
//! whoever looks for the reason of a failure.

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use mesh_kubernetes_tests::control_plane::Plan;
use mesh_kubernetes_tests::{ControlPlane, Level, Place, PrivateNetwork};

/// The clusters.
pub(crate) struct World {
    pub(crate) east: ControlPlane,
    pub(crate) west: ControlPlane,
    /// Two runs out of one target folder would wipe each other's files.
    _alone: File,
}

/// The one world.
pub(crate) fn world() -> &'static World {
    static WORLD: LazyLock<World> = LazyLock::new(|| start().expect("two control planes"));
    &WORLD
}

fn start() -> anyhow::Result<World> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("control-planes");
    fs::create_dir_all(&directory)?;
    let alone = File::create(directory.with_extension("lock"))?;
    alone.lock()?;
    fs::remove_dir_all(&directory)?;
    let network = Arc::new(PrivateNetwork::start(&["10.71.0.0/16", "10.72.0.0/16"])?);
    let start = |name: &str, block: u8| {
        let directory = directory.join(name);
        fs::create_dir_all(&directory)?;
        let place = Place::Private(Arc::clone(&network), [10, block, 0, 1].into());
        let service_range = &format!("10.{block}.128.0/20");
        ControlPlane::start(&Plan { name, level: Level::Controllers, place, directory: &directory, service_range })
            .with_context(|| format!("cluster {name}"))
    };
    let (east, west) = std::thread::scope(|both| {
        let east = both.spawn(|| start("east", 71));
        let west = start("west", 72);
        (east.join().expect("east's thread"), west)
    });
    Ok(World { east: east?, west: west?, _alone: alone })
}
