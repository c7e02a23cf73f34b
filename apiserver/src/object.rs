//! Reading and writing the metadata of objects that are plain JSON values.

use serde_json::{Map, Value, json};

/// A text at a path such as `metadata.name`; empty when absent.
pub(crate) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The value at a dotted path.
pub(crate) fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').filter(|part| !part.is_empty()).try_fold(object, |value, name| value.get(name))
}

/// The name.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "metadata.name")
}

/// The uid.
pub(crate) fn uid(object: &Value) -> &str {
    text(object, "metadata.uid")
}

/// Whether deletion has been asked for.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !text(object, "metadata.deletionTimestamp").is_empty()
}

/// The finalizers.
pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    at(object, "metadata.finalizers")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}

/// The owner references.
pub(crate) fn owners(object: &Value) -> &[Value] {
    at(object, "metadata.ownerReferences").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A map member, made when absent; what is there and is no map is replaced.
pub(crate) fn member<'a>(object: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    let slot = map(object).entry(name.to_owned()).or_insert_with(|| json!({}));
    map(slot)
}

/// The value as a map; what is no map is replaced by an empty one.
pub(crate) fn map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("the value was made an object above"),
    }
}

/// The metadata, made when absent.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    member(object, "metadata")
}

/// Sets a member of a map only where it is absent or null.
pub(crate) fn default(map: &mut Map<String, Value>, name: &str, value: Value) {
    let slot = map.entry(name.to_owned()).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value;
    }
}

/// Sets the finalizers; none removes the field.
pub(crate) fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    if finalizers.is_empty() {
        metadata(object).remove("finalizers");
    } else {
        metadata(object).insert("finalizers".to_owned(), json!(finalizers));
    }
}

/// The current time as Kubernetes writes it, in whole seconds.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
