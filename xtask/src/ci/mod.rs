//! `cargo xtask ci`: every check, in one order, the same for a person and for CI. What each step runs is a value that [`steps`] makes
//! (STYLE.md, rule 3); this file only runs it, says how long it took, and stops at the first that fails.

mod steps;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::tools::{self, Tool};
use crate::{images, shell, tidy};
use steps::{Act, Environment, Step};

/// Which steps to run; all of them if nothing is said.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this step (may be given several times).
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
    /// All but this step (may be given several times).
    #[arg(long, value_name = "STEP")]
    skip: Vec<Step>,
}

/// Runs the chosen steps.
pub(crate) fn run(options: &Options) -> Result<()> {
    let chosen = steps::chosen(&options.only, &options.skip);
    let mut environment =
        Environment { target: target()?, members: members()?, in_ci: std::env::var_os("CI").is_some(), tools: Vec::new() };
    // Steps run one by one often need what the first would have brought.
    if !chosen.contains(&Step::Tools) && chosen.iter().any(|step| step.wants_tools()) && !options.skip.contains(&Step::Tools) {
        environment.tools = tools::bring(Tool::TESTS)?;
    }
    let mut times: Vec<(Step, Duration)> = Vec::new();
    for step in chosen {
        println!("\n=== {} ===", step.title());
        let started = Instant::now();
        act(step, &mut environment).with_context(|| format!("ci stops at `{step}`; to repeat it alone: cargo xtask ci --only {step}"))?;
        times.push((step, started.elapsed()));
        println!("=== {step}: {:.0} s ===", started.elapsed().as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    println!("\nci: all {} steps passed in {:.0} s", times.len(), total.as_secs_f64());
    for (step, time) in times {
        println!("{:>7.0} s  {step}", time.as_secs_f64());
    }
    Ok(())
}

fn act(step: Step, environment: &mut Environment) -> Result<()> {
    for act in step.acts(environment) {
        match act {
            Act::Tools => environment.tools = tools::bring(Tool::TESTS)?,
            Act::Images { out } => images::for_tests(&out)?,
            Act::Tidy => tidy::run()?,
            Act::Copy { from, to } => {
                std::fs::copy(shell::root().join(from), shell::root().join(to))
                    .with_context(|| format!("could not copy {from} to {to}"))?;
            }
            Act::Run { program, arguments, variables } => {
                let mut command = program.map_or_else(shell::cargo, |program| {
                    let mut command = std::process::Command::new(program);
                    command.current_dir(shell::root());
                    command
                });
                println!("$ {} {}", Path::new(command.get_program()).file_name().unwrap_or_default().display(), arguments.join(" "));
                shell::show(command.args(arguments).envs(variables))?;
            }
        }
    }
    Ok(())
}

/// `$CARGO_TARGET_DIR`, else a folder beside the tools, keyed by compiler, so that a fresh clone finds its dependencies built.
pub(crate) fn target() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("CARGO_TARGET_DIR").filter(|given| !given.is_empty()) {
        return Ok(shell::root().join(given));
    }
    let version = shell::read(std::process::Command::new("rustc").current_dir(shell::root()).arg("--version"))?;
    let version = version.split_whitespace().nth(1).context("`rustc --version` names no version")?;
    Ok(tools::cache_root()?.join("target").join(version))
}

/// The workspace's packages, by name.
fn members() -> Result<Vec<String>> {
    let printed = shell::read(shell::cargo().args(["metadata", "--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&printed)?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` lists no packages")?;
    Ok(packages.iter().filter_map(|package| package["name"].as_str()).map(str::to_owned).collect())
}
