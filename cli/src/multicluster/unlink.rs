//! `mesh multicluster unlink`: ends what `link` began. It cleans every cluster that it can reach, waits until nothing of the link is left
//! there, and prints the command for a cluster that it can't reach.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams};
use kube::config::Kubeconfig;
use kube::{Client, Resource, ResourceExt as _};
use mesh_api::crd::{Link, Peer};
use mesh_api::well_known::{LINK, MANAGED_BY, MANAGED_BY_ISTHMUS};
use mesh_runtime::clock;
use serde::Serialize;

use super::facts::{Facts, FactsError};
use super::link::{all, is_away};
use crate::args::{Global, Output};
use crate::{clusters, output};

/// Flags of `mesh multicluster unlink`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Flags {
    #[command(flatten)]
    global: Global,
    /// The context, or the name, of the cluster that was imported from
    #[arg(long, value_name = "CONTEXT")]
    to: String,
    /// End the other direction, too
    #[arg(long)]
    mutual: bool,
    /// How long to wait for the mirrored objects to go; then they are deleted from here
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
}

/// What became of one object, or what a person has to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Done {
    cluster: String,
    object: String,
    result: &'static str,
    /// What to run when the cluster is back.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
}

/// One end of a link.
struct End {
    context: String,
    /// The cluster's name: what the other end's objects are called.
    name: String,
    /// None when the cluster does not answer.
    client: Option<Client>,
}

/// Unlinks.
///
/// # Errors
/// When no cluster could be reached, or one that was reached refused.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let kubeconfig = flags.global.read()?;
    let importer = flags.global.context_of(&kubeconfig)?;
    let (west, east) = tokio::join!(End::find(&kubeconfig, &importer), End::find(&kubeconfig, &flags.to));
    let (west, east) = (west?, east?);
    if !clusters::contexts(&kubeconfig).contains(&flags.to) {
        check_linked(&west, &east).await?;
    }
    anyhow::ensure!(
        west.client.is_some() || east.client.is_some(),
        "neither {} nor {} answers: run this again when one of them does",
        west.context,
        east.context
    );
    let mut done = end_one_way(&west, &east).await?;
    if flags.mutual {
        done.extend(end_one_way(&east, &west).await?);
    }
    let timeout = Duration::from_secs(flags.timeout);
    done.extend(wait(&west, &east.name, timeout).await?);
    if flags.mutual {
        done.extend(wait(&east, &west.name, timeout).await?);
    }
    let left = if flags.mutual { None } else { other_direction(&west, &east).await };
    print(&flags.global, &done, left)
}

impl End {
    async fn find(kubeconfig: &Kubeconfig, context: &str) -> anyhow::Result<Self> {
        let away = Self { context: context.to_owned(), name: context.to_owned(), client: None };
        if !clusters::contexts(kubeconfig).iter().any(|known| known == context) {
            return Ok(away);
        }
        match Facts::read(kubeconfig, context).await {
            Ok((facts, client)) => Ok(Self { name: facts.name.to_string(), client: Some(client), ..away }),
            Err(FactsError::Read { source, .. }) if is_away(&source) => Ok(away),
            // It answers, and is not whole: what can be cleaned is cleaned.
            Err(FactsError::Context(error)) => Err(error),
            Err(_) => Ok(Self { client: Some(clusters::client(kubeconfig, context).await?), ..away }),
        }
    }
}

/// A cluster without a context here is known by the name of its Link only; nothing is guessed.
async fn check_linked(west: &End, east: &End) -> anyhow::Result<()> {
    let Some(client) = &west.client else { return Ok(()) };
    let links = all::<Link>(client).list(&ListParams::default()).await;
    let links = links.with_context(|| format!("could not list the links of cluster {}", west.context))?;
    let names: Vec<String> = links.items.iter().map(|link| link.name_any()).collect();
    anyhow::ensure!(
        names.contains(&east.name),
        "{} is no context of the kubeconfig and no link of cluster {}, whose links are: {}; run: mesh multicluster list --context {}",
        east.name,
        west.context,
        if names.is_empty() { "none".to_owned() } else { names.join(", ") },
        west.context
    );
    Ok(())
}

/// Deletes the Link at the importer and the Peer at the exporter.
async fn end_one_way(importer: &End, exporter: &End) -> anyhow::Result<Vec<Done>> {
    Ok(vec![
        delete::<Link>(importer, "Link", "links.isthmus.dev", &exporter.name).await?,
        delete::<Peer>(exporter, "Peer", "peers.isthmus.dev", &importer.name).await?,
    ])
}

async fn delete<K>(at: &End, kind: &str, resource: &str, name: &str) -> anyhow::Result<Done>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let done = |result| Done { cluster: at.context.clone(), object: format!("{kind} {name}"), result, command: None };
    let command = format!("kubectl --context {} delete {resource} {name} --ignore-not-found", at.context);
    let unreached = || Done { command: Some(command.clone()), ..done("not reached") };
    let Some(client) = &at.client else { return Ok(unreached()) };
    match all::<K>(client).delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(done("deleted")),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(done("was not there")),
        Err(error) if is_away(&error) => Ok(unreached()),
        Err(error) => Err(error).with_context(|| format!("could not delete {kind} {name} in cluster {}: run: {command}", at.context)),
    }
}

/// Waits until `at` has nothing left of its link to `other`; what its mirror controller has not deleted in time is deleted from here.
async fn wait(at: &End, other: &str, timeout: Duration) -> anyhow::Result<Vec<Done>> {
    let Some(client) = &at.client else { return Ok(Vec::new()) };
    let deadline = clock::now() + timeout;
    loop {
        let services = left::<Service>(client, other).await;
        let slices = left::<EndpointSlice>(client, other).await;
        let (Ok(services), Ok(slices)) = (services, slices) else { return Ok(Vec::new()) };
        if services.is_empty() && slices.is_empty() {
            return Ok(Vec::new());
        }
        if clock::now() >= deadline {
            let mut done = delete_left(at, client, "Service", services).await?;
            done.extend(delete_left(at, client, "EndpointSlice", slices).await?);
            return Ok(done);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn left<K>(client: &Client, link: &str) -> Result<Vec<K>, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGED_BY_ISTHMUS},{LINK}={link}"));
    Ok(all::<K>(client).list(&ours).await?.items)
}

async fn delete_left<K>(at: &End, client: &Client, kind: &str, objects: Vec<K>) -> anyhow::Result<Vec<Done>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut done = Vec::new();
    for object in objects {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let api: Api<K> = Api::namespaced(client.clone(), &namespace);
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("{kind} {namespace}/{name} in cluster {} is left over: delete it with kubectl", at.context));
            }
        }
        let result = "deleted from here: is the mirror controller running?";
        done.push(Done { cluster: at.context.clone(), object: format!("{kind} {namespace}/{name}"), result, command: None });
    }
    Ok(done)
}

/// The command that ends the other direction, if it is there.
async fn other_direction(west: &End, east: &End) -> Option<String> {
    let client = east.client.as_ref()?;
    all::<Link>(client).get_opt(&west.name).await.ok()??;
    Some(format!(
        "{} still imports from {}: to end that, run: mesh multicluster unlink --context {} --to {}",
        east.context, west.context, east.context, west.context
    ))
}

fn print(global: &Global, done: &[Done], left: Option<String>) -> anyhow::Result<ExitCode> {
    match global.output {
        Output::Json => output::say_json(&done)?,
        Output::Table => {
            let rows = done.iter().map(|done| [done.cluster.clone(), done.object.clone(), done.result.to_owned()]);
            output::say(&output::table(["CLUSTER", "OBJECT", "RESULT"], rows));
            for done in done.iter().filter(|done| done.command.is_some()) {
                let command = done.command.as_deref().unwrap_or_default();
                output::say(&format!("\n{} does not answer. When it does, run:\n  {command}\n", done.cluster));
            }
        }
    }
    if let Some(left) = left {
        anstream::eprintln!("{left}");
    }
    Ok(ExitCode::SUCCESS)
}

const LOOK_EVERY: Duration = Duration::from_millis(200);
const EXAMPLES: &str = "\
Examples:
  mesh multicluster unlink --context west --to east             west no longer imports from east
  mesh multicluster unlink --context west --to east --mutual    nor east from west";
