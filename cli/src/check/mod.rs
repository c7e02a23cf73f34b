//! `mesh check`: is the mesh sound, and what to do where it is not. Clusters are asked at once; one that is away does not hold the others up.

mod catalogue;
mod judge;
mod observe;

use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use crate::args::{Global, Output};
use crate::{clusters, output};
use catalogue::{CATALOGUE, Entry};

/// Flags of `mesh check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mesh check --context west\n  mesh check --all-clusters -o json\n\nExit codes: 0 no check failed (warnings allowed), 1 at least one failed, 2 not understood"
)]
pub(crate) struct Flags {
    #[command(flatten)]
    global: Global,
    /// Check every context of the kubeconfig
    #[arg(long, conflicts_with = "context")]
    all_clusters: bool,
}

/// Flags of `mesh explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mesh explain MC-LINK-002")]
pub(crate) struct ExplainFlags {
    /// A check's id; without one, all are listed
    id: Option<String>,
}

/// How one check came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) cluster: String,
    pub(crate) id: &'static str,
    pub(crate) state: State,
    /// What it is about, when there are several: a link, mostly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    pub(crate) message: String,
}

/// The state of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Sound.
    Ok,
    /// Works, and will not for ever.
    Warn,
    /// Broken.
    Fail,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// Checks and tells.
///
/// # Errors
/// When there is no kubeconfig to read.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let kubeconfig = flags.global.read()?;
    let contexts = if flags.all_clusters { clusters::contexts(&kubeconfig) } else { vec![flags.global.context_of(&kubeconfig)?] };
    let checks = contexts.iter().map(|context| async {
        let seen = match clusters::client(&kubeconfig, context).await {
            Ok(client) => observe::observe(&client).await,
            Err(error) => Err(error),
        };
        judge::judge(context, &seen, mesh_runtime::clock::wall())
    });
    let findings: Vec<Finding> = futures_util::future::join_all(checks).await.into_iter().flatten().collect();
    match flags.global.output {
        Output::Json => output::say_json(&serde_json::json!({ "version": 1, "clusters": contexts, "findings": findings }))?,
        Output::Table => output::say(&written(&findings, contexts.len())),
    }
    let failed = findings.iter().any(|finding| finding.state == State::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The table, with the next step under whatever is not sound.
fn written(findings: &[Finding], clusters: usize) -> String {
    let row = |finding: &Finding| {
        let entry = catalogue::entry(finding.id);
        let about = finding.object.as_ref().map_or_else(|| entry.title.to_owned(), |object| format!("{} ({object})", entry.title));
        [finding.state.word().to_owned(), finding.cluster.clone(), finding.id.to_owned(), about, finding.message.clone()]
    };
    let mut text = output::table(["STATE", "CLUSTER", "ID", "CHECK", ""], findings.iter().map(row));
    for finding in findings.iter().filter(|finding| finding.state != State::Ok) {
        let entry = catalogue::entry(finding.id);
        let fix = entry.fix.replace("CONTEXT", &finding.cluster).replace("PEER", finding.object.as_deref().unwrap_or("PEER"));
        text += &format!("\n{} {} {}: {}\n", finding.state.word(), finding.cluster, finding.id, finding.message);
        text += &format!("  fix: {fix}\n  explain: mesh explain {}\n", entry.id);
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    text += &format!(
        "\n{clusters} cluster(s), {} checks: {} ok, {} warning(s), {} failed\n",
        findings.len(),
        count(State::Ok),
        count(State::Warn),
        count(State::Fail)
    );
    text
}

/// Tells what a check means.
///
/// # Errors
/// When there is no such check.
pub(crate) fn explain(flags: &ExplainFlags) -> anyhow::Result<ExitCode> {
    match &flags.id {
        None => output::say(&output::table(["ID", "CHECK"], CATALOGUE.iter().map(|entry| [entry.id.to_owned(), entry.title.to_owned()]))),
        Some(id) => {
            let entry: &Entry = CATALOGUE
                .iter()
                .find(|entry| entry.id.eq_ignore_ascii_case(id))
                .with_context(|| format!("there is no check {id}: `mesh explain` lists them"))?;
            output::say(&format!("{}  {}\n\n{}\n\nfix: {}\n", entry.id, entry.title, entry.meaning, entry.fix));
        }
    }
    Ok(ExitCode::SUCCESS)
}
