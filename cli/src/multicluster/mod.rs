//! `mesh multicluster`: who imports from whom, and what is exported.
//!
//! Every command is observe → plan → apply over the clusters that it names, can be repeated, and says what to do where it can't go on.

mod export;
mod facts;
pub(crate) mod link;
mod list;
mod status;
mod unlink;

use std::process::ExitCode;

use clap::Subcommand;

/// Commands under `mesh multicluster`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make one cluster import what another exports
    Link(link::Flags),
    /// End what `link` began
    Unlink(unlink::Flags),
    /// List who imports from whom
    List(list::Flags),
    /// Tell how a cluster's links are
    Status(status::Flags),
    /// Export a Service to linked clusters
    Export(export::Flags),
    /// Take back the export of a Service
    Unexport(export::Flags),
}

/// Does what was asked for.
///
/// # Errors
/// When it could not be done.
pub(crate) async fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Link(flags) => link::run(flags).await,
        Command::Unlink(flags) => unlink::run(flags).await,
        Command::List(flags) => list::run(flags).await,
        Command::Status(flags) => status::run(flags).await,
        Command::Export(flags) => export::run(flags).await,
        Command::Unexport(flags) => export::undo(flags).await,
    }
}
