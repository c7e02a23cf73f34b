//! `mesh multicluster list`: who imports from whom, as each cluster's own objects say.

use std::process::ExitCode;

use anyhow::Context as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::config::Kubeconfig;
use mesh_api::crd::{Link, Peer};
use mesh_runtime::clock;
use serde::Serialize;

use super::link::all;
use crate::args::{Global, Output};
use crate::{clusters, output};

/// Flags of `mesh multicluster list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  mesh multicluster list --context west\n  mesh multicluster list --all-clusters -o json")]
pub(crate) struct Flags {
    #[command(flatten)]
    global: Global,
    /// Every context of the kubeconfig
    #[arg(long, conflicts_with = "context")]
    all_clusters: bool,
}

/// One end of a link.
#[derive(Clone, Debug, Serialize)]
struct Row {
    cluster: String,
    direction: &'static str,
    other: String,
    state: String,
    services: Option<i32>,
    age: String,
}

/// Lists.
///
/// # Errors
/// When the one cluster that was asked for does not answer.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let kubeconfig = flags.global.read()?;
    let mut exit = ExitCode::SUCCESS;
    let mut rows = Vec::new();
    if flags.all_clusters {
        for context in clusters::contexts(&kubeconfig) {
            match of_cluster(&kubeconfig, &context).await {
                Ok(of) => rows.extend(of),
                Err(error) => exit = output::failure(&error),
            }
        }
    } else {
        rows = of_cluster(&kubeconfig, &flags.global.context_of(&kubeconfig)?).await?;
    }
    match flags.global.output {
        Output::Json => output::say_json(&rows)?,
        Output::Table if rows.is_empty() => anstream::eprintln!("Nothing is linked. To link: mesh multicluster link --context A --to B"),
        Output::Table => {
            let row = |row: Row| {
                let services = row.services.map(|count| count.to_string()).unwrap_or_default();
                [row.cluster, row.direction.to_owned(), row.other, row.state, services, row.age]
            };
            output::say(&output::table(["CLUSTER", "DIRECTION", "OTHER", "STATE", "SERVICES", "AGE"], rows.into_iter().map(row)));
        }
    }
    Ok(exit)
}

async fn of_cluster(kubeconfig: &Kubeconfig, context: &str) -> anyhow::Result<Vec<Row>> {
    let client = clusters::client(kubeconfig, context).await?;
    let why = || format!("could not list the links of cluster {context}");
    let links = all::<Link>(&client).list(&ListParams::default()).await.with_context(why)?;
    let peers = all::<Peer>(&client).list(&ListParams::default()).await.with_context(why)?;
    let imports = links.items.iter().map(|link| {
        let status = link.status.clone().unwrap_or_default();
        Row {
            cluster: context.to_owned(),
            direction: "imports from",
            other: link.name_any(),
            state: status.state.unwrap_or_else(|| "Pending".to_owned()),
            services: status.imported_services,
            age: age(link.creation_timestamp()),
        }
    });
    let exports = peers.items.iter().map(|peer| Row {
        cluster: context.to_owned(),
        direction: "exports to",
        other: peer.name_any(),
        state: String::new(),
        services: peer.status.as_ref().and_then(|status| status.exported_services),
        age: age(peer.creation_timestamp()),
    });
    Ok(imports.chain(exports).collect())
}

/// How long ago that was, as kubectl writes it.
pub(super) fn age(since: Option<Time>) -> String {
    let Some(since) = since else { return String::new() };
    let now = clock::wall().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    in_its_unit(now.saturating_sub(u64::try_from(since.0.as_second()).unwrap_or_default()))
}

/// The biggest unit of which there are at least two.
fn in_its_unit(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_written_in_the_biggest_unit_of_which_there_are_two() {
        let ages = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(in_its_unit);
        assert_eq!(ages, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }
}
