//! `mesh multicluster status`: how each link of a cluster is, condition by condition, with what was not imported and why.

use std::process::ExitCode;

use anyhow::Context as _;
use kube::ResourceExt as _;
use kube::api::ListParams;
use mesh_api::crd::Link;
use serde_json::json;

use super::link::all;
use super::list::age;
use crate::args::{Global, Output};
use crate::{clusters, output};

/// Flags of `mesh multicluster status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mesh multicluster status --context west\n  mesh multicluster status --context west east -o json\n\nExit codes: 0 every link is ready, 1 one is not"
)]
pub(crate) struct Flags {
    #[command(flatten)]
    global: Global,
    /// One link, by the other cluster's name
    link: Option<String>,
}

/// Tells.
///
/// # Errors
/// When the cluster does not answer, or has no such link.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let kubeconfig = flags.global.read()?;
    let context = flags.global.context_of(&kubeconfig)?;
    let client = clusters::client(&kubeconfig, &context).await?;
    let listed = all::<Link>(&client).list(&ListParams::default()).await;
    let mut links = listed.with_context(|| format!("could not list the links of cluster {context}"))?.items;
    if let Some(name) = &flags.link {
        links.retain(|link| link.name_any() == *name);
        anyhow::ensure!(!links.is_empty(), "cluster {context} has no link {name}: see mesh multicluster list --context {context}");
    }
    match flags.global.output {
        Output::Json => {
            output::say_json(&links.iter().map(|link| json!({ "name": link.name_any(), "status": link.status })).collect::<Vec<_>>())?
        }
        Output::Table if links.is_empty() => {
            anstream::eprintln!("{context} imports from nobody. To link: mesh multicluster link --context {context} --to CONTEXT");
        }
        Output::Table => links.iter().for_each(|link| output::say(&text(link))),
    }
    let ready = |link: &Link| {
        let conditions = link.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    Ok(if links.iter().all(ready) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(link: &Link) -> String {
    let status = link.status.clone().unwrap_or_default();
    let state = status.state.as_deref().unwrap_or("Pending");
    let services = status.imported_services.map_or("?".to_owned(), |count| count.to_string());
    let mut text = format!("Link {}: {state}, {services} services, cluster id {}\n", link.name_any(), link.spec.cluster_id);
    let rows = status.conditions.iter().map(|condition| {
        let since = age(Some(condition.last_transition_time.clone()));
        [format!("  {}", condition.type_), condition.status.clone(), condition.reason.clone(), since, condition.message.clone()]
    });
    text.push_str(&output::table(["  CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"], rows));
    if !status.refused.is_empty() {
        text.push('\n');
        let rows = status.refused.iter().map(|refused| [format!("  {}", refused.service), refused.reason.clone()]);
        text.push_str(&output::table(["  NOT IMPORTED", "WHY"], rows));
    }
    text.push('\n');
    text
}
