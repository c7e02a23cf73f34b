//! The components of Kubernetes as one binary, built from our small Go module in `tests/kubernetes/kc`. Its go.sum holds every module's
//! hash, and Go checks them; the version that the binary reports is the one that go.mod requires.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cache::Cache;
use crate::shell;

/// What the binary is made from, in the repository and in this program.
const FOLDER: &str = "tests/kubernetes/kc";
const GO_MOD: &str = include_str!("../../../tests/kubernetes/kc/go.mod");
const SOURCES: &[&str] =
    &[GO_MOD, include_str!("../../../tests/kubernetes/kc/go.sum"), include_str!("../../../tests/kubernetes/kc/main.go")];

/// How many packages pass between two words of progress: one in a minute or so.
const PROGRESS: usize = 300;

/// Everything that the binary depends on, as text.
pub(crate) fn pins() -> String {
    SOURCES.concat()
}

/// Such as `v1.36.3`.
pub(crate) fn version() -> Result<&'static str> {
    let required = GO_MOD.lines().filter_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "));
    required.map(str::trim).next().with_context(|| format!("{FOLDER}/go.mod requires no k8s.io/kubernetes"))
}

/// Builds `kc` into `stage`. Go's cache of it is 3 GB that nothing else uses: it outlives a build that was cut off, and goes with one that
/// succeeds.
pub(crate) fn build(stage: &Path, cache: &Cache) -> Result<()> {
    let (program, built_already, version) = (stage.join("kc"), cache.root().join("staging").join("go-build"), version()?);
    let mut go = Command::new("go");
    go.current_dir(shell::root().join(FOLDER));
    go.args(["build", "-v", "-trimpath", "-ldflags", &linker_flags(version)?, "-o"]).arg(&program).arg(".");
    go.envs([("CGO_ENABLED", "0"), ("GOFLAGS", "-mod=readonly -buildvcs=false"), ("GOTOOLCHAIN", "local")]).env("GOCACHE", &built_already);
    let mut built = 0_usize;
    shell::follow(&mut go, |line| {
        // `go build -v` names each package that it builds; what is no package is of the downloads.
        built += usize::from(!line.contains(' '));
        if built.is_multiple_of(PROGRESS) && built > 0 && !line.contains(' ') {
            eprintln!("tools: Kubernetes {version}: {built} packages of about 2000 are built");
        }
    })?;
    fs::remove_dir_all(built_already)?;
    let said = shell::read(Command::new(&program).args(["kube-apiserver", "--version"]))?;
    ensure!(said.trim() == format!("Kubernetes {version}"), "kc calls itself `{}` and not Kubernetes {version}", said.trim());
    Ok(())
}

/// Without them a build of the module calls itself v0.0.0, which clients that read the version refuse.
fn linker_flags(version: &str) -> Result<String> {
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = parts.next().zip(parts.next()).with_context(|| format!("`{version}` is no version of Kubernetes"))?;
    let set = |name: &str, value: &str| format!(" -X k8s.io/component-base/version.{name}={value}");
    Ok(["-s -w", &set("gitVersion", version), &set("gitMajor", major), &set("gitMinor", minor)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_says_the_version_that_go_mod_requires() {
        let version = version().unwrap();
        assert!(version.starts_with("v1."), "{version}");
        assert!(GO_MOD.contains(&format!("k8s.io/apiserver => k8s.io/apiserver {}", version.replacen("v1", "v0", 1))));
        let flags = linker_flags("v1.36.3").unwrap();
        assert!(flags.contains("version.gitVersion=v1.36.3") && flags.contains("version.gitMinor=36"), "{flags}");
    }
}
