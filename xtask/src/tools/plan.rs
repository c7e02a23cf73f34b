//! What is needed, what is there, and so what to fetch. Pure. A tool's folder is named by its version, a fingerprint of its pins and
//! whatever of the machine goes into it, so a changed pin is simply another folder.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::{debian, kubernetes, node_root};

/// Everything that tests and the bench take from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// The users' client, from a wheel.
    Kubectl,
    /// The Python packages kubernetes, grpcio and dnspython.
    Python,
    /// A stock gRPC client, built from its Go module.
    Grpcurl,
    /// The components of Kubernetes in one binary, built from our Go module.
    Kubernetes,
    /// What renders and checks our chart, built from its Go module.
    Helm,
    /// dig, tcpdump, ip, nft, iptables, nsenter, unshare and haproxy, from Debian's packages.
    Debian,
    /// The root of a cluster's node (containerd, runc, CNI plugins and the programs of test images), from Debian's packages.
    NodeRoot,
    /// Licences, bans and sources of our dependencies.
    CargoDeny,
    /// Dependencies that nobody uses.
    CargoMachete,
    /// A peer in the bench, from a wheel.
    Envoy,
}

/// The machine, as far as fetching goes. `None`: not there.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// Version of the Python that has pip, such as `3.11`, and its full path.
    pub(crate) python: Option<(String, String)>,
    /// Version of Go, such as `go1.26.8`.
    pub(crate) go: Option<String>,
    /// Debian's (or its child's) release name, such as `bookworm`, where apt-get is.
    pub(crate) debian: Option<String>,
}

/// One step of the plan.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is in the cache.
    Keep { tool: Tool, folder: String },
    /// It must be fetched into that folder.
    Fetch { tool: Tool, folder: String },
}

pub(crate) const KUBECTL_LOCK: &str = include_str!("../../tools/kubectl.lock");
pub(crate) const PYTHON_LOCK: &str = include_str!("../../tools/python.lock");
pub(crate) const ENVOY_LOCK: &str = include_str!("../../tools/envoy.lock");
pub(crate) const GRPCURL_SUM: &str = include_str!("../../tools/grpcurl.sum");
pub(crate) const HELM_SUM: &str = include_str!("../../tools/helm.sum");

/// Versions that stand in no lock. Cargo checks each crate against the index's SHA-256, and `--locked` holds their dependencies.
pub(crate) const CARGO_DENY: &str = "0.20.2";
pub(crate) const CARGO_MACHETE: &str = "0.9.2";
pub(crate) const GRPCURL: &str = "v1.9.3";
pub(crate) const HELM: &str = "v4.3.1";

impl Tool {
    /// What `cargo xtask ci` needs.
    pub(crate) const TESTS: &[Self] = &[
        Self::Kubectl,
        Self::Python,
        Self::Grpcurl,
        Self::Helm,
        Self::Debian,
        Self::NodeRoot,
        Self::CargoDeny,
        Self::CargoMachete,
        Self::Kubernetes,
    ];

    /// That and the bench's peers.
    pub(crate) fn all() -> Vec<Self> {
        [Self::TESTS, &[Self::Envoy]].concat()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kubectl => "kubectl",
            Self::Python => "the Python clients",
            Self::Grpcurl => "grpcurl",
            Self::Kubernetes => "Kubernetes' components",
            Self::Helm => "helm",
            Self::Debian => "Debian's tools",
            Self::NodeRoot => "the nodes' root",
            Self::CargoDeny => "cargo-deny",
            Self::CargoMachete => "cargo-machete",
            Self::Envoy => "Envoy",
        }
    }

    fn folder(self, host: &Host) -> Result<String> {
        let python = || host.python.as_ref().map(|(version, _)| version);
        Ok(match self {
            Self::Kubectl => format!("kubectl-{:08x}", need(self, python(), "python3 with pip").map(|_| fingerprint(KUBECTL_LOCK))?),
            Self::Envoy => format!("envoy-{:08x}", need(self, python(), "python3 with pip").map(|_| fingerprint(ENVOY_LOCK))?),
            Self::Python => format!("python{}-{:08x}", need(self, python(), "python3 with pip")?, fingerprint(PYTHON_LOCK)),
            Self::Grpcurl => format!("grpcurl-{GRPCURL}-{}", need(self, host.go.as_ref(), "go")?),
            Self::Kubernetes => format!("kc-{:08x}-{}", fingerprint(&kubernetes::pins()), need(self, host.go.as_ref(), "go")?),
            Self::Helm => format!("helm-{HELM}-{}", need(self, host.go.as_ref(), "go")?),
            Self::Debian => {
                format!("debian-{}-{:08x}", need(self, host.debian.as_ref(), "Debian's apt-get and dpkg")?, fingerprint(&debian::pins()))
            }
            Self::NodeRoot => {
                let release = need(self, host.debian.as_ref(), "Debian's apt-get and dpkg")?;
                format!("node-root-{release}-{:08x}", fingerprint(&node_root::pins()))
            }
            Self::CargoDeny => format!("cargo-deny-{CARGO_DENY}"),
            Self::CargoMachete => format!("cargo-machete-{CARGO_MACHETE}"),
        })
    }
}

/// What to do for each tool of `wanted`, in order.
pub(crate) fn plan(wanted: &[Tool], host: &Host, present: &BTreeSet<String>) -> Result<Vec<Step>> {
    let step = |tool: &Tool| {
        let (tool, folder) = (*tool, tool.folder(host)?);
        Ok(if present.contains(&folder) { Step::Keep { tool, folder } } else { Step::Fetch { tool, folder } })
    };
    wanted.iter().map(step).collect()
}

impl Step {
    pub(crate) fn parts(&self) -> (Tool, &str) {
        match self {
            Self::Keep { tool, folder } | Self::Fetch { tool, folder } => (*tool, folder),
        }
    }
}

fn need<'a>(tool: Tool, has: Option<&'a String>, what: &str) -> Result<&'a String> {
    let Some(version) = has else {
        bail!(
            "{} come(s) through {what}, which this machine lacks: install it, or run `cargo xtask ci --skip tools` and do without the tests that need it",
            tool.name()
        );
    };
    Ok(version)
}

/// FNV-1a: stable over Rust versions and machines, which is all that a folder's name needs. What is fetched is checked by SHA-256.
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            python: Some(("3.11".to_owned(), "/usr/bin/python3".to_owned())),
            go: Some("go1.26.8".to_owned()),
            debian: Some("bookworm".to_owned()),
        }
    }

    #[test]
    fn an_empty_cache_fetches_everything_and_a_full_one_nothing() {
        let first = plan(&Tool::all(), &host(), &BTreeSet::new()).unwrap();
        assert!(first.iter().all(|step| matches!(step, Step::Fetch { .. })));
        let full = first.iter().map(|step| step.parts().1.to_owned()).collect();
        assert!(plan(&Tool::all(), &host(), &full).unwrap().iter().all(|step| matches!(step, Step::Keep { .. })));
    }

    #[test]
    fn another_python_or_go_is_another_folder() {
        let folder = |tool: Tool, host: &Host| tool.folder(host).unwrap();
        let other = Host { python: Some(("3.13".to_owned(), String::new())), go: Some("go1.27.0".to_owned()), ..host() };
        assert_ne!(folder(Tool::Python, &host()), folder(Tool::Python, &other));
        assert_ne!(folder(Tool::Grpcurl, &host()), folder(Tool::Grpcurl, &other));
        assert_ne!(folder(Tool::Kubernetes, &host()), folder(Tool::Kubernetes, &other));
        assert_eq!(folder(Tool::Kubectl, &host()), folder(Tool::Kubectl, &other));
    }

    #[test]
    fn a_missing_toolchain_is_named_with_what_to_do() {
        let error = plan(&[Tool::Grpcurl], &Host { go: None, ..host() }, &BTreeSet::new()).unwrap_err().to_string();
        assert!(error.contains("grpcurl come(s) through go") && error.contains("--skip tools"), "{error}");
    }

    #[test]
    fn every_python_package_is_pinned_by_hash() {
        for lock in [KUBECTL_LOCK, PYTHON_LOCK, ENVOY_LOCK] {
            for requirement in lock.lines().filter(|line| line.contains("==")) {
                assert!(requirement.ends_with(" \\"), "{requirement} has no hash");
            }
            assert!(
                lock.lines()
                    .filter(|line| line.contains("--hash"))
                    .all(|line| line.trim_end_matches(" \\").len() == "    --hash=sha256:".len() + 64)
            );
        }
    }
}
