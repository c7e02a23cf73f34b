//! Writes into the webhook's configuration which certificates the API server may believe.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use mesh_api::well_known::INJECTOR;
use mesh_trust::{CertificateDer, pem};
use serde_json::{Value, json};

use super::certificate::trusted;

/// The webhook's configuration.
pub(crate) struct Registration(Api<MutatingWebhookConfiguration>);

impl Registration {
    /// The one of the cluster behind `client`.
    pub(crate) fn new(client: Client) -> Self {
        Self(Api::all(client))
    }

    /// Makes sure that the API server believes `issuer`; `false` when there is no configuration, so that nobody asks.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub(crate) async fn trust(&self, issuer: &CertificateDer<'static>) -> Result<bool, kube::Error> {
        let Some(held) = self.0.get_opt(INJECTOR).await? else { return Ok(false) };
        let Some(patch) = patch(&held, issuer) else { return Ok(true) };
        match self.0.patch(INJECTOR, &PatchParams::default(), &Patch::<()>::Json(patch)).await {
            Ok(_) => {
                tracing::info!(configuration = INJECTOR, "the API server knows the injector's issuer");
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What to write; nothing when it holds that already. The version is tested, so what another replica wrote meanwhile is not lost.
fn patch(held: &MutatingWebhookConfiguration, issuer: &CertificateDer<'static>) -> Option<json_patch::Patch> {
    let mut operations = vec![json!({ "op": "test", "path": "/metadata/resourceVersion", "value": held.metadata.resource_version })];
    for (at, webhook) in held.webhooks.iter().flatten().enumerate() {
        let bundle = webhook.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).unwrap_or_default();
        let believed = std::str::from_utf8(bundle).ok().and_then(|text| pem::certificates(text).ok()).unwrap_or_default();
        if let Some(next) = trusted(&believed, issuer) {
            let value = ByteString(pem::of_certificates(&next).into_bytes());
            operations.push(json!({ "op": "add", "path": format!("/webhooks/{at}/clientConfig/caBundle"), "value": value }));
        }
    }
    (operations.len() > 1).then(|| serde_json::from_value(Value::Array(operations)).ok()).flatten()
}

const NOT_FOUND: u16 = 404;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_webhook_of_the_configuration_learns_the_issuer_once() {
        let now = std::time::SystemTime::UNIX_EPOCH;
        let root = mesh_trust::Root::generate("root", now, std::time::Duration::from_secs(60)).unwrap();
        let mut held: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": { "name": INJECTOR, "resourceVersion": "7" },
            "webhooks": [{ "name": "a", "clientConfig": {} }, { "name": "b", "clientConfig": {} }],
        }))
        .unwrap();
        let patch_of = |held: &MutatingWebhookConfiguration| patch(held, root.certificate());
        let made = patch_of(&held).unwrap();
        let mut value = serde_json::to_value(&held).unwrap();
        json_patch::patch(&mut value, &made).unwrap();
        held = serde_json::from_value(value).unwrap();
        for webhook in held.webhooks.as_ref().unwrap() {
            let bundle = webhook.client_config.ca_bundle.as_ref().unwrap();
            assert_eq!(pem::certificates(std::str::from_utf8(&bundle.0).unwrap()).unwrap(), [root.certificate().clone()]);
        }
        assert_eq!(patch_of(&held), None);
    }
}
