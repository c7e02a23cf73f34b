//! Rules of writing: what a trial keeps, what a deletion takes, what is held back.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, Pod},
        discovery::v1::EndpointSlice,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use crate::world::{World, config_map, refusal};

#[tokio::test]
async fn a_trial_keeps_nothing() {
    let world = World::start().await;
    let api = world.api::<ConfigMap>();
    let tried = PostParams { dry_run: true, ..PostParams::default() };
    assert!(api.create(&tried, &config_map("tried", &[])).await.unwrap().metadata.uid.is_some());
    assert!(api.get_opt("tried").await.unwrap().is_none());
    api.create(&PostParams::default(), &config_map("kept", &[])).await.unwrap();
    let mut changed = config_map("kept", &[("k", "v")]);
    changed.metadata.resource_version = None;
    assert_eq!(api.replace("kept", &tried, &changed).await.unwrap().data.unwrap()["k"], "v");
    api.delete("kept", &DeleteParams::default().dry_run()).await.unwrap();
    assert!(api.get("kept").await.unwrap().data.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn deleting_a_collection_takes_what_the_selector_chooses() {
    let world = World::start().await;
    let api = world.api::<ConfigMap>();
    for (name, tier) in [("a", "front"), ("b", "front"), ("c", "back")] {
        let mut object = config_map(name, &[]);
        object.metadata.labels = Some(BTreeMap::from([("tier".to_owned(), tier.to_owned())]));
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("tier=front")).await.unwrap();
    let left = api.list(&ListParams::default().labels("tier")).await.unwrap();
    assert_eq!(left.items.into_iter().filter_map(|object| object.metadata.name).collect::<Vec<_>>(), ["c"]);
}

#[tokio::test]
async fn a_pod_on_a_node_is_gone_only_when_the_node_says_so() {
    let world = World::start().await;
    let api = world.api::<Pod>();
    let pod = |name: &str, node: Option<&str>| {
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 7});
        serde_json::from_value::<Pod>(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    };
    api.create(&PostParams::default(), &pod("waiting", None)).await.unwrap();
    api.delete("waiting", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("waiting").await.unwrap().is_none());
    api.create(&PostParams::default(), &pod("running", Some("node"))).await.unwrap();
    api.delete("running", &DeleteParams::default()).await.unwrap();
    let marked = api.get("running").await.unwrap().metadata;
    assert!(marked.deletion_timestamp.is_some());
    assert_eq!(marked.deletion_grace_period_seconds, Some(7));
    api.delete("running", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(api.get_opt("running").await.unwrap().is_none());
}

fn slice(address: &str) -> EndpointSlice {
    let endpoints = json!([{"addresses": [address]}]);
    serde_json::from_value(json!({"metadata": {"name": "web"}, "addressType": "IPv4", "endpoints": endpoints, "ports": []})).unwrap()
}

#[tokio::test]
async fn endpoints_on_loopback_are_refused_unless_the_demo_allows_them() {
    let world = World::start().await;
    let status = refusal(world.api::<EndpointSlice>().create(&PostParams::default(), &slice("127.0.0.5")).await);
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    assert!(status.message.contains("may not be in the loopback range"), "{}", status.message);
    world.api::<EndpointSlice>().create(&PostParams::default(), &slice("10.0.0.5")).await.unwrap();
    let demo = World::of_the_demo().await;
    demo.api::<EndpointSlice>().create(&PostParams::default(), &slice("127.0.0.5")).await.unwrap();
}

#[tokio::test]
async fn a_definition_in_a_group_of_kubernetes_needs_its_approval() {
    let world = World::start().await;
    let api = Api::<CustomResourceDefinition>::all(world.client.clone());
    let definition = |group: &str, annotations: serde_json::Value| {
        let definition = json!({
            "metadata": {"name": format!("widgets.{group}"), "annotations": annotations},
            "spec": {
                "group": group, "scope": "Cluster", "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        });
        serde_json::from_value::<CustomResourceDefinition>(definition).unwrap()
    };
    let tried = PostParams { dry_run: true, ..PostParams::default() };
    let group = format!("{}.k8s.io", world.namespace);
    let status = refusal(api.create(&tried, &definition(&group, json!({}))).await);
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    let required = "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \
                    \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
    assert!(status.message.contains(required), "{}", status.message);
    let status = refusal(api.create(&tried, &definition(&group, json!({"api-approved.kubernetes.io": "yes"}))).await);
    assert!(status.message.contains("metadata.annotations[api-approved.kubernetes.io]: Invalid value: \"yes\""), "{}", status.message);
    for approval in ["https://example.com/approved", "unapproved, a test"] {
        api.create(&tried, &definition(&group, json!({"api-approved.kubernetes.io": approval}))).await.unwrap();
    }
    api.create(&tried, &definition(&format!("{}.x-k8s.io", world.namespace), json!({}))).await.unwrap();
}

#[tokio::test]
async fn the_first_namespaces_stay() {
    let world = World::start().await;
    let api = Api::<Namespace>::all(world.client.clone());
    for name in ["default", "kube-system", "kube-public"] {
        let status = refusal(api.delete(name, &DeleteParams::default()).await.map(drop));
        assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    }
}

#[tokio::test]
async fn a_field_that_a_kind_does_not_have_is_not_kept() {
    let world = World::start().await;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labelz": {}}, "data": {"a": "b"}, "extra": 1});
    let url = format!("/api/v1/namespaces/{}/configmaps", world.namespace);
    let send = |query: &str| {
        let request =
            http::Request::post(format!("{url}?{query}")).header("content-type", "application/json").body(body.to_string().into());
        let client = world.client.clone();
        async move { client.request::<serde_json::Value>(request.unwrap()).await }
    };
    let status = refusal(send("fieldValidation=Strict").await);
    assert_eq!(status.code, 400);
    assert!(status.message.contains("unknown field \"extra\""), "{}", status.message);
    let created = send("fieldValidation=Warn").await.unwrap();
    assert_eq!((&created["data"], created.get("extra"), created["metadata"].get("labelz")), (&json!({"a": "b"}), None, None));
}
