//! Refusals, as `metav1.Status` says them: one value from where a check fails to the answer's body.

use serde_json::{Value, json};

use crate::apply::Conflict;

/// A request that was refused, in Kubernetes' terms.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The HTTP status code.
    pub code: u16,
    /// The machine-readable reason, such as `NotFound`.
    pub reason: &'static str,
    /// What a person reads.
    pub message: String,
    /// `details` of the Status.
    pub details: Value,
}

impl Failure {
    /// A failure without details.
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    /// 400.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 404 for an object.
    pub(crate) fn not_found(resource: &str, name: &str) -> Self {
        Self::of(404, "NotFound", format!("{resource} {name:?} not found"), resource, name)
    }

    /// 404 for a path that nothing serves.
    pub(crate) fn no_such_path() -> Self {
        Self { details: json!({}), ..Self::new(404, "NotFound", "the server could not find the requested resource") }
    }

    /// 409 for a name that is taken.
    pub(crate) fn already_exists(resource: &str, name: &str) -> Self {
        Self::of(409, "AlreadyExists", format!("{resource} {name:?} already exists"), resource, name)
    }

    /// 409 for a version that has moved on, or a precondition that fails.
    pub(crate) fn conflict(resource: &str, name: &str, why: &str) -> Self {
        Self::of(409, "Conflict", format!("Operation cannot be fulfilled on {resource} {name:?}: {why}"), resource, name)
    }

    /// 409 for fields that other managers own.
    pub(crate) fn owned(message: String, conflicts: &[Conflict]) -> Self {
        let cause = |conflict: &Conflict| json!({"reason": "FieldManagerConflict", "message": conflict.cause(), "field": conflict.field});
        let causes = conflicts.iter().map(cause).collect::<Vec<_>>();
        Self { details: json!({"causes": causes}), ..Self::new(409, "Conflict", message) }
    }

    /// 415.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 403.
    pub(crate) fn forbidden(resource: &str, name: &str, why: &str) -> Self {
        Self::of(403, "Forbidden", format!("{resource} {name:?} is forbidden: {why}"), resource, name)
    }

    /// 410 for a version that history no longer holds.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 422 with its causes; each is (reason, field, message).
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: &[(String, String, String)]) -> Self {
        let told = causes.iter().map(|(_, field, message)| format!("{field}: {message}")).collect::<Vec<_>>();
        let told = if let [one] = told.as_slice() { one.clone() } else { format!("[{}]", told.join(", ")) };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let causes =
            causes.iter().map(|(reason, field, message)| json!({"reason": reason, "message": message, "field": field})).collect::<Vec<_>>();
        Self {
            details: json!({"name": name, "group": group, "kind": kind, "causes": causes}),
            ..Self::new(422, "Invalid", format!("{qualified} {name:?} is invalid: {told}"))
        }
    }

    /// 500.
    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    fn of(code: u16, reason: &'static str, message: String, resource: &str, name: &str) -> Self {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let mut details = json!({"name": name, "kind": plural});
        if !group.is_empty() {
            details["group"] = json!(group);
        }
        Self { code, reason, message, details }
    }

    /// The body of the answer.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}
