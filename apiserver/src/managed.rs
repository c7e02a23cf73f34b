//! Field ownership around a write. Pure but for the clock.

use serde_json::{Value, json};

use crate::{
    apply::{self, Lists, Writer},
    kinds::Kind,
    object,
    write::{Ownership, Place},
};

/// Notes in `new` who owns what after this write. Nobody gains status by a write of the object itself, which does not change it.
pub(crate) fn track(place: &Place<'_>, before: Option<&Value>, new: &mut Value) {
    let Ownership::Tracked { manager, through } = place.ownership else { return };
    let mut written = new.clone();
    if place.kind.has("status") && place.subresource != "status" {
        match before.and_then(|before| before.get("status")) {
            Some(status) => object::map(&mut written).insert("status".to_owned(), status.clone()),
            None => object::map(&mut written).remove("status"),
        };
    }
    let (time, version) = (object::now(), place.kind.api_version());
    let writer = Writer { manager, operation_time: &time, api_version: &version, subresource: through };
    let tracked = apply::track(before, written, &writer, &lists(place.kind));
    match object::at(&tracked, "metadata.managedFields") {
        Some(fields) => object::metadata(new).insert("managedFields".to_owned(), fields.clone()),
        None => object::metadata(new).remove("managedFields"),
    };
}

/// How the fields of a kind merge.
pub(crate) fn lists(kind: &Kind) -> Lists {
    kind.custom.as_ref().map_or_else(|| Lists::builtin(&kind.group, &kind.kind), |custom| custom.lists.clone())
}

/// The manager of a caller who does not name one: its program, as the user agent has it.
pub(crate) fn manager<'a>(named: &'a str, user_agent: &'a str) -> &'a str {
    let program = user_agent.split('/').next().unwrap_or_default();
    let program = program.char_indices().nth(MANAGER_MAX).map_or(program, |(end, _)| program.get(..end).unwrap_or_default());
    if named.is_empty() { program } else { named }
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

/// The longest name of a field manager.
const MANAGER_MAX: usize = 128;
