//! The embedded API server can't drift from the real one: its behaviour suite, as it is, against east.

use std::process::Command;

use anyhow::Context as _;
use mesh_kubernetes_tests::tools;
use serde_json::Value;

use crate::world::world;

#[test]
fn the_real_api_server_passes_the_embedded_ones_suite() {
    let suite = executable().unwrap();
    let east = &world().east;
    let mut command = east.place.command(suite.as_ref());
    command.env("ISTHMUS_TEST_KUBECONFIG", &east.kubeconfig).args(["--test-threads", "4"]);
    let told = tools::run(&mut command).unwrap();
    assert!(told.contains("test result: ok."), "{told}");
}

/// Where cargo has the suite, which `cargo test --workspace` has built with everything else.
fn executable() -> anyhow::Result<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--workspace", "--locked", "--test", "behaviour", "--no-run", "--message-format=json"]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    let messages = tools::run(&mut cargo)?;
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let suites = artifacts.filter(|artifact| artifact["target"]["name"] == "behaviour");
    let mut executables = suites.filter_map(|artifact| artifact["executable"].as_str().map(str::to_owned));
    executables.next().context("cargo names no executable of the suite")
}
