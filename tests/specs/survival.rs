//! The data plane needs no control plane: it goes on with what it last knew, and nothing is deleted when the control plane comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use mesh_tests::eventually::time_passes;
use mesh_tests::load::{Connections, Load, failures};
use mesh_tests::{World, eventually};

#[tokio::test]
async fn no_request_fails_while_both_control_planes_are_killed_and_return() {
    let (_alone, world) = crate::world(2).await;
    let client = world.client("west");
    for url in [CATALOG, OWN] {
        eventually(url, async || client.ok(url).await).await;
    }
    let before = mirrored(&world).unwrap();
    let load = Load::start(client, &[CATALOG, OWN], 200, &[Connections::Kept, Connections::New]);
    for cluster in ["east", "west"] {
        for component in ["control", "mirror-controller", "apiserver"] {
            world.kill(cluster, component).unwrap();
        }
    }
    time_passes(LASTING).await;
    eventually("the API servers are back", async || mirrored(&world)).await;
    eventually("links are ready again", async || {
        for (cluster, link) in [("west", "east"), ("east", "west")] {
            world.kubectl(cluster, &["wait", "--for=condition=Ready", &format!("links.isthmus.dev/{link}"), "--timeout=1s"])?;
        }
        anyhow::Ok(())
    })
    .await;
    let outcomes = load.stop().await;
    println!("{} requests, failures: {:?}", outcomes.len(), failures(&outcomes));
    assert!(outcomes.len() > 10_000, "{} requests", outcomes.len());
    assert!(failures(&outcomes).is_empty(), "{:?}", failures(&outcomes));
    let after = mirrored(&world).unwrap();
    assert_eq!(before, after, "objects that were there before and are there after, with the same uids");
}

/// Services and imports of the shop, with their uids.
fn mirrored(world: &World) -> anyhow::Result<BTreeSet<String>> {
    let names = "jsonpath={range .items[*]}{.kind}/{.metadata.name}/{.metadata.uid}{\"\\n\"}{end}";
    let mut all = BTreeSet::new();
    for cluster in ["east", "west"] {
        let listed = world.kubectl(cluster, &["get", "services,serviceimports.multicluster.x-k8s.io", "-n", "shop", "-o", names])?;
        all.extend(listed.lines().map(|line| format!("{cluster}/{line}")));
    }
    anyhow::ensure!(!all.is_empty(), "nothing is listed");
    Ok(all)
}

/// Long enough for kill, restart after 10 s and the first sync again.
const LASTING: Duration = Duration::from_secs(60);
const CATALOG: &str = "http://catalog.shop.svc.clusterset.local/";
const OWN: &str = "http://cart.shop.svc.west.mesh/";
