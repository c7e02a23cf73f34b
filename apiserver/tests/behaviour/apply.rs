//! Server-side apply and the ownership of fields, as `kube` uses them.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Service},
};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::world::{World, config_map, refusal};

fn deployment(replicas: Option<i32>, image: &str) -> Patch<Value> {
    let mut configuration = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": image}]}},
        },
    });
    if let Some(replicas) = replicas {
        configuration["spec"]["replicas"] = json!(replicas);
    }
    Patch::Apply(configuration)
}

fn owners(object: &impl kube::ResourceExt) -> Vec<(String, String, String)> {
    let entries = object.managed_fields().iter().cloned();
    let mut owners = entries
        .map(|entry| (entry.manager.unwrap_or_default(), entry.operation.unwrap_or_default(), entry.subresource.unwrap_or_default()))
        .collect::<Vec<_>>();
    owners.sort();
    owners
}

fn owner(manager: &str, operation: &str, subresource: &str) -> (String, String, String) {
    (manager.to_owned(), operation.to_owned(), subresource.to_owned())
}

#[tokio::test]
async fn apply_creates_what_is_not_there_and_repeating_it_writes_nothing() {
    let world = World::start().await;
    let api = world.api::<Deployment>();
    let created = api.patch("web", &PatchParams::apply("me"), &deployment(Some(2), "web:1")).await.unwrap();
    assert_eq!((created.spec.as_ref().unwrap().replicas, created.metadata.generation), (Some(2), Some(1)));
    assert_eq!(owners(&created), [owner("me", "Apply", "")]);
    let again = api.patch("web", &PatchParams::apply("me"), &deployment(Some(2), "web:1")).await.unwrap();
    assert_eq!(again.metadata.resource_version, created.metadata.resource_version);
    let changed = api.patch("web", &PatchParams::apply("me"), &deployment(Some(2), "web:2")).await.unwrap();
    assert_eq!(changed.spec.unwrap().template.spec.unwrap().containers[0].image.as_deref(), Some("web:2"));
    assert_eq!(changed.metadata.generation, Some(2));
}

#[tokio::test]
async fn apply_refuses_to_take_a_field_unless_forced() {
    let world = World::start().await;
    let api = world.api::<Deployment>();
    api.patch("web", &PatchParams::apply("one"), &deployment(Some(2), "web:1")).await.unwrap();
    let status = refusal(api.patch("web", &PatchParams::apply("two"), &deployment(Some(3), "web:1")).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let causes = status.details.unwrap().causes;
    assert_eq!(causes.len(), 1);
    assert_eq!((causes[0].reason.as_str(), causes[0].field.as_str()), ("FieldManagerConflict", ".spec.replicas"));
    assert_eq!(causes[0].message, "conflict with \"one\"");
    let forced = api.patch("web", &PatchParams::apply("two").force(), &deployment(Some(3), "web:1")).await.unwrap();
    assert_eq!(forced.spec.unwrap().replicas, Some(3));
}

#[tokio::test]
async fn apply_removes_what_its_manager_no_longer_states() {
    let world = World::start().await;
    let api = world.api::<ConfigMap>();
    let configuration =
        |data: Value| Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}));
    api.patch("c", &PatchParams::apply("one"), &configuration(json!({"a": "1", "b": "2"}))).await.unwrap();
    api.patch("c", &PatchParams::default(), &Patch::Merge(json!({"data": {"theirs": "3"}}))).await.unwrap();
    let applied = api.patch("c", &PatchParams::apply("one"), &configuration(json!({"a": "1"}))).await.unwrap();
    assert_eq!(applied.data.unwrap().into_iter().collect::<Vec<_>>(), [("a".into(), "1".into()), ("theirs".into(), "3".into())]);
}

#[tokio::test]
async fn apply_names_its_manager_and_nothing_else_may_force() {
    let world = World::start().await;
    let api = world.api::<ConfigMap>();
    let url = format!("/api/v1/namespaces/{}/configmaps/c", world.namespace);
    let send = |query: &str, content_type: &str, body: &'static str| {
        let request = http::Request::patch(format!("{url}{query}")).header("content-type", content_type).body(body.as_bytes().to_vec());
        let client = world.client.clone();
        async move { client.request::<Value>(request.unwrap()).await }
    };
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  k: v\n";
    let status = refusal(send("", "application/apply-patch+yaml", yaml).await);
    assert_eq!((status.code, status.message.contains("fieldManager: Required value")), (422, true), "{}", status.message);
    send("?fieldManager=me", "application/apply-patch+yaml", yaml).await.unwrap();
    assert_eq!(api.get("c").await.unwrap().data.unwrap()["k"], "v");
    let status = refusal(send("?force=true", "application/merge-patch+json", "{}").await);
    assert_eq!((status.code, status.message.contains("force: Forbidden")), (422, true), "{}", status.message);
    let status = refusal(send("?fieldManager=me", "application/apply-patch+yaml", "kind: [").await);
    assert_eq!((status.code, status.reason.as_str()), (400, "BadRequest"));
}

#[tokio::test]
async fn apply_that_is_only_tried_keeps_nothing() {
    let world = World::start().await;
    let api = world.api::<Deployment>();
    let tried = PatchParams::apply("me").dry_run();
    assert_eq!(api.patch("web", &tried, &deployment(Some(2), "web:1")).await.unwrap().spec.unwrap().replicas, Some(2));
    assert!(api.get_opt("web").await.unwrap().is_none());
}

#[tokio::test]
async fn status_and_scale_are_owned_apart_from_the_object() {
    let world = World::start().await;
    let api = world.api::<Deployment>();
    api.patch("web", &PatchParams::apply("me"), &deployment(None, "web:1")).await.unwrap();
    let status = |name: &str| {
        Patch::Apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "status": {"replicas": 1}}))
    };
    let applied = api.patch_status("web", &PatchParams::apply("node"), &status("web")).await.unwrap();
    assert_eq!((applied.status.unwrap().replicas, applied.metadata.generation), (Some(1), Some(1)));
    let scaler = PatchParams { field_manager: Some("scaler".to_owned()), ..PatchParams::default() };
    let to = |replicas: i32| Patch::Merge(json!({"spec": {"replicas": replicas}}));
    api.patch_scale("web", &scaler, &to(4)).await.unwrap();
    let now = api.get("web").await.unwrap();
    assert_eq!(owners(&now), [owner("me", "Apply", ""), owner("node", "Apply", "status")], "what nobody owned stays nobody's");
    api.patch("web", &PatchParams::apply("me"), &deployment(Some(3), "web:1")).await.unwrap();
    api.patch_scale("web", &scaler, &to(5)).await.unwrap();
    let now = api.get("web").await.unwrap();
    assert_eq!(owners(&now), [owner("me", "Apply", ""), owner("node", "Apply", "status"), owner("scaler", "Update", "scale")]);
    let conflict = refusal(api.patch("web", &PatchParams::apply("me"), &deployment(Some(2), "web:1")).await);
    assert_eq!(
        conflict.message,
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    let lost = refusal(api.patch_status("none", &PatchParams::apply("node"), &status("none")).await);
    assert_eq!(lost.code, 404);
}

#[tokio::test]
async fn writers_own_what_they_change_and_not_what_the_server_adds() {
    let world = World::start().await;
    let create = PostParams { field_manager: Some("creator".to_owned()), ..PostParams::default() };
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let service = world.api::<Service>().create(&create, &serde_json::from_value(service).unwrap()).await.unwrap();
    assert_eq!(owners(&service), [owner("creator", "Update", "")]);
    let owned = serde_json::to_value(&service.metadata.managed_fields.unwrap()[0].fields_v1).unwrap();
    assert!(!owned["f:spec"]["f:ports"].is_null() && owned["f:spec"]["f:clusterIP"].is_null() && owned["f:status"].is_null(), "{owned}");
    let api = world.api::<ConfigMap>();
    api.create(&create, &config_map("c", &[("a", "1"), ("b", "1")])).await.unwrap();
    let patcher = PatchParams { field_manager: Some("patcher".to_owned()), ..PatchParams::default() };
    let patched = api.patch("c", &patcher, &Patch::Merge(json!({"data": {"b": "2"}}))).await.unwrap();
    assert_eq!(owners(&patched), [owner("creator", "Update", ""), owner("patcher", "Update", "")]);
}
