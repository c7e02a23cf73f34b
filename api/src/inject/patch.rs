//! Additions to an object, as JSON Patch (RFC 6902) has them. Only `add` is ever needed.

use serde::Serialize;
use serde_json::{Value, json};

/// One addition. Serializes as an operation of a JSON Patch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Add {
    op: &'static str,
    /// Where.
    path: String,
    /// What.
    value: Value,
}

impl Add {
    fn new(path: String, value: Value) -> Self {
        Self { op: "add", path, value }
    }
}

/// Adds annotations that the pod lacks, and writes over those that it has no business with.
pub(super) fn annotate(adds: &mut Vec<Add>, pod: &Value, annotations: &[(&str, &str)]) {
    if !pod["metadata"].is_object() {
        adds.push(Add::new("/metadata".to_owned(), json!({})));
    }
    if !pod["metadata"]["annotations"].is_object() {
        adds.push(Add::new("/metadata/annotations".to_owned(), json!({})));
    }
    for (name, value) in annotations {
        adds.push(Add::new(format!("/metadata/annotations/{}", escaped(name)), json!(value)));
    }
}

/// Puts `items` before everything in a list of the pod's spec.
pub(super) fn first(adds: &mut Vec<Add>, spec: &Value, list: &str, items: &[Value]) {
    begin(adds, spec, list);
    for (at, item) in items.iter().enumerate() {
        adds.push(Add::new(format!("/spec/{list}/{at}"), item.clone()));
    }
}

/// Puts `items` behind everything in a list of the pod's spec.
pub(super) fn last(adds: &mut Vec<Add>, spec: &Value, list: &str, items: &[Value]) {
    begin(adds, spec, list);
    adds.extend(items.iter().map(|item| Add::new(format!("/spec/{list}/-"), item.clone())));
}

fn begin(adds: &mut Vec<Add>, spec: &Value, list: &str) {
    if !spec[list].is_array() {
        adds.push(Add::new(format!("/spec/{list}"), json!([])));
    }
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Makes the additions in `object`, for which they were computed.
pub fn apply(object: &mut Value, adds: &[Add]) {
    for add in adds {
        let Some((parent, last)) = add.path.rsplit_once('/') else { continue };
        let last = last.replace("~1", "/").replace("~0", "~");
        match object.pointer_mut(parent) {
            Some(Value::Object(map)) => {
                map.insert(last, add.value.clone());
            }
            Some(Value::Array(items)) => {
                let at = last.parse().unwrap_or(items.len()).min(items.len());
                items.insert(at, add.value.clone());
            }
            _ => {}
        }
    }
}
