//! `unlink` leaves nothing behind in the clusters that live, also when the other one is gone.

use mesh_tests::{World, eventually};

#[tokio::test]
async fn unlink_removes_every_object_of_the_link() {
    let (_alone, world) = crate::world(2).await;
    eventually("the mirror is there", async || has_mirror(&world)).await;
    let mistyped = world.mesh(&["multicluster", "unlink", "--context", "west", "--to", "esat"]).unwrap_err().to_string();
    assert!(mistyped.contains("whose links are: east"), "{mistyped}");
    has_mirror(&world).unwrap();
    world.mesh(&["multicluster", "unlink", "--context", "west", "--to", "east"]).unwrap();
    eventually("no object of the link is left in west", async || gone(&world)).await;
}

#[tokio::test]
async fn unlink_cleans_the_living_cluster_when_the_other_was_killed() {
    let (_alone, world) = crate::world(2).await;
    eventually("the mirror is there", async || has_mirror(&world)).await;
    for component in ["apiserver", "control", "mirror-controller", "gateway"] {
        world.kill("east", component).unwrap();
    }
    let half_done = world.mesh(&["multicluster", "unlink", "--context", "west", "--to", "east"]).unwrap_err();
    let text = format!("{half_done:#}");
    assert!(text.contains("kubectl --context east delete peers.isthmus.dev west"), "{text}");
    eventually("no object of the link is left in west", async || gone(&world)).await;
}

fn has_mirror(world: &World) -> anyhow::Result<()> {
    world.kubectl("west", &["get", "service", "-n", "shop", "catalog-east"]).map(drop)
}

fn gone(world: &World) -> anyhow::Result<()> {
    let names = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {end}";
    let services = world.kubectl(
        "west",
        &["get", "services,endpointslices,serviceimports.multicluster.x-k8s.io", "-A", "-l", "isthmus.dev/link=east", "-o", names],
    )?;
    let links = world.kubectl("west", &["get", "links.isthmus.dev", "-o", names])?;
    let catalog = world.kubectl("west", &["get", "services,serviceimports.multicluster.x-k8s.io", "-n", "shop", "-o", names])?;
    anyhow::ensure!(services.trim().is_empty(), "{services}");
    anyhow::ensure!(!links.contains("east"), "{links}");
    anyhow::ensure!(!catalog.contains("catalog"), "{catalog}");
    Ok(())
}
