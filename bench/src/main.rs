//! Measures Isthmus beside its peers in one run and prints ratios: `cargo run --release -p mesh-bench`.
//!
//! Every candidate carries the same load between the same client and the same back end on loopback: `direct`, an HAProxy pair, an Envoy pair
//! (both with mTLS between them), two Isthmus proxies in one cluster, and two proxies with a gateway between two clusters. Rounds are interleaved
//! (A B C … A B C …) and medians are printed. Absolute times of a shared machine mean nothing; the ratios inside one run do.
#![allow(clippy::print_stdout, reason = "the table is this program's output")]

mod backend;
mod certs;
mod isthmus;
mod load;
mod measure;
mod peers;
mod run;
mod table;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "mesh-bench", about = "Isthmus beside HAProxy and Envoy, in ratios", after_help = EXAMPLES)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every candidate and print the table.
    Run(Plan),
    /// The back end: answers each HTTP/1.1 request with 100 bytes.
    Backend {
        /// Where to listen; the environment variable `POD_IP` replaces the address when it is set.
        #[arg(long)]
        listen: SocketAddr,
    },
}

/// What to measure, and with which programs.
#[derive(clap::Args, Clone)]
pub(crate) struct Plan {
    /// The release build of `mesh`.
    #[arg(long, env = "MESH_BIN", default_value = "target/release/mesh")]
    mesh: PathBuf,
    /// HAProxy; left out of the table, with a line that says so, when not given.
    #[arg(long, env = "MESH_TOOLS_HAPROXY")]
    haproxy: Option<PathBuf>,
    /// Envoy; left out of the table, with a line that says so, when not given.
    #[arg(long, env = "MESH_TOOLS_ENVOY")]
    envoy: Option<PathBuf>,
    /// kubectl, which puts the back end into the demo's clusters.
    #[arg(long, env = "MESH_TOOLS_KUBECTL", default_value = "kubectl")]
    kubectl: PathBuf,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds per stage.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Client connections.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let outcome = match Flags::parse().command {
        Command::Run(plan) => run::run(&plan),
        Command::Backend { listen } => backend::run(listen),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

const EXAMPLES: &str =
    "Example:\n  cargo build --release && eval \"$(cargo xtask tools --bench --print-env)\" && cargo run --release -p mesh-bench -- run";
