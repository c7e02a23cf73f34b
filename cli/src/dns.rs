//! `mesh dns query`: asks a mesh DNS server, without relying on the machine's own resolver.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, Record, RecordType};
use serde_json::json;
use tokio::net::UdpSocket;

use crate::args::Output;
use crate::output;

/// Commands under `mesh dns`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask for one name
    Query(QueryFlags),
}

/// Flags of `mesh dns query`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mesh dns query cart.shop.svc.clusterset.local --server 127.11.0.53:4153\n  mesh dns query _http._tcp.cart.shop.svc.clusterset.local --type SRV --server 127.11.0.53:4153"
)]
pub(crate) struct QueryFlags {
    /// The name
    name: String,
    /// What to ask for: A, AAAA, SRV or TXT
    #[arg(long = "type", default_value = "A", value_name = "TYPE")]
    kind: RecordType,
    /// The server
    #[arg(long, value_name = "ADDRESS:PORT")]
    server: SocketAddr,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs one.
///
/// # Errors
/// When the server does not answer.
pub(crate) async fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let Command::Query(flags) = command;
    let mut name = Name::from_str(&flags.name).with_context(|| format!("{:?} is no DNS name", flags.name))?;
    name.set_fqdn(true);
    let answer = ask(flags.server, name, flags.kind).await?;
    match flags.output {
        Output::Table => output::say(&table(&answer)),
        Output::Json => output::say_json(&document(&answer))?,
    }
    if answer.answers.is_empty() {
        let rcode = answer.metadata.response_code;
        anstream::eprintln!("{}: no {} record ({rcode}); `mesh multicluster status` shows what is imported", flags.name, flags.kind);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(server: SocketAddr, name: Name, kind: RecordType) -> anyhow::Result<Message> {
    let mut question = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = false;
    question.add_query(Query::query(name, kind));
    let bytes = question.to_vec()?;
    let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    let mut buffer = vec![0; 4096];
    for _ in 0..TRIES {
        socket.send(&bytes).await.with_context(|| format!("could not ask {server}"))?;
        let Ok(received) = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await else { continue };
        let size = received.with_context(|| format!("{server} does not take questions: is it a mesh DNS server?"))?;
        let answer = Message::from_vec(&buffer[..size]).with_context(|| format!("{server} sent something that is no DNS message"))?;
        if answer.metadata.id == question.metadata.id {
            return Ok(answer);
        }
    }
    anyhow::bail!("{server} did not answer within {} s: is it running?", (PATIENCE * TRIES).as_secs())
}

fn table(answer: &Message) -> String {
    let row =
        |record: &Record| [record.name.to_string(), record.ttl.to_string(), record.record_type().to_string(), record.data.to_string()];
    output::table(["NAME", "TTL", "TYPE", "DATA"], answer.answers.iter().map(row))
}

fn document(answer: &Message) -> serde_json::Value {
    let record = |record: &Record| json!({ "name": record.name.to_string(), "ttl": record.ttl, "type": record.record_type().to_string(), "data": record.data.to_string() });
    json!({
        "status": answer.metadata.response_code.to_string(),
        "answers": answer.answers.iter().map(record).collect::<Vec<_>>(),
    })
}

const TRIES: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(1);
