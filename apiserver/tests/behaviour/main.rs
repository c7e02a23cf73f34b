//! How a Kubernetes API server behaves, seen by `kube`: against the embedded one, or the one that `ISTHMUS_TEST_KUBECONFIG` names.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apply;
mod kubectl;
mod openapi;
mod python;
mod restart;
mod rules;
mod tokens;
mod tools;
mod watching;
mod world;

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Service},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use world::{World, config_map, refusal, soon};

#[tokio::test]
async fn an_update_from_an_old_version_is_a_conflict() {
    let world = World::start().await;
    let api = world.api::<ConfigMap>();
    let first = api.create(&PostParams::default(), &config_map("a", &[("k", "1")])).await.unwrap();
    let mut newer = first.clone();
    newer.data = Some(BTreeMap::from([("k".to_owned(), "2".to_owned())]));
    api.replace("a", &PostParams::default(), &newer).await.unwrap();
    let status = refusal(api.replace("a", &PostParams::default(), &first).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let status = refusal(api.create(&PostParams::default(), &config_map("a", &[])).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "AlreadyExists"));
}

#[tokio::test]
async fn a_watcher_sees_what_was_there_and_what_changes() {
    let world = World::start().await;
    let api = world.api::<ConfigMap>();
    for name in ["a", "b", "c"] {
        let mut object = config_map(name, &[]);
        object.metadata.labels = Some(BTreeMap::from([("app".to_owned(), "x".to_owned())]));
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    let config = watcher::Config::default().labels("app=x").page_size(2);
    let mut seen = std::pin::pin!(watcher(api.clone(), config).touched_objects());
    for _ in 0..3 {
        soon("the listing", seen.try_next()).await.unwrap();
    }
    api.patch("b", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "v"}}))).await.unwrap();
    let changed = soon("the change", seen.next()).await.unwrap().unwrap();
    assert_eq!(changed.metadata.name.as_deref(), Some("b"));
    api.patch("c", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"app": null}}}))).await.unwrap();
    let left = soon("the object leaving the selector", seen.next()).await.unwrap().unwrap();
    assert_eq!(left.metadata.name.as_deref(), Some("c"));
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let world = World::start().await;
    let api = world.api::<ConfigMap>();
    let mut object = config_map("held", &[]);
    object.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    api.create(&PostParams::default(), &object).await.unwrap();
    api.delete("held", &DeleteParams::default()).await.unwrap();
    assert!(api.get("held").await.unwrap().metadata.deletion_timestamp.is_some());
    api.patch("held", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
    assert!(api.get_opt("held").await.unwrap().is_none());
}

#[tokio::test]
async fn dependents_go_with_their_owner() {
    let world = World::start().await;
    let api = world.api::<ConfigMap>();
    let owner = api.create(&PostParams::default(), &config_map("owner", &[])).await.unwrap();
    let mut dependent = config_map("dependent", &[]);
    dependent.metadata.owner_references = Some(
        serde_json::from_value(json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}])).unwrap(),
    );
    api.create(&PostParams::default(), &dependent).await.unwrap();
    api.delete("owner", &DeleteParams::background()).await.unwrap();
    let gone = async { while api.get_opt("dependent").await.unwrap().is_some() {} };
    soon("garbage collection", gone).await;
}

#[tokio::test]
async fn services_get_addresses_and_deployments_scale() {
    let world = World::start().await;
    let service: Service = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})).unwrap();
    let service = world.api::<Service>().create(&PostParams::default(), &service).await.unwrap();
    assert!(service.spec.unwrap().cluster_ip.is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok()));
    let deployments = world.api::<Deployment>();
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web"}]}}},
    });
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    deployments.patch_scale("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}}))).await.unwrap();
    let scaled = deployments.get("web").await.unwrap();
    assert_eq!((scaled.spec.unwrap().replicas, scaled.metadata.generation), (Some(3), Some(2)));
}

#[tokio::test]
async fn custom_resources_are_checked_and_completed_by_their_schema() {
    let world = World::start().await;
    let group = format!("{}.example.com", world.namespace);
    let definition = json!({
        "metadata": {"name": format!("widgets.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "spec": {"type": "object", "required": ["size"], "properties": {"size": {"type": "integer"}, "colour": {"type": "string", "default": "red"}}},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                },
            }}}],
        },
    });
    let definitions = Api::<CustomResourceDefinition>::all(world.client.clone());
    let definition = definitions.create(&PostParams::default(), &serde_json::from_value(definition).unwrap()).await.unwrap();
    let established = kube::runtime::conditions::is_crd_established();
    let name = definition.metadata.name.unwrap();
    soon("the definition", kube::runtime::wait::await_condition(definitions.clone(), &name, established)).await.unwrap();
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(&group, "v1", "Widget"), "widgets");
    let widgets = Api::<DynamicObject>::namespaced_with(world.client.clone(), &world.namespace, &resource);
    let good = DynamicObject::new("good", &resource).data(json!({"spec": {"size": 1, "unknown": true}}));
    let good = widgets.create(&PostParams::default(), &good).await.unwrap();
    assert_eq!(good.data["spec"], json!({"size": 1, "colour": "red"}));
    let bad = DynamicObject::new("bad", &resource).data(json!({"spec": {"size": "big"}}));
    let status = refusal(widgets.create(&PostParams::default(), &bad).await);
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    definitions.delete(&name, &DeleteParams::default()).await.unwrap();
    let gone = async { while definitions.get_opt(&name).await.unwrap().is_some() {} };
    soon("the definition's end", gone).await;
}
