//! Takes programs out of the nodes' Debian root, each with the libraries that its loader finds there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::tar::Entries;
use crate::shell;

/// The unpacked root.
pub(crate) struct Root {
    path: PathBuf,
}

impl Root {
    /// Where `tools` put it.
    pub(crate) fn at(variables: Vec<(&'static str, String)>) -> Result<Self> {
        let found = variables.into_iter().find(|(name, _)| *name == "MESH_TOOLS_NODE_ROOT");
        Ok(Self { path: found.context("the tools brought no root of a node")?.1.into() })
    }

    /// Adds the program at `path`, and what it loads.
    pub(crate) fn program(&self, path: &str, entries: &mut Entries) -> Result<()> {
        let content = self.read(path)?;
        let dynamic = needs_loader(&content);
        entries.file(path, 0o755, content);
        if dynamic {
            self.libraries(path, entries)?;
        }
        Ok(())
    }

    /// Adds every file of the folder at `path`, and what those load.
    pub(crate) fn folder(&self, path: &str, entries: &mut Entries) -> Result<()> {
        let path = path.replace("MACHINE", &triplet());
        let folder = self.path.join(&path);
        for entry in fs::read_dir(&folder).with_context(|| format!("could not read {}", folder.display()))? {
            let entry = entry?;
            let name = format!("{path}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_symlink() {
                entries.link(&name, &fs::read_link(entry.path())?.to_string_lossy());
            } else {
                entries.file(&name, entry.metadata()?.permissions().mode() & 0o777, self.read(&name)?);
            }
        }
        Ok(())
    }

    fn libraries(&self, program: &str, entries: &mut Entries) -> Result<()> {
        let folders = ["lib", "usr/lib"].map(|folder| self.path.join(folder).join(triplet()).display().to_string());
        let loader = self.path.join("lib").join(triplet()).join(loader_name());
        let mut list = Command::new(&loader);
        list.args(["--library-path", &folders.join(":"), "--list"]).arg(self.path.join(program));
        for library in loaded(&shell::read(&mut list)?, &self.path) {
            let content = self.read(&library)?;
            entries.file(&library, 0o755, content);
        }
        let content = fs::read(&loader).with_context(|| format!("could not read {}", loader.display()))?;
        entries.file(&interpreter(), 0o755, content);
        Ok(())
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        fs::read(self.path.join(path)).with_context(|| format!("the nodes' root has no {path}"))
    }
}

/// The libraries of `ld.so --list` that lie in `root`, relative to it. (The loader itself and the kernel's own page lie elsewhere.)
fn loaded(listed: &str, root: &Path) -> Vec<String> {
    let paths = listed.lines().filter_map(|line| line.split_once(" => ")?.1.split_whitespace().next());
    paths.filter_map(|path| Path::new(path).strip_prefix(root).ok()).map(|path| path.display().to_string()).collect()
}

/// Whether a program names its loader, which it does in its first page.
pub(super) fn needs_loader(program: &[u8]) -> bool {
    program[..program.len().min(4096)].windows(9).any(|window| window == b"/ld-linux")
}

fn triplet() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

fn loader_name() -> &'static str {
    if std::env::consts::ARCH == "x86_64" { "ld-linux-x86-64.so.2" } else { "ld-linux-aarch64.so.1" }
}

/// Where programs look for their loader.
fn interpreter() -> String {
    let folder = if std::env::consts::ARCH == "x86_64" { "lib64" } else { "lib" };
    format!("{folder}/{}", loader_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_the_root_are_listed_without_it_and_the_machines_own_are_left_out() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibz.so.1 => /cache/node/lib/x86_64-linux-gnu/libz.so.1 (0x2)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x3)\n\t/lib64/ld-linux-x86-64.so.2 (0x4)\n";
        assert_eq!(loaded(listed, Path::new("/cache/node")), ["lib/x86_64-linux-gnu/libz.so.1"]);
    }
}
