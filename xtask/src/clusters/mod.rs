//! `cargo xtask clusters`: two real Kubernetes clusters on this machine, for the hand. Brings and builds what they need, and calls the program
//! `clusters` of `tests/kubernetes/`, which makes them; calls `mesh` to install and link. What is called is decided in [`plan`].

mod plan;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::tools::{self, Tool};
use crate::{ci, images, shell};

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum Options {
    /// Start east and west, with our images; the last line printed is the path of their kubeconfig. They stay until `down`.
    Up {
        /// Route the pod ranges to each other; otherwise a cluster reaches the other at its node's address only.
        #[arg(long)]
        flat: bool,
    },
    /// Load image archives into both.
    Load {
        /// The archives: OCI image layouts or what `docker save` writes.
        #[arg(required = true, value_name = "IMAGE.tar")]
        archives: Vec<PathBuf>,
    },
    /// Install Isthmus in both.
    Install {
        /// What follows `--` goes to `mesh install`.
        #[arg(last = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
    /// Link them, both ways.
    Link {
        /// What follows `--` goes to `mesh multicluster link`.
        #[arg(last = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
    /// End them, and remove what they wrote.
    Down,
}

/// Does it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let clusters = Clusters::ready()?;
    match options {
        Options::Up { flat } => {
            let out = ci::target()?.join("images");
            eprintln!("clusters: building the images");
            images::for_tests(&out)?;
            let mut archives = std::fs::read_dir(&out)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            archives.retain(|path| path.extension().is_some_and(|end| end == "tar"));
            archives.sort();
            clusters.call(&plan::up(*flat, &archives))
        }
        Options::Load { archives } => clusters.call(&plan::load(archives)),
        Options::Install { arguments } => clusters.mesh(|kubeconfig| plan::install(kubeconfig, arguments)),
        Options::Link { arguments } => clusters.mesh(|kubeconfig| plan::link(kubeconfig, arguments)),
        Options::Down => clusters.call(&plan::down()),
    }
}

/// The program, and what it needs.
struct Clusters {
    program: PathBuf,
    target: PathBuf,
    directory: PathBuf,
    tools: Vec<(&'static str, String)>,
}

impl Clusters {
    fn ready() -> Result<Self> {
        let target = ci::target()?;
        let tools = tools::bring(&[Tool::Kubectl, Tool::Debian, Tool::NodeRoot, Tool::Kubernetes])?;
        build(&["--package", "mesh-kubernetes-tests", "--bin", "clusters"])?;
        let program = target.join("debug/clusters");
        Ok(Self { program, target, directory: tools::cache_root()?.join("clusters"), tools })
    }

    fn call(&self, call: &plan::Call) -> Result<()> {
        shell::show(&mut self.command(call))
    }

    fn mesh(&self, calls: impl Fn(&str) -> Vec<Vec<String>>) -> Result<()> {
        let kubeconfig = shell::read(&mut self.command(&plan::kubeconfig()))?;
        build(&["--package", "mesh"])?;
        for arguments in calls(kubeconfig.trim()) {
            eprintln!("$ mesh {}", arguments.join(" "));
            shell::show(Command::new(self.target.join("debug/mesh")).args(arguments)).context("`mesh` says above what is wrong")?;
        }
        Ok(())
    }

    fn command(&self, call: &plan::Call) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(call.name).arg("--directory").arg(&self.directory).args(&call.arguments).envs(self.tools.iter().cloned());
        command
    }
}

fn build(what: &[&str]) -> Result<()> {
    shell::show(shell::cargo().args(["build", "--quiet", "--locked"]).args(what).env("CARGO_TARGET_DIR", ci::target()?))
}
