//! `mesh multicluster link`: west imports from east. Writes a `Link` in west and a `Peer` in east, and nothing else: no credential of one
//! cluster's API ever reaches the other.
//!
//! It may be run again at any time: what a person has changed (grants, sameness, priority) stays, and what the other cluster has changed
//! (gateways, bundle) is brought up to date.

use std::fmt;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use mesh_api::crd::link::LinkGateway;
use mesh_api::crd::{Link, LinkSpec, Peer, PeerSpec};
use mesh_api::well_known::{CONTROL_ACCOUNT, GATEWAY_ACCOUNT, MANAGED_BY_ISTHMUS, MIRROR_ACCOUNT};
use serde::Serialize;
use serde_json::json;

use super::facts::Facts;
use crate::args::{Global, Output};
use crate::output;

/// Flags of `mesh multicluster link`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Flags {
    #[command(flatten)]
    global: Global,
    /// The context of the cluster to import from
    #[arg(long, value_name = "CONTEXT")]
    to: String,
    /// Link the other direction, too
    #[arg(long)]
    mutual: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Where the gateways of the cluster to import from are dialled, instead of what its Service says
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "mutual")]
    gateway_address: Vec<SocketAddr>,
}

/// What links two clusters, or would.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The context of the importer.
    pub(crate) importer: String,
    /// The context of the exporter.
    pub(crate) exporter: String,
    /// Both directions.
    pub(crate) mutual: bool,
    /// The exporter's gateways, when its Service does not say them.
    pub(crate) gateways: Vec<SocketAddr>,
}

/// Why two clusters are not linked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{importer} and {exporter} lead to the same cluster: name two contexts that lead to different ones")]
    SameCluster { importer: String, exporter: String },
    #[error("{importer} and {exporter} are both called {name}: install one of them with another name")]
    SameName { importer: String, exporter: String, name: String },
    #[error("{importer} and {exporter} have the same trust domain {trust_domain}: install one of them with another")]
    SameTrustDomain { importer: String, exporter: String, trust_domain: String },
    #[error(
        "gateway isthmus-system/mesh-gateway of cluster {cluster} has no address yet: wait for its load balancer, or pass --gateway-address"
    )]
    GatewayHasNoAddress { cluster: String },
    #[error(
        "the load balancer of gateway isthmus-system/mesh-gateway of cluster {cluster} has a host name, {host}, and no address, and a Link names addresses: give it addresses that stay, and pass them with --gateway-address"
    )]
    GatewayHasHostName { cluster: String, host: String },
    #[error(
        "cluster {other} was another one (id {held}) when {cluster} was linked to it, and is {found} now: run mesh multicluster unlink --context {cluster} --to {other} first"
    )]
    OtherCluster { cluster: String, other: String, held: String, found: String },
    #[error("the trust domain of a cluster can't name its components")]
    Name(#[from] mesh_names::ParseError),
}

/// One object, and what becomes of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Write {
    /// The context of the cluster that it lies in.
    pub(crate) context: String,
    /// What becomes of it.
    pub(crate) action: Action,
    /// The object.
    pub(crate) object: Object,
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// It is made.
    Create,
    /// It is brought up to date.
    Update,
    /// It is as it should be.
    Unchanged,
}

/// What linking writes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    /// At the importer.
    Link(Box<Link>),
    /// At the exporter.
    Peer(Box<Peer>),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => write!(f, "Link {}", link.metadata.name.as_deref().unwrap_or_default()),
            Self::Peer(peer) => write!(f, "Peer {}", peer.metadata.name.as_deref().unwrap_or_default()),
        }
    }
}

/// Links, or tells what it would do.
///
/// # Errors
/// When a cluster can't be read or written, or the two can't be linked.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let kubeconfig = flags.global.read()?;
    let request = Request {
        importer: flags.global.context_of(&kubeconfig)?,
        exporter: flags.to.clone(),
        mutual: flags.mutual,
        gateways: flags.gateway_address.clone(),
    };
    let writes = if flags.dry_run { plan_of(&kubeconfig, &request).await? } else { link(&kubeconfig, &request).await? };
    print(&flags.global, &writes)?;
    if !flags.dry_run && flags.global.output == Output::Table {
        anstream::eprintln!("Watch it: mesh multicluster status --context {}", request.importer);
    }
    Ok(ExitCode::SUCCESS)
}

/// Links: what the demo does, too.
///
/// # Errors
/// When a cluster can't be read or written, or the two can't be linked.
pub(crate) async fn link(kubeconfig: &Kubeconfig, request: &Request) -> anyhow::Result<Vec<Write>> {
    let writes = plan_of(kubeconfig, request).await?;
    apply(kubeconfig, &writes).await?;
    Ok(writes)
}

async fn plan_of(kubeconfig: &Kubeconfig, request: &Request) -> anyhow::Result<Vec<Write>> {
    let (importer, exporter) = tokio::try_join!(Seen::read(kubeconfig, &request.importer), Seen::read(kubeconfig, &request.exporter))?;
    let mut writes = plan(&importer, &exporter, &request.gateways)?;
    if request.mutual {
        writes.extend(plan(&exporter, &importer, &[])?);
    }
    Ok(writes)
}

/// A cluster, and what it holds about others already.
struct Seen {
    facts: Facts,
    links: Vec<Link>,
    peers: Vec<Peer>,
}

impl Seen {
    async fn read(kubeconfig: &Kubeconfig, context: &str) -> anyhow::Result<Self> {
        let (facts, client) = Facts::read(kubeconfig, context).await?;
        let (links, peers): (Api<Link>, Api<Peer>) = (Api::all(client.clone()), Api::all(client));
        let all = kube::api::ListParams::default();
        let why = || format!("could not list the links of cluster {context}: are the mesh's definitions installed there?");
        let links = links.list(&all).await.with_context(why)?.items;
        let peers = peers.list(&all).await.with_context(why)?.items;
        Ok(Self { facts, links, peers })
    }
}

/// What makes `importer` import from `exporter`. Pure.
fn plan(importer: &Seen, exporter: &Seen, gateways: &[SocketAddr]) -> Result<Vec<Write>, LinkError> {
    let (west, east) = (&importer.facts, &exporter.facts);
    check(west, east)?;
    let gateways = if gateways.is_empty() { &east.gateways } else { gateways };
    if gateways.is_empty() {
        let cluster = east.context.clone();
        return Err(match east.gateway_hosts.first() {
            Some(host) => LinkError::GatewayHasHostName { cluster, host: host.clone() },
            None => LinkError::GatewayHasNoAddress { cluster },
        });
    }
    let peer = exporter.peers.iter().find(|peer| peer.metadata.name.as_deref() == Some(west.name.as_str()));
    let link = importer.links.iter().find(|link| link.metadata.name.as_deref() == Some(east.name.as_str()));
    let others = [(link.map(|link| &link.spec.cluster_id), west, east), (peer.map(|peer| &peer.spec.cluster_id), east, west)];
    for (held, cluster, other) in others {
        if let Some(held) = held.filter(|held| *held != other.id.as_str()) {
            let (cluster, other, found) = (cluster.context.clone(), other.context.clone(), other.id.to_string());
            return Err(LinkError::OtherCluster { cluster, other, held: held.clone(), found });
        }
    }
    let wanted_peer = PeerSpec {
        cluster_id: west.id.to_string(),
        trust_domain: west.trust_domain.to_string(),
        bundle: west.bundle.clone(),
        caller: west.component(MIRROR_ACCOUNT)?.to_string(),
        grant: peer.map(|peer| peer.spec.grant.clone()).unwrap_or_default(),
    };
    let wanted_link = link_spec(east, gateways, link.map(|link| &link.spec))?;
    let peer_action = action(peer.map(|peer| peer.spec == wanted_peer));
    let link_action = action(link.map(|link| link.spec == wanted_link));
    // The exporter first: when the importer begins to ask, it is known there.
    Ok(vec![
        Write {
            context: east.context.clone(),
            action: peer_action,
            object: Object::Peer(Box::new(Peer::new(west.name.as_str(), wanted_peer))),
        },
        Write {
            context: west.context.clone(),
            action: link_action,
            object: Object::Link(Box::new(Link::new(east.name.as_str(), wanted_link))),
        },
    ])
}

fn check(west: &Facts, east: &Facts) -> Result<(), LinkError> {
    let (importer, exporter) = (west.context.clone(), east.context.clone());
    if west.id == east.id {
        return Err(LinkError::SameCluster { importer, exporter });
    }
    if west.name == east.name {
        return Err(LinkError::SameName { importer, exporter, name: west.name.to_string() });
    }
    if west.trust_domain == east.trust_domain {
        return Err(LinkError::SameTrustDomain { importer, exporter, trust_domain: west.trust_domain.to_string() });
    }
    Ok(())
}

fn link_spec(exporter: &Facts, gateways: &[SocketAddr], held: Option<&LinkSpec>) -> Result<LinkSpec, LinkError> {
    let identity = exporter.component(GATEWAY_ACCOUNT)?.to_string();
    let gateway = |at: &SocketAddr| LinkGateway { address: at.ip().to_string(), port: at.port(), identity: identity.clone() };
    Ok(LinkSpec {
        cluster_id: exporter.id.to_string(),
        trust_domain: exporter.trust_domain.to_string(),
        gateways: gateways.iter().map(gateway).collect(),
        bundle: exporter.bundle.clone(),
        control: exporter.component(CONTROL_ACCOUNT)?.to_string(),
        grant: held.map(|held| held.grant.clone()).unwrap_or_default(),
        sameness: held.map_or_else(|| vec!["*".to_owned()], |held| held.sameness.clone()),
        transport: held.map(|held| held.transport).unwrap_or_default(),
        headless: held.map(|held| held.headless).unwrap_or_default(),
        priority: held.map_or(0, |held| held.priority),
    })
}

fn action(same: Option<bool>) -> Action {
    match same {
        None => Action::Create,
        Some(false) => Action::Update,
        Some(true) => Action::Unchanged,
    }
}

async fn apply(kubeconfig: &Kubeconfig, writes: &[Write]) -> anyhow::Result<()> {
    for write in writes.iter().filter(|write| write.action != Action::Unchanged) {
        let client = crate::clusters::client(kubeconfig, &write.context).await?;
        let done = match &write.object {
            Object::Link(link) => write_one(Api::<Link>::all(client), write.action, link, &link.spec).await,
            Object::Peer(peer) => write_one(Api::<Peer>::all(client), write.action, peer, &peer.spec).await,
        };
        done.with_context(|| format!("could not write {} in cluster {}: run the same command again", write.object, write.context))?;
    }
    Ok(())
}

async fn write_one<K>(api: Api<K>, action: Action, object: &K, spec: &impl Serialize) -> Result<(), kube::Error>
where
    K: kube::Resource<DynamicType = ()> + Clone + fmt::Debug + serde::de::DeserializeOwned + Serialize,
{
    let name = object.meta().name.clone().unwrap_or_default();
    match action {
        Action::Unchanged => Ok(()),
        Action::Create => {
            let params = PostParams { field_manager: Some(MANAGED_BY_ISTHMUS.to_owned()), ..PostParams::default() };
            api.create(&params, object).await.map(drop)
        }
        Action::Update => api.patch(&name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await.map(drop),
    }
}

fn print(global: &Global, writes: &[Write]) -> anyhow::Result<()> {
    let word = |action: Action| match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Unchanged => "unchanged",
    };
    match global.output {
        Output::Table => {
            let rows = writes.iter().map(|write| [write.context.clone(), word(write.action).to_owned(), write.object.to_string()]);
            output::say(&output::table(["CLUSTER", "ACTION", "OBJECT"], rows));
            Ok(())
        }
        Output::Json => {
            let row = |write: &Write| {
                let object = match &write.object {
                    Object::Link(link) => json!(link),
                    Object::Peer(peer) => json!(peer),
                };
                json!({ "cluster": write.context, "action": write.action, "object": object })
            };
            output::say_json(&writes.iter().map(row).collect::<Vec<_>>())
        }
    }
}

/// Whether it was the cluster that did not answer, and not an answer that was no.
pub(super) fn is_away(error: &kube::Error) -> bool {
    !matches!(error, kube::Error::Api(_))
}

/// A typed API over everything in a cluster.
pub(super) fn all<K: kube::Resource<DynamicType = ()>>(client: &Client) -> Api<K> {
    Api::all(client.clone())
}

const EXAMPLES: &str = "\
Examples:
  mesh multicluster link --context west --to east             west imports from east
  mesh multicluster link --context west --to east --mutual    and east from west
  mesh multicluster link --context west --to east --dry-run   only say what that would write";

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn cluster(name: &str) -> Seen {
        let trust_domain: mesh_names::TrustDomain = format!("{name}.mesh").parse().unwrap();
        let facts = Facts {
            context: name.to_owned(),
            name: name.parse().unwrap(),
            id: format!("id-{name}").parse().unwrap(),
            bundle: format!("bundle of {trust_domain}"),
            trust_domain,
            gateways: vec!["127.1.0.5:4143".parse().unwrap()],
            gateway_hosts: Vec::new(),
        };
        Seen { facts, links: Vec::new(), peers: Vec::new() }
    }

    fn written(mut west: Seen, mut east: Seen, writes: &[Write]) -> (Seen, Seen) {
        for write in writes {
            match &write.object {
                Object::Link(link) => west.links = vec![link.as_ref().clone()],
                Object::Peer(peer) => east.peers = vec![peer.as_ref().clone()],
            }
        }
        (west, east)
    }

    fn check_plan(west: &Seen, east: &Seen, expected: Expect) -> Vec<Write> {
        match plan(west, east, &[]) {
            Ok(writes) => {
                let lines: Vec<String> =
                    writes.iter().map(|write| format!("{}: {:?} {}", write.context, write.action, write.object)).collect();
                expected.assert_eq(&lines.join("\n"));
                writes
            }
            Err(error) => {
                expected.assert_eq(&error.to_string());
                Vec::new()
            }
        }
    }

    #[test]
    fn linking_writes_a_peer_at_the_exporter_and_a_link_at_the_importer() {
        let (west, east) = (cluster("west"), cluster("east"));
        let writes = check_plan(
            &west,
            &east,
            expect![[r#"
                east: Create Peer west
                west: Create Link east"#]],
        );
        let Object::Link(link) = &writes[1].object else { panic!("{writes:?}") };
        assert_eq!(link.spec.gateways[0].identity, "spiffe://east.mesh/ns/isthmus-system/sa/mesh-gateway");
        let Object::Peer(peer) = &writes[0].object else { panic!("{writes:?}") };
        assert_eq!(peer.spec.caller, "spiffe://west.mesh/ns/isthmus-system/sa/mesh-mirror-controller");
    }

    #[test]
    fn linking_again_changes_nothing_or_what_the_other_cluster_has_changed() {
        let (west, east) = (cluster("west"), cluster("east"));
        let writes = plan(&west, &east, &[]).unwrap();
        let (mut west, mut east) = written(west, east, &writes);
        check_plan(
            &west,
            &east,
            expect![[r#"
                east: Unchanged Peer west
                west: Unchanged Link east"#]],
        );
        west.links[0].spec.priority = 7;
        east.facts.gateways = vec!["127.1.0.6:4143".parse().unwrap()];
        let writes = check_plan(
            &west,
            &east,
            expect![[r#"
                east: Unchanged Peer west
                west: Update Link east"#]],
        );
        let Object::Link(link) = &writes[1].object else { panic!("{writes:?}") };
        assert_eq!((link.spec.priority, link.spec.gateways[0].address.as_str()), (7, "127.1.0.6"));
    }

    #[test]
    fn what_can_t_be_linked_says_why_and_what_to_do() {
        let (west, mut east) = (cluster("west"), cluster("east"));
        check_plan(&west, &west, expect!["west and west lead to the same cluster: name two contexts that lead to different ones"]);
        east.facts.gateways.clear();
        check_plan(
            &west,
            &east,
            expect![
                "gateway isthmus-system/mesh-gateway of cluster east has no address yet: wait for its load balancer, or pass --gateway-address"
            ],
        );
        east.facts.gateway_hosts = vec!["gateway.elb.example.com".to_owned()];
        check_plan(
            &west,
            &east,
            expect![
                "the load balancer of gateway isthmus-system/mesh-gateway of cluster east has a host name, gateway.elb.example.com, and no address, and a Link names addresses: give it addresses that stay, and pass them with --gateway-address"
            ],
        );
        let writes = plan(&west, &cluster("east"), &[]).unwrap();
        let (west, mut east) = written(west, cluster("east"), &writes);
        east.facts.id = "id-new".parse().unwrap();
        check_plan(
            &west,
            &east,
            expect![
                "cluster east was another one (id id-east) when west was linked to it, and is id-new now: run mesh multicluster unlink --context west --to east first"
            ],
        );
    }
}
