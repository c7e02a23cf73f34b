//! A service that two clusters serve survives losing one of them, seen from a third.

use std::time::Instant;

use mesh_tests::load::{Connections, Load, failures};
use mesh_tests::{World, eventually};

#[tokio::test]
async fn from_the_moment_a_link_is_dark_no_request_fails_and_traffic_returns_with_it() {
    let (_alone, world) = crate::world(3).await;
    let client = world.client("north");
    eventually("both clusters answer north", async || {
        let answers = [client.ok(CART).await?, client.ok(CART).await?, client.ok(CART).await?, client.ok(CART).await?];
        let clusters: std::collections::BTreeSet<_> = answers.iter().filter_map(|answer| answer.cluster()).collect();
        anyhow::ensure!(clusters.len() == 2, "only {clusters:?}");
        Ok(())
    })
    .await;
    let load = Load::start(client, &[CART], 500, &[Connections::Kept, Connections::New]);
    world.kill("east", "gateway").unwrap();
    let killed = Instant::now();
    eventually("the link is dark", async || data_path(&world, "False")).await;
    let dark = Instant::now();
    eventually("the gateways are back", async || data_path(&world, "True")).await;
    let back = Instant::now();
    eventually("east answers north again", async || {
        let answer = client.ok(CART).await?;
        anyhow::ensure!(answer.cluster() == Some("east"), "{answer:?}");
        Ok(())
    })
    .await;
    let outcomes = load.stop().await;
    let before: Vec<_> = outcomes.iter().filter(|outcome| outcome.at < dark).cloned().collect();
    let while_dark: Vec<_> = outcomes.iter().filter(|outcome| outcome.at >= dark && outcome.at < back).cloned().collect();
    println!(
        "dark after {:?}; failures before: {:?}; {} requests while dark for {:?}, failures: {:?}",
        dark - killed,
        failures(&before),
        while_dark.len(),
        back - dark,
        failures(&while_dark)
    );
    assert!(while_dark.len() >= 2_000, "{} requests while dark", while_dark.len());
    assert!(failures(&while_dark).is_empty(), "{:?}", failures(&while_dark));
}

fn data_path(world: &World, wanted: &str) -> anyhow::Result<()> {
    let path = r#"jsonpath={.status.conditions[?(@.type=="DataPath")].status}"#;
    let status = world.kubectl("north", &["get", "links.isthmus.dev", "east", "-o", path])?;
    anyhow::ensure!(status == wanted, "DataPath={status}");
    Ok(())
}

const CART: &str = "http://cart.shop.svc.clusterset.local/";
