//! Subresources other than status, and the kinds that are answered and not kept: scale, tokens, bindings, evictions, reviews.

use http::{Method, Response};
use serde_json::{Value, json};

use super::{
    Api, Call,
    answer::{self, Body},
    auth, not_allowed, parse,
    patch::patched,
    read,
};
use crate::{
    failure::Failure,
    kinds::Kind,
    object,
    store::Key,
    tokens::ISSUER,
    write::{self, DeleteOptions, Place},
};

impl Api {
    pub(super) fn subresource(&self, method: &Method, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        match (call.target.subresource.as_str(), method) {
            ("scale", _) => self.scale(method, call),
            ("token", &Method::POST) => self.token(call),
            ("binding", &Method::POST) => self.bind(call),
            ("eviction", &Method::POST) => {
                let options = DeleteOptions::of(&parse(&call.body)?["deleteOptions"]);
                self.write(call, |tx| write::delete(tx, &call.key(), &options))?;
                Ok(answer::json(201, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}).to_string()))
            }
            _ => Err(not_allowed()),
        }
    }

    fn scale(&self, method: &Method, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        let found = self.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        if method == Method::GET {
            return Ok(answer::json(200, scale_of(&call.kind, &found.value).to_string()));
        }
        let written = self.write(call, |tx| {
            let live = tx.get(&call.key()).ok_or_else(|| call.not_found())?;
            let scale = scale_of(&call.kind, &live.value);
            let new = match *method {
                Method::PUT => parse(&call.body)?,
                Method::PATCH => patched(call, &scale, Some(("autoscaling", "Scale")))?,
                _ => return Err(not_allowed()),
            };
            let replicas = object::at(&new, "spec.replicas").cloned().unwrap_or_else(|| json!(0));
            let mut object = read::in_version(&call.kind, &live.value);
            set(&mut object, scale_paths(&call.kind).0, replicas);
            let version = object::text(&new, "metadata.resourceVersion");
            if !version.is_empty() {
                object::metadata(&mut object).insert("resourceVersion".to_owned(), json!(version));
            }
            write::update(tx, &Place { subresource: "", ..self.place(call) }, object)
        })?;
        Ok(answer::json(200, scale_of(&call.kind, &written).to_string()))
    }

    fn bind(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        let node = object::text(&parse(&call.body)?, "target.name").to_owned();
        self.write(call, |tx| {
            let live = tx.get(&call.key()).ok_or_else(|| call.not_found())?;
            let mut pod = Value::clone(&live.value);
            object::member(&mut pod, "spec").insert("nodeName".to_owned(), json!(node));
            write::update(tx, &Place { subresource: "", ..self.place(call) }, pod)
        })?;
        Ok(answer::json(201, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}).to_string()))
    }

    /// `TokenRequest`: a token for a service account, bound to a pod when asked.
    fn token(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        let mut request = parse(&call.body)?;
        let (namespace, name) = (&call.target.namespace, &call.target.name);
        let account = self.store.get(&call.key()).ok_or_else(|| Failure::not_found("serviceaccounts", name))?;
        let audiences = texts(object::at(&request, "spec.audiences"));
        let audiences = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences };
        let seconds = object::at(&request, "spec.expirationSeconds").and_then(Value::as_i64).unwrap_or(3_600);
        if seconds < 600 {
            let cause = (
                "FieldValueInvalid".to_owned(),
                "spec.expirationSeconds".to_owned(),
                format!("Invalid value: {seconds}: may not specify a duration less than 10 minutes"),
            );
            return Err(Failure::invalid("authentication.k8s.io", "TokenRequest", name, &[cause]));
        }
        let mut bound = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": object::uid(&account.value)}});
        let reference = object::at(&request, "spec.boundObjectRef").cloned().unwrap_or_default();
        if object::text(&reference, "kind") == "Pod" {
            let pod_name = object::text(&reference, "name");
            let pod = self.store.get(&Key::new("pods", namespace, pod_name)).ok_or_else(|| Failure::not_found("pods", pod_name))?;
            let (uid, asked) = (object::uid(&pod.value), object::text(&reference, "uid"));
            if !asked.is_empty() && asked != uid {
                let why = format!(
                    "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
                );
                return Err(Failure::conflict("pods", pod_name, &why));
            }
            bound["pod"] = json!({"name": pod_name, "uid": uid});
        }
        let now = jiff::Timestamp::now();
        let expires = now + jiff::SignedDuration::from_secs(seconds);
        let claims = json!({
            "iss": ISSUER, "sub": format!("system:serviceaccount:{namespace}:{name}"), "aud": audiences,
            "iat": now.as_second(), "nbf": now.as_second(), "exp": expires.as_second(), "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": bound,
        });
        let token = self.signer.sign(&claims).ok_or_else(|| Failure::internal("could not sign the token"))?;
        object::map(&mut request).insert("kind".to_owned(), json!("TokenRequest"));
        object::map(&mut request).insert("apiVersion".to_owned(), json!("authentication.k8s.io/v1"));
        request["metadata"] = json!({"name": name, "namespace": namespace, "creationTimestamp": object::now()});
        request["spec"]["audiences"] = json!(audiences);
        request["spec"]["expirationSeconds"] = json!(seconds);
        request["status"] = json!({"token": token, "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
        Ok(answer::json(201, request.to_string()))
    }

    pub(super) fn review(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        let mut review = parse(&call.body)?;
        object::map(&mut review).insert("kind".to_owned(), json!(call.kind.kind));
        object::map(&mut review).insert("apiVersion".to_owned(), json!(call.kind.api_version()));
        object::metadata(&mut review);
        review["status"] = match call.kind.kind.as_str() {
            "SelfSubjectReview" => json!({"userInfo": call.user.info()}),
            "TokenReview" => self.token_review(&review),
            "SelfSubjectRulesReview" => json!({
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}], "incomplete": false,
            }),
            _ => json!({"allowed": true, "reason": "this API server has no RBAC"}),
        };
        Ok(answer::json(201, review.to_string()))
    }

    fn token_review(&self, review: &Value) -> Value {
        let audiences = texts(object::at(review, "spec.audiences"));
        let audiences = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences };
        match auth::authenticate(object::text(review, "spec.token"), &audiences, &self.tokens, &self.signer, &self.store) {
            Some((user, audiences)) => json!({"authenticated": true, "user": user.info(), "audiences": audiences}),
            None => json!({"user": {}, "error": "[invalid bearer token]"}),
        }
    }
}

fn texts(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Where a kind keeps its replicas, as wished and as they are, and the selector.
fn scale_paths(kind: &Kind) -> (&str, &str, &str) {
    let Some(scale) = kind.custom.as_ref().and_then(|custom| custom.scale.as_ref()) else {
        return ("spec.replicas", "status.replicas", "");
    };
    let path = |name: &str| object::text(scale, name).trim_start_matches('.');
    (path("specReplicasPath"), path("statusReplicasPath"), path("labelSelectorPath"))
}

fn scale_of(kind: &Kind, object: &Value) -> Value {
    let (wanted, actual, selector) = scale_paths(kind);
    let number = |path: &str| object::at(object, path).and_then(Value::as_i64).unwrap_or(0);
    let labels = object::at(object, "spec.selector.matchLabels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten().map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    let selector = if kind.custom.is_some() { object::text(object, selector).to_owned() } else { labels.collect::<Vec<_>>().join(",") };
    let metadata = |path: &str| object::at(object, &format!("metadata.{path}")).cloned().unwrap_or_default();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata("name"), "namespace": metadata("namespace"), "uid": metadata("uid"),
            "resourceVersion": metadata("resourceVersion"), "creationTimestamp": metadata("creationTimestamp"),
        },
        "spec": {"replicas": number(wanted)}, "status": {"replicas": number(actual), "selector": selector},
    })
}

fn set(object: &mut Value, path: &str, value: Value) {
    let mut at = object;
    for part in path.split('.') {
        at = object::map(at).entry(part.to_owned()).or_insert(Value::Null);
    }
    *at = value;
}
