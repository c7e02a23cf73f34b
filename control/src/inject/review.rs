//! An AdmissionReview and its answer. Pure.
//!
//! The API server asks only about pods that are to be meshed; what nobody wants meshed is let through all the same, should it ask.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh_api::inject::{Injection, LABEL, Settings, inject};
use mesh_api::well_known::INJECT_DISABLED;
use serde_json::{Value, json};

/// The answer to a review, whose settings come from `settings` by the pod's namespace. None when it is no review that can be answered.
pub(super) fn answer(review: &Value, settings: impl FnOnce(&str) -> Option<Settings>) -> Option<Value> {
    let request = &review["request"];
    let uid = request["uid"].as_str()?;
    let namespace = request["namespace"].as_str().unwrap_or_default();
    let pod = &request["object"];
    let response = if pod["kind"] != "Pod" || pod["metadata"]["labels"][LABEL] == INJECT_DISABLED {
        json!({ "allowed": true })
    } else {
        // Not ready is no answer: the failure policy says what becomes of the pod.
        decided(pod, &settings(namespace)?)
    };
    let mut response = response;
    response["uid"] = json!(uid);
    Some(json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response }))
}

fn decided(pod: &Value, settings: &Settings) -> Value {
    match inject(pod, settings) {
        Ok(Injection::Add(adds)) => {
            let patch = serde_json::to_vec(&adds).unwrap_or_default();
            json!({ "allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch) })
        }
        Ok(Injection::Already) => json!({ "allowed": true }),
        Ok(Injection::Impossible(why)) => json!({ "allowed": true, "warnings": [format!("isthmus: the pod gets no proxy: {why}")] }),
        Err(error) => json!({ "allowed": false, "status": { "code": 400, "message": format!("isthmus: {error}") } }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::inject::Inbound;

    fn settings(_: &str) -> Option<Settings> {
        Some(Settings {
            cluster: "west".parse().unwrap(),
            trust_domain: "west.mesh".parse().unwrap(),
            bundle: "{}".to_owned(),
            proxy_image: "isthmus/proxy:1".to_owned(),
            init_image: "isthmus/init:1".to_owned(),
            inbound: Inbound::Permissive,
        })
    }

    fn review(pod: Value) -> Value {
        json!({ "kind": "AdmissionReview", "request": { "uid": "u-1", "namespace": "shop", "object": pod } })
    }

    fn pod() -> Value {
        json!({ "kind": "Pod", "metadata": { "name": "web" }, "spec": { "containers": [{ "name": "web" }] } })
    }

    #[test]
    fn a_pod_gets_its_patch_under_the_uid_of_the_question() {
        let answer = answer(&review(pod()), settings).unwrap();
        let response = &answer["response"];
        assert_eq!((&response["uid"], &response["allowed"], &response["patchType"]), (&json!("u-1"), &json!(true), &json!("JSONPatch")));
        assert!(response["patch"].as_str().is_some_and(|patch| patch.len() > 100));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason_and_no_settings_are_no_answer() {
        let mut bad = pod();
        bad["metadata"]["annotations"] = json!({ "isthmus.dev/skip-inbound-ports": "x" });
        let answered = answer(&review(bad), settings).unwrap();
        assert_eq!(answered["response"]["allowed"], false);
        assert!(answered["response"]["status"]["message"].as_str().unwrap().contains("skip-inbound-ports"), "{answered}");
        assert_eq!(answer(&review(pod()), |_| None), None);
        assert_eq!(answer(&json!({ "kind": "AdmissionReview" }), settings), None);
    }

    #[test]
    fn who_does_not_want_a_proxy_and_who_cannot_have_one_is_let_through() {
        let mut unwanted = pod();
        unwanted["metadata"]["labels"] = json!({ LABEL: "disabled" });
        let answered = answer(&review(unwanted), |_| None).unwrap();
        assert_eq!((&answered["response"]["allowed"], &answered["response"]["patch"]), (&json!(true), &Value::Null));
        let mut on_the_node = pod();
        on_the_node["spec"]["hostNetwork"] = json!(true);
        let answered = answer(&review(on_the_node), settings).unwrap();
        assert_eq!(answered["response"]["allowed"], true);
        assert!(answered["response"]["warnings"][0].as_str().unwrap().contains("node's network"));
    }
}
