//! CustomResourceDefinitions: the kinds that they add, and their own defaults and conditions. Pure.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    apply::Lists,
    kinds::{Kind, Stored},
    object,
    schema::Schema,
};

/// What a definition says about one version of its kind.
#[derive(Debug, Clone)]
pub(crate) struct Custom {
    /// The version's schema; none when it has none that can be read.
    pub schema: Option<Arc<Schema>>,
    /// The schema as the definition states it; null when it has none.
    pub open_api: Arc<Value>,
    /// How its fields merge.
    pub lists: Lists,
    /// The paths of the scale subresource.
    pub scale: Option<Value>,
    /// Printer columns.
    pub columns: Option<Vec<Value>>,
}

/// The kinds that a definition adds, the storage version first, which is the preferred one.
pub(crate) fn kinds(definition: &Value) -> Vec<Kind> {
    let versions = object::at(definition, "spec.versions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut served = versions.iter().filter(|version| version.get("served") != Some(&json!(false))).collect::<Vec<_>>();
    served.sort_by_key(|version| version.get("storage") != Some(&json!(true)));
    served.into_iter().map(|version| kind(definition, version)).collect()
}

fn kind(definition: &Value, version: &Value) -> Kind {
    let words = |path: &str| {
        let list = object::at(definition, path).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let text = |path: &str| object::text(definition, path).to_owned();
    let open_api = object::at(version, "schema.openAPIV3Schema").cloned().unwrap_or_default();
    let scale = object::at(version, "subresources.scale").cloned();
    let mut subresources = Vec::new();
    if scale.is_some() {
        subresources.push("scale".to_owned());
    }
    if object::at(version, "subresources.status").is_some() {
        subresources.push("status".to_owned());
    }
    Kind {
        group: text("spec.group"),
        version: object::text(version, "name").to_owned(),
        plural: text("spec.names.plural"),
        singular: text("spec.names.singular"),
        kind: text("spec.names.kind"),
        short_names: words("spec.names.shortNames"),
        categories: words("spec.names.categories"),
        namespaced: text("spec.scope") == "Namespaced",
        subresources,
        stored: Stored::Kept,
        custom: Some(Custom {
            schema: Schema::parse(&open_api).ok().filter(|_| open_api.is_object()).map(Arc::new),
            lists: Lists::of_schema(&open_api),
            open_api: Arc::new(open_api),
            scale,
            columns: version.get("additionalPrinterColumns").and_then(Value::as_array).cloned(),
        }),
    }
}

/// Fills in the names that a definition may leave out, and its cleanup finalizer, as the real server does.
pub(crate) fn default(definition: &mut Value) {
    let kind = object::text(definition, "spec.names.kind").to_owned();
    let spec = object::member(definition, "spec");
    object::default(spec, "conversion", json!({"strategy": "None"}));
    if let Some(names) = spec.get_mut("names") {
        let names = object::map(names);
        object::default(names, "singular", json!(kind.to_lowercase()));
        object::default(names, "listKind", json!(format!("{kind}List")));
    }
    let mut finalizers = object::finalizers(definition);
    if !object::is_deleting(definition) && !finalizers.iter().any(|each| each == CLEANUP) {
        finalizers.push(CLEANUP.to_owned());
        object::set_finalizers(definition, &finalizers);
    }
}

/// Sets the status that the establishing controller would set: names accepted, served at once.
pub(crate) fn establish(definition: &mut Value) {
    let names = object::at(definition, "spec.names").cloned().unwrap_or_default();
    let versions = object::at(definition, "spec.versions").and_then(Value::as_array).cloned().unwrap_or_default();
    let storage = versions.iter().find(|version| version.get("storage") == Some(&json!(true))).map(|version| version["name"].clone());
    let since = object::text(definition, "metadata.creationTimestamp").to_owned();
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since});
    let conditions = [
        condition("NamesAccepted", "NoConflicts", "no conflicts found"),
        condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ];
    let status = object::member(definition, "status");
    status.insert("acceptedNames".to_owned(), names);
    status.insert("storedVersions".to_owned(), storage.into_iter().collect());
    status.insert("conditions".to_owned(), conditions.into_iter().collect());
}

/// What is wrong with a definition: (reason, field, message).
pub(crate) fn validate(definition: &Value) -> Vec<(String, String, String)> {
    let mut causes = Vec::new();
    let expected = format!("{}.{}", object::text(definition, "spec.names.plural"), object::text(definition, "spec.group"));
    let mut refuse = |reason: &str, field: &str, message: String| causes.push((reason.to_owned(), field.to_owned(), message));
    if object::name(definition) != expected {
        refuse(
            "FieldValueInvalid",
            "metadata.name",
            format!("Invalid value: {:?}: must be spec.names.plural+\".\"+spec.group", object::name(definition)),
        );
    }
    for field in ["spec.group", "spec.names.plural", "spec.names.kind", "spec.scope"] {
        if object::text(definition, field).is_empty() {
            refuse("FieldValueRequired", field, "Required value".to_owned());
        }
    }
    if let Some((reason, message)) = unapproved(definition) {
        refuse(reason, &format!("metadata.annotations[{APPROVED}]"), message);
    }
    let versions = object::at(definition, "spec.versions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if versions.iter().filter(|version| version.get("storage") == Some(&json!(true))).count() != 1 {
        refuse("FieldValueInvalid", "spec.versions", "Invalid value: must have exactly one version marked as storage version".to_owned());
    }
    for (at, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{at}].schema.openAPIV3Schema");
        match object::at(version, "schema.openAPIV3Schema").map(Schema::parse) {
            None => refuse("FieldValueRequired", &field, "Required value: schemas are required".to_owned()),
            Some(Err(why)) => refuse("FieldValueInvalid", &field, format!("Invalid value: {why}")),
            Some(Ok(_)) => {}
        }
    }
    causes
}

/// Groups of Kubernetes itself are for what its community has approved, or says that it has not.
fn unapproved(definition: &Value) -> Option<(&'static str, String)> {
    let group = object::text(definition, "spec.group");
    let protected =
        ["k8s.io", "kubernetes.io"].iter().any(|own| group.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    if !protected {
        return None;
    }
    let approval = definition["metadata"]["annotations"][APPROVED].as_str().unwrap_or_default();
    if approval.is_empty() {
        let message = format!("Required value: protected groups must have approval annotation {APPROVED:?}, see {POLICY}");
        return Some(("FieldValueRequired", message));
    }
    let is_address = approval.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    (!is_address && !approval.starts_with("unapproved")).then(|| {
        let message = format!(
            "Invalid value: {approval:?}: protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", see {POLICY}"
        );
        ("FieldValueInvalid", message)
    })
}

const APPROVED: &str = "api-approved.kubernetes.io";
const POLICY: &str = "https://github.com/kubernetes/enhancements/pull/1111";

/// What the store files definitions under.
pub(crate) const RESOURCE: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Holds a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
