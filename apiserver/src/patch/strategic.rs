//! The merge of a strategic patch. Pure.
//!
//! Follows `k8s.io/apimachinery/pkg/util/strategicpatch` step by step, also where that is odd, because clients (kubectl's three-way
//! apply above all) compute patches against exactly that behaviour.

use serde_json::{Map, Value};

use super::PatchError;
use crate::openapi::shape::{Shape, Strategy};

/// Merges a patch into an object.
pub(super) fn merge_map(
    original: Map<String, Value>,
    mut patch: Map<String, Value>,
    shape: Shape<'_>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(DIRECTIVE).map(|word| word.as_str()) {
        None => {}
        Some(Some("replace")) => {
            patch.remove(DIRECTIVE);
            return Ok(patch);
        }
        Some(Some("delete")) => return Ok(Map::new()),
        Some(_) => return Err(bad_directive(&patch)),
    }
    let mut merged = original;
    retain_keys(&mut merged, &mut patch)?;
    order_elements(&mut merged, &mut patch, shape)?;
    for (name, change) in patch {
        if let Some(field) = name.strip_prefix(DELETE_FROM_LIST) {
            delete_from_list(&mut merged, field, &change)?;
        } else {
            merge_field(&mut merged, name, change, shape)?;
        }
    }
    Ok(merged)
}

fn merge_field(merged: &mut Map<String, Value>, name: String, change: Value, shape: Shape<'_>) -> Result<(), PatchError> {
    let member = shape.member(&name).unwrap_or(Shape::Deduced);
    let value = match (merged.remove(&name), change) {
        (_, Value::Null) => None,
        (Some(Value::Object(old)), Value::Object(new)) => Some(Value::Object(merge_map(old, new, member)?)),
        (Some(Value::Array(old)), Value::Array(new)) => Some(Value::Array(merge_list(old, new, &name, member)?)),
        (_, new) => without_directives(without_nulls(new)),
    };
    if let Some(value) = value {
        merged.insert(name, value);
    }
    Ok(())
}

/// `$retainKeys`: what it does not list goes.
fn retain_keys(merged: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(kept) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let kept = kept.as_array().ok_or_else(|| bad_format(RETAIN_KEYS))?;
    let is_kept = |name: &str| kept.iter().any(|each| each.as_str() == Some(name));
    let is_order = |name: &str| name.starts_with(DELETE_FROM_LIST) || name.starts_with(ELEMENT_ORDER);
    if patch.iter().any(|(name, value)| !value.is_null() && !is_order(name) && !is_kept(name)) {
        return Err(bad_format(RETAIN_KEYS));
    }
    merged.retain(|name, _| is_kept(name));
    Ok(())
}

/// `$setElementOrder/field`: merges that field here, then puts its elements in the order the client saw.
fn order_elements(merged: &mut Map<String, Value>, patch: &mut Map<String, Value>, shape: Shape<'_>) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|name| name.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let field = directive[ELEMENT_ORDER.len()..].to_owned();
        let order = patch.remove(&directive).and_then(into_array).ok_or_else(|| bad_format("$setElementOrder"))?;
        let member = shape.member(&field).unwrap_or(Shape::Deduced);
        let old = merged.remove(&field).map(|value| into_array(value).ok_or_else(|| bad_format("$setElementOrder"))).transpose()?;
        let new = patch.remove(&field).map(|value| into_array(value).ok_or_else(|| bad_format("$setElementOrder"))).transpose()?;
        let key = key_of(member.strategy());
        check_order(new.as_deref().unwrap_or_default(), &order, key)?;
        let result = match (old.clone(), new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => new.into_iter().map(without_nulls).filter_map(without_directives).collect(),
            (Some(old), Some(new)) => merge_list(old, new, &field, member)?,
        };
        let arranged = arrange(result, &order, &old.unwrap_or_default(), key);
        merged.insert(field, Value::Array(arranged));
    }
    Ok(())
}

/// The patch's own elements must come in the order it asks for.
fn check_order(new: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    let in_order = new.iter().filter(|element| element.get(DIRECTIVE).is_none()).all(|element| rest.any(|each| same(each, element, key)));
    if in_order { Ok(()) } else { Err(PatchError::BadDirective("The order in patch list doesn't match $setElementOrder list".to_owned())) }
}

fn delete_from_list(merged: &mut Map<String, Value>, field: &str, gone: &Value) -> Result<(), PatchError> {
    let gone = gone.as_array().ok_or_else(|| bad_format("$deleteFromPrimitiveList"))?;
    if let Some(Value::Array(elements)) = merged.get_mut(field) {
        elements.retain(|element| !gone.contains(element));
    }
    Ok(())
}

fn merge_list(old: Vec<Value>, new: Vec<Value>, name: &str, shape: Shape<'_>) -> Result<Vec<Value>, PatchError> {
    let strategy = shape.strategy();
    if strategy == Strategy::Replace {
        return Ok(new.into_iter().filter_map(without_directives).collect());
    }
    let maps = old.iter().chain(&new).filter(|element| element.is_object()).count();
    let lists = old.iter().chain(&new).any(Value::is_array);
    if lists || (maps != 0 && maps != old.len() + new.len()) {
        return Err(PatchError::NotApplicable(format!("list {name:?} mixes elements of different types")));
    }
    if maps == 0 {
        let mut united = old.clone();
        united.extend(new.iter().cloned());
        return Ok(arrange(deduplicate(united), &new, &old, None));
    }
    let Strategy::MergeBy(key) = strategy else {
        return Err(PatchError::NotApplicable(format!("cannot merge lists without merge key for {name}")));
    };
    let (kept, added) = special_elements(old, new, key)?;
    let order = added.clone();
    let mut merged = kept.clone();
    for element in added {
        merge_element(&mut merged, element, key, shape)?;
    }
    Ok(arrange(merged, &order, &kept, Some(key)))
}

fn merge_element(merged: &mut Vec<Value>, element: Value, key: &str, shape: Shape<'_>) -> Result<(), PatchError> {
    let Some(id) = element.get(key).cloned() else {
        return Err(no_merge_key(&element, key));
    };
    match merged.iter_mut().find(|each| each.get(key) == Some(&id)) {
        Some(found) => {
            if let (Value::Object(old), Value::Object(new)) = (found.take(), element) {
                *found = Value::Object(merge_map(old, new, shape.items())?);
            }
        }
        None => merged.extend(without_directives(without_nulls(element))),
    }
    Ok(())
}

/// `$patch` inside a list: deletes an element, or makes the patch the whole list.
fn special_elements(mut old: Vec<Value>, new: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let (special, plain): (Vec<_>, Vec<_>) = new.into_iter().partition(|element| element.get(DIRECTIVE).is_some());
    let mut replace = false;
    for element in special {
        match element[DIRECTIVE].as_str() {
            Some("delete") => {
                let id = element.get(key).ok_or_else(|| no_merge_key(&element, key))?;
                old.retain(|each| each.get(key) != Some(id));
            }
            Some("replace") => replace = true,
            _ => return Err(bad_directive(element.as_object().unwrap_or(&Map::new()))),
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (old, plain) })
}

/// Elements that `order` names come in its order, others stay where the server had them.
fn arrange(elements: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let index = |list: &[Value], element: &Value| list.iter().position(|each| same(each, element, key));
    let (mut ordered, mut others): (Vec<_>, Vec<_>) = elements.into_iter().partition(|element| index(order, element).is_some());
    ordered.sort_by_key(|element| index(order, element));
    others.sort_by_key(|element| index(server, element));
    let mut all = Vec::with_capacity(ordered.len() + others.len());
    let (mut ordered, mut others) = (ordered.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), ordered.peek()) {
            (None, None) => return all,
            (None, Some(_)) => false,
            (Some(_), None) => true,
            (Some(other), Some(next)) => {
                index(server, other).zip(index(server, next)).is_some_and(|(other_at, next_at)| other_at < next_at)
            }
        };
        all.extend(if other_first { others.next() } else { ordered.next() });
    }
}

fn same(one: &Value, other: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => one.get(key).is_some() && one.get(key) == other.get(key),
        None => one == other,
    }
}

fn key_of(strategy: Strategy<'_>) -> Option<&str> {
    match strategy {
        Strategy::MergeBy(key) => Some(key),
        Strategy::Replace | Strategy::Union => None,
    }
}

fn deduplicate(elements: Vec<Value>) -> Vec<Value> {
    let mut unique: Vec<Value> = Vec::with_capacity(elements.len());
    for element in elements {
        if !unique.contains(&element) {
            unique.push(element);
        }
    }
    unique
}

/// What is left when a patch stands where the object had nothing; a thing that is itself a directive leaves nothing.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => None,
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(name, _)| !is_directive(name));
            Some(Value::Object(kept.filter_map(|(name, value)| Some((name, without_directives(value)?))).collect()))
        }
        Value::Array(elements) => Some(Value::Array(elements.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

fn is_directive(name: &str) -> bool {
    name == RETAIN_KEYS || name.starts_with(ELEMENT_ORDER) || name.starts_with(DELETE_FROM_LIST)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name, without_nulls(value))).collect(),
        ),
        Value::Array(elements) => Value::Array(elements.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn into_array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(elements) => Some(elements),
        _ => None,
    }
}

fn bad_directive(patch: &Map<String, Value>) -> PatchError {
    let word = patch.get(DIRECTIVE).map_or_else(String::new, Value::to_string);
    PatchError::BadDirective(format!("unknown patch type: {word} in map: {}", Value::Object(patch.clone())))
}

fn bad_format(directive: &str) -> PatchError {
    PatchError::BadDirective(format!("invalid patch format of {directive}"))
}

fn no_merge_key(element: &Value, key: &str) -> PatchError {
    PatchError::NotApplicable(format!("map: {element} does not contain declared merge key: {key}"))
}

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::strategic_patch;
    use super::*;

    fn check(kind: (&str, &str), target: Value, patch: Value, expected: Value) {
        let patched = strategic_patch(&target, patch.to_string().as_bytes(), kind.0, kind.1).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(patched, expected, "{patch}");
    }

    const POD: (&str, &str) = ("", "Pod");
    const DEPLOYMENT: (&str, &str) = ("apps", "Deployment");

    fn containers(list: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": list}}}})
    }

    #[test]
    fn containers_merge_by_name_and_tolerations_are_replaced() {
        check(
            DEPLOYMENT,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "a"}], "tolerations": [{"key": "x"}]}}}}),
            json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "b"}], "tolerations": [{"key": "y"}]}}}}),
            json!({"spec": {"template": {"spec": {
                "containers": [{"name": "side", "image": "b"}, {"name": "web", "image": "a"}], "tolerations": [{"key": "y"}]}}}}),
        );
        check(
            DEPLOYMENT,
            containers(json!([{"name": "web", "image": "a", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]}])),
            containers(
                json!([{"name": "web", "image": "b", "env": [{"name": "B", "value": "2"}], "ports": [{"containerPort": 80, "name": "http"}]}]),
            ),
            containers(json!([{"name": "web", "image": "b", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}],
                "ports": [{"containerPort": 80, "name": "http"}]}])),
        );
    }

    #[test]
    fn directives_delete_and_replace() {
        check(
            DEPLOYMENT,
            containers(json!([{"name": "a"}, {"name": "b"}])),
            containers(json!([{"name": "a", "$patch": "delete"}])),
            containers(json!([{"name": "b"}])),
        );
        check(
            DEPLOYMENT,
            containers(json!([{"name": "a"}, {"name": "b"}])),
            containers(json!([{"$patch": "replace"}, {"name": "c"}])),
            containers(json!([{"name": "c"}])),
        );
        check(
            POD,
            json!({"spec": {"nodeSelector": {"a": "b"}, "hostNetwork": true}}),
            json!({"spec": {"nodeSelector": {"$patch": "replace", "c": "d"}}}),
            json!({"spec": {"nodeSelector": {"c": "d"}, "hostNetwork": true}}),
        );
        check(
            POD,
            json!({"spec": {"nodeSelector": {"a": "b"}}}),
            json!({"spec": {"nodeSelector": {"$patch": "delete"}}}),
            json!({"spec": {"nodeSelector": {}}}),
        );
    }

    #[test]
    fn retained_keys_drop_the_other_member_of_a_union() {
        check(
            DEPLOYMENT,
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        );
        check(
            POD,
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}}),
        );
    }

    #[test]
    fn elements_take_the_order_that_the_client_saw() {
        check(
            DEPLOYMENT,
            containers(json!([{"name": "a"}, {"name": "b"}, {"name": "server"}])),
            json!({"spec": {"template": {"spec": {
                "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "containers": [{"name": "c", "image": "x"}]}}}}),
            containers(json!([{"name": "c", "image": "x"}, {"name": "b"}, {"name": "a"}, {"name": "server"}])),
        );
    }

    #[test]
    fn a_patch_of_kubectl_apply_takes_out_what_the_manifest_no_longer_has() {
        check(
            DEPLOYMENT,
            containers(json!([{"name": "a", "image": "x"}, {"name": "gone", "image": "z"}, {"name": "server", "image": "s"}])),
            json!({"spec": {"template": {"spec": {
                "$setElementOrder/containers": [{"name": "a"}], "containers": [{"image": "y", "name": "a"}, {"$patch": "delete", "name": "gone"}]}}}}),
            containers(json!([{"name": "a", "image": "y"}, {"name": "server", "image": "s"}])),
        );
    }

    #[test]
    fn lists_of_scalars_are_united_and_cut() {
        check(
            POD,
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}),
            json!({"metadata": {"finalizers": ["c", "b"]}}),
        );
    }

    #[test]
    fn conditions_and_owners_merge_by_their_keys() {
        check(
            POD,
            json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "x"}]}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
            json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "y"}]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "y"}]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        );
        check(
            ("", "Service"),
            json!({"spec": {"ports": [{"port": 80, "name": "http"}]}}),
            json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 81, "name": "x"}]}}),
            json!({"spec": {"ports": [{"port": 80, "name": "http", "targetPort": 8080}, {"port": 81, "name": "x"}]}}),
        );
    }

    #[test]
    fn nulls_remove_and_never_stay() {
        check(
            POD,
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"a": null}, "annotations": {"x": null, "y": "z"}}}),
            json!({"metadata": {"labels": {"b": "2"}, "annotations": {"y": "z"}}}),
        );
    }

    #[test]
    fn contradicting_directives_are_refused() {
        let refused = |patch: Value, code: u16| {
            let target = containers(json!([{"name": "a"}]));
            assert_eq!(strategic_patch(&target, patch.to_string().as_bytes(), "apps", "Deployment").unwrap_err().code(), code, "{patch}");
        };
        refused(json!({"$patch": "merge"}), 400);
        refused(json!({"$patch": 1}), 400);
        refused(json!({"spec": {"$retainKeys": 1}}), 400);
        refused(json!({"spec": {"$retainKeys": ["a"], "b": 1}}), 400);
        refused(containers(json!([{"image": "x"}])), 422);
        refused(containers(json!([{"$patch": "delete"}])), 422);
        refused(containers(json!(["x"])), 422);
        refused(json!({"$setElementOrder/spec": {}}), 400);
    }
}
