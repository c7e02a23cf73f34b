//! What a program does with the Python `kubernetes` client.

use crate::{tools::Tool, world::World};

#[tokio::test]
async fn python_creates_watches_patches_and_deletes_deployments_and_custom_objects() {
    let world = World::start().await;
    let python = Tool::python(&world);
    let script = python.file("client.py", include_str!("client.py"));
    assert_eq!(python.ok(&script).await, "done\n");
}
