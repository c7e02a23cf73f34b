//! The supervisor's writes to a cluster's API: everything that `mesh install` and `kubectl apply` would have written.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt as _};
use mesh_api::well_known;
use mesh_runtime::clock;
use serde_json::Value;

use super::layout::Cluster;
use super::objects;

/// The admin's client; waits until the API answers.
pub(super) async fn client(cluster: &Cluster) -> anyhow::Result<Client> {
    let deadline = tokio::time::Instant::now() + API_MAX;
    loop {
        let error = match connect(&cluster.admin_kubeconfig()).await {
            Ok(client) => match client.apiserver_version().await {
                Ok(_) => return Ok(client),
                Err(error) => error.into(),
            },
            Err(error) => error,
        };
        if tokio::time::Instant::now() > deadline {
            return Err(error.context(format!("the API of {} did not come up within {} s", cluster.name, API_MAX.as_secs())));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn connect(kubeconfig: &Path) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// Writes the definitions of the mesh's kinds and waits until they are served.
pub(super) async fn definitions(client: &Client) -> anyhow::Result<()> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let definitions = mesh_api::crd::all();
    for definition in &definitions {
        let name = definition.name_any();
        let applied = api.patch(&name, &parameters(), &Patch::Apply(definition)).await;
        applied.with_context(|| format!("could not define {name}"))?;
    }
    let deadline = tokio::time::Instant::now() + API_MAX;
    for definition in &definitions {
        let name = definition.name_any();
        while !established(&api.get(&name).await?) {
            anyhow::ensure!(tokio::time::Instant::now() < deadline, "{name} is defined and not served");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    Ok(())
}

fn established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

/// Applies one object, whatever its kind.
pub(super) async fn apply(client: &Client, object: &Value) -> anyhow::Result<()> {
    let named: DynamicObject = serde_json::from_value(object.clone()).context("a manifest is no Kubernetes object")?;
    let types = named.types.clone().context("a manifest has no apiVersion and kind")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types)?);
    let name = named.name_any();
    let api: Api<DynamicObject> = match named.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let applied = api.patch(&name, &parameters(), &Patch::Apply(object)).await;
    applied.with_context(|| format!("could not apply {} {name}", types.kind))?;
    Ok(())
}

/// Applies every document of a manifest.
pub(super) async fn apply_text(client: &Client, text: &str) -> anyhow::Result<()> {
    for object in serde_saphyr::from_multiple::<Value>(text).context("a manifest is no YAML")? {
        apply(client, &object).await?;
    }
    Ok(())
}

/// Says where peers dial this cluster's gateways.
pub(super) async fn gateway_addresses(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    let api = Api::<Service>::namespaced(client.clone(), well_known::SYSTEM_NAMESPACE);
    let status = Patch::Merge(objects::gateway_status(cluster));
    api.patch_status(well_known::GATEWAY_SERVICE, &PatchParams::default(), &status)
        .await
        .context("the gateways' addresses could not be written")?;
    Ok(())
}

/// A token of a service account of the mesh, for `audience`, or for the API itself.
pub(super) async fn token(client: &Client, account: &str, audience: Option<&str>) -> anyhow::Result<String> {
    let api = Api::<ServiceAccount>::namespaced(client.clone(), well_known::SYSTEM_NAMESPACE);
    let spec = TokenRequestSpec {
        audiences: audience.map(ToOwned::to_owned).into_iter().collect(),
        expiration_seconds: i64::try_from(TOKEN_LIFE.as_secs()).ok(),
        bound_object_ref: None,
    };
    let asked = TokenRequest { spec, ..TokenRequest::default() };
    let answered: TokenRequest = api
        .create_subresource("token", account, &PostParams::default(), &asked)
        .await
        .with_context(|| format!("no token for {account}"))?;
    answered.status.map(|status| status.token).with_context(|| format!("the token for {account} is empty"))
}

fn parameters() -> PatchParams {
    PatchParams::apply("mesh-demo").force()
}

/// How long a token lasts; it is exchanged well before.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// When tokens are exchanged.
pub(super) fn token_renewal() -> Duration {
    clock::jittered(TOKEN_LIFE.mul_f64(0.5), 0.1)
}

const API_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
