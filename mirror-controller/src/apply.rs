//! Carries out changes: the only writes of this program. What to write was decided before; here is only how.
//!
//! An object is created by POST, so that one of somebody else's that came meanwhile is never taken over, and deleted by uid, so that one
//! of the same name that came meanwhile stays.

mod bodies;
pub mod lease;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource, ResourceExt as _};
use mesh_api::crd::mcs::ClusterPropertySpec;
use mesh_api::crd::{ClusterProperty, Link, LinkStatus, Said, ServiceExport, ServiceImport, conditions};
use mesh_api::well_known::{MANAGED_BY, MANAGED_BY_ISTHMUS};
use mesh_names::{ClusterName, ServiceId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::model::{Import, MirrorService, Object, ObjectId, Wish};
use crate::plan::{Change, PropertyChange};
use crate::status::{self, LinkSays};

/// A write that failed; it is planned again.
#[derive(Debug, thiserror::Error)]
#[error("could not {what} {object}")]
pub struct NotApplied {
    what: &'static str,
    object: String,
    #[source]
    source: kube::Error,
}

/// Carries out `changes`, each by itself, and returns those that failed.
pub async fn apply(client: &Client, changes: Vec<Change>) -> Vec<NotApplied> {
    let applying = futures_util::stream::iter(changes).map(|change| apply_one(client, change));
    applying.buffer_unordered(WRITES_MAX).filter_map(|done| async { done.err() }).collect().await
}

async fn apply_one(client: &Client, change: Change) -> Result<(), NotApplied> {
    let (what, id) = match &change {
        Change::Create(object) => ("create", object.id()),
        Change::Update(object) => ("update", object.id()),
        Change::Delete(id, _) => ("delete", id.clone()),
    };
    let done = match change {
        Change::Create(object) => create(client, &object).await,
        Change::Update(object) => update(client, &object).await,
        Change::Delete(id, uid) => delete(client, &id, uid).await,
    };
    match done {
        Ok(()) => {
            tracing::info!(what, object = %id, "applied");
            Ok(())
        }
        // The cache was a moment behind: the next plan knows better.
        Err(kube::Error::Api(status)) if matches!((what, status.code), ("create" | "delete", 409) | ("update" | "delete", 404)) => Ok(()),
        Err(source) => Err(NotApplied { what, object: id.to_string(), source }),
    }
}

async fn create(client: &Client, object: &Object) -> Result<(), kube::Error> {
    match object {
        Object::Service(it) => create_service(client, it).await,
        Object::Slice(it) => post::<EndpointSlice>(client, it.namespace.as_str(), bodies::slice(it)).await.map(drop),
        Object::Headless(it) => post::<EndpointSlice>(client, it.namespace.as_str(), bodies::headless(it)).await.map(drop),
        Object::Import(it) => {
            post::<ServiceImport>(client, it.id.namespace().as_str(), bodies::import(it)).await?;
            import_status(client, it).await
        }
    }
}

async fn create_service(client: &Client, service: &MirrorService) -> Result<(), kube::Error> {
    let namespace = service.id.namespace().as_str();
    match post::<Service>(client, namespace, bodies::service(service)).await {
        // The address that it had is another's by now, or of another range: any other is better than none.
        Err(kube::Error::Api(status)) if status.code == 422 && service.address.0.is_some() => {
            let anywhere = MirrorService { address: Wish(None), ..service.clone() };
            post::<Service>(client, namespace, bodies::service(&anywhere)).await.map(drop)
        }
        posted => posted.map(drop),
    }
}

async fn update(client: &Client, object: &Object) -> Result<(), kube::Error> {
    match object {
        // Its addresses stay as they were made, and so do their families.
        Object::Service(it) => {
            let body = bodies::service(&MirrorService { address: Wish(None), families: Wish(None), ..it.clone() });
            merge::<Service>(client, &it.id, &body).await
        }
        Object::Slice(it) => update_slice(client, it.namespace.as_str(), &it.name, bodies::slice(it)).await,
        Object::Headless(it) => update_slice(client, it.namespace.as_str(), &it.name, bodies::headless(it)).await,
        Object::Import(it) => {
            let api = namespaced::<ServiceImport>(client, it.id.namespace().as_str());
            let held = api.get(it.id.name().as_str()).await?;
            // What was exported once and is not now goes away only by naming it.
            let mut body = bodies::import(it);
            bodies::forget(&mut body, "labels", held.labels());
            bodies::forget(&mut body, "annotations", held.annotations());
            api.patch(it.id.name().as_str(), &PatchParams::default(), &Patch::Merge(body)).await?;
            import_status(client, it).await
        }
    }
}

async fn update_slice(client: &Client, namespace: &str, name: &str, body: Value) -> Result<(), kube::Error> {
    namespaced::<EndpointSlice>(client, namespace).patch(name, &PatchParams::default(), &Patch::Merge(body)).await.map(drop)
}

async fn delete(client: &Client, id: &ObjectId, uid: String) -> Result<(), kube::Error> {
    use crate::model::Kind;
    let params = DeleteParams::default().preconditions(Preconditions { uid: Some(uid), resource_version: None });
    let (namespace, name) = (id.namespace.as_str(), id.name.as_str());
    match id.kind {
        Kind::Service => namespaced::<Service>(client, namespace).delete(name, &params).await.map(drop),
        Kind::Slice => namespaced::<EndpointSlice>(client, namespace).delete(name, &params).await.map(drop),
        Kind::Import => namespaced::<ServiceImport>(client, namespace).delete(name, &params).await.map(drop),
    }
}

/// Carries out changes of the cluster's properties, and returns those that failed.
pub async fn properties(client: &Client, changes: Vec<PropertyChange>) -> Vec<NotApplied> {
    let api: Api<ClusterProperty> = Api::all(client.clone());
    let mut failed = Vec::new();
    for change in changes {
        let (what, name, done) = match change {
            PropertyChange::Create(name, value) => {
                let mut property = ClusterProperty::new(name, ClusterPropertySpec { value });
                property.metadata.labels = Some([(MANAGED_BY.to_owned(), MANAGED_BY_ISTHMUS.to_owned())].into());
                ("create", name, api.create(&PostParams::default(), &property).await.map(drop))
            }
            PropertyChange::Update(name, value) => {
                let body = Patch::Merge(json!({ "spec": { "value": value } }));
                ("update", name, api.patch(name, &PatchParams::default(), &body).await.map(drop))
            }
            PropertyChange::Delete(name, uid) => {
                let params = DeleteParams::default().preconditions(Preconditions { uid: Some(uid), resource_version: None });
                ("delete", name, api.delete(name, &params).await.map(drop))
            }
        };
        match done {
            Ok(()) => tracing::info!(what, object = %format_args!("ClusterProperty {name}"), "applied"),
            // The cache was a moment behind: the next plan knows better.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(source) => failed.push(NotApplied { what, object: format!("ClusterProperty {name}"), source }),
        }
    }
    failed
}

async fn import_status(client: &Client, import: &Import) -> Result<(), kube::Error> {
    let api = namespaced::<ServiceImport>(client, import.id.namespace().as_str());
    let held = api.get(import.id.name().as_str()).await?;
    let generation = held.metadata.generation;
    let held = held.status.map(|status| status.conditions).unwrap_or_default();
    let clusters: Vec<Value> = import.clusters.iter().map(|id| json!({ "cluster": id })).collect();
    let said = conditions(&held, &[status::of_import(import)], generation, &now());
    let status = json!({ "status": { "clusters": clusters, "conditions": said } });
    api.patch_status(import.id.name().as_str(), &PatchParams::default(), &Patch::Merge(status)).await.map(drop)
}

/// Writes what the links are to say, where that differs from what they say.
pub async fn link_statuses(
    client: &Client,
    links: &BTreeMap<ClusterName, Arc<Link>>,
    says: &BTreeMap<ClusterName, LinkSays>,
) -> Vec<NotApplied> {
    let mut failed = Vec::new();
    for (name, says) in says {
        let Some(link) = links.get(name) else { continue };
        let held = link.status.clone().unwrap_or_default();
        let status = LinkStatus {
            state: Some(says.state.to_owned()),
            // Before the first complete listing nothing is known that could be better than what was said.
            imported_services: says.imported.map_or(held.imported_services, |count| i32::try_from(count).ok()),
            refused: if says.imported.is_some() { says.refused.clone() } else { held.refused.clone() },
            conditions: conditions(&held.conditions, &says.conditions, link.metadata.generation, &now()),
            observed_generation: link.metadata.generation,
        };
        if status == held {
            continue;
        }
        // Empty fields are left out when written; a merge patch has to name them.
        let mut body = json!({ "status": status });
        body["status"]["importedServices"] = json!(status.imported_services);
        body["status"]["refused"] = json!(status.refused);
        let api: Api<Link> = Api::all(client.clone());
        if let Err(source) = api.patch_status(name.as_str(), &PatchParams::default(), &Patch::Merge(body)).await {
            failed.push(NotApplied { what: "write the status of", object: format!("Link {name}"), source });
        }
    }
    failed
}

/// Writes what this cluster's exports are to say, where that differs from what they say.
pub async fn export_statuses(
    client: &Client,
    exports: &BTreeMap<ServiceId, Arc<ServiceExport>>,
    says: &BTreeMap<ServiceId, Vec<Said>>,
) -> Vec<NotApplied> {
    let mut failed = Vec::new();
    for (id, said) in says {
        let Some(export) = exports.get(id) else { continue };
        let held: &[Condition] = export.status.as_ref().map_or(&[], |status| &status.conditions);
        let next = conditions(held, said, export.metadata.generation, &now());
        if next == held {
            continue;
        }
        let api = namespaced::<ServiceExport>(client, id.namespace().as_str());
        let body = json!({ "status": { "conditions": next } });
        match api.patch_status(id.name().as_str(), &PatchParams::default(), &Patch::Merge(body)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => failed.push(NotApplied { what: "write the status of", object: format!("ServiceExport {id}"), source }),
        }
    }
    failed
}

/// Gives a Link the bundle that its peer has now.
///
/// # Errors
/// When the API refuses.
pub async fn link_bundle(client: &Client, name: &ClusterName, bundle: &str) -> Result<(), NotApplied> {
    let api: Api<Link> = Api::all(client.clone());
    let patched = api.patch(name.as_str(), &PatchParams::default(), &Patch::Merge(json!({ "spec": { "bundle": bundle } }))).await;
    patched.map(drop).map_err(|source| NotApplied { what: "write the bundle of", object: format!("Link {name}"), source })
}

async fn post<K>(client: &Client, namespace: &str, body: Value) -> Result<K, kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let object: K = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
    let params = PostParams { field_manager: Some(MANAGED_BY_ISTHMUS.to_owned()), ..PostParams::default() };
    namespaced::<K>(client, namespace).create(&params, &object).await
}

async fn merge<K>(client: &Client, id: &ServiceId, body: &Value) -> Result<(), kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api = namespaced::<K>(client, id.namespace().as_str());
    api.patch(id.name().as_str(), &PatchParams::default(), &Patch::Merge(body)).await.map(drop)
}

fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), namespace)
}

fn now() -> Time {
    Time(jiff::Timestamp::now())
}

/// Writes under way at once, so that a big change does not push others out of the API server's queue.
const WRITES_MAX: usize = 16;
