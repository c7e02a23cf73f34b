//! Hands the rules to the programs that set them.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::iptables::{Family, forget};
use super::{InitFlags, Redirect};

/// Why nothing was set.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Neither of the two ways works.
    #[error(
        "no redirect: nft says {nft}; iptables says {iptables}. The init container needs the capability NET_ADMIN, and a kernel with nf_tables or ip_tables"
    )]
    Neither {
        /// Why nft did not.
        nft: Box<RunError>,
        /// Why iptables did not.
        iptables: Box<RunError>,
    },
}

/// Why one program did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not run.
    #[error("that {} can't be run ({source})", .program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It refused.
    #[error("{said:?}")]
    Refused {
        /// What it said.
        said: String,
    },
}

/// Sets the redirect by nft, else by iptables.
pub(super) fn apply(flags: &InitFlags, redirect: &Redirect) -> Result<(), ApplyError> {
    let nft = match run(&flags.nft, &["-f", "-"], &redirect.nft()) {
        Ok(()) => {
            tracing::info!(program = %flags.nft.display(), "connections are redirected");
            return Ok(());
        }
        Err(error) => error,
    };
    tracing::info!(why = %nft, "nft can't be used, iptables is tried");
    by_iptables(flags, redirect).map_err(|iptables| ApplyError::Neither { nft: Box::new(nft), iptables: Box::new(iptables) })
}

fn by_iptables(flags: &InitFlags, redirect: &Redirect) -> Result<(), RunError> {
    for (program, family) in [(&flags.iptables, Family::V4), (&flags.ip6tables, Family::V6)] {
        for old in forget() {
            // There is none on the first run.
            let _ = run(program, &["--noflush"], &old);
        }
        match run(program, &["--noflush"], &redirect.iptables(family)) {
            // A kernel without IPv6 has nothing to redirect there.
            Err(error) if family == Family::V6 && !has_ipv6() => tracing::info!(why = %error, "no IPv6 here"),
            done => done?,
        }
    }
    tracing::info!(program = %flags.iptables.display(), "connections are redirected");
    Ok(())
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

fn run(program: &Path, arguments: &[&str], rules: &str) -> Result<(), RunError> {
    let start = |source| RunError::Start { program: program.to_owned(), source };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start)?;
    if let Some(mut input) = child.stdin.take() {
        // What does not listen to the end says why when it ends.
        let _ = input.write_all(rules.as_bytes());
    }
    let output = child.wait_with_output().map_err(start)?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(SAID_MAX).collect();
    Err(RunError::Refused { said })
}

/// More of what a program says is no help.
const SAID_MAX: usize = 500;
