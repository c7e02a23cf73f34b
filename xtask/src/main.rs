//! `cargo xtask`: what a person and CI run on this repository. `ci` is all of it, in order; `tidy` checks what no compiler does;
//! `tools` brings the programs that tests use; `images` makes container images, and `clusters` real clusters to try them on.

#![allow(clippy::print_stdout, reason = "a command's output is its product")]

mod ci;
mod clusters;
mod images;
mod shell;
mod tidy;
mod tools;

use std::process::ExitCode;

use clap::Parser;

/// The repository's chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Runs every check in order, and stops at the first that fails.
    Ci(ci::Options),
    /// Writes what `deploy/` holds of generated files: the Helm chart and the kustomize base.
    Generate,
    /// Checks layout, dependencies, places, heads, sizes, documents and the lock file.
    Tidy,
    /// Fetches what tests use into a cache outside the clone.
    Tools(tools::Options),
    /// Builds the container images, as archives that any container engine imports.
    Images(images::Options),
    /// Two real Kubernetes clusters on this machine, as root.
    #[command(subcommand)]
    Clusters(clusters::Options),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Ci(options) => ci::run(&options),
        Command::Generate => generate(),
        Command::Tidy => tidy::run(),
        Command::Tools(options) => tools::run(&options),
        Command::Images(options) => images::run(&options),
        Command::Clusters(options) => clusters::run(&options),
    };
    // Not `main() -> Result`: with RUST_BACKTRACE set, a failed check would end in a page of frames.
    if let Err(error) = done {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The test that compares them writes them when it is told to, so what is written and what is compared can't differ.
fn generate() -> anyhow::Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--quiet", "-p", "mesh-manifests", "--test", "deploy", "deploy_is_what_the_code_renders"]);
    shell::show(cargo.env("UPDATE_EXPECT", "1"))
}
