//! Judges an object by its schema. Pure; the words are those that Kubernetes' users know.

use serde_json::{Map, Number, Value};

use super::{Additional, Cause, Kind, ListType, Node, Range, Rules, format};

/// Judges one value and all within it.
pub(super) fn node(value: &Value, schema: &Node, at: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && (schema.nullable || (schema.kind.is_none() && !schema.int_or_string)) {
        return;
    }
    if let Some(wanted) = wrong_type(value, schema) {
        causes.push(wrong(
            at,
            "FieldValueTypeInvalid",
            &type_name(value).into(),
            &format!("{at} in body must be of type {wanted}: {:?}", type_name(value)),
        ));
        return;
    }
    one_of_values(value, &schema.rules, at, causes);
    match value {
        Value::String(text) => string(text, &schema.rules, at, causes),
        Value::Number(number) => numeric(number, &schema.rules, at, causes),
        Value::Array(items) => array(items, schema, at, causes),
        Value::Object(fields) => object(fields, schema, at, causes),
        Value::Null | Value::Bool(_) => {}
    }
    combined(value, schema, at, causes);
}

fn wrong_type(value: &Value, schema: &Node) -> Option<&'static str> {
    if schema.int_or_string {
        return (!value.is_string() && !is_integer(value)).then_some("integer,string");
    }
    let kind = schema.kind?;
    let fits = match kind {
        Kind::Object => value.is_object(),
        Kind::Array => value.is_array(),
        Kind::String => value.is_string(),
        Kind::Integer => is_integer(value),
        Kind::Number => value.is_number(),
        Kind::Boolean => value.is_boolean(),
    };
    (!fits).then_some(kind.name())
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn one_of_values(value: &Value, rules: &Rules, at: &str, causes: &mut Vec<Cause>) {
    let Some(allowed) = rules.one_of_values.as_ref().filter(|allowed| !allowed.contains(value)) else {
        return;
    };
    let listed: Vec<String> =
        allowed.iter().map(|each| each.as_str().map_or_else(|| format!("{:?}", each.to_string()), |text| format!("{text:?}"))).collect();
    causes.push(Cause {
        reason: "FieldValueNotSupported",
        field: at.to_owned(),
        message: format!("Unsupported value: {value}: supported values: {}", listed.join(", ")),
    });
}

fn string(text: &str, rules: &Rules, at: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count() as u64;
    if let Some(most) = rules.length.most.filter(|most| length > *most) {
        let unit = if most == 1 { "byte" } else { "bytes" };
        causes.push(Cause {
            reason: "FieldValueTooLong",
            field: at.to_owned(),
            message: format!("Too long: may not be more than {most} {unit}"),
        });
    }
    if let Some(least) = rules.length.least.filter(|least| length < *least) {
        causes.push(invalid(at, &text.into(), &format!("{at} in body should be at least {least} chars long")));
    }
    if let Some(pattern) = rules.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        causes.push(invalid(at, &text.into(), &format!("{at} in body should match '{}'", pattern.as_str())));
    }
    if let Some(wanted) = rules.format.as_ref().filter(|wanted| !format::holds(wanted, text)) {
        causes.push(wrong(
            at,
            "FieldValueTypeInvalid",
            &text.into(),
            &format!("{at} in body must be of type {}: {text:?}", dashed(wanted)),
        ));
    }
}

fn dashed(format: &str) -> &str {
    if format == "datetime" { "date-time" } else { format }
}

fn numeric(number: &Number, rules: &Rules, at: &str, causes: &mut Vec<Cause>) {
    let Some(value) = number.as_f64() else {
        return;
    };
    let mut fail = |rule: &str, bound: f64| {
        causes.push(invalid(at, &Value::Number(number.clone()), &format!("{at} in body should be {rule} {bound}")))
    };
    match rules.value.least {
        Some(least) if rules.exclusive_minimum && value <= least => fail("greater than", least),
        Some(least) if value < least => fail("greater than or equal to", least),
        _ => {}
    }
    match rules.value.most {
        Some(most) if rules.exclusive_maximum && value >= most => fail("less than", most),
        Some(most) if value > most => fail("less than or equal to", most),
        _ => {}
    }
    if let Some(factor) = rules.multiple_of.filter(|factor| ((value / factor) - (value / factor).round()).abs() > MULTIPLE_SLACK) {
        fail("a multiple of", factor);
    }
}

/// Division of floats is not exact.
const MULTIPLE_SLACK: f64 = 1e-9;

fn array(items: &[Value], schema: &Node, at: &str, causes: &mut Vec<Cause>) {
    count(items.len(), schema.rules.items, "items", at, causes);
    if schema.rules.unique && items.iter().enumerate().any(|(index, item)| items[..index].contains(item)) {
        causes.push(invalid(at, &"".into(), &format!("{at} in body shouldn't contain duplicates")));
    }
    if let Some(each) = &schema.items {
        for (index, item) in items.iter().enumerate() {
            node(item, each, &format!("{at}[{index}]"), causes);
        }
    }
}

fn object(fields: &Map<String, Value>, schema: &Node, at: &str, causes: &mut Vec<Cause>) {
    count(fields.len(), schema.rules.properties, "properties", at, causes);
    for name in schema.rules.required.iter().filter(|name| !fields.contains_key(*name)) {
        causes.push(Cause { reason: "FieldValueRequired", field: join(at, name), message: "Required value".to_owned() });
    }
    for (name, value) in fields {
        match (schema.properties.get(name), &schema.additional) {
            (Some(member), _) => node(value, member, &join(at, name), causes),
            (None, Additional::Like(member)) => node(value, member, &join(at, name), causes),
            (None, Additional::Any | Additional::Unknown) => {}
        }
    }
}

fn count(found: usize, range: Range<u64>, things: &str, at: &str, causes: &mut Vec<Cause>) {
    let found = found as u64;
    if let Some(most) = range.most.filter(|most| found > *most) {
        let unit = if most == 1 { "item" } else { "items" };
        causes.push(Cause {
            reason: "FieldValueTooMany",
            field: at.to_owned(),
            message: format!("Too many: {found}: must have at most {most} {unit}"),
        });
    }
    if let Some(least) = range.least.filter(|least| found < *least) {
        causes.push(invalid(at, &found.into(), &format!("{at} in body should have at least {least} {things}")));
    }
}

/// `allOf`, `anyOf`, `oneOf`, `not`.
fn combined(value: &Value, schema: &Node, at: &str, causes: &mut Vec<Cause>) {
    let holds = |each: &Node| {
        let mut inner = Vec::new();
        node(value, each, at, &mut inner);
        inner.is_empty()
    };
    for each in &schema.all_of {
        node(value, each, at, causes);
    }
    if !schema.any_of.is_empty() && !schema.any_of.iter().any(holds) {
        causes.push(composite(&format!("{at:?} must validate at least one schema (anyOf)")));
    }
    let valid = schema.one_of.iter().filter(|each| holds(each)).count();
    if !schema.one_of.is_empty() && valid != 1 {
        let found = if valid == 0 { "Found none valid".to_owned() } else { format!("Found {valid} valid alternatives") };
        causes.push(composite(&format!("{at:?} must validate one and only one schema (oneOf). {found}")));
    }
    if schema.not.as_deref().is_some_and(holds) {
        causes.push(composite(&format!("{at:?} must not validate the schema (not)")));
    }
}

/// Judges the lists that merge by element: no element may come twice.
pub(super) fn lists(value: &Value, schema: &Node, at: &str, causes: &mut Vec<Cause>) {
    match value {
        Value::Array(items) => {
            let keys: Vec<Value> = match &schema.list {
                ListType::Atomic => Vec::new(),
                ListType::Set => items.clone(),
                ListType::Map(names) => items.iter().map(|item| key(item, names)).collect(),
            };
            for (index, key) in keys.iter().enumerate() {
                if keys[..index].contains(key) {
                    causes.push(Cause {
                        reason: "FieldValueDuplicate",
                        field: format!("{at}[{index}]"),
                        message: format!("Duplicate value: {key}"),
                    });
                }
            }
            if let Some(each) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    lists(item, each, &format!("{at}[{index}]"), causes);
                }
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(member) = schema.properties.get(name) {
                    lists(field, member, &join(at, name), causes);
                } else if let Additional::Like(member) = &schema.additional {
                    lists(field, member, &join(at, name), causes);
                }
            }
        }
        _ => {}
    }
}

fn key(item: &Value, names: &[String]) -> Value {
    Value::Object(names.iter().filter_map(|name| Some((name.clone(), item.get(name)?.clone()))).collect())
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

fn invalid(at: &str, value: &Value, message: &str) -> Cause {
    wrong(at, "FieldValueInvalid", value, message)
}

fn wrong(at: &str, reason: &'static str, value: &Value, message: &str) -> Cause {
    let field = if at.is_empty() { NO_FIELD } else { at };
    Cause { reason, field: field.to_owned(), message: format!("Invalid value: {value}: {message}") }
}

/// The real server gives such causes no place.
fn composite(message: &str) -> Cause {
    Cause { reason: "FieldValueInvalid", field: NO_FIELD.to_owned(), message: format!("Invalid value: \"\": {message}") }
}

const NO_FIELD: &str = "<nil>";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Schema;
    use super::*;

    /// The causes of `{"spec": value}` under a schema for `spec`.
    fn check(schema: Value, value: Value, expected: &[&str]) {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": schema}})).unwrap();
        let causes = schema.validate(&json!({"spec": value}));
        let shown: Vec<String> = causes.iter().map(|cause| format!("{} {}: {}", cause.reason, cause.field, cause.message)).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_wrong_type_is_named() {
        let schema = json!({"type": "object", "properties": {"replicas": {"type": "integer"}}});
        check(
            schema.clone(),
            json!({"replicas": "three"}),
            &["FieldValueTypeInvalid spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\""],
        );
        check(
            schema.clone(),
            json!({"replicas": 1.5}),
            &["FieldValueTypeInvalid spec.replicas: Invalid value: \"number\": spec.replicas in body must be of type integer: \"number\""],
        );
        check(schema, json!({"replicas": 3.0}), &[]);
        check(
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            &["FieldValueTypeInvalid spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\""],
        );
        check(json!({"type": "string", "nullable": true}), json!(null), &[]);
        check(
            json!({"type": "string"}),
            json!(null),
            &["FieldValueTypeInvalid spec: Invalid value: \"null\": spec in body must be of type string: \"null\""],
        );
    }

    #[test]
    fn missing_and_unsupported_values_are_named() {
        let schema =
            json!({"type": "object", "required": ["mode", "size"], "properties": {"mode": {"type": "string", "enum": ["auto", "tls"]}}});
        check(schema.clone(), json!({}), &["FieldValueRequired spec.mode: Required value", "FieldValueRequired spec.size: Required value"]);
        check(
            schema,
            json!({"mode": "x", "size": 1}),
            &["FieldValueNotSupported spec.mode: Unsupported value: \"x\": supported values: \"auto\", \"tls\""],
        );
        check(json!({"enum": [1, 2]}), json!(3), &["FieldValueNotSupported spec: Unsupported value: 3: supported values: \"1\", \"2\""]);
    }

    #[test]
    fn strings_and_numbers_have_bounds() {
        check(json!({"type": "string", "maxLength": 2}), json!("äöü"), &["FieldValueTooLong spec: Too long: may not be more than 2 bytes"]);
        check(
            json!({"type": "string", "minLength": 1}),
            json!(""),
            &["FieldValueInvalid spec: Invalid value: \"\": spec in body should be at least 1 chars long"],
        );
        check(
            json!({"type": "string", "pattern": "^[a-z]+$"}),
            json!("A"),
            &["FieldValueInvalid spec: Invalid value: \"A\": spec in body should match '^[a-z]+$'"],
        );
        check(
            json!({"type": "string", "format": "date-time"}),
            json!("soon"),
            &["FieldValueTypeInvalid spec: Invalid value: \"soon\": spec in body must be of type date-time: \"soon\""],
        );
        check(
            json!({"type": "integer", "minimum": 1, "maximum": 65535}),
            json!(0),
            &["FieldValueInvalid spec: Invalid value: 0: spec in body should be greater than or equal to 1"],
        );
        check(
            json!({"type": "integer", "minimum": 1, "maximum": 65535}),
            json!(65536),
            &["FieldValueInvalid spec: Invalid value: 65536: spec in body should be less than or equal to 65535"],
        );
        check(
            json!({"type": "number", "minimum": 0, "exclusiveMinimum": true}),
            json!(0),
            &["FieldValueInvalid spec: Invalid value: 0: spec in body should be greater than 0"],
        );
        check(json!({"type": "number", "multipleOf": 0.1}), json!(0.3), &[]);
        check(
            json!({"type": "integer", "multipleOf": 2}),
            json!(3),
            &["FieldValueInvalid spec: Invalid value: 3: spec in body should be a multiple of 2"],
        );
    }

    #[test]
    fn lists_and_maps_have_bounds_and_no_doubles() {
        let item = json!({"type": "object", "properties": {"name": {"type": "string"}}});
        check(
            json!({"type": "array", "maxItems": 1, "items": {"type": "integer"}}),
            json!([1, "x"]),
            &[
                "FieldValueTooMany spec: Too many: 2: must have at most 1 item",
                "FieldValueTypeInvalid spec[1]: Invalid value: \"string\": spec[1] in body must be of type integer: \"string\"",
            ],
        );
        check(
            json!({"type": "array", "minItems": 1}),
            json!([]),
            &["FieldValueInvalid spec: Invalid value: 0: spec in body should have at least 1 items"],
        );
        check(
            json!({"type": "object", "minProperties": 1}),
            json!({}),
            &["FieldValueInvalid spec: Invalid value: 0: spec in body should have at least 1 properties"],
        );
        check(
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            json!(["a", "b", "a"]),
            &["FieldValueDuplicate spec[2]: Duplicate value: \"a\""],
        );
        check(
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item}),
            json!([{"name": "a"}, {"name": "a"}]),
            &["FieldValueDuplicate spec[1]: Duplicate value: {\"name\":\"a\"}"],
        );
        check(
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"a": 1}),
            &["FieldValueTypeInvalid spec.a: Invalid value: \"integer\": spec.a in body must be of type string: \"integer\""],
        );
    }

    #[test]
    fn alternatives_are_counted() {
        let alternatives = json!([{"required": ["a"]}, {"required": ["b"]}]);
        check(
            json!({"type": "object", "oneOf": alternatives}),
            json!({}),
            &["FieldValueInvalid <nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid"],
        );
        check(
            json!({"type": "object", "oneOf": alternatives}),
            json!({"a": 1, "b": 1}),
            &[
                "FieldValueInvalid <nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        );
        check(
            json!({"type": "object", "anyOf": alternatives}),
            json!({}),
            &["FieldValueInvalid <nil>: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)"],
        );
        check(
            json!({"type": "object", "not": {"required": ["a"]}}),
            json!({"a": 1}),
            &["FieldValueInvalid <nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)"],
        );
        check(
            json!({"allOf": [{"type": "integer"}]}),
            json!("x"),
            &["FieldValueTypeInvalid spec: Invalid value: \"string\": spec in body must be of type integer: \"string\""],
        );
    }
}
