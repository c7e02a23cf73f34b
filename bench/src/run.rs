//! One run: start every candidate, load them in interleaved rounds, print medians and ratios.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::isthmus::Demo;
use crate::load::{self, Target};
use crate::peers::{self, Addresses, Pair};
use crate::table::{self, Figures};
use crate::{Plan, certs, measure};

struct Candidate {
    name: &'static str,
    target: Target,
    pids: Vec<u32>,
}

/// Runs the plan and prints the table.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<()> {
    let dir = tempdir()?;
    let files = certs::write(&dir)?;
    let backend: SocketAddr = format!("{HOST}:18080").parse()?;
    let server = Command::new(std::env::current_exe()?)
        .args(["backend", "--listen", &backend.to_string()])
        .env_remove("POD_IP")
        .stdin(Stdio::null())
        .spawn()
        .context("could not start the back end")?;
    let _server = Ended(server);
    let mut pairs: Vec<Pair> = Vec::new();
    let mut candidates = vec![Candidate { name: "direct", target: direct(backend), pids: Vec::new() }];
    let mut offer = |name, program: &Option<std::path::PathBuf>, ports: (u16, u16), start: Starter| -> anyhow::Result<()> {
        let Some(program) = program else {
            eprintln!("mesh-bench: {name} is left out: no program was given (cargo xtask tools --bench --print-env)");
            return Ok(());
        };
        let at = Addresses { client: format!("{HOST}:{}", ports.0).parse()?, server: format!("{HOST}:{}", ports.1).parse()?, backend };
        let pair = start(program, &dir, &at, &files)?;
        candidates.push(Candidate { name, target: pair.target.clone(), pids: pair.pids() });
        pairs.push(pair);
        Ok(())
    };
    offer("haproxy", &plan.haproxy, (18081, 18082), peers::haproxy)?;
    offer("envoy", &plan.envoy, (18083, 18084), peers::envoy)?;
    let demo = Demo::start(plan)?;
    for (name, cluster) in [("proxies", "east"), ("proxies+gateway", "west")] {
        candidates.push(Candidate { name, target: demo.target(cluster)?, pids: demo.pids(plan, cluster)? });
    }
    let results = rounds(plan, &candidates)?;
    report(plan, &results)?;
    drop((demo, pairs));
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

type Starter = fn(&std::path::Path, &std::path::Path, &Addresses, &certs::Files) -> anyhow::Result<Pair>;

fn rounds(plan: &Plan, candidates: &[Candidate]) -> anyhow::Result<Vec<(String, Figures)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for candidate in candidates {
        wait_until_answered(&runtime, &candidate.target).with_context(|| format!("{} does not answer", candidate.name))?;
    }
    let mut seen: Vec<Vec<Figures>> = vec![Vec::new(); candidates.len()];
    for round in 1..=plan.rounds {
        for (candidate, figures) in candidates.iter().zip(&mut seen) {
            eprintln!("mesh-bench: round {round} of {}, {}", plan.rounds, candidate.name);
            figures.push(runtime.block_on(measure_one(plan, candidate))?);
        }
    }
    Ok(candidates.iter().zip(seen).map(|(candidate, rounds)| (candidate.name.to_owned(), table::medians(&rounds))).collect())
}

async fn measure_one(plan: &Plan, candidate: &Candidate) -> anyhow::Result<Figures> {
    let lasting = Duration::from_secs(plan.seconds);
    let before = measure::cpu_seconds(&candidate.pids)?;
    let full = load::saturate(&candidate.target, plan.connections, lasting).await?;
    let between = measure::cpu_seconds(&candidate.pids)?;
    let slow = load::at_rate(&candidate.target, plan.connections, lasting, 1000).await?;
    let before_fast = measure::cpu_seconds(&candidate.pids)?;
    let fast = load::at_rate(&candidate.target, plan.connections, lasting, 4000).await?;
    let after = measure::cpu_seconds(&candidate.pids)?;
    let per_100k = |cpu: f64, requests: u64| cpu * 100_000.0 / requests as f64;
    Ok(Figures {
        saturated_rps: full.requests as f64 / full.seconds,
        cpu_per_100k: per_100k(between - before, full.requests),
        saturated_p99_us: full.p99_us as f64,
        p50_at_1000_us: slow.p50_us as f64,
        p99_at_4000_us: fast.p99_us as f64,
        cpu_at_4000_per_100k: per_100k(after - before_fast, fast.requests),
        peak_mib: measure::peak_mib(&candidate.pids)?,
        errors: (full.errors + slow.errors + fast.errors) as f64,
    })
}

fn report(plan: &Plan, results: &[(String, Figures)]) -> anyhow::Result<()> {
    if plan.json {
        println!("{}", serde_json::to_string_pretty(results)?);
        return Ok(());
    }
    println!("{}", table::render(results));
    for line in table::verdicts(&results.iter().cloned().collect()) {
        println!("{line}");
    }
    Ok(())
}

fn wait_until_answered(runtime: &tokio::runtime::Runtime, target: &Target) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match runtime.block_on(load::saturate(target, 1, Duration::from_millis(50))) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => bail!("{error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn direct(backend: SocketAddr) -> Target {
    Target { address: backend, uri: "/".to_owned(), host: "bench".to_owned() }
}

fn tempdir() -> anyhow::Result<std::path::PathBuf> {
    let dir = std::env::temp_dir().join(format!("mesh-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A child that is ended when dropped.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The peers' address: away from the blocks that the demo uses.
const HOST: &str = "127.0.9.1";
