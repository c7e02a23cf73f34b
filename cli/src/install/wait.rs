//! Waits until an installation runs, and tells what it waits for.

use std::time::Duration;

use kube::Client;
use mesh_manifests::Object;
use mesh_runtime::clock;
use serde_json::Value;

use super::observe::api_of;

/// Returns when every object of `wanted` is as good as it gets.
///
/// # Errors
/// When that takes longer than `limit`; the error names what is not ready and why.
pub(super) async fn ready(client: &Client, wanted: &[Object], limit: Duration) -> anyhow::Result<()> {
    let deadline = clock::now() + limit;
    for object in wanted {
        let mut told = String::new();
        loop {
            // A cluster that does not answer for a moment is asked again, like an object that is not ready.
            let missing = match api_of(client, object).get_opt(object.name()).await {
                Ok(Some(held)) => lacking(&serde_json::to_value(held)?),
                Ok(None) => Some("it is gone".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            let Some(missing) = missing else { break };
            if told != missing {
                anstream::eprintln!("waiting    {} {}: {missing}", object.kind(), object.name());
                told.clone_from(&missing);
            }
            anyhow::ensure!(
                clock::now() < deadline,
                "{} {} is not ready after {limit:?}: {missing}; look with kubectl -n isthmus-system get pods,events",
                object.kind(),
                object.name()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    anstream::eprintln!("ready");
    Ok(())
}

/// What an object still lacks. Pure.
fn lacking(held: &Value) -> Option<String> {
    match held["kind"].as_str() {
        Some("CustomResourceDefinition") => {
            let conditions = held["status"]["conditions"].as_array();
            let established = conditions.into_iter().flatten().any(|one| one["type"] == "Established" && one["status"] == "True");
            (!established).then(|| "it is not served yet".to_owned())
        }
        Some("Deployment") => {
            let (spec, status) = (&held["spec"], &held["status"]);
            let number = |value: &Value| value.as_u64().unwrap_or_default();
            let wanted = spec["replicas"].as_u64().unwrap_or(1);
            if number(&status["observedGeneration"]) < number(&held["metadata"]["generation"]) {
                return Some("its controller has not seen it yet".to_owned());
            }
            let (updated, all, available) = (&status["updatedReplicas"], &status["replicas"], &status["availableReplicas"]);
            let done = number(updated) >= wanted && number(all) <= number(updated) && number(available) >= wanted;
            (!done).then(|| format!("{} of {wanted} replicas are new, {} available", number(updated), number(available)))
        }
        Some("MutatingWebhookConfiguration") => {
            let webhooks = held["webhooks"].as_array();
            let bare = webhooks.into_iter().flatten().any(|one| one["clientConfig"]["caBundle"].as_str().is_none_or(str::is_empty));
            bare.then(|| "control has not written its certificate yet".to_owned())
        }
        _ => None,
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(held: &Value, expected: Option<&str>) {
        assert_eq!(lacking(held).as_deref(), expected);
    }

    #[test]
    fn a_deployment_is_ready_when_every_replica_is_new_and_available() {
        let deployment =
            |status: Value| json!({ "kind": "Deployment", "metadata": { "generation": 2 }, "spec": { "replicas": 2 }, "status": status });
        check(&deployment(json!({})), Some("its controller has not seen it yet"));
        let seen = |updated: u8, all: u8, available: u8| {
            deployment(json!({ "observedGeneration": 2, "updatedReplicas": updated, "replicas": all, "availableReplicas": available }))
        };
        check(&seen(1, 3, 2), Some("1 of 2 replicas are new, 2 available"));
        check(&seen(2, 3, 2), Some("2 of 2 replicas are new, 2 available"));
        check(&seen(2, 2, 2), None);
    }

    #[test]
    fn definitions_and_the_injector_are_waited_for() {
        check(&json!({ "kind": "CustomResourceDefinition", "status": { "conditions": [] } }), Some("it is not served yet"));
        let webhook =
            |bundle: Value| json!({ "kind": "MutatingWebhookConfiguration", "webhooks": [{ "clientConfig": { "caBundle": bundle } }] });
        check(&webhook(Value::Null), Some("control has not written its certificate yet"));
        check(&webhook("LS0t".into()), None);
        check(&json!({ "kind": "Service" }), None);
    }
}
