//! The structural schema of a custom resource: what its objects may hold. Pure.
//!
//! A schema is parsed once, when its definition arrives, so that a broken one is refused there. Objects are then pruned and given
//! their defaults (`fill`) and judged (`validate`). Rules in CEL (`x-kubernetes-validations`) are ignored.

mod fill;
mod format;
mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

/// A parsed `openAPIV3Schema`.
#[derive(Debug)]
pub struct Schema {
    root: Node,
}

/// One thing that is wrong with an object, as `status.details.causes` of a Kubernetes error carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// A machine's word for it, such as `FieldValueRequired`.
    pub reason: &'static str,
    /// Where it is, such as `spec.ports[0].port`.
    pub field: String,
    /// What it is; a client shows `field: message`.
    pub message: String,
}

impl Schema {
    /// Reads a schema; the error names the place in it that makes no sense.
    pub fn parse(open_api_v3_schema: &Value) -> Result<Self, String> {
        Ok(Self { root: Node::parse(open_api_v3_schema, "openAPIV3Schema")? })
    }

    /// Removes what the schema does not know and fills in what it has defaults for. The parts that every object has stay.
    pub fn default_and_prune(&self, object: &mut Value) {
        fill::prune(object, &self.root, true);
        fill::drop_nulls(object, &self.root);
        fill::default(object, &self.root);
    }

    /// The fields that pruning would remove, such as `spec.prots`.
    pub fn unknown_fields(&self, object: &Value) -> Vec<String> {
        let mut unknown = Vec::new();
        fill::unknown(object, &self.root, true, "", &mut unknown);
        unknown
    }

    /// Everything that is wrong with the object.
    pub fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        validate::node(object, &self.root, "", &mut causes);
        validate::lists(object, &self.root, "", &mut causes);
        causes
    }
}

/// One place of a schema.
#[derive(Debug, Default)]
struct Node {
    kind: Option<Kind>,
    nullable: bool,
    int_or_string: bool,
    preserve_unknown: bool,
    embedded: bool,
    properties: BTreeMap<String, Self>,
    additional: Additional,
    items: Option<Box<Self>>,
    default: Option<Value>,
    list: ListType,
    rules: Rules,
    all_of: Vec<Self>,
    any_of: Vec<Self>,
    one_of: Vec<Self>,
    not: Option<Box<Self>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// Keys that are not properties.
#[derive(Debug, Default)]
enum Additional {
    #[default]
    Unknown,
    Any,
    Like(Box<Node>),
}

#[derive(Debug, Default)]
enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// What the value itself must obey.
#[derive(Debug, Default)]
struct Rules {
    required: Vec<String>,
    one_of_values: Option<Vec<Value>>,
    pattern: Option<Regex>,
    format: Option<String>,
    length: Range<u64>,
    items: Range<u64>,
    properties: Range<u64>,
    value: Range<f64>,
    exclusive_minimum: bool,
    exclusive_maximum: bool,
    multiple_of: Option<f64>,
    unique: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Range<T> {
    least: Option<T>,
    most: Option<T>,
}

impl Node {
    fn parse(schema: &Value, at: &str) -> Result<Self, String> {
        if !schema.is_object() {
            return Err(format!("{at}: must be an object"));
        }
        if schema.get("$ref").is_some() {
            return Err(format!("{at}.$ref: Forbidden: $ref is not supported"));
        }
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
        let child = |name: &str| schema.get(name).map(|found| Self::parse(found, &format!("{at}.{name}"))).transpose();
        Ok(Self {
            kind: kind(schema, at)?,
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            properties: properties(schema, at)?,
            additional: match schema.get("additionalProperties") {
                None | Some(Value::Bool(false)) => Additional::Unknown,
                Some(Value::Bool(true)) => Additional::Any,
                Some(values) => Additional::Like(Box::new(Self::parse(values, &format!("{at}.additionalProperties"))?)),
            },
            items: child("items")?.map(Box::new),
            default: schema.get("default").filter(|default| !default.is_null()).cloned(),
            list: list_type(schema),
            rules: Rules::parse(schema, at)?,
            all_of: alternatives(schema, "allOf", at)?,
            any_of: alternatives(schema, "anyOf", at)?,
            one_of: alternatives(schema, "oneOf", at)?,
            not: child("not")?.map(Box::new),
        })
    }
}

impl Rules {
    fn parse(schema: &Value, at: &str) -> Result<Self, String> {
        let number = |name: &str| schema.get(name).and_then(Value::as_f64);
        let counts = |least: &str, most: &str| Range {
            least: schema.get(least).and_then(Value::as_u64),
            most: schema.get(most).and_then(Value::as_u64),
        };
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
        let pattern = schema.get("pattern").and_then(Value::as_str).map(Regex::new).transpose();
        Ok(Self {
            required: strings(schema, "required"),
            one_of_values: schema.get("enum").and_then(Value::as_array).cloned(),
            pattern: pattern
                .map_err(|error| format!("{at}.pattern: Invalid value: must be a valid regular expression, but isn't: {error}"))?,
            format: schema.get("format").and_then(Value::as_str).map(|name| name.replace('-', "")),
            length: counts("minLength", "maxLength"),
            items: counts("minItems", "maxItems"),
            properties: counts("minProperties", "maxProperties"),
            value: Range { least: number("minimum"), most: number("maximum") },
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf").filter(|factor| *factor > 0.0),
            unique: flag("uniqueItems"),
        })
    }
}

fn kind(schema: &Value, at: &str) -> Result<Option<Kind>, String> {
    match schema.get("type").map(|found| found.as_str()) {
        None | Some(Some("")) => Ok(None),
        Some(Some("object")) => Ok(Some(Kind::Object)),
        Some(Some("array")) => Ok(Some(Kind::Array)),
        Some(Some("string")) => Ok(Some(Kind::String)),
        Some(Some("integer")) => Ok(Some(Kind::Integer)),
        Some(Some("number")) => Ok(Some(Kind::Number)),
        Some(Some("boolean")) => Ok(Some(Kind::Boolean)),
        Some(Some(other)) => Err(format!(
            "{at}.type: Unsupported value: {other:?}: supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\""
        )),
        Some(None) => Err(format!("{at}.type: must be a string")),
    }
}

fn properties(schema: &Value, at: &str) -> Result<BTreeMap<String, Node>, String> {
    let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    fields.map(|(name, field)| Ok((name.clone(), Node::parse(field, &format!("{at}.properties[{name}]"))?))).collect()
}

fn alternatives(schema: &Value, name: &str, at: &str) -> Result<Vec<Node>, String> {
    let all = schema.get(name).and_then(Value::as_array).into_iter().flatten();
    all.enumerate().map(|(index, each)| Node::parse(each, &format!("{at}.{name}[{index}]"))).collect()
}

fn list_type(schema: &Value) -> ListType {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(strings(schema, "x-kubernetes-list-map-keys")),
        _ => ListType::Atomic,
    }
}

fn strings(schema: &Value, name: &str) -> Vec<String> {
    schema.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What every object has, whatever its schema says.
fn is_of_every_object(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_that_makes_no_sense_is_refused_with_its_place() {
        let check = |schema: Value, expected: &str| {
            let error = Schema::parse(&schema).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        };
        check(json!([]), "openAPIV3Schema: must be an object");
        check(json!({"properties": {"spec": {"type": "text"}}}), "openAPIV3Schema.properties[spec].type: Unsupported value: \"text\"");
        check(json!({"properties": {"spec": {"pattern": "("}}}), "openAPIV3Schema.properties[spec].pattern: Invalid value");
        check(json!({"$ref": "#/x"}), "openAPIV3Schema.$ref: Forbidden");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z]{0,8}".prop_map(Value::from),
            Just(json!("object")),
            Just(json!("array"))
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(
                    "type|properties|items|additionalProperties|default|enum|required|anyOf|not|multipleOf|maximum|minLength|format|pattern|a|metadata",
                    inner, 0..5,
                ).prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_schema_and_no_object_panics(schema in any_json(), object in any_json()) {
            if let Ok(schema) = Schema::parse(&schema) {
                let mut filled = object.clone();
                schema.validate(&filled);
                schema.unknown_fields(&filled);
                schema.default_and_prune(&mut filled);
                schema.validate(&filled);
            }
        }

        #[test]
        fn what_was_filled_once_stays_as_it_is(object in any_json()) {
            let schema = Schema::parse(&json!({"type": "object", "properties": {
                "a": {"type": "object", "default": {}, "properties": {"type": {"type": "string", "default": "x"}, "items": {"type": "array", "items": {"type": "object"}}}},
                "not": {"type": "object", "additionalProperties": {"type": "string", "nullable": true}},
            }})).unwrap();
            let mut once = object;
            schema.default_and_prune(&mut once);
            let mut twice = once.clone();
            schema.default_and_prune(&mut twice);
            prop_assert_eq!(schema.unknown_fields(&once), Vec::<String>::new());
            prop_assert_eq!(twice, once);
        }
    }
}
