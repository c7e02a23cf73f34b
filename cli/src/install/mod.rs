//! `mesh install`, `mesh upgrade`, `mesh uninstall`: the objects of the mesh in one cluster.
//!
//! Installing is the typed choices → the objects (`mesh_manifests`, pure) → printed, compared or applied. What a cluster trusts is written
//! once and never replaced by any of these commands, because a new issuer or bundle would end every session there is.

mod apply;
mod diff;
mod flags;
mod observe;
mod remove;
mod wait;

use std::process::ExitCode;

use anyhow::Context as _;
use mesh_manifests::{Install, Object};
use mesh_trust::Bundle;
use serde_json::json;

use crate::args::{Global, Output};
use crate::trust::Trust;
use crate::{clusters, output};

pub(crate) use flags::{Flags, UninstallFlags, UpgradeFlags};
use flags::{How, Mode};
pub(crate) use remove::uninstall;

/// Installs, or prints what would be.
///
/// # Errors
/// When the trust can't be had, or the cluster can't be read or written.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let install = flags.install();
    let trust = Trusting::of(flags, &install)?;
    let mut wanted = with_trust(&install, &trust)?;
    if flags.only_trust {
        wanted.retain(|object| object.kind() == "Namespace" || observe::is_written_once(object));
    }
    if flags.how.mode() == Mode::Print {
        print(&flags.global, &wanted)?;
        if matches!(trust, Trusting::Issued(_)) && flags.trust_dir.is_none() {
            anstream::eprintln!(
                "This holds a new issuer, whose root nobody keeps: print it once, or keep a root with mesh trust init and --trust-dir."
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    act(&flags.global, &flags.how, &wanted).await
}

/// Applies the objects of another version, or of other choices, over those of an installed mesh.
///
/// # Errors
/// When no mesh is installed, or the cluster can't be read or written.
pub(crate) async fn upgrade(flags: &UpgradeFlags) -> anyhow::Result<ExitCode> {
    let kubeconfig = flags.global.read()?;
    let client = clusters::client(&kubeconfig, &flags.global.context_of(&kubeconfig)?).await?;
    let installed = Install::from_facts(&observe::facts(&client).await?)?;
    let wanted = mesh_manifests::objects(&flags.over(installed));
    act(&flags.global, &flags.how, &wanted).await
}

/// The choices of the mesh that is installed in the cluster that is meant, and its bundle.
///
/// # Errors
/// When there is none, or the cluster does not answer.
pub(crate) async fn installed(global: &Global) -> anyhow::Result<(Install, String)> {
    let kubeconfig = global.read()?;
    let client = clusters::client(&kubeconfig, &global.context_of(&kubeconfig)?).await?;
    let installed = Install::from_facts(&observe::facts(&client).await?)?;
    Ok((installed, observe::bundle(&client).await?))
}

/// Where the cluster's trust comes from.
enum Trusting {
    /// From here.
    Issued(Box<Trust>),
    /// The issuer's Secret is somebody else's to make (cert-manager, SPIRE).
    External(Bundle),
}

impl Trusting {
    fn of(flags: &Flags, install: &Install) -> anyhow::Result<Self> {
        match (&flags.trust_dir, &flags.external_issuer) {
            (_, Some(file)) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
                let of_json = Bundle::from_spiffe_json(install.trust_domain.clone(), text.as_bytes());
                let bundle = of_json.or_else(|_| Bundle::from_pem(install.trust_domain.clone(), 1, &text));
                Ok(Self::External(bundle.with_context(|| format!("{} holds no authority of {}", file.display(), install.trust_domain))?))
            }
            (Some(directory), None) => Ok(Self::Issued(Box::new(Trust::of(directory, &install.cluster, &install.trust_domain)?))),
            (None, None) => Ok(Self::Issued(Box::new(Trust::made(&install.trust_domain)?))),
        }
    }
}

/// Everything in the order of applying: what is trusted stands behind the namespace that it lies in.
fn with_trust(install: &Install, trust: &Trusting) -> anyhow::Result<Vec<Object>> {
    let trusted = match trust {
        Trusting::Issued(trust) => mesh_manifests::trust::objects(&trust.bundle, Some(&trust.issuer)),
        Trusting::External(bundle) => mesh_manifests::trust::objects(bundle, None),
    };
    let mut wanted = mesh_manifests::objects(install);
    let behind = wanted.iter().position(|object| object.kind() == "Namespace").context("an installation has a namespace")? + 1;
    wanted.splice(behind..behind, trusted);
    Ok(wanted)
}

fn print(global: &Global, wanted: &[Object]) -> anyhow::Result<()> {
    match global.output {
        Output::Table => output::say(&mesh_manifests::yaml::documents(wanted)),
        Output::Json => {
            let items: Vec<_> = wanted.iter().map(Object::body).collect();
            output::say_json(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
        }
    }
    Ok(())
}

async fn act(global: &Global, how: &How, wanted: &[Object]) -> anyhow::Result<ExitCode> {
    let kubeconfig = global.read()?;
    let context = global.context_of(&kubeconfig)?;
    let client = clusters::client(&kubeconfig, &context).await?;
    match how.mode() {
        Mode::Print => print(global, wanted)?,
        Mode::Diff => output::say(&observe::compare(&client, wanted).await?.iter().map(observe::Compared::diff).collect::<String>()),
        Mode::DryRun => tell(global, &observe::compare(&client, wanted).await?)?,
        Mode::Apply => {
            let done = apply::apply(&client, wanted).await?;
            tell(global, &done)?;
            if how.wait {
                wait::ready(&client, wanted, how.timeout.0).await?;
            }
            if global.output == Output::Table {
                anstream::eprintln!("Next: kubectl label namespace NAME isthmus.dev/inject=enabled; mesh check --context {context}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(global: &Global, compared: &[observe::Compared]) -> anyhow::Result<()> {
    match global.output {
        Output::Json => output::say_json(&compared),
        Output::Table => {
            let row = |one: &observe::Compared| [one.action.word().to_owned(), one.kind.clone(), one.name.clone()];
            output::say(&output::table(["ACTION", "KIND", "NAME"], compared.iter().map(row)));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trusted_comes_right_behind_its_namespace() {
        let install = Install::new("west".parse().unwrap());
        let trust = Trusting::Issued(Box::new(Trust::made(&install.trust_domain).unwrap()));
        let names: Vec<String> =
            with_trust(&install, &trust).unwrap().iter().map(|object| format!("{} {}", object.kind(), object.name())).take(3).collect();
        assert_eq!(names, ["Namespace isthmus-system", "ConfigMap isthmus-bundle", "Secret isthmus-issuer"]);
        let Trusting::Issued(trust) = trust else { panic!("it was issued") };
        let external = with_trust(&install, &Trusting::External(trust.bundle)).unwrap();
        assert!(external.iter().all(|object| object.kind() != "Secret"));
    }
}
