//! Field ownership around a write. Pure.
//!
//! What the object says about owners is kept as it was; server-side apply, which changes it, is refused until it is served.

use serde_json::{Value, json};

use crate::object;

/// Carries the recorded owners over: a writer does not set them itself.
pub(crate) fn carry(before: Option<&Value>, mut after: Value) -> Value {
    match before.and_then(|before| object::at(before, "metadata.managedFields")) {
        Some(fields) => object::metadata(&mut after).insert("managedFields".to_owned(), fields.clone()),
        None => object::metadata(&mut after).remove("managedFields"),
    };
    after
}

/// The object without the times at which fields were written: two that are equal so need no write.
pub(crate) fn without_times(object: &Value) -> Value {
    let mut plain = object.clone();
    let entries = object::metadata(&mut plain).get_mut("managedFields").and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten() {
        object::map(entry).insert("time".to_owned(), json!(""));
    }
    object::metadata(&mut plain).remove("resourceVersion");
    plain
}
