//! Watches as clients read them, event by event.

use futures_util::{Stream, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::world::{World, config_map, soon};

async fn next<K>(events: &mut (impl Stream<Item = kube::Result<WatchEvent<K>>> + Unpin)) -> String
where
    K: kube::ResourceExt,
{
    match soon("an event", events.try_next()).await.unwrap().unwrap() {
        WatchEvent::Added(object) => format!("added {}", object.name_any()),
        WatchEvent::Modified(object) => format!("modified {}", object.name_any()),
        WatchEvent::Deleted(object) => format!("deleted {}", object.name_any()),
        WatchEvent::Bookmark(bookmark) => {
            let ends = bookmark.metadata.annotations.contains_key("k8s.io/initial-events-end");
            format!("bookmark{}", if ends { " at the end of the initial events" } else { "" })
        }
        WatchEvent::Error(status) => format!("error {}", status.code),
    }
}

fn params() -> WatchParams {
    WatchParams::default().fields("metadata.name!=kube-root-ca.crt")
}

#[tokio::test]
async fn a_watch_goes_on_from_the_version_of_a_list() {
    let world = World::start().await;
    let api = world.api::<ConfigMap>();
    api.create(&PostParams::default(), &config_map("a", &[])).await.unwrap();
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    api.create(&PostParams::default(), &config_map("b", &[])).await.unwrap();
    api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "v"}}))).await.unwrap();
    api.delete("b", &DeleteParams::default()).await.unwrap();
    let mut events = std::pin::pin!(api.watch(&params(), &version).await.unwrap());
    for expected in ["added b", "modified a", "deleted b"] {
        assert_eq!(next(&mut events).await, expected);
    }
}

#[tokio::test]
async fn a_watch_that_asks_for_initial_events_is_told_where_they_end() {
    let world = World::start().await;
    let api = world.api::<ConfigMap>();
    for name in ["a", "b"] {
        api.create(&PostParams::default(), &config_map(name, &[])).await.unwrap();
    }
    let params = WatchParams { send_initial_events: true, ..params() };
    let mut events = std::pin::pin!(api.watch(&params, "0").await.unwrap());
    for expected in ["added a", "added b", "bookmark at the end of the initial events"] {
        assert_eq!(next(&mut events).await, expected);
    }
    api.create(&PostParams::default(), &config_map("c", &[])).await.unwrap();
    assert_eq!(next(&mut events).await, "added c");
}

#[tokio::test]
async fn a_quiet_watch_is_told_the_version_before_it_ends() {
    let world = World::start().await;
    let api = world.api::<ConfigMap>();
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    // A real server does so two seconds before the end, if it is not too busy.
    let mut events = std::pin::pin!(api.watch(&params().timeout(8), &version).await.unwrap());
    assert_eq!(next(&mut events).await, "bookmark");
    let end = async { while events.try_next().await.unwrap().is_some() {} };
    soon("the end", end).await;
}
