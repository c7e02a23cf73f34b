//! `mesh internal PROGRAM`: the programs of the mesh out of this one binary, for the demo and for tests.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

/// One program.
#[derive(Debug, Subcommand)]
pub(crate) enum Program {
    /// The Kubernetes API of a demo cluster
    #[cfg(feature = "demo")]
    Apiserver(mesh_apiserver::Flags),
    /// The control plane
    Control(mesh_control::Flags),
    /// The door between clusters
    Gateway(mesh_gateway::Flags),
    /// The DNS server
    Dns(mesh_dns::Flags),
    /// What runs beside each workload
    Proxy(mesh_proxy::Flags),
    /// What sends a pod's connections through its proxy
    Init(mesh_proxy::redirect::InitFlags),
    /// What brings linked clusters' exports home
    MirrorController(mesh_mirror_controller::Flags),
    /// The node of a demo cluster
    #[cfg(feature = "demo")]
    Node(mesh_demo::node::Flags),
    /// The demo's workload
    #[cfg(feature = "demo")]
    Shop(mesh_demo::shop::Flags),
    /// Any other program, ended with the process that started it
    Exec(Exec),
}

/// A program that is not ours.
#[derive(Debug, clap::Args)]
pub(crate) struct Exec {
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl Program {
    /// Runs it to its end.
    ///
    /// # Errors
    /// When it could not start, or failed.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            #[cfg(feature = "demo")]
            Self::Apiserver(flags) => mesh_apiserver::run(flags)?,
            Self::Control(flags) => mesh_control::main(flags)?,
            Self::Gateway(flags) => mesh_gateway::main(flags)?,
            Self::Proxy(flags) => mesh_proxy::main(flags)?,
            Self::Init(flags) => mesh_proxy::redirect::init(&flags)?,
            Self::MirrorController(flags) => mesh_mirror_controller::main(flags)?,
            Self::Dns(flags) => mesh_dns::main(&flags)?,
            #[cfg(feature = "demo")]
            Self::Node(flags) => mesh_demo::node::main(flags)?,
            #[cfg(feature = "demo")]
            Self::Shop(flags) => mesh_demo::shop::main(flags)?,
            Self::Exec(exec) => return exec.run(),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Exec {
    /// Becomes the program. That this process dies with its parent was arranged in `main`, and lasts.
    fn run(self) -> anyhow::Result<ExitCode> {
        let (program, arguments) = self.command.split_first().context("name a program")?;
        let error = std::process::Command::new(program).args(arguments).env_remove(mesh_runtime::process::PARENT).exec();
        Err(error).with_context(|| format!("could not run {}", program.display()))
    }
}
