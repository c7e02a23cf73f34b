//! `mesh inject`: adds the proxy to the pods of manifests, without a webhook, and offline if it is told what the cluster would say.
//!
//! What is added is what the webhook would add ([`mesh_api::inject`]), so a manifest that was injected here and applied to a cluster with a
//! webhook gets no second proxy.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use mesh_api::inject::{Inbound, Injection, LABEL, Settings, apply, inject};
use mesh_api::well_known::INJECT_DISABLED;
use mesh_manifests::{Images, Registry, Tag};
use mesh_names::{ClusterName, TrustDomain};
use mesh_trust::Bundle;
use serde_json::Value;

use crate::args::Global;
use crate::{install, output};

/// Flags of `mesh inject`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Flags {
    #[command(flatten)]
    global: Global,
    /// The manifests (YAML); `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// The cluster's name; with --bundle, no cluster is asked
    #[arg(long, requires = "bundle", value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// The cluster's trust domain [default: CLUSTER.mesh]
    #[arg(long, requires = "cluster", value_name = "DOMAIN")]
    trust_domain: Option<TrustDomain>,
    /// The cluster's bundle, as `mesh trust issue` wrote it
    #[arg(long, requires = "cluster", value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Where the images are [default: what the cluster was installed with]
    #[arg(long, value_name = "REGISTRY")]
    registry: Option<Registry>,
    /// The images' tag [default: what the cluster was installed with]
    #[arg(long, value_name = "TAG")]
    tag: Option<Tag>,
    /// What becomes of plaintext from pods that are not meshed [default: what the cluster was installed with]
    #[arg(long, value_enum, value_name = "POLICY")]
    inbound: Option<Inbound>,
}

/// Injects, and prints everything that was read.
///
/// # Errors
/// When the manifests or the cluster can't be read, or a pod says something that can't be done.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let text = read(&flags.file)?;
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| format!("{} is no YAML", flags.file.display()))?;
    documents.retain(|document| !document.is_null());
    let settings = settings(flags).await?;
    for document in &mut documents {
        for line in injected(document, &settings)? {
            anstream::eprintln!("{line}");
        }
    }
    let written = documents.iter().map(|document| format!("---\n{}", mesh_manifests::yaml::document(document)));
    output::say(&written.collect::<String>());
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).context("could not read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))
}

async fn settings(flags: &Flags) -> anyhow::Result<Settings> {
    let (cluster, trust_domain, bundle, images, inbound) = match (&flags.cluster, &flags.bundle) {
        (Some(cluster), Some(file)) => {
            let trust_domain = flags.trust_domain.clone().unwrap_or_else(|| TrustDomain::default_for(cluster));
            let text = std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
            let bundle = Bundle::from_spiffe_json(trust_domain.clone(), &text);
            let bundle = bundle.with_context(|| format!("{} is no bundle of {trust_domain}", file.display()))?;
            (cluster.clone(), trust_domain, bundle.to_spiffe_json(), Images::default(), Inbound::default())
        }
        _ => {
            let (installed, bundle) = install::installed(&flags.global).await?;
            (installed.cluster, installed.trust_domain, bundle, installed.images, installed.inbound)
        }
    };
    let images = Images { registry: flags.registry.clone().unwrap_or(images.registry), tag: flags.tag.clone().unwrap_or(images.tag) };
    Ok(Settings {
        cluster,
        trust_domain,
        bundle,
        proxy_image: images.of("proxy"),
        init_image: images.of("init"),
        inbound: flags.inbound.unwrap_or(inbound),
    })
}

/// Injects what one document holds, and tells what was done.
fn injected(document: &mut Value, settings: &Settings) -> anyhow::Result<Vec<String>> {
    if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) {
        let items = document["items"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
        let told: anyhow::Result<Vec<Vec<String>>> = items.iter_mut().map(|item| injected(item, settings)).collect();
        return Ok(told?.concat());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let what = format!("{} {}", text(&document["kind"]), text(&document["metadata"]["name"]));
    let Some(pod) = place(&text(&document["kind"])).and_then(|place| document.pointer_mut(place)) else { return Ok(Vec::new()) };
    if pod["metadata"]["labels"][LABEL] == INJECT_DISABLED {
        return Ok(vec![format!("left       {what}: its label says so")]);
    }
    let told = match inject(pod, settings).with_context(|| format!("{what} can't be injected"))? {
        Injection::Add(adds) => {
            apply(pod, &adds);
            format!("injected   {what}")
        }
        Injection::Already => format!("left       {what}: it has a proxy"),
        Injection::Impossible(why) => format!("left       {what}: {why}"),
    };
    Ok(vec![told])
}

/// Where an object of this kind has its pod.
fn place(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

const EXAMPLES: &str = "\
Examples:
  mesh inject -f web.yaml | kubectl apply -f -                      as the current context's cluster was installed
  mesh inject -f web.yaml --cluster west --bundle ca/west.bundle.json   without asking a cluster
  kubectl get deployment web -o yaml | mesh inject -f - | kubectl apply -f -";

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn settings() -> Settings {
        Settings {
            cluster: "west".parse().unwrap(),
            trust_domain: "west.mesh".parse().unwrap(),
            bundle: "{}".to_owned(),
            proxy_image: "isthmus/proxy:1".to_owned(),
            init_image: "isthmus/init:1".to_owned(),
            inbound: Inbound::Permissive,
        }
    }

    fn check(document: &mut Value, expected: &Expect) {
        expected.assert_eq(&match injected(document, &settings()) {
            Ok(told) => told.join("\n"),
            Err(error) => format!("{error:#}"),
        });
    }

    #[test]
    fn the_pods_of_every_kind_are_found_and_nothing_else_is_touched() {
        let pod = json!({ "spec": { "containers": [{ "name": "a" }] } });
        let of = |kind: &str, spec: Value| json!({ "kind": kind, "metadata": { "name": "x" }, "spec": spec });
        let service = of("Service", json!({ "ports": [] }));
        let mut list = json!({ "kind": "List", "items": [
            of("Deployment", json!({ "template": pod.clone() })),
            of("CronJob", json!({ "jobTemplate": { "spec": { "template": pod } } })),
            of("Pod", json!({ "containers": [{ "name": "a" }] })),
            of("Pod", json!({ "containers": [{ "name": "a" }], "hostNetwork": true })),
            service.clone(),
        ] });
        check(
            &mut list,
            &expect![[r#"
                injected   Deployment x
                injected   CronJob x
                injected   Pod x
                left       Pod x: it shares its node's network"#]],
        );
        assert_eq!(list["items"][4], service);
        check(&mut list["items"][0], &expect!["left       Deployment x: it has a proxy"]);
        assert_eq!(list["items"][1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["initContainers"][1]["name"], "isthmus-proxy");
    }

    #[test]
    fn a_label_keeps_the_proxy_out_and_nonsense_is_named() {
        let mut pod = json!({ "kind": "Pod", "metadata": { "name": "x", "labels": { LABEL: "disabled" } }, "spec": { "containers": [] } });
        check(&mut pod, &expect!["left       Pod x: its label says so"]);
        pod["metadata"] = json!({ "name": "x", "annotations": { "isthmus.dev/skip-inbound-ports": "x" } });
        let told = injected(&mut pod, &settings()).map_err(|error| format!("{error:#}"));
        assert!(told.unwrap_err().starts_with("Pod x can't be injected: annotation isthmus.dev/skip-inbound-ports"));
    }
}
