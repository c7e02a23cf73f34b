//! `clusters`: two real clusters for the hand. `cargo xtask clusters` brings the programs and images that it needs, and calls it.
#![allow(clippy::print_stdout, reason = "what a command answers goes to standard output")]

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use mesh_kubernetes_tests::nodes::supervise::{self, Life};
use mesh_kubernetes_tests::nodes::wait::until_at_most;
use mesh_kubernetes_tests::nodes::{Topology, clusters};

/// Two real Kubernetes clusters, east and west, on this machine.
#[derive(Debug, Parser)]
#[command(name = "clusters")]
enum Flags {
    /// Start them, and print the path of their kubeconfig
    Up {
        /// Where they live
        #[arg(long)]
        directory: PathBuf,
        /// Route the pod ranges to each other
        #[arg(long)]
        flat: bool,
        /// Archives to load
        #[arg(long = "image")]
        images: Vec<PathBuf>,
    },
    /// Load image archives into both
    Load {
        /// Where they live
        #[arg(long)]
        directory: PathBuf,
        /// The archives
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Print the path of their kubeconfig
    Kubeconfig {
        /// Where they live
        #[arg(long)]
        directory: PathBuf,
    },
    /// End them, and remove what they wrote
    Down {
        /// Where they live
        #[arg(long)]
        directory: PathBuf,
    },
    /// The process that everything of the clusters hangs on
    #[command(hide = true)]
    Supervise {
        /// What to run
        plan: PathBuf,
        /// Go on when standard input ends
        #[arg(long)]
        detached: bool,
    },
    /// The first process between the clusters
    #[command(hide = true)]
    Wan {
        /// What to run
        plan: PathBuf,
    },
    /// The first process of a node
    #[command(hide = true)]
    Node {
        /// Its cluster
        cluster: String,
        /// What to run
        plan: PathBuf,
    },
}

fn main() -> ExitCode {
    let outcome = match Flags::parse() {
        Flags::Up { directory, flat, images } => up(&directory, if flat { Topology::Flat } else { Topology::GatewayOnly }, images),
        Flags::Load { directory, archives } => load(&directory, &archives),
        Flags::Kubeconfig { directory } => clusters::running(&directory).map(|(_, ready)| println!("{}", ready.kubeconfig.display())),
        Flags::Down { directory } => down(&directory),
        Flags::Supervise { plan, detached } => supervise::run(&plan, if detached { Life::Detached } else { Life::Tied }),
        Flags::Wan { plan } => supervise::wan(&plan),
        Flags::Node { cluster, plan } => supervise::node(&plan, &cluster),
    };
    if let Err(error) = outcome {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn up(directory: &Path, topology: Topology, images: Vec<PathBuf>) -> anyhow::Result<()> {
    ensure!(clusters::running(directory).is_err(), "clusters are up already: `cargo xtask clusters down` ends them");
    if directory.exists() {
        std::fs::remove_dir_all(directory).with_context(|| format!("could not remove {}", directory.display()))?;
    }
    let plan = clusters::prepare(directory, topology, images)?;
    let begun = Instant::now();
    eprintln!("clusters: starting east and west");
    let mut command = clusters::supervisor(&std::env::current_exe()?, &plan)?;
    // A group of its own: the terminal's Ctrl-C and hang-up are not for it.
    std::os::unix::process::CommandExt::process_group(command.arg("--detached").stdin(Stdio::null()), 0);
    let ready = clusters::wait(&plan, &mut command.spawn()?)?;
    eprintln!("clusters: ready after {:.0} s; `cargo xtask clusters down` ends them", begun.elapsed().as_secs_f64());
    println!("{}", ready.kubeconfig.display());
    Ok(())
}

fn load(directory: &Path, archives: &[PathBuf]) -> anyhow::Result<()> {
    let (plan, _) = clusters::running(directory)?;
    for archive in archives {
        clusters::load(&plan, archive)?;
        eprintln!("clusters: east and west have {}", archive.display());
    }
    Ok(())
}

/// Ends the first process, with which everything ends; the supervisor then removes what is left.
fn down(directory: &Path) -> anyhow::Result<()> {
    let (plan, ready) = clusters::running(directory)?;
    let first = rustix::process::Pid::from_raw(ready.wan.cast_signed()).context("no process has the id 0")?;
    // A machine that was started anew has no such process, or another one.
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", ready.wan)).unwrap_or_default();
    if line.contains(&plan.file().display().to_string()) {
        rustix::process::kill_process(first, rustix::process::Signal::KILL)?;
        let gone = until_at_most(Duration::from_secs(60), || (!directory.exists()).then_some(()));
        gone.with_context(|| format!("{} is still there: its supervise.log says why", directory.display()))?;
    } else {
        std::fs::remove_dir_all(directory)?;
    }
    eprintln!("clusters: down");
    Ok(())
}
