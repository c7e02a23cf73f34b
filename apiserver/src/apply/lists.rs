//! How the lists and maps of one kind merge. Pure.

use std::sync::Arc;

use serde_json::Value;

use crate::openapi::shape::Shape;
use crate::openapi::types::types;

/// The merge rules of one kind: which lists are sets, which are keyed and by what, which lists and maps are owned as a whole.
#[derive(Debug, Clone)]
pub struct Lists(Rules);

#[derive(Debug, Clone)]
enum Rules {
    Builtin(Shape<'static>),
    Schema(Arc<Value>),
}

impl Lists {
    /// The rules of a built-in kind. Of an unknown one: maps merge by key and lists are atomic, as where a schema says nothing.
    pub fn builtin(group: &str, kind: &str) -> Self {
        Self(Rules::Builtin(types().shape_of(group, kind).unwrap_or(Shape::of_resource(&Value::Null))))
    }

    /// The rules that a custom resource's `openAPIV3Schema` states with `x-kubernetes-list-type` and its kin.
    pub fn of_schema(schema: &Value) -> Self {
        Self(Rules::Schema(Arc::new(schema.clone())))
    }

    pub(super) fn shape(&self) -> Shape<'_> {
        match &self.0 {
            Rules::Builtin(shape) => *shape,
            Rules::Schema(schema) => Shape::of_resource(schema),
        }
    }

    /// Top-level fields that a write through this subresource never sets, as the real server's reset fields: a built-in kind's status
    /// is written through `status` only, and nothing else is.
    pub(super) fn reset_by(&self, subresource: &str) -> &'static [&'static str] {
        let has = |name: &str| self.shape().has_field(name);
        match (subresource, &self.0) {
            ("status", _) => &["spec"],
            ("", Rules::Builtin(_)) if has("spec") && has("status") => &["status"],
            _ => &[],
        }
    }
}
