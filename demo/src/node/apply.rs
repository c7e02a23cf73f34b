//! The node's only writes to the API.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodStatus, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::plan::spelled;
use super::slices;

/// A write that the API did not take. The node looks again and decides anew.
#[derive(Debug, thiserror::Error)]
#[error("could not {what} {kind} {object}")]
pub(crate) struct ApplyError {
    what: &'static str,
    kind: String,
    object: String,
    #[source]
    source: Box<kube::Error>,
}

impl ApplyError {
    /// Whether the API could not be reached at all: every further write would fail too.
    pub(crate) fn is_away(&self) -> bool {
        !matches!(*self.source, kube::Error::Api(_))
    }
}

/// Writes as the node.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
}

impl Writer {
    /// Writes through `client`.
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a pod; one without a name gets something random after its `generateName`.
    pub(crate) async fn create_pod(&self, mut pod: Pod) -> Result<Option<Pod>, ApplyError> {
        if let (None, Some(prefix)) = (&pod.metadata.name, pod.metadata.generate_name.take()) {
            pod.metadata.name = Some(format!("{prefix}{}", spelled(rand::random(), 5)));
        }
        let api = self.api::<Pod>(&pod.metadata);
        settled("create", &pod.metadata, "pod", api.create(&PostParams::default(), &pod)).await
    }

    /// Asks for the pod's deletion; with `grace` zero it is complete.
    pub(crate) async fn delete_pod(&self, pod: &Pod, grace: Option<u32>) -> Result<(), ApplyError> {
        let exactly = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams { grace_period_seconds: grace, preconditions: Some(exactly), ..DeleteParams::default() };
        let api = self.api::<Pod>(&pod.metadata);
        let name = name(&pod.metadata);
        settled("delete", &pod.metadata, "pod", api.delete(&name, &parameters)).await.map(|_| ())
    }

    /// Says how a pod is.
    pub(crate) async fn pod_status(&self, pod: &Pod, status: &PodStatus) -> Result<(), ApplyError> {
        self.status::<Pod>(&pod.metadata, "pod", status).await
    }

    /// Marks a pod that somebody else created as meshed, and as ours.
    pub(crate) async fn adopt(&self, pod: &Pod, change: &serde_json::Value) -> Result<(), ApplyError> {
        let api = self.api::<Pod>(&pod.metadata);
        let name = name(&pod.metadata);
        settled("mark", &pod.metadata, "pod", api.patch(&name, &PatchParams::default(), &Patch::Merge(change))).await.map(|_| ())
    }

    /// Says how a Deployment is.
    pub(crate) async fn deployment_status(&self, deployment: &Deployment, status: &DeploymentStatus) -> Result<(), ApplyError> {
        self.status::<Deployment>(&deployment.metadata, "deployment", status).await
    }

    /// Says how a StatefulSet is.
    pub(crate) async fn stateful_set_status(&self, set: &StatefulSet, status: &StatefulSetStatus) -> Result<(), ApplyError> {
        self.status::<StatefulSet>(&set.metadata, "statefulset", status).await
    }

    /// Writes or deletes one slice.
    pub(crate) async fn slice(&self, write: &slices::Write) -> Result<(), ApplyError> {
        let parameters = PostParams::default();
        match write {
            slices::Write::Create(slice) => {
                let api = self.api::<EndpointSlice>(&slice.metadata);
                settled("create", &slice.metadata, "endpointslice", api.create(&parameters, slice)).await.map(|_| ())
            }
            slices::Write::Replace(slice) => {
                let api = self.api::<EndpointSlice>(&slice.metadata);
                let name = name(&slice.metadata);
                settled("replace", &slice.metadata, "endpointslice", api.replace(&name, &parameters, slice)).await.map(|_| ())
            }
            slices::Write::Delete(slice) => {
                let api = self.api::<EndpointSlice>(&slice.metadata);
                let name = name(&slice.metadata);
                settled("delete", &slice.metadata, "endpointslice", api.delete(&name, &DeleteParams::default())).await.map(|_| ())
            }
        }
    }

    /// Creates the service account that pods of a namespace have unless they name another.
    pub(crate) async fn create_default_account(&self, namespace: &str) -> Result<(), ApplyError> {
        let metadata = ObjectMeta { name: Some("default".into()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        let api = self.api::<ServiceAccount>(&account.metadata);
        settled("create", &account.metadata, "serviceaccount", api.create(&PostParams::default(), &account)).await.map(|_| ())
    }

    async fn status<K>(&self, of: &ObjectMeta, kind: &str, status: &impl Serialize) -> Result<(), ApplyError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let patch = Patch::Merge(json!({ "status": status }));
        settled("update the status of", of, kind, self.api::<K>(of).patch_status(&name(of), &PatchParams::default(), &patch))
            .await
            .map(|_| ())
    }

    fn api<K>(&self, of: &ObjectMeta) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), of.namespace.as_deref().unwrap_or("default"))
    }
}

fn name(of: &ObjectMeta) -> String {
    of.name.clone().unwrap_or_default()
}

/// Waits for a write. One that comes too late (the object is gone, exists already or has changed) is no error: the next look decides.
async fn settled<T>(
    what: &'static str,
    of: &ObjectMeta,
    kind: &str,
    write: impl Future<Output = kube::Result<T>>,
) -> Result<Option<T>, ApplyError> {
    let late = || kube::Error::Service(format!("no answer within {WRITE_MAX:?}").into());
    match tokio::time::timeout(WRITE_MAX, write).await.unwrap_or_else(|_| Err(late())) {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
            tracing::debug!(what, kind, object = of.name.as_deref(), reason = status.reason, "too late");
            Ok(None)
        }
        Err(source) => {
            let object = format!("{}/{}", of.namespace.as_deref().unwrap_or_default(), of.name.as_deref().unwrap_or_default());
            Err(ApplyError { what, kind: kind.to_owned(), object, source: Box::new(source) })
        }
    }
}

const WRITE_MAX: Duration = Duration::from_secs(5);
