//! What happens by itself after a write: garbage collection by owner, namespace termination, what each namespace starts with, and the
//! clean-up behind a CustomResourceDefinition.
//!
//! It runs inside the write that caused it, under the same lock, so there is no window and no controller to wait for; the sweep at start
//! finishes what a crash interrupted.

pub(crate) mod service_ip;

use serde_json::{Value, json};

use crate::{
    crd,
    failure::Failure,
    object,
    store::{Event, Key, Stored, Tx},
    write::{self, DeleteOptions, Rules},
};

/// Follows every change that the write made, and those that following them makes, until none is left.
pub(crate) fn settle(tx: &mut Tx<'_>, rules: &Rules) -> Result<(), Failure> {
    while let Some(Event { after, deleted, .. }) = tx.next_change() {
        if deleted {
            after_removal(tx, &after)?;
        } else {
            after_write(tx, &after.key, rules)?;
        }
    }
    Ok(())
}

/// Makes the namespaces that always exist, and looks at every object once.
pub(crate) fn start(tx: &mut Tx<'_>, rules: &Rules) -> Result<(), Failure> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let key = Key::new("namespaces", "", name);
        if tx.get(&key).is_none() {
            let uid = uuid::Uuid::new_v4().to_string();
            let namespace = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "uid": uid, "creationTimestamp": object::now(), "labels": {"kubernetes.io/metadata.name": name}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
            });
            tx.put(key, namespace)?;
        }
    }
    for stored in tx.all() {
        after_write(tx, &stored.key, rules)?;
    }
    settle(tx, rules)
}

fn after_write(tx: &mut Tx<'_>, key: &Key, rules: &Rules) -> Result<(), Failure> {
    let Some(stored) = tx.get(key) else { return Ok(()) };
    if object::is_deleting(&stored.value) {
        return progress(tx, &stored);
    }
    if &*key.resource == "namespaces" {
        furnish(tx, &key.name, rules)?;
    }
    if !object::owners(&stored.value).is_empty() {
        collect(tx, &stored)?;
    }
    Ok(())
}

fn after_removal(tx: &mut Tx<'_>, gone: &Stored) -> Result<(), Failure> {
    for dependent in tx.dependents(object::uid(&gone.value)) {
        collect(tx, &dependent)?;
    }
    for owner in object::owners(&gone.value) {
        if let Some(owner) = tx.by_uid(object::text(owner, "uid"))
            && object::is_deleting(&owner.value)
        {
            progress(tx, &owner)?;
        }
    }
    if let Some(namespace) = tx.get(&Key::new("namespaces", "", &gone.key.namespace))
        && object::is_deleting(&namespace.value)
    {
        progress(tx, &namespace)?;
    }
    let definition = tx.get(&Key::new(crd::RESOURCE, "", &gone.key.resource));
    if let Some(definition) = definition.filter(|definition| object::is_deleting(&definition.value)) {
        progress(tx, &definition)?;
    }
    Ok(())
}

/// Takes an object that is being deleted as far as it can go.
fn progress(tx: &mut Tx<'_>, stored: &Stored) -> Result<(), Failure> {
    let finalizers = object::finalizers(&stored.value);
    let has = |name: &str| finalizers.iter().any(|each| each == name);
    let uid = object::uid(&stored.value);
    if has(ORPHAN) {
        for dependent in tx.dependents(uid) {
            let owners = object::owners(&dependent.value).iter().filter(|owner| object::text(owner, "uid") != uid).cloned();
            set_owners(tx, &dependent, owners.collect())?;
        }
        return drop_finalizer(tx, &stored.key, ORPHAN);
    }
    if has(FOREGROUND) {
        let options = DeleteOptions { propagation: "Foreground".to_owned(), ..DeleteOptions::default() };
        for dependent in tx.dependents(uid).iter().filter(|dependent| !object::is_deleting(&dependent.value)) {
            delete(tx, &dependent.key, &options)?;
        }
        let blocks = |dependent: &Stored| {
            object::owners(&dependent.value).iter().any(|owner| object::text(owner, "uid") == uid && owner["blockOwnerDeletion"] == true)
        };
        if !tx.dependents(uid).iter().any(|dependent| blocks(dependent)) {
            return drop_finalizer(tx, &stored.key, FOREGROUND);
        }
    }
    match &*stored.key.resource {
        "namespaces" => empty_namespace(tx, &stored.key),
        crd::RESOURCE if has(crd::CLEANUP) => {
            let objects = tx.list(&stored.key.name, "");
            for each in objects.iter().filter(|each| !object::is_deleting(&each.value)) {
                delete(tx, &each.key, &DeleteOptions::default())?;
            }
            if tx.list(&stored.key.name, "").is_empty() {
                return drop_finalizer(tx, &stored.key, crd::CLEANUP);
            }
            Ok(())
        }
        _ => finish_deletion(tx, &stored.key),
    }
}

/// Removes an object that is being deleted once nothing holds it.
pub(crate) fn finish_deletion(tx: &mut Tx<'_>, key: &Key) -> Result<(), Failure> {
    let Some(stored) = tx.get(key) else { return Ok(()) };
    let grace = object::at(&stored.value, "metadata.deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    let spec_finalizers = &*key.resource == "namespaces"
        && object::at(&stored.value, "spec.finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if object::is_deleting(&stored.value) && object::finalizers(&stored.value).is_empty() && grace == 0 && !spec_finalizers {
        tx.remove(key)?;
    }
    Ok(())
}

fn empty_namespace(tx: &mut Tx<'_>, key: &Key) -> Result<(), Failure> {
    for each in tx.in_namespace(&key.name) {
        if !object::is_deleting(&each.value) {
            delete(tx, &each.key, &DeleteOptions::default())?;
        }
    }
    if !tx.in_namespace(&key.name).is_empty() {
        return Ok(());
    }
    if let Some(stored) = tx.get(key) {
        let mut namespace = Value::clone(&stored.value);
        if object::member(&mut namespace, "spec").remove("finalizers").is_some() {
            tx.put(key.clone(), namespace)?;
        }
    }
    finish_deletion(tx, key)
}

/// Deletes a dependent whose owners are all gone, and forgets the gone ones of others.
fn collect(tx: &mut Tx<'_>, dependent: &Stored) -> Result<(), Failure> {
    let kinds = tx.kinds();
    let lives = |owner: &&Value| {
        let (group, _) = object::text(owner, "apiVersion").split_once('/').unwrap_or(("", ""));
        let known = kinds.named(group, object::text(owner, "kind")).is_some();
        let found = tx.by_uid(object::text(owner, "uid"));
        !known || found.is_some_and(|found| found.key.namespace.is_empty() || found.key.namespace == dependent.key.namespace)
    };
    let owners = object::owners(&dependent.value);
    let living = owners.iter().filter(lives).cloned().collect::<Vec<_>>();
    if living.len() == owners.len() {
        return Ok(());
    }
    if living.is_empty() {
        return delete(tx, &dependent.key, &DeleteOptions { propagation: "Background".to_owned(), ..DeleteOptions::default() });
    }
    set_owners(tx, dependent, living)
}

fn delete(tx: &mut Tx<'_>, key: &Key, options: &DeleteOptions) -> Result<(), Failure> {
    if tx.get(key).is_some() {
        write::delete(tx, key, options)?;
    }
    Ok(())
}

fn set_owners(tx: &mut Tx<'_>, stored: &Stored, owners: Vec<Value>) -> Result<(), Failure> {
    let mut value = Value::clone(&stored.value);
    if owners.is_empty() {
        object::metadata(&mut value).remove("ownerReferences");
    } else {
        object::metadata(&mut value).insert("ownerReferences".to_owned(), Value::Array(owners));
    }
    tx.put(stored.key.clone(), value)?;
    Ok(())
}

fn drop_finalizer(tx: &mut Tx<'_>, key: &Key, name: &str) -> Result<(), Failure> {
    let Some(stored) = tx.get(key) else { return Ok(()) };
    let mut finalizers = object::finalizers(&stored.value);
    finalizers.retain(|each| each != name);
    let mut value = Value::clone(&stored.value);
    object::set_finalizers(&mut value, &finalizers);
    tx.put(key.clone(), value)?;
    finish_deletion(tx, key)
}

/// The service account and the authority that every namespace has.
fn furnish(tx: &mut Tx<'_>, namespace: &str, rules: &Rules) -> Result<(), Failure> {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount"});
    let authority = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": rules.authority}});
    for (resource, name, mut value) in [("serviceaccounts", "default", account), ("configmaps", "kube-root-ca.crt", authority)] {
        let key = Key::new(resource, namespace, name);
        if tx.get(&key).is_none() {
            let metadata =
                json!({"name": name, "namespace": namespace, "uid": uuid::Uuid::new_v4().to_string(), "creationTimestamp": object::now()});
            object::map(&mut value).insert("metadata".to_owned(), metadata);
            tx.put(key, value)?;
        }
    }
    Ok(())
}

/// Holds an owner until its dependents have been released.
pub(crate) const ORPHAN: &str = "orphan";
/// Holds an owner until its dependents are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
