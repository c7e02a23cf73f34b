//! The schemas of the built-in kinds, made once per process.
//!
//! They come from the Rust types of `k8s-openapi`, rewritten into the form that Kubernetes publishes (a reference with a
//! description is wrapped in `allOf`, "number or string" is `oneOf`) and completed with the merge rules of [`super::marks`].

use std::collections::BTreeMap;
use std::sync::OnceLock;

use k8s_openapi::Resource;
use k8s_openapi::api::{
    admissionregistration, apps, authentication, authorization, autoscaling, batch, coordination, core, discovery, events, networking,
    policy, rbac, scheduling, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta;
use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::marks::{ATOMIC_DEFINITIONS, ATOMIC_MAPS, DEFAULTS, GRANULAR_FIELDS, List, MARKS, Mark, Patch};
use super::shape::Shape;

/// Every definition of the built-in kinds, and which of them a kind is.
pub(crate) struct Types {
    definitions: BTreeMap<String, Value>,
    kinds: Kinds,
}

/// The one table of types.
pub(crate) fn types() -> &'static Types {
    static TYPES: OnceLock<Types> = OnceLock::new();
    TYPES.get_or_init(Types::generate)
}

impl Types {
    /// The definition's schema, by its full name.
    pub(crate) fn definition(&self, name: &str) -> Option<&Value> {
        self.definitions.get(name)
    }

    /// The name of a built-in kind's definition, such as `io.k8s.api.apps.v1.Deployment`.
    pub(crate) fn name_of(&self, group: &str, kind: &str) -> Option<&str> {
        self.kinds.iter().find(|((each_group, _, each_kind), _)| *each_group == group && *each_kind == kind).map(|(_, name)| name.as_str())
    }

    /// Group, version and kind of a definition that is a kind.
    pub(crate) fn kind_of(&self, name: &str) -> Option<GroupVersionKind> {
        self.kinds.iter().find(|(_, each)| *each == name).map(|(kind, _)| *kind)
    }

    /// How a built-in kind merges.
    pub(crate) fn shape_of(&self, group: &str, kind: &str) -> Option<Shape<'_>> {
        self.name_of(group, kind).and_then(|name| self.definition(name)).map(Shape::of)
    }

    /// What a reference points at.
    pub(crate) fn follow(&self, reference: &str) -> Option<&Value> {
        self.definition(reference.strip_prefix(REFERENCE)?)
    }

    fn generate() -> Self {
        let mut settings = SchemaSettings::draft07();
        settings.definitions_path = "/components/schemas".into();
        settings.transforms.clear();
        let mut generator = settings.into_generator();
        let mut kinds = BTreeMap::new();
        register(&mut generator, &mut kinds);
        let mut definitions: BTreeMap<String, Value> = generator.take_definitions(false).into_iter().collect();
        for (name, definition) in &mut definitions {
            publishable(definition);
            if name.ends_with(".Quantity") {
                definition["oneOf"] = json!([{"type": "string"}, {"type": "number"}]);
            }
            // Any JSON value: k8s-openapi says "object", the real server's document says nothing.
            if let Some(fields) = definition.as_object_mut().filter(|_| name.ends_with(".apiextensions.v1.JSON")) {
                fields.remove("type");
            }
        }
        // k8s-openapi's objects always have metadata; a client may leave it out.
        for name in kinds.values() {
            if let Some(Value::Array(required)) = definitions.get_mut(name).and_then(|definition| definition.get_mut("required")) {
                required.retain(|field| field != "metadata");
            }
        }
        let mut types = Self { definitions, kinds };
        types.mark();
        types
    }

    fn mark(&mut self) {
        for mark in MARKS {
            if let Some(field) = self.field(mark.definition, mark.field) {
                annotate(field, mark);
            }
        }
        for definition in ATOMIC_DEFINITIONS {
            if let Some(definition) = self.definitions.get_mut(&full_name(definition)) {
                definition["x-kubernetes-map-type"] = json!("atomic");
            }
        }
        for (definition, field) in ATOMIC_MAPS {
            if let Some(field) = self.field(definition, field) {
                field["x-kubernetes-map-type"] = json!("atomic");
            }
        }
        for (definition, field) in GRANULAR_FIELDS {
            if let Some(field) = self.field(definition, field) {
                field["x-kubernetes-map-type"] = json!("granular");
            }
        }
        for (definition, field, default) in DEFAULTS {
            if let Some(field) = self.field(definition, field) {
                field["default"] = json!(default);
            }
        }
    }

    fn field(&mut self, definition: &str, field: &str) -> Option<&mut Value> {
        self.definitions.get_mut(&full_name(definition))?.get_mut("properties")?.get_mut(field)
    }
}

/// Where references of the documents point.
pub(crate) const REFERENCE: &str = "#/components/schemas/";

fn full_name(name: &str) -> String {
    if name.starts_with("io.k8s.") { name.to_owned() } else { format!("io.k8s.api.{name}") }
}

fn annotate(field: &mut Value, mark: &Mark) {
    match mark.list {
        List::Unmarked => {}
        List::Atomic => field["x-kubernetes-list-type"] = json!("atomic"),
        List::Set => field["x-kubernetes-list-type"] = json!("set"),
        List::Map(keys) => {
            field["x-kubernetes-list-type"] = json!("map");
            field["x-kubernetes-list-map-keys"] = json!(keys);
        }
    }
    let (strategy, key) = match mark.patch {
        Patch::Replace => return,
        Patch::RetainKeys => ("retainKeys", None),
        Patch::Union => ("merge", None),
        Patch::MergeBy(key) => ("merge", Some(key)),
        Patch::MergeRetainingKeys(key) => ("merge,retainKeys", Some(key)),
    };
    field["x-kubernetes-patch-strategy"] = json!(strategy);
    if let Some(key) = key {
        field["x-kubernetes-patch-merge-key"] = json!(key);
    }
}

/// Rewrites what the generator makes into OpenAPI 3.0 as Kubernetes publishes it.
fn publishable(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(publishable),
        Value::Object(schema) => {
            schema.values_mut().for_each(publishable);
            if schema.len() > 1 && schema.get("$ref").is_some_and(Value::is_string) {
                let reference = schema.remove("$ref");
                schema.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            }
            if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
                number_or_string(schema);
            }
        }
        _ => {}
    }
}

fn number_or_string(schema: &mut Map<String, Value>) {
    schema.remove("x-kubernetes-int-or-string");
    schema.insert("format".to_owned(), json!("int-or-string"));
    schema.insert("oneOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
}

type GroupVersionKind = (&'static str, &'static str, &'static str);
type Kinds = BTreeMap<GroupVersionKind, String>;

fn add<K: Resource + JsonSchema>(generator: &mut SchemaGenerator, kinds: &mut Kinds) {
    generator.subschema_for::<K>();
    kinds.insert((K::GROUP, K::VERSION, K::KIND), K::schema_name().into_owned());
}

macro_rules! add_all {
    ($generator:expr, $kinds:expr, $($group:path: $($kind:ident)+;)+) => {
        $({ use $group as group; $(add::<group::$kind>($generator, $kinds);)+ })+
    };
}

fn register(generator: &mut SchemaGenerator, kinds: &mut Kinds) {
    add_all!(generator, kinds,
        core::v1: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod
            PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
        apps::v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
        autoscaling::v1: Scale;
        autoscaling::v2: HorizontalPodAutoscaler;
        batch::v1: CronJob Job;
        discovery::v1: EndpointSlice;
        events::v1: Event;
        coordination::v1: Lease;
        policy::v1: Eviction PodDisruptionBudget;
        networking::v1: Ingress IngressClass IPAddress NetworkPolicy ServiceCIDR;
        scheduling::v1: PriorityClass;
        storage::v1: StorageClass;
        rbac::v1: ClusterRole ClusterRoleBinding Role RoleBinding;
        authentication::v1: SelfSubjectReview TokenRequest TokenReview;
        authorization::v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview;
        apiextensions::v1: CustomResourceDefinition;
        admissionregistration::v1: MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
            ValidatingWebhookConfiguration;
    );
    generator.subschema_for::<meta::v1::Status>();
    generator.subschema_for::<meta::v1::DeleteOptions>();
    generator.subschema_for::<meta::v1::WatchEvent<Value>>();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_merge_table_names_a_field_that_exists() {
        let types = types();
        let property =
            |definition: &str, field: &str| types.definition(&full_name(definition)).map(|found| !found["properties"][field].is_null());
        for mark in MARKS {
            assert_eq!(property(mark.definition, mark.field), Some(true), "{}.{}", mark.definition, mark.field);
        }
        for (definition, field) in ATOMIC_MAPS.iter().chain(GRANULAR_FIELDS) {
            assert_eq!(property(definition, field), Some(true), "{definition}.{field}");
        }
        for definition in ATOMIC_DEFINITIONS {
            assert!(types.definition(&full_name(definition)).is_some(), "{definition}");
        }
    }

    #[test]
    fn a_default_in_a_custom_schema_is_any_json() {
        let json = types().definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON").unwrap();
        assert_eq!(json.get("type"), None);
    }

    #[test]
    fn every_reference_has_a_target() {
        fn check(value: &Value) {
            match value {
                Value::Array(items) => items.iter().for_each(check),
                Value::Object(schema) => {
                    if let Some(Value::String(reference)) = schema.get("$ref") {
                        assert!(types().follow(reference).is_some(), "{reference}");
                        assert_eq!(schema.len(), 1, "{reference} has siblings");
                    }
                    schema.values().for_each(check);
                }
                _ => {}
            }
        }
        types().definitions.values().for_each(check);
    }
}
