//! The programs that clusters consist of and are used with: what `cargo xtask tools` brings, by the name of its variable. Never what lies
//! in PATH; a missing one is a failure, never a skip.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};

/// A program by the name of its variable, such as `MESH_TOOLS_KC`.
///
/// # Errors
/// When the variable is not set or names no file.
pub fn program(variable: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os(variable).with_context(|| {
        format!("{variable} is not set: run the tests through `cargo xtask ci`, or `eval \"$(cargo xtask tools --print-env)\"` first")
    })?;
    let path = PathBuf::from(path);
    ensure!(path.exists(), "{variable} names {}, which is not there", path.display());
    Ok(path)
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// When it can't be started or fails; both outputs are in the error.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("could not start {command:?}"))?;
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    ensure!(status.success(), "{command:?} failed ({status}):\n{out}{err}");
    Ok(out.into_owned())
}
