//! `cargo xtask tools`: brings what tests use into a cache outside the clone, pinned, and never takes what lies in PATH. Only the
//! toolchains that fetch (cargo, python3 with pip, go, apt-get) are the machine's own. [`plan`] decides what is missing; [`fetch`] acts.
//!
//! Safe to run twice, and twice at once: one lock file, and each tool appears whole by a rename or not at all.

mod cache;
mod debian;
mod environment;
mod fetch;
mod kubernetes;
mod node_root;
mod plan;

use std::path::PathBuf;

use anyhow::Result;

use cache::Cache;
use plan::Step;
pub(crate) use plan::Tool;

/// What to fetch, and what to print.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also fetch what only the bench uses: Envoy.
    #[arg(long)]
    bench: bool,
    /// Print the shell's export lines for what is there, for `eval "$(cargo xtask tools --print-env)"`.
    #[arg(long)]
    print_env: bool,
}

/// Fetches what is missing, and prints the environment if asked.
pub(crate) fn run(options: &Options) -> Result<()> {
    let environment = if options.bench { bring(&Tool::all())? } else { bring(Tool::TESTS)? };
    if options.print_env {
        for (name, value) in environment {
            println!("export {name}='{}'", value.replace('\'', r"'\''"));
        }
    }
    Ok(())
}

/// The cache's folder, which also holds ci's target folder.
pub(crate) fn cache_root() -> Result<PathBuf> {
    Ok(Cache::open()?.root().to_path_buf())
}

/// Makes sure that `wanted` is in the cache, and answers the variables by which tests find it.
pub(crate) fn bring(wanted: &[Tool]) -> Result<Vec<(&'static str, String)>> {
    let cache = Cache::open()?;
    let _held = cache.lock()?;
    let host = fetch::host();
    let steps = plan::plan(wanted, &host, &cache.present()?)?;
    for step in &steps {
        match step {
            Step::Keep { tool, folder } => eprintln!("tools: {} is there ({})", tool.name(), folder),
            Step::Fetch { tool, folder } => {
                eprintln!("tools: fetching {} ({folder})", tool.name());
                let started = std::time::Instant::now();
                cache.fill(folder, |stage| fetch::fetch(*tool, &host, stage, &cache))?;
                eprintln!("tools: {} came in {:.0} s", tool.name(), started.elapsed().as_secs_f64());
            }
        }
    }
    Ok(environment::variables(&steps, &host, cache.tools()))
}
