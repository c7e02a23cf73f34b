//! Whether an applied configuration fits the schema's rules for merging. Pure.
//!
//! Stored objects are taken as they are; what a client applies must name its fields and elements without doubt.

use std::collections::BTreeSet;

use serde_json::Value;

use super::walk::element;
use crate::openapi::shape::{ListRule, Shape};

/// The first thing that does not fit, with its place.
pub(super) fn applied(value: &Value, shape: Shape<'_>) -> Result<(), String> {
    check(value, shape, "")
}

fn check(value: &Value, shape: Shape<'_>, at: &str) -> Result<(), String> {
    match value {
        Value::Object(_) if !shape.allows("object") => Err(format!("{at}: expected {}, got a map", expected(shape))),
        Value::Array(_) if !shape.allows("array") => Err(format!("{at}: expected {}, got a list", expected(shape))),
        Value::Object(fields) => {
            for (name, field) in fields {
                let inner = format!("{at}.{name}");
                let member = shape.member(name).ok_or_else(|| format!("{inner}: field not declared in schema"))?;
                check(field, member, &inner)?;
            }
            Ok(())
        }
        Value::Array(items) => elements(items, shape, at),
        Value::Null => Ok(()),
        Value::String(_) if !shape.allows("string") => Err(format!("{at}: expected {}, got {value}", expected(shape))),
        Value::Number(_) if !(shape.allows("integer") || shape.allows("number")) => {
            Err(format!("{at}: expected {}, got {value}", expected(shape)))
        }
        Value::Bool(_) if !shape.allows("boolean") => Err(format!("{at}: expected {}, got {value}", expected(shape))),
        _ => Ok(()),
    }
}

fn elements(items: &[Value], shape: Shape<'_>, at: &str) -> Result<(), String> {
    let rule = shape.list_rule();
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let inner = if rule == ListRule::Atomic {
            format!("{at}[{index}]")
        } else {
            let name = element(item, &rule, shape).map_err(|error| format!("{at}: element {index}: {error}"))?;
            let inner = format!("{at}{name}");
            if !seen.insert(name) {
                return Err(format!("{at}: duplicate entries for key {}", &inner[at.len()..]));
            }
            inner
        };
        check(item, shape.items(), &inner)?;
    }
    Ok(())
}

fn expected(shape: Shape<'_>) -> &'static str {
    const KINDS: [(&str, &str); 6] = [
        ("object", "map"),
        ("array", "list"),
        ("string", "string"),
        ("integer", "numeric (int or float)"),
        ("number", "numeric (int or float)"),
        ("boolean", "boolean (true or false)"),
    ];
    KINDS.iter().find(|(kind, _)| shape.allows(kind)).map_or("another type", |(_, words)| words)
}
