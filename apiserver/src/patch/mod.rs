//! Applies the patches that clients send: JSON Patch, JSON Merge Patch and Kubernetes' own strategic merge patch. Pure.
//!
//! A patch is other people's bytes: it is bounded in what it may copy and how deep it may nest, so that what is stored can always be
//! read back.

mod strategic;

use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::Value;

use crate::openapi::types::types;

/// Why a patch was not applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The bytes are not a patch of this type.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// A strategic patch whose directives contradict themselves.
    #[error("{0}")]
    BadDirective(String),
    /// More operations than one request may carry.
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooManyOperations(usize),
    /// The object is not as the patch assumes.
    #[error("the server rejected our request due to an error in our request: {0}")]
    NotApplicable(String),
    /// Only built-in kinds have the schema that a strategic patch needs.
    #[error(
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, \
             application/merge-patch+json, application/apply-patch+yaml"
    )]
    NotStrategic,
}

impl PatchError {
    /// The HTTP status that a Kubernetes client expects with it.
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::BadDirective(_) => 400,
            Self::TooManyOperations(_) => 413,
            Self::NotApplicable(_) => 422,
            Self::NotStrategic => 415,
        }
    }
}

/// RFC 6902: a list of operations, all of which apply or none.
pub fn json_patch(target: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let operations: Vec<PatchOperation> = decode(patch)?;
    if operations.len() > OPERATIONS_MAX {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let mut patched = target.clone();
    let mut room = COPIED_BYTES_MAX;
    for (index, operation) in operations.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation {
            let copied = size_at(&patched, &copy.from);
            room = room.checked_sub(copied).ok_or_else(|| {
                PatchError::NotApplicable(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is over {COPIED_BYTES_MAX}"
                ))
            })?;
        }
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation)).map_err(|mut error| {
            error.operation = index;
            PatchError::NotApplicable(error.to_string())
        })?;
    }
    bounded(patched)
}

/// RFC 7386: what the patch names is replaced, what it names null is removed.
pub fn merge_patch(target: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch: Value = decode(patch)?;
    if !patch.is_object() {
        return Err(PatchError::Malformed("a merge patch is a JSON object".to_owned()));
    }
    let mut patched = target.clone();
    json_patch::merge(&mut patched, &patch);
    bounded(patched)
}

/// Kubernetes' strategic merge patch: like a merge patch, but lists merge by the keys that the kind's schema names, and directives
/// (`$patch`, `$retainKeys`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…`) say what a merge alone can't.
pub fn strategic_patch(target: &Value, patch: &[u8], group: &str, kind: &str) -> Result<Value, PatchError> {
    let shape = types().shape_of(group, kind).ok_or(PatchError::NotStrategic)?;
    let Value::Object(patch) = decode(patch)? else {
        return Err(PatchError::Malformed("a strategic merge patch is a JSON object".to_owned()));
    };
    let Value::Object(target) = target.clone() else {
        return Err(PatchError::NotApplicable("the target of the patch is not an object".to_owned()));
    };
    bounded(Value::Object(strategic::merge_map(target, patch, shape)?))
}

fn decode<T: serde::de::DeserializeOwned>(patch: &[u8]) -> Result<T, PatchError> {
    serde_json::from_slice(patch).map_err(|error| PatchError::Malformed(error.to_string()))
}

fn size_at(document: &Value, at: &Pointer) -> usize {
    at.resolve(document).map_or(0, |value| value.to_string().len())
}

fn bounded(patched: Value) -> Result<Value, PatchError> {
    if nests_deeper(&patched, DEPTH_MAX) {
        return Err(PatchError::NotApplicable(format!("the patched object nests deeper than {DEPTH_MAX} levels")));
    }
    Ok(patched)
}

fn nests_deeper(value: &Value, room: usize) -> bool {
    match value {
        Value::Array(items) => room == 0 || items.iter().any(|item| nests_deeper(item, room - 1)),
        Value::Object(fields) => room == 0 || fields.values().any(|field| nests_deeper(field, room - 1)),
        _ => false,
    }
}

/// As the real server: past it the request is refused.
const OPERATIONS_MAX: usize = 10_000;
/// Copies double what they copy; past this the patch is refused.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Readers of JSON stop at 128 levels, and lists and watch events wrap what is stored.
const DEPTH_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check_json(target: Value, patch: Value, expected: Value) {
        assert_eq!(json_patch(&target, patch.to_string().as_bytes()).unwrap(), expected);
    }

    #[test]
    fn a_json_patch_applies_its_operations_in_order() {
        check_json(
            json!({"a": [1, 2], "b": "x"}),
            json!([
                {"op": "test", "path": "/b", "value": "x"}, {"op": "add", "path": "/a/-", "value": 3}, {"op": "remove", "path": "/b"},
                {"op": "copy", "from": "/a/0", "path": "/c"}, {"op": "move", "from": "/c", "path": "/d~1e"}
            ]),
            json!({"a": [1, 2, 3], "d/e": 1}),
        );
    }

    #[test]
    fn a_patch_that_does_not_fit_the_object_is_not_a_malformed_one() {
        let target = json!({"a": 1});
        for patch in [
            json!([{"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/b"}]),
            json!([{"op": "add", "path": "/b/c", "value": 1}]),
        ] {
            assert_eq!(json_patch(&target, patch.to_string().as_bytes()).unwrap_err().code(), 422, "{patch}");
        }
        for patch in ["{}", "[{\"op\":\"jump\",\"path\":\"/a\"}]", "[", "[{\"op\":\"add\",\"path\":\"a\",\"value\":1}]"] {
            assert_eq!(json_patch(&target, patch.as_bytes()).unwrap_err().code(), 400, "{patch}");
        }
        assert_eq!(merge_patch(&target, b"[]").unwrap_err().code(), 400);
        assert_eq!(strategic_patch(&target, b"{}", "isthmus.dev", "Link").unwrap_err().code(), 415);
    }

    #[test]
    fn copies_that_double_an_object_stop_at_a_bound() {
        let doubling: Vec<Value> = (0..64).map(|at| json!({"op": "copy", "from": "", "path": format!("/c{at}")})).collect();
        assert_eq!(json_patch(&json!({"a": "0123456789"}), json!(doubling).to_string().as_bytes()).unwrap_err().code(), 422);
        let nesting: Vec<Value> = (0..200).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/b"})).collect();
        assert_eq!(json_patch(&json!({"a": {}}), json!(nesting).to_string().as_bytes()).unwrap_err().code(), 422);
    }

    #[test]
    fn a_merge_patch_replaces_and_removes() {
        let patched = merge_patch(&json!({"a": {"b": 1, "c": [1]}, "d": 2}), br#"{"a":{"b":null,"c":[2],"e":{"f":null}}}"#).unwrap();
        assert_eq!(patched, json!({"a": {"c": [2], "e": {}}, "d": 2}));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]|name|containers|spec|\\$patch|\\$retainKeys|\\$setElementOrder/containers", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn without_nulls(value: &Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(
                fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), without_nulls(value))).collect(),
            ),
            other => other.clone(),
        }
    }

    fn difference(from: &Value, to: &Value) -> Value {
        match (from, to) {
            (Value::Object(from), Value::Object(to)) => {
                let removed = from.keys().filter(|name| !to.contains_key(*name)).map(|name| (name.clone(), Value::Null));
                let set = to
                    .iter()
                    .map(|(name, value)| (name.clone(), from.get(name).map_or_else(|| value.clone(), |old| difference(old, value))));
                Value::Object(removed.chain(set).collect())
            }
            _ => to.clone(),
        }
    }

    proptest! {
        #[test]
        fn the_merge_patch_of_a_difference_gives_the_target(from in any_json(), to in any_json()) {
            let (from, to) = (without_nulls(&json!({"root": from})), without_nulls(&json!({"root": to})));
            let patch = difference(&from, &to).to_string();
            prop_assert_eq!(merge_patch(&from, patch.as_bytes()).unwrap(), to);
        }

        #[test]
        fn no_patch_panics(target in any_json(), patch in any_json(), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            for bytes in [patch.to_string().as_bytes(), &bytes] {
                let _ = json_patch(&target, bytes);
                let _ = merge_patch(&target, bytes);
                let _ = strategic_patch(&target, bytes, "", "Pod");
            }
        }
    }
}
