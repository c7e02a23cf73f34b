//! A network of a test's own: a namespace with nothing but loopback, where whole ranges of ordinary addresses are local. A real API server
//! refuses endpoints in 127.0.0.0/8, and here two clusters have all the addresses they want, on the ports that they would really have.
//!
//! It has no name and needs no cleaning: it ends with the process that holds it, and that by the pipe to its standard input.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::tools;

/// The network, while it lives.
#[derive(Debug)]
pub struct PrivateNetwork {
    holder: Child,
}

impl PrivateNetwork {
    /// Makes one in which every address of `ranges` is local.
    ///
    /// # Errors
    /// When the machine has no `unshare` or does not allow it.
    pub fn start(ranges: &[&str]) -> anyhow::Result<Self> {
        let ip = tools::program("MESH_TOOLS_IP")?.display().to_string();
        let routes = ranges.iter().map(|range| format!("'{ip}' route add local {range} dev lo; ")).collect::<String>();
        let script = format!("set -e; '{ip}' link set lo up; {routes}echo made; exec cat");
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().context("unshare of util-linux does not start")?;
        let mut said = String::new();
        let output = holder.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut said)?;
        ensure!(said == "made\n", "no network namespace could be made: it takes a kernel that allows user namespaces, or root");
        Ok(Self { holder })
    }

    /// How to start `program` in it.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "--user", "--net", "--target", &self.holder.id().to_string()]).arg(program);
        command
    }
}

impl Drop for PrivateNetwork {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
