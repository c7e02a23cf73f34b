//! Runs other programs, and finds the two folders that everything here is relative to. The only place in xtask that starts a
//! process, so that every failure is worded alike: what was run, and what it said.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The repository's root: the folder that holds this crate's.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Runs `command` with its output shown.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let line = words(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("could not start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs `command` quietly, and answers what it printed on standard output. What it printed on standard error is kept for the failure.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let line = words(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("could not start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed what is not UTF-8"))
}

/// Runs `command`, and hands each line of its standard error to `heard`: for what takes long enough that somebody wonders. The last lines
/// are kept for the failure.
pub(crate) fn follow(command: &mut Command, mut heard: impl FnMut(&str)) -> Result<()> {
    let line = words(command);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().with_context(|| format!("could not start `{line}`"))?;
    let mut last = std::collections::VecDeque::new();
    for said in child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).lines()) {
        let said = said?;
        heard(&said);
        last.push_back(said);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{line}` failed ({status}), and said at last:\n{}", last.make_contiguous().join("\n"));
    }
    Ok(())
}

/// Lines that [`follow`] keeps.
const LAST_LINES: usize = 40;

/// The cargo that runs us, so that one toolchain is used throughout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}
