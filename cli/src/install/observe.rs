//! Reads what a cluster holds of an installation, and what applying would make of it.

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use mesh_api::well_known::{BUNDLE, BUNDLE_KEY, FACTS, ISSUER, MANAGED_BY, MANAGED_BY_ISTHMUS, SYSTEM_NAMESPACE};
use mesh_manifests::Object;
use serde::Serialize;
use serde_json::Value;

use super::diff;

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// It is made.
    Create,
    /// It is brought up to date.
    Update,
    /// It is as it should be.
    Unchanged,
    /// It stays as it is, whatever we would write: what the cluster trusts, or a standard definition that somebody else installed.
    Keep,
}

impl Action {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Unchanged => "unchanged",
            Self::Keep => "keep",
        }
    }
}

/// An object, what becomes of it, and what it is before and after.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) action: Action,
    pub(crate) kind: String,
    pub(crate) name: String,
    #[serde(skip)]
    before: Option<Value>,
    #[serde(skip)]
    after: Value,
}

impl Compared {
    pub(super) fn new(action: Action, object: &Object) -> Self {
        Self { action, kind: object.kind().to_owned(), name: object.name().to_owned(), before: None, after: Value::Null }
    }

    /// The lines that applying would change.
    pub(super) fn diff(&self) -> String {
        let text = |value: &Value| mesh_manifests::yaml::document(value);
        let before = self.before.as_ref().map(text).unwrap_or_default();
        match self.action {
            Action::Create | Action::Update => diff::unified(&format!("{} {}", self.kind, self.name), &before, &text(&self.after)),
            Action::Unchanged | Action::Keep => String::new(),
        }
    }
}

/// The choices that an installed mesh keeps.
///
/// # Errors
/// When there is none, or the cluster does not answer.
pub(super) async fn facts(client: &Client) -> anyhow::Result<BTreeMap<String, String>> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let held = maps.get_opt(FACTS).await.context("could not read ConfigMap isthmus-system/isthmus")?;
    let held = held.context("the mesh is not installed here: run mesh install")?;
    Ok(held.data.unwrap_or_default())
}

/// The bundle of an installed mesh, as it lies there.
///
/// # Errors
/// When there is none, or the cluster does not answer.
pub(super) async fn bundle(client: &Client) -> anyhow::Result<String> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let held = maps.get(BUNDLE).await.context("could not read ConfigMap isthmus-system/isthmus-bundle")?;
    held.data.and_then(|mut data| data.remove(BUNDLE_KEY)).context("ConfigMap isthmus-system/isthmus-bundle holds no bundle")
}

/// Asks the cluster what applying would make of each object.
///
/// # Errors
/// When it does not answer, or would refuse one.
pub(super) async fn compare(client: &Client, wanted: &[Object]) -> anyhow::Result<Vec<Compared>> {
    let mut compared = Vec::new();
    for object in wanted {
        let api = api_of(client, object);
        let held = api.get_opt(object.name()).await.with_context(|| format!("could not read {} {}", object.kind(), object.name()))?;
        let held = held.map(serde_json::to_value).transpose()?;
        let mut one = Compared::new(action(object, held.as_ref(), None), object);
        if one.action == Action::Create {
            one.after = shown(object.body());
        } else if one.action != Action::Keep {
            let made = api.patch(object.name(), &params().dry_run(), &Patch::Apply(object.body())).await;
            let made = serde_json::to_value(made.with_context(|| format!("the cluster refuses {} {}", object.kind(), object.name()))?)?;
            one.action = action(object, held.as_ref(), Some(&made));
            one.after = shown(&made);
        }
        one.before = held.as_ref().map(shown);
        compared.push(one);
    }
    Ok(compared)
}

/// What becomes of an object whose held state is known, and what the cluster would make of it. Pure.
pub(super) fn action(object: &Object, held: Option<&Value>, made: Option<&Value>) -> Action {
    let Some(held) = held else { return Action::Create };
    let ours = held["metadata"]["labels"][MANAGED_BY] == MANAGED_BY_ISTHMUS;
    let theirs = object.kind() == "CustomResourceDefinition" && !ours;
    if is_written_once(object) || theirs {
        return Action::Keep;
    }
    match made {
        Some(made) if shown(made) == shown(held) => Action::Unchanged,
        _ => Action::Update,
    }
}

/// Whether an object is made and never changed: what the cluster trusts.
pub(super) fn is_written_once(object: &Object) -> bool {
    matches!((object.kind(), object.name()), ("Secret", ISSUER) | ("ConfigMap", BUNDLE))
}

/// An object without what only the cluster writes.
fn shown(object: &Value) -> Value {
    let mut shown = object.clone();
    if let Some(body) = shown.as_object_mut() {
        body.remove("status");
    }
    if let Some(metadata) = shown["metadata"].as_object_mut() {
        for field in ["managedFields", "resourceVersion", "uid", "generation", "creationTimestamp"] {
            metadata.remove(field);
        }
    }
    // A key is nothing to show.
    if shown["kind"] == "Secret" {
        for field in ["data", "stringData"] {
            if let Some(data) = shown[field].as_object_mut() {
                data.values_mut().for_each(|value| *value = "(hidden)".into());
            }
        }
    }
    shown
}

/// How we apply: the fields are ours, whoever wrote them before.
pub(super) fn params() -> PatchParams {
    PatchParams::apply(MANAGED_BY_ISTHMUS).force()
}

/// The API in which an object lies.
pub(super) fn api_of(client: &Client, object: &Object) -> Api<DynamicObject> {
    let of = object.of();
    let (group, version) = of.api_version.split_once('/').unwrap_or(("", of.api_version));
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, of.kind), of.plural);
    match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_manifests::Install;

    fn find(kind: &str, name: &str) -> Object {
        let install = Install::new("west".parse().unwrap());
        let trust = crate::trust::Trust::made(&install.trust_domain).unwrap();
        let objects = mesh_manifests::objects(&install).into_iter();
        let mut all = objects.chain(mesh_manifests::trust::objects(&trust.bundle, Some(&trust.issuer)));
        all.find(|object| object.kind() == kind && object.name() == name).unwrap()
    }

    fn check(kind: &str, name: &str, change: impl Fn(&mut Value), expected: Action) {
        let object = find(kind, name);
        let mut held = object.body().clone();
        held["metadata"]["uid"] = "1".into();
        held["status"] = serde_json::json!({ "a": 1 });
        change(&mut held);
        assert_eq!(action(&object, Some(&held), Some(object.body())), expected, "{kind} {name}");
    }

    #[test]
    fn what_is_trusted_and_what_others_installed_stays() {
        check("Secret", ISSUER, |held| held["data"] = serde_json::json!({ "tls.key": "other" }), Action::Keep);
        check("ConfigMap", BUNDLE, |_| {}, Action::Keep);
        let theirs = |held: &mut Value| held["metadata"]["labels"] = serde_json::json!({});
        check("CustomResourceDefinition", "serviceexports.multicluster.x-k8s.io", theirs, Action::Keep);
        check("Namespace", SYSTEM_NAMESPACE, theirs, Action::Update);
    }

    #[test]
    fn an_object_that_is_as_it_should_be_is_left_alone() {
        check("Deployment", "mesh-control", |_| {}, Action::Unchanged);
        check("Deployment", "mesh-control", |held| held["spec"]["replicas"] = 1.into(), Action::Update);
        assert_eq!(action(&find("Deployment", "mesh-control"), None, None), Action::Create);
    }

    #[test]
    fn a_diff_shows_no_key() {
        let secret = find("Secret", ISSUER);
        let mut one = Compared::new(Action::Create, &secret);
        one.after = shown(secret.body());
        let text = one.diff();
        assert!(text.contains("tls.key: \"(hidden)\"") && !text.contains("PRIVATE"), "{text}");
    }
}
