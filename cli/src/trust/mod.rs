//! `mesh trust`: a root that clusters may share, an issuer for each of them, and what a cluster trusts now.
//!
//! Keys are written for their owner only (0600) and never over an existing file: a root that is lost or replaced by accident takes every
//! link with it.

mod bootstrap;
mod files;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use mesh_names::{ClusterName, TrustDomain};
use mesh_runtime::clock;
use mesh_trust::{Bundle, Root};
use serde_json::json;

use crate::args::{Global, Output};
use crate::output;

pub(crate) use bootstrap::Trust;
pub(crate) use show::ClusterTrust;

/// Commands under `mesh trust`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a root that the issuers of several clusters may share
    Init(InitFlags),
    /// Sign an issuer for one cluster's trust domain
    Issue(IssueFlags),
    /// Show what a cluster trusts, and until when
    Show(ShowFlags),
}

/// Flags of `mesh trust init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mesh trust init --dir ca        # writes ca/root.crt and ca/root.key; keep the key offline")]
pub(crate) struct InitFlags {
    /// Where the root is written
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// The root's name
    #[arg(long, default_value = "isthmus root")]
    name: String,
    /// How long it is good for
    #[arg(long, default_value_t = 3650, value_name = "DAYS")]
    days: u32,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Flags of `mesh trust issue`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mesh trust issue west --dir ca  # writes ca/west.crt, ca/west.key and ca/west.bundle.json")]
pub(crate) struct IssueFlags {
    /// The cluster
    cluster: ClusterName,
    /// Where the root lies, and where the issuer is written
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// The cluster's trust domain [default: CLUSTER.mesh]
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<TrustDomain>,
    /// How long the issuer is good for; it does not outlive the root
    #[arg(long, default_value_t = 365, value_name = "DAYS")]
    days: u32,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Flags of `mesh trust show`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mesh trust show --context west\n  mesh trust show --file ca/west.bundle.json --trust-domain west.mesh"
)]
pub(crate) struct ShowFlags {
    #[command(flatten)]
    global: Global,
    /// A bundle in SPIFFE format, instead of a cluster's
    #[arg(long, requires = "trust_domain", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The trust domain of --file
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<TrustDomain>,
}

/// Runs one.
///
/// # Errors
/// When a file is there already, cannot be written, or a cluster cannot be read.
pub(crate) async fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init(flags) => init(flags)?,
        Command::Issue(flags) => issue(flags)?,
        Command::Show(flags) => show::run(flags).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn init(flags: &InitFlags) -> anyhow::Result<()> {
    let root = Root::generate(&flags.name, clock::wall() - SKEW, days(flags.days))?;
    let (certificate, key) = root.to_pem();
    let pair = files::Pair::of(&flags.dir, "root");
    pair.write(&certificate, &key)?;
    let said = json!({ "certificate": pair.certificate, "key": pair.key, "expires": show::date(root.expires_at()) });
    let next = format!("next: mesh trust issue CLUSTER --dir {}", flags.dir.display());
    tell(flags.output, &said, &next)
}

fn issue(flags: &IssueFlags) -> anyhow::Result<()> {
    let trust_domain = flags.trust_domain.clone().unwrap_or_else(|| TrustDomain::default_for(&flags.cluster));
    let said = write_issuer(&flags.dir, &flags.cluster, &trust_domain, flags.days)?;
    let next = format!("next: mesh install --cluster {} --trust-dir {} --apply --wait", flags.cluster, flags.dir.display());
    tell(flags.output, &said, &next)
}

/// Signs an issuer with the root that lies in `directory`, writes it beside the root, and says what was written.
fn write_issuer(directory: &Path, cluster: &ClusterName, trust_domain: &TrustDomain, life: u32) -> anyhow::Result<serde_json::Value> {
    let held = files::Pair::of(directory, "root");
    let missing = || format!("there is no root in {}: run mesh trust init --dir {0} first, or name its directory", directory.display());
    let (certificate, key) = held.read().with_context(missing)?;
    let root = Root::from_pem(&certificate, &key).with_context(|| format!("{} is no root", held.certificate.display()))?;
    let issuer = root.issuer_for(trust_domain, clock::wall() - SKEW, days(life))?;
    let bundle = Bundle::new(trust_domain.clone(), 1, vec![issuer.bundle_authority().clone()])?;
    let (chain, key) = issuer.to_pem();
    let pair = files::Pair::of(directory, cluster.as_str());
    pair.write(&chain, &key)?;
    let file = directory.join(format!("{cluster}.bundle.json"));
    std::fs::write(&file, bundle.to_spiffe_json()).with_context(|| format!("could not write {}", file.display()))?;
    Ok(json!({
        "cluster": cluster, "trustDomain": trust_domain, "certificate": pair.certificate, "key": pair.key, "bundle": file,
        "expires": show::date(issuer.expires_at()),
    }))
}

fn tell(output: Output, said: &serde_json::Value, next: &str) -> anyhow::Result<()> {
    match output {
        Output::Json => output::say_json(said),
        Output::Table => {
            let fields = said.as_object().into_iter().flatten();
            let rows = fields.map(|(name, value)| [name.clone(), value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)]);
            output::say(&output::table(["FIELD", "VALUE"], rows));
            anstream::eprintln!("{next}");
            Ok(())
        }
    }
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 3600)
}

/// Certificates are good from a little earlier on, for clocks that are behind.
const SKEW: Duration = Duration::from_secs(300);
