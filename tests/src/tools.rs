//! The programs that specs use: ours from `MESH_BIN`, the others from `cargo xtask tools`. A missing one is a failure, never a skip.

use std::path::PathBuf;
use std::process::{Command, Output};

/// The `mesh` binary under test.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn mesh() -> PathBuf {
    program("MESH_BIN")
}

/// A program that `cargo xtask tools` provides, by the name of its variable.
///
/// # Panics
/// When the variable is not set or names no file.
#[must_use]
pub fn program(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: run the tests through `cargo xtask ci`"));
    let path = PathBuf::from(path);
    assert!(path.exists(), "{variable} names {}, which is not there", path.display());
    path
}

/// Runs a command to its end and gives its standard output; a failure is an error with both outputs.
///
/// # Errors
/// When it can't be started or fails.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let Output { status, stdout, stderr } = command.stdin(std::process::Stdio::null()).output()?;
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    anyhow::ensure!(status.success(), "{command:?} failed ({status}):\n{out}{err}");
    Ok(out.into_owned())
}
