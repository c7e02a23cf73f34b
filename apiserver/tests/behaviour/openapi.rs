//! The OpenAPI documents as clients keep them: by their hash.

use http::StatusCode;
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::{tools::Tool, world::World};

async fn ask(client: &Client, url: &str, known: &str) -> http::Response<Body> {
    let request = http::Request::get(url).header("accept", "application/json").header("if-none-match", known);
    client.send(request.body(Body::empty()).unwrap()).await.unwrap()
}

/// A document, and where it was in the end: it may have changed since its address was read.
async fn document(client: &Client, url: &str) -> (String, Value) {
    let mut url = url.to_owned();
    let mut response = ask(client, &url, "").await;
    while response.status() == StatusCode::MOVED_PERMANENTLY {
        url = response.headers()["location"].to_str().unwrap().to_owned();
        response = ask(client, &url, "").await;
    }
    assert_eq!(response.status(), StatusCode::OK, "{url}");
    (url, serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap())
}

async fn address(client: &Client, path: &str) -> String {
    document(client, "/openapi/v3").await.1["paths"][path]["serverRelativeURL"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_document_is_asked_for_once() {
    let World { client, .. } = &World::start().await;
    let url = address(client, "apis/apps/v1").await;
    let response = ask(client, &url, "").await;
    assert!(response.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert!(url.ends_with(&format!("hash={}", tag.trim_matches('"'))), "{url} has not the hash of {tag}");
    assert_eq!(ask(client, &url, &tag).await.status(), StatusCode::NOT_MODIFIED);
    let old = ask(client, "/openapi/v3/apis/apps/v1?hash=OLD", "").await;
    assert_eq!((old.status(), old.headers()["location"].to_str().unwrap()), (StatusCode::MOVED_PERMANENTLY, url.as_str()));
}

#[tokio::test]
async fn a_definition_changes_the_document_of_its_group() {
    let world = World::start().await;
    let client = &world.client;
    let group = format!("{}.example.com", world.namespace);
    let definition = |description: &str| {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "description": description}}});
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("toys.{group}")},
            "spec": {
                "group": group, "scope": "Cluster", "names": {"plural": "toys", "kind": "Toy"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
            },
        })
    };
    let kubectl = Tool::kubectl(&world);
    let mut seen = Vec::new();
    for description in ["one", "two"] {
        kubectl.ok_with("apply -f -", &definition(description).to_string()).await;
        // A real server publishes a moment later.
        let published = async {
            loop {
                let url = address(client, &format!("apis/{group}/v1")).await;
                if url.is_empty() {
                    continue;
                }
                let (url, told) = document(client, &url).await;
                if told.to_string().contains(&format!("\"description\":\"{description}\"")) {
                    return url;
                }
            }
        };
        seen.push(crate::world::soon("the document", published).await);
    }
    assert_ne!(seen[0], seen[1]);
    kubectl.ok(&format!("delete crd toys.{group}")).await;
}
