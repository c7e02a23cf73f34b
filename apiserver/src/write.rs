//! What creating, updating and deleting mean: one function each, run inside [`crate::store::Store::write`].

use serde_json::{Value, json};

use crate::{
    crd, defaults,
    failure::Failure,
    kinds::Kind,
    lifecycle::{self, service_ip},
    managed, object,
    store::{Key, Tx},
    validate,
};

/// Where and by whom an object is written.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// The kind.
    pub kind: &'a Kind,
    /// The namespace; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// The name; empty to create.
    pub name: &'a str,
    /// `status`, or empty.
    pub subresource: &'a str,
    /// What the server was told.
    pub rules: &'a Rules,
    /// Who owns the fields that the write changes.
    pub ownership: Ownership<'a>,
}

/// Who owns the fields that a write changes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ownership<'a> {
    /// The manager who makes the write, through a subresource unless that is empty.
    Tracked {
        /// The field manager.
        manager: &'a str,
        /// The subresource that is noted with it.
        through: &'a str,
    },
    /// Server-side apply has noted it in the object already.
    Applied,
}

/// What the server's flags decide about objects.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The range of cluster IPs.
    pub service_range: ipnet::IpNet,
    /// Whether endpoints on 127.x are accepted.
    pub loopback_endpoints: Loopback,
    /// The certificate authority that `kube-root-ca.crt` publishes.
    pub authority: String,
}

/// Whether endpoints on loopback addresses are accepted; the real server refuses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// Refused.
    Refuse,
    /// Accepted.
    Allow,
}

impl Place<'_> {
    /// Where the object lies.
    pub(crate) fn key(&self) -> Key {
        Key::new(&self.kind.resource(), self.namespace, self.name)
    }
}

/// Creates an object and returns it.
pub(crate) fn create(tx: &mut Tx<'_>, place: &Place<'_>, mut new: Value) -> Result<Value, Failure> {
    let kind = place.kind;
    fit(place, &mut new)?;
    name_it(&mut new);
    let name = object::name(&new).to_owned();
    if kind.namespaced {
        let namespace = tx.get(&Key::new("namespaces", "", place.namespace));
        let namespace = namespace.ok_or_else(|| Failure::not_found("namespaces", place.namespace))?;
        if object::is_deleting(&namespace.value) {
            let why = format!("unable to create new content in namespace {} because it is being terminated", place.namespace);
            let mut failure = Failure::forbidden(&kind.resource(), &name, &why);
            failure.details["causes"] = json!([{"reason": "NamespaceTerminating", "message": format!("namespace {} is being terminated", place.namespace), "field": "metadata.namespace"}]);
            return Err(failure);
        }
    }
    let key = Key::new(&kind.resource(), place.namespace, &name);
    if tx.get(&key).is_some() {
        return Err(Failure::already_exists(&kind.resource(), &name));
    }
    let metadata = object::metadata(&mut new);
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), json!(object::now()));
    if has_generation(kind) {
        metadata.insert("generation".to_owned(), json!(1));
    }
    if kind.has("status") {
        object::map(&mut new).remove("status");
    }
    prepare(tx, place, None, &mut new)?;
    Ok(Value::clone(&tx.put(key, new)?.value))
}

/// Replaces an object, or its status, by a new state, and returns it.
pub(crate) fn update(tx: &mut Tx<'_>, place: &Place<'_>, mut new: Value) -> Result<Value, Failure> {
    let (kind, resource) = (place.kind, place.kind.resource());
    fit(place, &mut new)?;
    let key = place.key();
    let before = tx.get(&key).ok_or_else(|| Failure::not_found(&resource, place.name))?;
    let before = before.value.as_ref();
    let version = object::text(&new, "metadata.resourceVersion");
    if !version.is_empty() && version != object::text(before, "metadata.resourceVersion") {
        return Err(Failure::conflict(&resource, place.name, MODIFIED));
    }
    let uid = object::uid(&new);
    if !uid.is_empty() && uid != object::uid(before) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object::uid(before));
        return Err(Failure::conflict(&resource, place.name, &why));
    }
    if place.subresource == "status" {
        new = with_status_of(before, &new);
    } else if kind.has("status") {
        keep(before, &mut new, "status");
    }
    for field in
        ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion", "generateName"]
    {
        match before.get("metadata").and_then(|metadata| metadata.get(field)) {
            Some(value) => object::metadata(&mut new).insert(field.to_owned(), value.clone()),
            None => object::metadata(&mut new).remove(field),
        };
    }
    if object::is_deleting(before) {
        let old = object::finalizers(before);
        if let Some(added) = object::finalizers(&new).iter().find(|each| !old.contains(each)) {
            let message = format!(
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{added:?}}}"
            );
            let cause = ("FieldValueForbidden".to_owned(), "metadata.finalizers".to_owned(), message);
            return Err(Failure::invalid(&kind.group, &kind.kind, place.name, &[cause]));
        }
    }
    if place.subresource == "status" {
        validate::schema(kind, &mut new)?;
        managed::track(place, Some(before), &mut new);
    } else {
        prepare(tx, place, Some(before), &mut new)?;
    }
    if has_generation(kind) && !same_except(before, &new, &["metadata", "status"]) {
        let generation = object::at(before, "metadata.generation").and_then(Value::as_i64).unwrap_or(0);
        object::metadata(&mut new).insert("generation".to_owned(), json!(generation + 1));
    }
    if managed::without_times(&new) == managed::without_times(before) {
        return Ok(before.clone());
    }
    let written = Value::clone(&tx.put(key.clone(), new)?.value);
    lifecycle::finish_deletion(tx, &key)?;
    Ok(written)
}

/// How to delete.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    /// `Background`, `Foreground`, `Orphan`, or empty.
    pub propagation: String,
    /// Seconds, for pods.
    pub grace: Option<i64>,
    /// The uid that the object must have.
    pub uid: Option<String>,
    /// The version that the object must have.
    pub version: Option<String>,
}

impl DeleteOptions {
    /// Reads `DeleteOptions`, whatever is absent being the default.
    pub(crate) fn of(body: &Value) -> Self {
        let text = |path: &str| object::at(body, path).and_then(Value::as_str).map(str::to_owned);
        let orphans = body.get("orphanDependents").and_then(Value::as_bool) == Some(true);
        Self {
            propagation: text("propagationPolicy").unwrap_or_else(|| if orphans { "Orphan".to_owned() } else { String::new() }),
            grace: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            uid: text("preconditions.uid"),
            version: text("preconditions.resourceVersion"),
        }
    }
}

/// What a deletion did.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Value),
    /// Finalizers or a node hold it; this is its state.
    Marked(Value),
}

/// Deletes an object, or marks it when something holds it.
pub(crate) fn delete(tx: &mut Tx<'_>, key: &Key, options: &DeleteOptions) -> Result<Deleted, Failure> {
    if &*key.resource == "namespaces" && IMMORTAL.contains(&&*key.name) {
        return Err(Failure::forbidden(&key.resource, &key.name, "this namespace may not be deleted"));
    }
    let stored = tx.get(key).ok_or_else(|| Failure::not_found(&key.resource, &key.name))?;
    let before = stored.value.as_ref();
    for (asked, path, what) in [(&options.uid, "metadata.uid", "UID"), (&options.version, "metadata.resourceVersion", "ResourceVersion")] {
        let has = object::text(before, path);
        if asked.as_deref().is_some_and(|asked| asked != has) {
            let asked = asked.as_deref().unwrap_or_default();
            let why = format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {has}");
            return Err(Failure::conflict(&key.resource, &key.name, &why));
        }
    }
    let mut finalizers = object::finalizers(before);
    finalizers.retain(|each| options.propagation.is_empty() || (each != lifecycle::ORPHAN && each != lifecycle::FOREGROUND));
    match options.propagation.as_str() {
        "Orphan" => finalizers.push(lifecycle::ORPHAN.to_owned()),
        "Foreground" => finalizers.push(lifecycle::FOREGROUND.to_owned()),
        _ => {}
    }
    let grace = grace(key, before, options);
    let held = !finalizers.is_empty() || grace > 0 || (&*key.resource == "namespaces" && has_namespace_finalizer(before));
    if !held {
        tx.remove(key)?;
        return Ok(Deleted::Gone(before.clone()));
    }
    let mut marked = before.clone();
    object::set_finalizers(&mut marked, &finalizers);
    let first = !object::is_deleting(before);
    let metadata = object::metadata(&mut marked);
    if first {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
        metadata.insert("deletionTimestamp".to_owned(), json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
            metadata.insert("generation".to_owned(), json!(generation + 1));
        }
    }
    let shorter = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64).is_none_or(|old| grace < old);
    if shorter {
        metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
    }
    if &*key.resource == "namespaces" {
        object::member(&mut marked, "status").insert("phase".to_owned(), json!("Terminating"));
    }
    if marked == *before {
        return Ok(Deleted::Marked(marked));
    }
    let marked = tx.put(key.clone(), marked)?;
    Ok(Deleted::Marked(Value::clone(&marked.value)))
}

fn has_namespace_finalizer(object: &Value) -> bool {
    object::at(object, "spec.finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

/// Only a pod that a node runs has a grace period; the node ends it by deleting with grace 0.
fn grace(key: &Key, pod: &Value, options: &DeleteOptions) -> i64 {
    let running = !object::text(pod, "spec.nodeName").is_empty() && !matches!(object::text(pod, "status.phase"), "Succeeded" | "Failed");
    if &*key.resource != "pods" || !running {
        return 0;
    }
    let own = object::at(pod, "spec.terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
    options.grace.unwrap_or(own).max(0)
}

/// Checks that a body is for the place it was sent to, and completes it from there.
pub(crate) fn fit(place: &Place<'_>, new: &mut Value) -> Result<(), Failure> {
    let kind = place.kind;
    if !new.is_object() {
        return Err(Failure::bad_request("the body of the request is no object"));
    }
    let (said, expected) = ((object::text(new, "apiVersion"), object::text(new, "kind")), kind.api_version());
    if (!said.0.is_empty() && said.0 != expected) || (!said.1.is_empty() && said.1 != kind.kind) {
        let message = format!(
            "the object provided ({}, Kind={}) does not match what the path serves ({expected}, Kind={})",
            said.0, said.1, kind.kind
        );
        return Err(Failure::bad_request(message));
    }
    let namespace = object::text(new, "metadata.namespace");
    if kind.namespaced && !namespace.is_empty() && namespace != place.namespace {
        return Err(Failure::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request: {namespace} and {}",
            place.namespace
        )));
    }
    let name = object::name(new);
    if !place.name.is_empty() && !name.is_empty() && name != place.name {
        return Err(Failure::bad_request(format!("the name of the object ({name}) does not match the name on the URL ({})", place.name)));
    }
    let map = object::map(new);
    map.insert("apiVersion".to_owned(), json!(expected));
    map.insert("kind".to_owned(), json!(kind.kind));
    let metadata = object::metadata(new);
    if !place.name.is_empty() {
        metadata.insert("name".to_owned(), json!(place.name));
    }
    if kind.namespaced {
        metadata.insert("namespace".to_owned(), json!(place.namespace));
    } else {
        metadata.remove("namespace");
    }
    Ok(())
}

/// Completes a `generateName` by five characters, as the real server does.
fn name_it(new: &mut Value) {
    let prefix = object::text(new, "metadata.generateName").to_owned();
    if object::name(new).is_empty() && !prefix.is_empty() {
        let random = uuid::Uuid::new_v4();
        let letter = |byte: &u8| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]);
        let suffix = random.as_bytes()[10..15].iter().map(letter).collect::<String>();
        let prefix = prefix.chars().take(58).collect::<String>();
        object::metadata(new).insert("name".to_owned(), json!(format!("{prefix}{suffix}")));
    }
}

/// Defaults, ownership, validation and allocation, in the order in which the real server has them: nobody owns what is allocated.
fn prepare(tx: &mut Tx<'_>, place: &Place<'_>, before: Option<&Value>, new: &mut Value) -> Result<(), Failure> {
    let kind = place.kind;
    defaults::apply(kind, before, new);
    validate::metadata(kind, new)?;
    validate::schema(kind, new)?;
    managed::track(place, before, new);
    validate::builtin(kind, before, new, place.rules)?;
    if kind.is("", "Service") {
        service_ip::allocate(tx, before, new, &place.rules.service_range)?;
    }
    if kind.is("apiextensions.k8s.io", "CustomResourceDefinition") {
        crd::establish(new);
    }
    Ok(())
}

/// The old object under the new one's status (and managed fields): what a status write may change.
fn with_status_of(before: &Value, new: &Value) -> Value {
    let mut merged = before.clone();
    keep(new, &mut merged, "status");
    if let Some(managed) = object::at(new, "metadata.managedFields") {
        object::metadata(&mut merged).insert("managedFields".to_owned(), managed.clone());
    }
    merged
}

fn keep(from: &Value, to: &mut Value, field: &str) {
    match from.get(field) {
        Some(value) => object::map(to).insert(field.to_owned(), value.clone()),
        None => object::map(to).remove(field),
    };
}

fn same_except(one: &Value, other: &Value, fields: &[&str]) -> bool {
    let rest = |value: &Value| {
        let map = value.as_object().cloned().unwrap_or_default();
        map.into_iter().filter(|(name, _)| !fields.contains(&name.as_str())).collect::<serde_json::Map<_, _>>()
    };
    rest(one) == rest(other)
}

/// Custom kinds count generations; of the built-in ones those whose spec a controller follows.
fn has_generation(kind: &Kind) -> bool {
    const FOLLOWED: &[&str] =
        &["apps", "batch", "networking.k8s.io", "policy", "apiextensions.k8s.io", "admissionregistration.k8s.io", "discovery.k8s.io"];
    kind.custom.is_some() || FOLLOWED.contains(&kind.group.as_str()) || kind.is("", "Pod")
}

/// Namespaces that are never deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";
