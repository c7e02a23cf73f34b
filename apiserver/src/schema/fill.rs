//! Pruning and defaults of custom resources. Pure; the rules are those of `apiextensions-apiserver/pkg/apiserver/schema`.

use serde_json::{Map, Value};

use super::{Additional, Node, is_of_every_object};

/// Removes fields that the schema does not know.
pub(super) fn prune(value: &mut Value, node: &Node, root: bool) {
    match value {
        Value::Object(fields) => {
            let keep_meta = root || node.embedded;
            fields.retain(|name, _| !is_unknown(node, name, keep_meta));
            for (name, field) in fields {
                if !(keep_meta && is_of_every_object(name))
                    && let Some(member) = member(node, name)
                {
                    prune(field, member, false);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = &node.items {
                items.iter_mut().for_each(|each| prune(each, item, false));
            }
        }
        _ => {}
    }
}

/// Collects the paths that [`prune`] would remove.
pub(super) fn unknown(value: &Value, node: &Node, root: bool, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let keep_meta = root || node.embedded;
            for (name, field) in fields {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                if is_unknown(node, name, keep_meta) {
                    found.push(path);
                } else if !(keep_meta && is_of_every_object(name))
                    && let Some(member) = member(node, name)
                {
                    unknown(field, member, false, &path, found);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = &node.items {
                for (index, each) in items.iter().enumerate() {
                    unknown(each, item, false, &format!("{at}[{index}]"), found);
                }
            }
        }
        _ => {}
    }
}

fn is_unknown(node: &Node, name: &str, keep_meta: bool) -> bool {
    let open = node.preserve_unknown || !matches!(node.additional, Additional::Unknown);
    !(open || node.properties.contains_key(name) || (keep_meta && is_of_every_object(name)))
}

fn member<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    node.properties.get(name).or(match &node.additional {
        Additional::Like(values) => Some(values),
        Additional::Any | Additional::Unknown => None,
    })
}

/// Removes nulls where the schema allows none and has no default to put there.
pub(super) fn drop_nulls(value: &mut Value, node: &Node) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, field| {
                !field.is_null() || member(node, name).is_none_or(|member| member.nullable || member.default.is_some())
            });
            for (name, field) in fields {
                if let Some(member) = member(node, name) {
                    drop_nulls(field, member);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = &node.items {
                items.iter_mut().for_each(|each| drop_nulls(each, item));
            }
        }
        _ => {}
    }
}

/// Fills in defaults, also inside what a default has just put there.
pub(super) fn default(value: &mut Value, node: &Node) {
    match value {
        Value::Object(fields) => {
            default_fields(fields, node);
            for (name, field) in fields {
                if let Some(member) = member(node, name) {
                    replace_null(field, member);
                    default(field, member);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = &node.items {
                for each in items {
                    replace_null(each, item);
                    default(each, item);
                }
            }
        }
        _ => {}
    }
}

fn default_fields(fields: &mut Map<String, Value>, node: &Node) {
    for (name, property) in &node.properties {
        if let Some(default) = &property.default
            && !fields.contains_key(name)
        {
            fields.insert(name.clone(), default.clone());
        }
    }
}

fn replace_null(value: &mut Value, node: &Node) {
    if value.is_null()
        && !node.nullable
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Schema;
    use super::*;

    fn check(schema: Value, object: Value, expected: Value) {
        let schema = Schema::parse(&schema).unwrap();
        let mut filled = object;
        schema.default_and_prune(&mut filled);
        assert_eq!(filled, expected);
    }

    #[test]
    fn unknown_fields_go_and_the_parts_of_every_object_stay() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string"}, "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"y": {}}}}}}}});
        let object = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "labels": {"l": "v"}}, "extra": 1,
            "spec": {"a": "x", "b": 1, "list": [{"x": 1, "z": 2}], "map": {"k": {"y": 1, "z": 2}}, "metadata": {}}});
        assert_eq!(
            Schema::parse(&schema).unwrap().unknown_fields(&object),
            ["extra", "spec.b", "spec.list[0].z", "spec.map.k.z", "spec.metadata"]
        );
        check(
            schema,
            object,
            json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "labels": {"l": "v"}},
            "spec": {"a": "x", "list": [{"x": 1}], "map": {"k": {"y": 1}}}}),
        );
    }

    #[test]
    fn preserved_and_embedded_parts_keep_what_they_should() {
        check(
            json!({"type": "object", "properties": {
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object"}}},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}}}),
            json!({"free": {"any": {"thing": 1}, "known": {"gone": 1}}, "pod": {"kind": "Pod", "metadata": {"name": "x"}, "spec": {"gone": 1}, "gone": 1}}),
            json!({"free": {"any": {"thing": 1}, "known": {}}, "pod": {"kind": "Pod", "metadata": {"name": "x"}, "spec": {}}}),
        );
    }

    #[test]
    fn defaults_fill_gaps_and_nulls() {
        check(
            json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
                "replicas": {"type": "integer", "default": 1}, "mode": {"type": "string", "nullable": true, "default": "auto"},
                "note": {"type": "string"}, "ports": {"type": "array", "items": {"type": "object", "properties": {"protocol": {"type": "string", "default": "TCP"}}}}}}}}),
            json!({}),
            json!({"spec": {"replicas": 1, "mode": "auto"}}),
        );
        check(
            json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "replicas": {"type": "integer", "default": 1}, "mode": {"type": "string", "nullable": true, "default": "auto"},
                "note": {"type": "string"}, "ports": {"type": "array", "items": {"type": "object", "properties": {"protocol": {"type": "string", "default": "TCP"}}}}}}}}),
            json!({"spec": {"replicas": null, "mode": null, "note": null, "ports": [{}, {"protocol": "UDP"}]}}),
            json!({"spec": {"replicas": 1, "mode": null, "ports": [{"protocol": "TCP"}, {"protocol": "UDP"}]}}),
        );
    }
}
