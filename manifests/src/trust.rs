//! What a cluster starts to trust with: its issuer and its bundle. Kept apart from everything else, because a person may keep it elsewhere
//! and because it is written once: an upgrade never touches it.

use mesh_api::well_known::{BUNDLE, BUNDLE_KEY, ISSUER};
use mesh_trust::{Bundle, Issuer};
use serde_json::json;

use crate::object::Object;

/// The bundle, and the issuer if it is not brought by somebody else (cert-manager, SPIRE).
#[must_use]
pub fn objects(bundle: &Bundle, issuer: Option<&Issuer>) -> Vec<Object> {
    let mut objects = vec![Object::new("ConfigMap", BUNDLE, json!({ "data": { BUNDLE_KEY: bundle.to_spiffe_json() } }))];
    objects.extend(issuer.map(|issuer| {
        let (chain, key) = issuer.to_pem();
        Object::new("Secret", ISSUER, json!({ "type": "kubernetes.io/tls", "stringData": { "tls.crt": chain, "tls.key": *key } }))
    }));
    objects
}
