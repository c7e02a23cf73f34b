//! How a value merges, read off its schema while walking down. Pure.
//!
//! A shape is a place in an annotated OpenAPI schema. Places without one follow the rule of structured-merge-diff for untyped data:
//! maps merge by key, lists are replaced whole.

use serde_json::{Map, Value};

use super::types::types;

/// One place in a schema.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape<'a> {
    /// `site` is where the schema is used, `schema` what it refers to; merge rules may stand on either.
    Known { site: &'a Value, schema: &'a Value },
    /// The root of a custom resource, or an embedded one: its metadata is what every object's is.
    Resource { schema: &'a Value },
    /// Not described: maps merge by key.
    Deduced,
    /// Inside something that is owned as a whole.
    Opaque,
}

/// How a list merges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListRule<'a> {
    Atomic,
    Set,
    Keys(Vec<&'a str>),
}

/// How a field takes part in a strategic patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy<'a> {
    Replace,
    /// Lists of scalars are united.
    Union,
    /// Elements are matched by this field.
    MergeBy(&'a str),
}

impl<'a> Shape<'a> {
    /// The shape of a schema of an OpenAPI document.
    pub(crate) fn of(site: &'a Value) -> Self {
        let schema = resolve(site);
        if flag(schema, "x-kubernetes-embedded-resource") { Self::Resource { schema } } else { Self::Known { site, schema } }
    }

    /// The shape of a custom resource.
    pub(crate) fn of_resource(schema: &'a Value) -> Self {
        Self::Resource { schema }
    }

    fn schema(self) -> Option<&'a Value> {
        match self {
            Self::Known { schema, .. } | Self::Resource { schema } => Some(schema),
            Self::Deduced | Self::Opaque => None,
        }
    }

    fn properties(self) -> Option<&'a Map<String, Value>> {
        self.schema()?.get("properties")?.as_object()
    }

    /// Whether the schema names this field, as opposed to a key of a map.
    pub(crate) fn has_field(self, name: &str) -> bool {
        let of_every_object = matches!(self, Self::Resource { .. }) && matches!(name, "metadata" | "apiVersion" | "kind");
        of_every_object || self.properties().is_some_and(|fields| fields.contains_key(name))
    }

    /// The shape of a field or key; `None` when the schema does not allow one of this name.
    pub(crate) fn member(self, name: &str) -> Option<Self> {
        let schema = match self {
            Self::Deduced => return Some(Self::Deduced),
            Self::Opaque => return Some(Self::Opaque),
            Self::Resource { .. } if name == "metadata" => return Some(object_meta()),
            Self::Resource { .. } if matches!(name, "apiVersion" | "kind") => return Some(Self::Opaque),
            Self::Resource { schema } | Self::Known { schema, .. } => schema,
        };
        if let Some(field) = self.properties().and_then(|fields| fields.get(name)) {
            return Some(Self::of(field));
        }
        match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => Some(Self::Deduced),
            Some(Value::Bool(false)) => None,
            Some(values) => Some(Self::of(values)),
            None if self.properties().is_none_or(Map::is_empty) || flag(schema, PRESERVE) => Some(Self::Deduced),
            None => None,
        }
    }

    /// The shape of a list's elements.
    pub(crate) fn items(self) -> Self {
        match self.schema().and_then(|schema| schema.get("items")) {
            Some(items) => Self::of(items),
            None => Self::Opaque,
        }
    }

    /// How a list at this place merges.
    pub(crate) fn list_rule(self) -> ListRule<'a> {
        let Self::Known { site, schema } = self else {
            return ListRule::Atomic;
        };
        let word = |name: &str| site.get(name).or_else(|| schema.get(name));
        match word("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => ListRule::Set,
            Some("map") => {
                let keys = word("x-kubernetes-list-map-keys").and_then(Value::as_array);
                ListRule::Keys(keys.into_iter().flatten().filter_map(Value::as_str).collect())
            }
            _ => ListRule::Atomic,
        }
    }

    /// Whether a map at this place is owned as a whole.
    pub(crate) fn is_atomic_map(self) -> bool {
        match self {
            Self::Opaque => true,
            Self::Deduced | Self::Resource { .. } => false,
            Self::Known { site, schema } => {
                let rule = site.get(MAP_TYPE).or_else(|| schema.get(MAP_TYPE));
                rule.and_then(Value::as_str) == Some("atomic")
            }
        }
    }

    /// Whether the schema says "a map", "a list" or anything.
    pub(crate) fn allows(self, kind: &str) -> bool {
        self.schema().and_then(|schema| schema.get("type")).and_then(Value::as_str).is_none_or(|declared| declared == kind)
    }

    /// What a field of this place means when it is left out.
    pub(crate) fn default_of(self, name: &str) -> Option<&'a Value> {
        self.properties()?.get(name)?.get("default")
    }

    /// How this place takes part in a strategic patch.
    pub(crate) fn strategy(self) -> Strategy<'a> {
        let Self::Known { site, .. } = self else {
            return Strategy::Replace;
        };
        let merges =
            site.get("x-kubernetes-patch-strategy").and_then(Value::as_str).is_some_and(|text| text.split(',').any(|word| word == "merge"));
        match site.get("x-kubernetes-patch-merge-key").and_then(Value::as_str) {
            Some(key) if merges => Strategy::MergeBy(key),
            None if merges => Strategy::Union,
            _ => Strategy::Replace,
        }
    }
}

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const MAP_TYPE: &str = "x-kubernetes-map-type";

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn object_meta() -> Shape<'static> {
    types().definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").map_or(Shape::Deduced, Shape::of)
}

/// Follows a reference, also one wrapped in `allOf`. Only the built-in definitions refer to others, never to themselves alone.
fn resolve(site: &Value) -> &Value {
    let reference = site.get("$ref").or_else(|| site.get("allOf")?.get(0)?.get("$ref"));
    reference.and_then(Value::as_str).and_then(|reference| types().follow(reference)).unwrap_or(site)
}
