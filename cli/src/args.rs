//! What can be typed after `mesh`, and where each command goes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{check, completions, dns, inject, install, internal, multicluster, trust};

/// Links Kubernetes clusters: calls, identity and failover across them.
#[derive(Debug, Parser)]
#[command(name = "mesh", version, after_help = EXAMPLES, propagate_version = false)]
pub(crate) struct Mesh {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start linked clusters with a small shop on this machine
    #[cfg(feature = "demo")]
    Demo(mesh_demo::supervise::Flags),
    /// Install the mesh in a cluster, or print what that takes
    Install(Box<install::Flags>),
    /// Bring an installed mesh to another version, or change how it is installed
    Upgrade(Box<install::UpgradeFlags>),
    /// Take the mesh out of a cluster
    Uninstall(install::UninstallFlags),
    /// Add the proxy to the pods of manifests
    Inject(Box<inject::Flags>),
    /// Link clusters, and export services to them
    #[command(subcommand)]
    Multicluster(multicluster::Command),
    /// Say whether the mesh of one or all clusters is sound, and what to do where it is not
    Check(check::Flags),
    /// Tell what a check means and what to do when it fails
    Explain(check::ExplainFlags),
    /// Ask a mesh DNS server
    #[command(subcommand)]
    Dns(dns::Command),
    /// Make and show what clusters trust
    #[command(subcommand)]
    Trust(trust::Command),
    /// Print a completion script for a shell
    Completions(completions::Flags),
    /// Run one program of the mesh
    #[command(subcommand, hide = true)]
    Internal(Box<internal::Program>),
}

/// Which cluster a command talks to, and how it answers.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The kubeconfig [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) context: Option<String>,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

impl Mesh {
    /// Does what was asked for.
    ///
    /// # Errors
    /// When it could not be done; what was found to be wrong is an exit code instead.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            #[cfg(feature = "demo")]
            Command::Demo(flags) => crate::demo::run(flags),
            Command::Install(flags) => runtime()?.block_on(install::run(&flags)),
            Command::Upgrade(flags) => runtime()?.block_on(install::upgrade(&flags)),
            Command::Uninstall(flags) => runtime()?.block_on(install::uninstall(&flags)),
            Command::Inject(flags) => runtime()?.block_on(inject::run(&flags)),
            Command::Multicluster(command) => runtime()?.block_on(multicluster::run(&command)),
            Command::Check(flags) => runtime()?.block_on(check::run(&flags)),
            Command::Explain(flags) => check::explain(&flags),
            Command::Dns(command) => runtime()?.block_on(dns::run(&command)),
            Command::Trust(command) => runtime()?.block_on(trust::run(&command)),
            Command::Completions(flags) => Ok(completions::run(&flags)),
            Command::Internal(program) => program.run(),
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

const EXAMPLES: &str = "\
Examples:
  mesh demo                                                    two linked clusters on this machine
  mesh install --cluster west --apply --wait                   install the mesh in the current context's cluster
  mesh multicluster link --context west --to east --mutual     link two clusters, both ways
  mesh check --all-clusters                                    is anything broken, and what to do
  mesh dns query catalog.shop.svc.clusterset.local --server 127.11.0.53:4153

Exit codes: 0 done, 1 something failed or a check did, 2 not understood, 3 refused";
