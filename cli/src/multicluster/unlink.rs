//! `mesh multicluster unlink`: ends what `link` began. It cleans every cluster that it can reach, waits until nothing of the link is left
//! there, and prints the command for a cluster that it can't reach.
//!
//! Objects bear the other cluster's name, which is that cluster's to say. One that does not answer is believed to have the name that was
//! given only if an object of the other end has it: else nothing would be deleted, and success be said. The exit code is 1 when a command
//! is left to run: a script must not take half of it for the whole. Running it again is harmless.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams};
use kube::config::Kubeconfig;
use kube::{Client, Resource, ResourceExt as _};
use mesh_api::client::causes::Causes;
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
    /// The context of the cluster that was imported from, or the name of its Link
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
    /// What is left to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<Left>,
}

/// What a person, or a script, has to run later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Left {
    why: String,
    command: String,
}

/// One end of a link.
struct End {
    /// What it was called: a context of the kubeconfig if it `has_context`, else its name.
    context: String,
    has_context: bool,
    /// The cluster's name: what the other end's objects are called.
    name: String,
    /// Whether the cluster itself says that name.
    is_named: bool,
    /// None when the cluster does not answer.
    client: Option<Client>,
}

/// Unlinks.
///
/// # Errors
/// When no cluster could be reached, the name of one is not known, or one that was reached refused.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let kubeconfig = flags.global.read()?;
    let importer = flags.global.context_of(&kubeconfig)?;
    let (west, east) = tokio::join!(End::find(&kubeconfig, &importer), End::find(&kubeconfig, &flags.to));
    let (west, east) = (west?, east?);
    anyhow::ensure!(
        west.client.is_some() || east.client.is_some(),
        "neither {} nor {} answers: run this again when one of them does",
        west.context,
        east.context
    );
    check_name(&east, &west, "--to").await?;
    check_name(&west, &east, "--context").await?;
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
        let has_context = clusters::contexts(kubeconfig).iter().any(|known| known == context);
        let away = Self { context: context.to_owned(), has_context, name: context.to_owned(), is_named: false, client: None };
        if !has_context {
            return Ok(away);
        }
        match Facts::read(kubeconfig, context).await {
            Ok((facts, client)) => Ok(Self { name: facts.name.to_string(), is_named: true, client: Some(client), ..away }),
            Err(FactsError::Read { source, .. }) if is_away(&source) => Ok(away),
            // It answers, and is not whole: what can be cleaned is cleaned.
            Err(FactsError::Context(error)) => Err(error),
            Err(_) => Ok(Self { client: Some(clusters::client(kubeconfig, context).await?), ..away }),
        }
    }

    /// A kubectl command for this cluster. Which context leads to one that was given by its name only is not known here.
    fn kubectl(&self, arguments: &str) -> String {
        if self.has_context { format!("kubectl --context {} {arguments}", self.context) } else { format!("kubectl {arguments}") }
    }

    fn when_it_answers(&self) -> String {
        if self.has_context {
            format!("{} does not answer. When it does, run:", self.context)
        } else {
            format!("{} has no context in the kubeconfig. Run there:", self.context)
        }
    }
}

/// A cluster that can't say its name is known by that of its Link or Peer at the other end only; nothing is guessed.
async fn check_name(of: &End, at: &End, flag: &str) -> anyhow::Result<()> {
    let Some(client) = at.client.as_ref().filter(|_| !of.is_named) else { return Ok(()) };
    let could_not_list = || format!("could not list the links of cluster {}", at.context);
    let links = all::<Link>(client).list(&ListParams::default()).await.with_context(could_not_list)?;
    let peers = all::<Peer>(client).list(&ListParams::default()).await.with_context(could_not_list)?;
    let known = links.items.iter().map(kube::ResourceExt::name_any).chain(peers.items.iter().map(kube::ResourceExt::name_any)).collect();
    is_known(of, &at.context, &known, flag)
}

/// Whether the name that `of` was given is one of those that its other end knows.
fn is_known(of: &End, at: &str, known: &BTreeSet<String>, flag: &str) -> anyhow::Result<()> {
    if known.contains(&of.name) {
        return Ok(());
    }
    let names = if known.is_empty() { "none".to_owned() } else { known.iter().map(String::as_str).collect::<Vec<_>>().join(", ") };
    let said = &of.context;
    let why = match (of.has_context, &of.client) {
        (false, _) => "is no context of the kubeconfig",
        (true, None) => "does not answer, so that its name is not known,",
        (true, Some(_)) => "does not say its name",
    };
    anyhow::bail!(
        "{said} {why} and is no link of cluster {at}, whose links are: {names}; if it is one of them, run this again with {flag} and that name"
    )
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
    let done = |result| Done { cluster: at.context.clone(), object: format!("{kind} {name}"), result, left: None };
    let command = at.kubectl(&format!("delete {resource} {name} --ignore-not-found"));
    let unreached = || Done { left: Some(Left { why: at.when_it_answers(), command: command.clone() }), ..done("not reached") };
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
        let (services, slices) = match (services, slices) {
            (Ok(services), Ok(slices)) => (services, slices),
            (Err(error), _) | (_, Err(error)) => return Ok(vec![not_checked(at, other, &error)]),
        };
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

/// What is left could not be listed, which is not the same as that nothing is.
fn not_checked(at: &End, other: &str, error: &kube::Error) -> Done {
    let why = format!("what is left in {} could not be listed ({}). To see it, run:", at.context, Causes(error));
    let command = at.kubectl(&format!("get services,endpointslices -A -l {}", ours(other)));
    let object = format!("mirrors of {other}");
    Done { cluster: at.context.clone(), object, result: "not checked", left: Some(Left { why, command }) }
}

/// The labels of what a mirror controller has made for a link.
fn ours(link: &str) -> String {
    format!("{MANAGED_BY}={MANAGED_BY_ISTHMUS},{LINK}={link}")
}

async fn left<K>(client: &Client, link: &str) -> Result<Vec<K>, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    Ok(all::<K>(client).list(&ListParams::default().labels(&ours(link))).await?.items)
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
        done.push(Done { cluster: at.context.clone(), object: format!("{kind} {namespace}/{name}"), result, left: None });
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
            for Left { why, command } in done.iter().filter_map(|done| done.left.as_ref()) {
                output::say(&format!("\n{why}\n  {command}\n"));
            }
        }
    }
    if let Some(left) = left {
        anstream::eprintln!("{left}");
    }
    Ok(if is_whole(done) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether nothing is left to run.
fn is_whole(done: &[Done]) -> bool {
    done.iter().all(|done| done.left.is_none())
}

const LOOK_EVERY: Duration = Duration::from_millis(200);
const EXAMPLES: &str = "\
Examples:
  mesh multicluster unlink --context west --to east             west no longer imports from east
  mesh multicluster unlink --context west --to east --mutual    nor east from west";

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn away(context: &str) -> End {
        End { context: context.to_owned(), has_context: true, name: context.to_owned(), is_named: false, client: None }
    }

    fn check_known(of: &End, known: &[&str], expected: Expect) {
        let known = known.iter().map(|name| (*name).to_owned()).collect();
        expected.assert_eq(&is_known(of, "gke_west", &known, "--to").map_or_else(|error| error.to_string(), |()| "known".to_owned()));
    }

    #[test]
    fn the_name_of_a_cluster_that_does_not_answer_is_never_guessed() {
        check_known(&away("east"), &["east"], expect!["known"]);
        check_known(
            &away("gke_east"),
            &["east", "north"],
            expect![
                "gke_east does not answer, so that its name is not known, and is no link of cluster gke_west, whose links are: east, north; if it is one of them, run this again with --to and that name"
            ],
        );
        check_known(
            &End { has_context: false, ..away("esat") },
            &[],
            expect![
                "esat is no context of the kubeconfig and is no link of cluster gke_west, whose links are: none; if it is one of them, run this again with --to and that name"
            ],
        );
    }

    #[test]
    fn what_is_left_to_run_is_no_success() {
        let done = |left| Done { cluster: "east".to_owned(), object: "Peer west".to_owned(), result: "", left };
        assert!(is_whole(&[done(None)]));
        assert!(!is_whole(&[done(None), done(Some(Left { why: String::new(), command: String::new() }))]));
    }

    #[tokio::test]
    async fn a_cluster_that_was_not_reached_leaves_its_command() {
        let at = away("gke_east");
        let done = delete::<Peer>(&at, "Peer", "peers.isthmus.dev", "west").await.unwrap();
        let command = |done: Done| done.left.unwrap().command;
        assert_eq!(command(done), "kubectl --context gke_east delete peers.isthmus.dev west --ignore-not-found");
        let done = delete::<Peer>(&End { has_context: false, ..away("east") }, "Peer", "peers.isthmus.dev", "west").await.unwrap();
        assert_eq!(command(done), "kubectl delete peers.isthmus.dev west --ignore-not-found");
    }

    #[test]
    fn what_could_not_be_listed_is_not_nothing() {
        let done = not_checked(&away("gke_west"), "east", &kube::Error::LinesCodecMaxLineLengthExceeded);
        assert!(!is_whole(std::slice::from_ref(&done)));
        expect!["kubectl --context gke_west get services,endpointslices -A -l app.kubernetes.io/managed-by=isthmus,isthmus.dev/link=east"]
            .assert_eq(&done.left.unwrap().command);
    }
}
