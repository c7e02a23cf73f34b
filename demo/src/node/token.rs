//! The projected service-account token of a pod: asked for under the mesh's audience, kept in a file, exchanged before it expires.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};
use mesh_runtime::clock;
use tokio::sync::watch;

use super::process::write_private;

/// Keeps the token of `pod` in `file` for ever; tells `written` when it is there for the first time.
pub(crate) async fn keep(client: Client, pod: Pod, file: &Path, written: watch::Sender<bool>) {
    loop {
        match request(&client, &pod).await {
            Ok(token) => match write_private(file, token.as_bytes()) {
                Ok(()) => {
                    written.send_replace(true);
                    tokio::time::sleep(clock::jittered(LIFETIME.mul_f64(0.7), 0.1)).await;
                }
                Err(error) => {
                    tracing::error!(%error, file = %file.display(), "token not written");
                    tokio::time::sleep(AGAIN).await;
                }
            },
            Err(error) => {
                tracing::debug!(%error, pod = pod.metadata.name.as_deref().unwrap_or_default(), "no token yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn request(client: &Client, pod: &Pod) -> kube::Result<String> {
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or("default"));
    let asked = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![mesh_api::well_known::TOKEN_AUDIENCE.to_owned()],
            expiration_seconds: i64::try_from(LIFETIME.as_secs()).ok(),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    };
    let answered: TokenRequest = accounts.create_subresource("token", account, &PostParams::default(), &asked).await?;
    Ok(answered.status.map(|status| status.token).unwrap_or_default())
}

const LIFETIME: Duration = Duration::from_secs(3600);
const AGAIN: Duration = Duration::from_millis(500);
