//! `mesh demo`: whole clusters as processes on this machine, linked, with a shop in them, until somebody has seen enough.
//!
//! Everything is started from the main thread and dies with it (`mesh_runtime::process`), so that nothing is left whatever ends the
//! supervisor. What runs where is decided in `layout`, `objects`, `kubeconfig`, `state` and `tour`, which are pure.

mod apply;
mod blocks;
mod child;
mod clusters;
mod kubeconfig;
mod layout;
mod objects;
mod state;
mod tour;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use anyhow::Context as _;
use mesh_runtime::telemetry::{self, LogFlags, LogFormat};
use mesh_runtime::{clock, drain};

pub use child::Program;
pub use layout::Component;
pub use state::{Demo, DemoCluster, DemoProcess};

/// Flags of `mesh demo`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mesh demo                        two clusters, east and west\n  mesh demo --clusters 3 --keep    a third, north, and nothing is removed at the end\n  mesh demo -o json > demo.json    for scripts: one JSON object once everything runs"
)]
pub struct Flags {
    /// How many clusters: east, west, north, c4, …
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    clusters: u8,
    /// Leave the directory behind
    #[arg(long)]
    keep: bool,
    /// Where everything is written; it must be new or empty [default: a new one under the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// How the result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A guided tour.
    #[default]
    Tour,
    /// One JSON object.
    Json,
}

/// What the demo gets from the command that it is part of: it knows no program and no command itself.
pub struct Hooks {
    /// What each component is started as.
    pub program: Program,
    /// Links one cluster to another, in one direction, as `mesh multicluster link` does.
    pub link: Link,
    /// Writes to standard output.
    pub say: fn(&str),
}

/// Links one cluster to another.
pub type Link = Box<dyn Fn(Linking) -> Pin<Box<dyn Future<Output = anyhow::Result<()>>>>>;

/// What to link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linking {
    /// The kubeconfig with a context per cluster.
    pub kubeconfig: PathBuf,
    /// The context of the cluster that imports.
    pub context: String,
    /// The context of the cluster that exports.
    pub to: String,
}

/// Runs the demo until SIGINT or SIGTERM. Call it from the main thread.
///
/// # Errors
/// When a cluster could not be started; everything that was is ended.
pub fn main(flags: &Flags, hooks: &Hooks) -> anyhow::Result<()> {
    let filter = std::env::var("MESH_LOG").unwrap_or_else(|_| "warn,kube_client=off".to_owned());
    let _dropped = telemetry::init(&LogFlags { filter, format: LogFormat::Text })?;
    let blocks =
        blocks::Blocks::take(flags.clusters).context("this machine has no free block 127.K.0.0/16 left: end another demo first")?;
    let dir = directory(flags.dir.as_deref())?;
    let named = layout::names(flags.clusters).into_iter().zip(blocks.numbers());
    let clusters = named.map(|(name, block)| layout::Cluster::new(&name, block, dir.join(&name))).collect::<Result<Vec<_>, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (trigger, drain) = drain::channel(GRACE);
        let demo = clusters::Clusters::new(dir.clone(), clusters, drain.clone());
        demo.run(flags.output, hooks, trigger).await
    });
    drop(runtime);
    if flags.keep {
        progress(&format!("everything is left in {}", dir.display()));
    } else if let Err(error) = std::fs::remove_dir_all(&dir) {
        tracing::warn!(%error, dir = %dir.display(), "not removed");
    }
    outcome
}

fn directory(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let dir = match given {
        Some(dir) => std::path::absolute(dir)?,
        None => std::env::temp_dir().join(format!("mesh-demo-{}", std::process::id())),
    };
    make_private(&dir, if given.is_some() { Before::MayBeEmpty } else { Before::Missing })?;
    Ok(dir)
}

/// What may be where the directory is to be.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    /// Nothing: the name can be guessed, and what is there may be another user's trap.
    Missing,
    /// Nothing, or an empty directory that a person has named.
    MayBeEmpty,
}

/// Makes the directory of a demo: private keys come to lie in it, so that it is its owner's alone.
fn make_private(dir: &Path, before: Before) -> anyhow::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let could_not_make = || format!("could not make {}", dir.display());
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).with_context(could_not_make)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && before == Before::MayBeEmpty => {}
        made => return made.with_context(could_not_make),
    }
    let mut content = std::fs::read_dir(dir).with_context(|| format!("could not read {}", dir.display()))?;
    anyhow::ensure!(content.next().is_none(), "{} is not empty: name another directory, or remove it", dir.display());
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(dir, private).with_context(|| format!("{} could not be made private: is it another user's?", dir.display()))
}

/// One line of progress.
fn progress(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Seconds since `begun`, for progress.
fn since(begun: std::time::Instant) -> f64 {
    clock::now().saturating_duration_since(begun).as_secs_f64()
}

/// How long everything may take to end.
const GRACE: std::time::Duration = std::time::Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(dir: &Path) -> u32 {
        std::fs::metadata(dir).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_demo_s_directory_is_its_owner_s_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("new/demo");
        make_private(&dir, Before::Missing).unwrap();
        assert_eq!(mode(&dir), 0o700);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        make_private(&dir, Before::MayBeEmpty).unwrap();
        assert_eq!(mode(&dir), 0o700);
    }

    #[test]
    fn a_directory_that_somebody_else_may_have_made_is_not_taken() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(make_private(scratch.path(), Before::Missing).is_err());
        std::fs::write(scratch.path().join("file"), "").unwrap();
        assert!(make_private(scratch.path(), Before::MayBeEmpty).is_err());
    }
}
