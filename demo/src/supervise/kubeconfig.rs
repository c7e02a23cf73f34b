//! The kubeconfigs that a demo writes: one for people with a context per cluster, and one for each component that calls the API. Pure.

use std::path::Path;

use serde_json::{Value, json};

/// One kubeconfig out of the admins' kubeconfigs of all clusters; the first cluster's context is the current one.
pub(super) fn merged(admins: &[Value]) -> Value {
    let all = |list: &str| admins.iter().flat_map(|admin| admin[list].as_array().into_iter().flatten().cloned()).collect::<Vec<_>>();
    let first = admins.first().map_or(Value::Null, |admin| admin["current-context"].clone());
    json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {},
        "clusters": all("clusters"), "users": all("users"), "contexts": all("contexts"), "current-context": first,
    })
}

/// The admin's kubeconfig with another user: a component, whose token lies in a file and is read again as it is exchanged.
pub(super) fn for_component(admin: &Value, component: &str, token: &Path) -> Value {
    let mut config = admin.clone();
    config["users"] = json!([{ "name": component, "user": { "tokenFile": token } }]);
    for context in config["contexts"].as_array_mut().into_iter().flatten() {
        context["context"]["user"] = json!(component);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(cluster: &str) -> Value {
        json!({
            "clusters": [{ "name": cluster, "cluster": { "server": "https://127.10.0.1:6443" } }],
            "users": [{ "name": format!("{cluster}-admin"), "user": { "token": "secret" } }],
            "contexts": [{ "name": cluster, "context": { "cluster": cluster, "user": format!("{cluster}-admin") } }],
            "current-context": cluster,
        })
    }

    #[test]
    fn people_get_a_context_per_cluster() {
        let merged = merged(&[admin("east"), admin("west")]);
        assert_eq!(merged["contexts"].as_array().unwrap().len(), 2);
        assert_eq!(merged["users"][1]["name"], "west-admin");
        assert_eq!(merged["current-context"], "east");
    }

    #[test]
    fn a_component_is_its_own_user_and_never_the_admin() {
        let config = for_component(&admin("east"), "control", Path::new("/demo/token"));
        assert_eq!(config["contexts"][0]["context"]["user"], "control");
        assert!(!config.to_string().contains("secret"));
    }
}
