//! Patching: JSON, merge and strategic patches change what is there; server-side apply also creates.

use http::Response;
use serde_json::Value;

use super::{
    Api, Call,
    answer::{self, Body},
    read, unknown_fields,
};
use crate::{
    apply::{self, ApplyError, Force, Writer},
    failure::Failure,
    managed, object,
    patch::{self, PatchError},
    store::Tx,
    write::{self, Ownership, Place},
};

impl Api {
    pub(super) fn patch(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        if media_type(call) == APPLY {
            return self.apply(call);
        }
        if !call.query.get("force").is_empty() {
            return Err(bad_option("FieldValueForbidden", "force", "Forbidden: may not be specified for non-apply patch"));
        }
        let (written, unknown) = self.write(call, |tx| {
            let live = tx.get(&call.key()).ok_or_else(|| call.not_found())?;
            let strategic = call.kind.custom.is_none().then_some((call.kind.group.as_str(), call.kind.kind.as_str()));
            let new = patched(call, &read::in_version(&call.kind, &live.value), strategic)?;
            let unknown = unknown_fields(call, &new)?;
            Ok((write::update(tx, &self.place(call), new)?, unknown))
        })?;
        Ok(answer::warned(self.shown(200, call, &written), &unknown))
    }

    fn apply(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        if call.query.get("fieldManager").is_empty() {
            return Err(bad_option("FieldValueRequired", "fieldManager", "Required value: is required for apply patch"));
        }
        let configuration = self.configuration(call)?;
        unknown_fields(call, &configuration)?;
        let (code, written) = self.write(call, |tx| self.lay_over(tx, call, &configuration))?;
        Ok(self.shown(code, call, &written))
    }

    /// The configuration that apply is sent: YAML, of which JSON is a part. It names its object as the path does.
    fn configuration(&self, call: &Call<'_>) -> Result<Value, Failure> {
        let undecodable = |error: &dyn std::fmt::Display| Failure::bad_request(format!("error decoding YAML: {error}"));
        let text = std::str::from_utf8(&call.body).map_err(|error| undecodable(&error))?;
        let read = serde_json::from_str(text).or_else(|_| serde_saphyr::from_str(text));
        let mut configuration: Value = read.map_err(|error| undecodable(&error))?;
        if object::at(&configuration, "metadata.managedFields").is_some_and(|fields| !fields.is_null()) {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        if ["apiVersion", "kind"].iter().any(|field| object::text(&configuration, field).is_empty()) {
            return Err(Failure::bad_request("the applied configuration must state its apiVersion and kind"));
        }
        write::fit(&self.place(call), &mut configuration)?;
        Ok(configuration)
    }

    fn lay_over(&self, tx: &mut Tx<'_>, call: &Call<'_>, configuration: &Value) -> Result<(u16, Value), Failure> {
        let live = tx.get(&call.key());
        let live = live.map(|live| read::in_version(&call.kind, &live.value));
        if live.is_none() && !call.target.subresource.is_empty() {
            return Err(call.not_found());
        }
        let uid = object::uid(configuration);
        if live.is_none() && !uid.is_empty() {
            let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Failure::conflict(&call.kind.resource(), &call.target.name, &why));
        }
        let (time, version) = (object::now(), call.kind.api_version());
        let writer =
            Writer { manager: call.manager(), operation_time: &time, api_version: &version, subresource: &call.target.subresource };
        let force = if call.query.is("force") { Force::Yes } else { Force::No };
        let laid = apply::apply(live.as_ref(), configuration, &writer, force, &managed::lists(&call.kind));
        let new = laid.map_err(|error| match &error {
            ApplyError::Conflicts(conflicts) => Failure::owned(error.to_string(), conflicts),
            ApplyError::Invalid(why) => Failure::new(500, "", why),
        })?;
        let place = Place { ownership: Ownership::Applied, ..self.place(call) };
        match live {
            Some(_) => Ok((200, write::update(tx, &place, new)?)),
            None => Ok((201, write::create(tx, &place, new)?)),
        }
    }
}

/// What a patch other than apply makes of an object. `strategic` is the built-in group and kind whose schema a strategic patch follows.
pub(super) fn patched(call: &Call<'_>, live: &Value, strategic: Option<(&str, &str)>) -> Result<Value, Failure> {
    let new = match (media_type(call), strategic) {
        ("application/json-patch+json", _) => patch::json_patch(live, &call.body),
        ("application/merge-patch+json", _) => patch::merge_patch(live, &call.body),
        ("application/strategic-merge-patch+json", Some((group, kind))) => patch::strategic_patch(live, &call.body, group, kind),
        _ => Err(PatchError::NotStrategic),
    };
    new.map_err(|error| match error.code() {
        413 => Failure::new(413, "RequestEntityTooLarge", error.to_string()),
        415 => Failure::unsupported(error.to_string()),
        422 => Failure::new(422, "Invalid", error.to_string()),
        _ => Failure::bad_request(error.to_string()),
    })
}

fn media_type<'a>(call: &'a Call<'_>) -> &'a str {
    call.header("content-type").split(';').next().unwrap_or_default().trim()
}

fn bad_option(reason: &str, field: &str, message: &str) -> Failure {
    Failure::invalid("meta.k8s.io", "PatchOptions", "", &[(reason.to_owned(), field.to_owned(), message.to_owned())])
}

const APPLY: &str = "application/apply-patch+yaml";
