//! What `mesh install`, `mesh upgrade` and `mesh uninstall` are told, and the choices that it makes.

use std::path::PathBuf;

use ipnet::IpNet;
use mesh_manifests::{FailurePolicy, GatewayType, Inbound, Install, Registry, Replicas, Tag};
use mesh_names::{ClusterName, TrustDomain};
use mesh_runtime::clock::Span;

use crate::args::Global;

/// Flags of `mesh install`.
#[derive(Debug, clap::Args)]
#[command(after_help = INSTALL)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(super) global: Global,
    /// The cluster's name, a DNS label: how other clusters call it
    #[arg(long, value_name = "NAME")]
    cluster: ClusterName,
    /// The cluster's trust domain [default: CLUSTER.mesh]
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<TrustDomain>,
    /// Where the root of `mesh trust init` lies, or the issuer of `mesh trust issue`; without it a root is made whose key nobody keeps
    #[arg(long, value_name = "DIR")]
    pub(super) trust_dir: Option<PathBuf>,
    /// Make no issuer: the Secret isthmus-system/isthmus-issuer is made by somebody else, below the authorities in FILE (PEM or SPIFFE)
    #[arg(long, value_name = "FILE", conflicts_with = "trust_dir")]
    pub(super) external_issuer: Option<PathBuf>,
    /// Only what the cluster trusts, for who installs the rest with Helm or kustomize
    #[arg(long)]
    pub(super) only_trust: bool,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    pub(super) how: How,
}

/// Flags of `mesh upgrade`.
#[derive(Debug, clap::Args)]
#[command(after_help = UPGRADE)]
pub(crate) struct UpgradeFlags {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    pub(super) how: How,
}

/// Flags of `mesh uninstall`.
#[derive(Debug, clap::Args)]
#[command(after_help = UNINSTALL)]
pub(crate) struct UninstallFlags {
    #[command(flatten)]
    pub(super) global: Global,
    /// Restart the workloads that still have a proxy, one pod at a time as their own rules say, instead of refusing
    #[arg(long)]
    pub(super) restart_workloads: bool,
    /// Go on while pods still have a proxy: their calls to other pods fail when their identities end
    #[arg(long, conflicts_with = "restart_workloads")]
    pub(super) force: bool,
    /// Leave the definitions of Link, Peer, ServiceExport and ServiceImport, and people's exports with them
    #[arg(long)]
    pub(super) keep_definitions: bool,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// How long it may take
    #[arg(long, default_value = "5m", value_name = "SPAN")]
    pub(super) timeout: Span,
}

/// What may differ between two installations; what is not named stays as it is.
#[derive(Debug, clap::Args)]
struct Choices {
    /// Where the images are, without the component's name
    #[arg(long, value_name = "REGISTRY")]
    registry: Option<Registry>,
    /// The images' tag [default: this command's version]
    #[arg(long, value_name = "TAG")]
    tag: Option<Tag>,
    /// Replicas of control, mirror controller, gateway and DNS each
    #[arg(long, value_name = "N")]
    replicas: Option<Replicas>,
    /// How peers reach the gateways
    #[arg(long, value_enum, value_name = "TYPE")]
    gateway_type: Option<GatewayType>,
    /// A range of pods or Services, where plaintext needs a positive "not meshed"; may be repeated
    #[arg(long = "range", value_name = "CIDR")]
    ranges: Vec<IpNet>,
    /// What becomes of a pod to be meshed while no control answers
    #[arg(long, value_enum, value_name = "POLICY")]
    webhook_failure_policy: Option<FailurePolicy>,
    /// Whether endpoints without a proxy are exported unless the export or the namespace says otherwise
    #[arg(long, value_name = "BOOL")]
    allow_unmeshed: Option<bool>,
    /// Whether plaintext from pods that are not meshed is let in unless the namespace says otherwise
    #[arg(long, value_enum, value_name = "POLICY")]
    inbound: Option<Inbound>,
}

/// What becomes of the objects.
#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// Apply to the cluster instead of printing
    #[arg(long)]
    apply: bool,
    /// Wait until everything runs
    #[arg(long, requires = "apply")]
    pub(super) wait: bool,
    /// How long to wait
    #[arg(long, default_value = "5m", value_name = "SPAN")]
    pub(super) timeout: Span,
    /// Ask the cluster what applying would do, and do nothing
    #[arg(long, conflicts_with_all = ["apply", "diff"])]
    dry_run: bool,
    /// Show what applying would change, line by line, and do nothing
    #[arg(long, conflicts_with = "apply")]
    diff: bool,
}

/// One of the ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Print,
    Diff,
    DryRun,
    Apply,
}

impl How {
    pub(super) fn mode(&self) -> Mode {
        match self {
            Self { apply: true, .. } => Mode::Apply,
            Self { diff: true, .. } => Mode::Diff,
            Self { dry_run: true, .. } => Mode::DryRun,
            _ => Mode::Print,
        }
    }
}

impl Flags {
    /// The choices.
    pub(super) fn install(&self) -> Install {
        let mut install = Install::new(self.cluster.clone());
        if let Some(trust_domain) = &self.trust_domain {
            install.trust_domain = trust_domain.clone();
        }
        self.choices.over(install)
    }
}

impl UpgradeFlags {
    /// The choices of an installed mesh with those that were named now. The version becomes this command's unless another is named.
    pub(super) fn over(&self, installed: Install) -> Install {
        let this = mesh_manifests::Images::default();
        let images = mesh_manifests::Images { tag: this.tag, ..installed.images };
        self.choices.over(Install { images, ..installed })
    }
}

impl Choices {
    fn over(&self, mut install: Install) -> Install {
        fn set<T: Clone>(place: &mut T, chosen: Option<&T>) {
            if let Some(chosen) = chosen {
                place.clone_from(chosen);
            }
        }
        set(&mut install.images.registry, self.registry.as_ref());
        set(&mut install.images.tag, self.tag.as_ref());
        set(&mut install.replicas, self.replicas.as_ref());
        set(&mut install.gateway, self.gateway_type.as_ref());
        set(&mut install.ranges, Some(&self.ranges).filter(|ranges| !ranges.is_empty()));
        set(&mut install.webhook, self.webhook_failure_policy.as_ref());
        set(&mut install.allow_unmeshed, self.allow_unmeshed.as_ref());
        set(&mut install.inbound, self.inbound.as_ref());
        install
    }
}

const INSTALL: &str = "\
Examples:
  mesh install --cluster west --apply --wait                       into the current context's cluster
  mesh install --cluster west --trust-dir ca | kubectl apply -f -  with the root of `mesh trust init --dir ca`, kept off the cluster
  mesh install --cluster west --gateway-type NodePort --range 10.244.0.0/16 --range 10.96.0.0/12 --apply --wait
  mesh install --cluster west --external-issuer authorities.pem    with an issuer that cert-manager or SPIRE makes
  mesh install --cluster west --diff                               what applying would change

Without --apply, the objects are printed: YAML, or with -o json one List.";

const UPGRADE: &str = "\
Examples:
  mesh upgrade --diff                        what this version would change
  mesh upgrade --apply --wait                to this version, one replica at a time
  mesh upgrade --replicas 3 --apply --wait   other choices stay as they were

What the cluster trusts is never touched.";

const UNINSTALL: &str = "\
Examples:
  mesh uninstall --dry-run                    what would be deleted
  mesh uninstall --restart-workloads          restart what has a proxy, then delete everything

Exit codes: 0 done, 1 something failed, 3 refused because pods still have a proxy";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Upgrade {
        #[command(flatten)]
        flags: UpgradeFlags,
    }

    #[test]
    fn an_upgrade_changes_what_it_names_and_the_version() {
        let mut held = Install::new("west".parse().unwrap());
        held.images.registry = "r.example/mesh".parse().unwrap();
        held.images.tag = "0.0.1".parse().unwrap();
        held.ranges = vec!["10.0.0.0/8".parse().unwrap()];
        let upgraded = Upgrade::try_parse_from(["x", "--replicas", "3"]).unwrap().flags.over(held.clone());
        assert_eq!(upgraded.replicas.get(), 3);
        assert_eq!(upgraded.images.registry, held.images.registry);
        assert_eq!(upgraded.images.tag.to_string(), env!("CARGO_PKG_VERSION"));
        assert_eq!(upgraded.ranges, held.ranges);
        let named = Upgrade::try_parse_from(["x", "--tag", "v9"]).unwrap().flags.over(held);
        assert_eq!(named.images.tag.to_string(), "v9");
    }
}
