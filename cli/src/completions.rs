//! Completion scripts.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Mesh;
use crate::output;

/// Flags of `mesh completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mesh completions bash > ~/.local/share/bash-completion/completions/mesh")]
pub(crate) struct Flags {
    /// Which shell
    shell: Shell,
}

/// Prints the script.
#[must_use]
pub(crate) fn run(flags: &Flags) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Mesh::command(), "mesh", &mut script);
    output::say(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Mesh::command().debug_assert();
    }
}
