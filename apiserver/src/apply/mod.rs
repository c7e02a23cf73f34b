//! Server-side apply, and who owns which field. Pure: the time of the write is an argument.
//!
//! Follows `structured-merge-diff`'s updater and `apimachinery/pkg/util/managedfields` around it: an applied configuration is laid
//! over the object; what its manager applied before and leaves out now goes, unless another manager owns it; whoever changes a field
//! takes it from those who owned it, and an applier may do so only by force.

mod check;
mod lists;
mod managers;
mod set;
mod walk;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub use lists::Lists;
use managers::{Holding, Managers, Operation, Owner, managed_fields, without_managed_fields, without_unowned};
use set::FieldSet;
use walk::{Comparison, field_set, merge, remove};

use crate::openapi::shape::Shape;

/// Who writes, when, and through which door.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager.
    pub manager: &'a str,
    /// RFC 3339.
    pub operation_time: &'a str,
    /// The version that the write speaks, such as `apps/v1`.
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
}

/// One field that another manager owns and holds differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Whose it is.
    pub manager: String,
    /// Such as `.spec.replicas`.
    pub field: String,
    /// As the real server words it: `conflict with "kubectl" using apps/v1: .spec.replicas`.
    pub message: String,
}

impl Conflict {
    /// The message of the cause in `status.details`, whose `field` names the field.
    pub fn cause(&self) -> &str {
        self.message.strip_suffix(&self.field).and_then(|text| text.strip_suffix(": ")).unwrap_or(&self.message)
    }
}

/// Why a configuration was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own what it wants to change: status 409, reason `Conflict`.
    #[error("{}", summary(.0))]
    Conflicts(Vec<Conflict>),
    /// It can't be understood.
    #[error("{0}")]
    Invalid(String),
}

/// Whether an applier may take fields from their owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Takes them.
    Yes,
    /// Is told of the conflict.
    No,
}

/// Applies a configuration; gives the new object with its `metadata.managedFields`. Applying it again changes nothing, the time
/// included.
pub fn apply(live: Option<&Value>, applied: &Value, writer: &Writer<'_>, force: Force, lists: &Lists) -> Result<Value, ApplyError> {
    if !applied.is_object() {
        return Err(ApplyError::Invalid("the applied configuration is not an object".to_owned()));
    }
    if managed_fields(applied).is_some() {
        return Err(ApplyError::Invalid("metadata.managedFields must be nil".to_owned()));
    }
    check::applied(applied, lists.shape())
        .map_err(|error| ApplyError::Invalid(format!("failed to create typed patch object ({}): {error}", named(applied))))?;
    let bare = live.map_or_else(|| Value::Object(Map::new()), without_managed_fields);
    let managers = owners_before(live, &bare, writer, lists);
    let outcome = lay_over(&bare, applied, managers.clone(), writer, force, lists);
    let (mut object, managers) = match outcome {
        Err(ApplyError::Conflicts(conflicts)) if writer.manager == KUBECTL => {
            let rest = not_of_client_side_apply(conflicts, &bare, lists.shape());
            if !rest.is_empty() {
                return Err(ApplyError::Conflicts(rest));
            }
            lay_over(&bare, applied, managers, writer, Force::Yes, lists)?
        }
        other => other?,
    };
    if writer.manager == KUBECTL {
        renew_last_applied(&mut object, applied);
    }
    managers.write_to(&mut object);
    Ok(object)
}

/// Notes who owns what after a create, an update or a patch: what changed is the writer's now and nobody else's.
pub fn track(before: Option<&Value>, after: Value, writer: &Writer<'_>, lists: &Lists) -> Value {
    let mut managers = Managers::of_write(before, &after, writer.subresource);
    let mut object = without_managed_fields(&after);
    if managers.0.is_empty() && before.is_some() {
        return object;
    }
    let bare = before.map_or_else(|| Value::Object(Map::new()), without_managed_fields);
    // A Scale knows the owners of replicas only, and an object that nobody's fields were noted of stays so: what nobody owned stays nobody's.
    if writer.subresource != "scale" || managers.own_any(&Comparison::between(&bare, &object, lists.shape()).changed()) {
        update(&bare, &object, &mut managers, writer, lists.shape());
    }
    managers.cap();
    managers.write_to(&mut object);
    object
}

/// All conflicts in one message, as the real server says it.
fn summary(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: {}", only.message);
    }
    let mut by_manager: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager.entry(conflict.cause()).or_default().push(&conflict.field);
    }
    let lines = by_manager.into_iter().map(|(cause, fields)| {
        let fields: Vec<String> = fields.into_iter().map(|field| format!("- {field}")).collect();
        format!("{}:\n{}", cause.replacen("conflict with", "conflicts with", 1), fields.join("\n"))
    });
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.collect::<Vec<_>>().join("\n"))
}

/// An object that nobody's fields were noted of gets an owner for what it has before the first apply.
fn owners_before(live: Option<&Value>, bare: &Value, writer: &Writer<'_>, lists: &Lists) -> Managers {
    let mut managers = Managers::of(live);
    if live.is_some() && managers.0.is_empty() {
        let nobody = Writer { manager: "before-first-apply", ..*writer };
        update(&Value::Object(Map::new()), bare, &mut managers, &nobody, lists.shape());
    }
    managers
}

fn lay_over(
    bare: &Value,
    applied: &Value,
    mut managers: Managers,
    writer: &Writer<'_>,
    force: Force,
    lists: &Lists,
) -> Result<(Value, Managers), ApplyError> {
    let shape = lists.shape();
    let mut fields = field_set(applied, shape);
    let mut wanted = applied.clone();
    for name in lists.reset_by(writer.subresource) {
        fields.remove_field(name);
        if let Some(wanted) = wanted.as_object_mut() {
            wanted.remove(*name);
        }
    }
    let me = Owner::of(writer, Operation::Apply);
    let last = managers.0.get(&me).cloned();
    let time = last.as_ref().and_then(|last| last.time.clone());
    managers.0.insert(me.clone(), Holding { api_version: writer.api_version.to_owned(), time, fields });
    let mut object = merge(bare, &wanted, shape);
    if let Some(last) = last {
        // Laid over once more for the maps that the configuration says are there and empty.
        object = merge(&prune(&object, &managers, &last.fields, shape), &wanted, shape);
    }
    take_over(&Comparison::between(bare, &object, shape), &mut managers, Some(&me), force)?;
    if let Some(mine) = managers.0.get_mut(&me) {
        mine.fields = without_unowned(&mine.fields);
        if object != *bare {
            mine.time = Some(writer.operation_time.to_owned());
        }
    }
    Ok((object, managers))
}

/// Removes what was applied before and is not now: unless someone owns it, or it was not the applier's to begin with.
fn prune(merged: &Value, managers: &Managers, last: &FieldSet, shape: Shape<'_>) -> Value {
    let removed = |gone: &FieldSet| remove(merged, gone, shape).unwrap_or_else(|| Value::Object(Map::new()));
    let of = |value: &Value| field_set(value, shape).with_named_fields(shape);
    let owned = managers.0.values().fold(FieldSet::default(), |all, held| all.union(&held.fields)).with_named_fields(shape);
    let (all, last) = (of(merged), last.with_named_fields(shape));
    let without_last = removed(&last);
    let without_unowned = removed(&all.difference(&of(&without_last).union(&owned)));
    removed(&all.difference(&of(&without_unowned)).intersection(&last))
}

/// Changed fields leave their owners; without force that is a conflict.
fn take_over(change: &Comparison, managers: &mut Managers, me: Option<&Owner>, force: Force) -> Result<(), ApplyError> {
    let changed = change.changed();
    let mut conflicts = Vec::new();
    for (owner, holding) in managers.0.iter_mut().filter(|(owner, _)| Some(*owner) != me) {
        let lost = holding.fields.intersection(&changed);
        conflicts.extend(lost.paths().into_iter().map(|field| Conflict {
            manager: owner.manager.clone(),
            message: format!("conflict with {}: {field}", owner.described()),
            field,
        }));
        holding.fields = holding.fields.difference(&lost).difference(&change.removed);
    }
    if force == Force::No && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    managers.0.retain(|_, holding| !holding.fields.is_empty());
    Ok(())
}

fn update(before: &Value, after: &Value, managers: &mut Managers, writer: &Writer<'_>, shape: Shape<'_>) {
    let change = Comparison::between(before, after, shape);
    // Taking by force never conflicts.
    let _ = take_over(&change, managers, None, Force::Yes);
    let fields = without_unowned(&change.changed().difference(&change.removed));
    if fields.is_empty() {
        return;
    }
    let me = Owner::of(writer, Operation::Update);
    let previous = managers.0.remove(&me).map(|holding| holding.fields).unwrap_or_default();
    let time = Some(writer.operation_time.to_owned());
    managers.0.insert(me, Holding { api_version: writer.api_version.to_owned(), time, fields: previous.union(&fields) });
}

/// `kubectl` moving from client-side to server-side apply does not conflict with what it applied itself and nobody changed since.
fn not_of_client_side_apply(conflicts: Vec<Conflict>, live: &Value, shape: Shape<'_>) -> Vec<Conflict> {
    let annotation = live["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or_default();
    let Ok(configuration) = serde_json::from_str::<Value>(annotation) else {
        return conflicts;
    };
    let change = Comparison::between(&configuration, live, shape);
    let own = field_set(&configuration, shape).difference(&change.changed()).difference(&change.removed).paths();
    conflicts.into_iter().filter(|conflict| !own.contains(&conflict.field)).collect()
}

/// Keeps the annotation of client-side apply true, where there is one.
fn renew_last_applied(object: &mut Value, applied: &Value) {
    let Some(Value::String(annotation)) = object.pointer_mut("/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration")
    else {
        return;
    };
    let mut applied = applied.clone();
    if let Some(annotations) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    *annotation = format!("{}\n", json!(applied));
}

fn named(object: &Value) -> String {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    format!("{namespace}/{name}; {}, Kind={}", text("/apiVersion"), text("/kind"))
}

const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: &str = "2026-01-01T00:00:00Z";
    const SECOND: &str = "2026-01-01T00:00:10Z";

    fn by<'a>(manager: &'a str, operation_time: &'a str) -> Writer<'a> {
        Writer { manager, operation_time, api_version: "apps/v1", subresource: "" }
    }

    fn deployments() -> Lists {
        Lists::builtin("apps", "Deployment")
    }

    fn deployment(fields: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}, "spec": fields})
    }

    fn containers(list: Value) -> Value {
        deployment(json!({"template": {"spec": {"containers": list}}}))
    }

    fn applied(live: Option<&Value>, configuration: &Value, manager: &str) -> Value {
        apply(live, configuration, &by(manager, FIRST), Force::No, &deployments()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn conflicts(live: &Value, configuration: &Value, manager: &str) -> Vec<String> {
        match apply(Some(live), configuration, &by(manager, SECOND), Force::No, &deployments()) {
            Err(ApplyError::Conflicts(conflicts)) => conflicts.into_iter().map(|conflict| conflict.message).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Who owns what: `manager operation: path path`.
    fn owners(object: &Value) -> Vec<String> {
        let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let shown = entries.iter().map(|entry| {
            let paths = FieldSet::decode(&entry["fieldsV1"]).unwrap().paths();
            format!("{} {}: {}", entry["manager"].as_str().unwrap(), entry["operation"].as_str().unwrap(), paths.join(" "))
        });
        shown.collect()
    }

    #[test]
    fn a_first_apply_owns_what_it_says() {
        let object = applied(None, &containers(json!([{"name": "web", "image": "a", "ports": [{"containerPort": 80}]}])), "me");
        assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["image"], "a");
        assert_eq!(
            object["metadata"]["managedFields"],
            json!([{
                "manager": "me", "operation": "Apply", "apiVersion": "apps/v1", "time": FIRST, "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
                    ".": {}, "f:name": {}, "f:image": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}},
            }])
        );
    }

    #[test]
    fn applying_again_changes_nothing() {
        let configuration = containers(json!([{"name": "web", "image": "a"}]));
        let once = applied(None, &configuration, "me");
        assert_eq!(apply(Some(&once), &configuration, &by("me", SECOND), Force::No, &deployments()).unwrap(), once);
    }

    #[test]
    fn what_is_left_out_goes_unless_another_owns_it() {
        let mine = deployment(json!({"replicas": 3, "paused": true, "template": {"metadata": {"labels": {"a": "1", "b": "2"}}}}));
        let live = applied(None, &mine, "me");
        let live = applied(Some(&live), &deployment(json!({"replicas": 3})), "other");
        let object = applied(Some(&live), &deployment(json!({"template": {"metadata": {"labels": {"a": "1"}}}})), "me");
        assert_eq!(object["spec"], json!({"replicas": 3, "template": {"metadata": {"labels": {"a": "1"}}}}));
        assert_eq!(owners(&object), ["other Apply: .spec.replicas", "me Apply: .spec.template.metadata.labels.a"]);
    }

    #[test]
    fn a_container_that_is_left_out_goes_and_one_of_another_stays() {
        let live = applied(None, &containers(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}])), "me");
        let live = applied(Some(&live), &containers(json!([{"name": "side", "image": "z"}])), "injector");
        let object = applied(Some(&live), &containers(json!([{"name": "b", "image": "y2"}])), "me");
        assert_eq!(object["spec"]["template"]["spec"]["containers"], json!([{"name": "b", "image": "y2"}, {"name": "side", "image": "z"}]));
    }

    #[test]
    fn changing_what_another_owns_is_a_conflict() {
        let live = applied(None, &deployment(json!({"replicas": 3})), "other");
        assert_eq!(conflicts(&live, &deployment(json!({"replicas": 5})), "me"), ["conflict with \"other\": .spec.replicas"]);
        let forced = apply(Some(&live), &deployment(json!({"replicas": 5})), &by("me", SECOND), Force::Yes, &deployments()).unwrap();
        assert_eq!(forced["spec"]["replicas"], 5);
        assert_eq!(owners(&forced), ["me Apply: .spec.replicas"]);
        let shared = applied(Some(&live), &deployment(json!({"replicas": 3})), "me");
        assert_eq!(owners(&shared), ["me Apply: .spec.replicas", "other Apply: .spec.replicas"]);
    }

    #[test]
    fn an_updater_is_named_with_its_version_and_door() {
        let live = applied(None, &deployment(json!({"replicas": 3})), "me");
        let mut scaled = live.clone();
        scaled["spec"]["replicas"] = json!(4);
        let scaled = track(Some(&live), scaled, &by("kubectl-edit", SECOND), &deployments());
        assert_eq!(owners(&scaled), ["kubectl-edit Update: .spec.replicas"]);
        assert_eq!(
            conflicts(&scaled, &deployment(json!({"replicas": 3})), "me"),
            ["conflict with \"kubectl-edit\" using apps/v1: .spec.replicas"]
        );
        let scale = Writer { subresource: "scale", ..by("hpa", SECOND) };
        let mut again = live.clone();
        again["spec"]["replicas"] = json!(7);
        let again = track(Some(&live), again, &scale, &deployments());
        assert_eq!(again["metadata"]["managedFields"][0]["subresource"], "scale");
        assert_eq!(
            conflicts(&again, &deployment(json!({"replicas": 3})), "me"),
            ["conflict with \"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas"]
        );
    }

    #[test]
    fn scaling_what_nobody_owned_notes_no_owner() {
        let live = applied(None, &deployment(json!({"paused": true})), "me");
        let mut scaled = live.clone();
        scaled["spec"]["replicas"] = json!(4);
        let scaled = track(Some(&live), scaled, &Writer { subresource: "scale", ..by("hpa", SECOND) }, &deployments());
        assert_eq!((owners(&scaled), &scaled["spec"]["replicas"]), (owners(&live), &json!(4)));
    }

    #[test]
    fn many_conflicts_are_told_by_manager() {
        let live = applied(None, &deployment(json!({"replicas": 3, "paused": true})), "other");
        let error = apply(Some(&live), &deployment(json!({"replicas": 4, "paused": false})), &by("me", SECOND), Force::No, &deployments())
            .unwrap_err();
        assert_eq!(error.to_string(), "Apply failed with 2 conflicts: conflicts with \"other\":\n- .spec.paused\n- .spec.replicas");
    }

    #[test]
    fn a_create_is_owned_by_its_writer_and_a_change_moves_the_field() {
        let created = track(
            None,
            deployment(json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}})),
            &by("kubectl-create", FIRST),
            &deployments(),
        );
        assert_eq!(owners(&created), ["kubectl-create Update: .spec .spec.replicas .spec.selector"]);
        let mut changed = created.clone();
        changed["spec"]["replicas"] = json!(2);
        changed["metadata"]["annotations"] = json!({"x": "y"});
        let changed = track(Some(&created), changed, &by("controller", SECOND), &deployments());
        assert_eq!(
            owners(&changed),
            [
                "kubectl-create Update: .spec .spec.selector",
                "controller Update: .metadata.annotations .metadata.annotations.x .spec.replicas",
            ]
        );
        assert_eq!(track(Some(&changed), changed.clone(), &by("controller", "2026-01-01T01:00:00Z"), &deployments()), changed);
    }

    #[test]
    fn a_client_may_write_the_list_of_owners_itself() {
        let live = applied(None, &deployment(json!({"replicas": 3})), "me");
        let mut renamed = live.clone();
        renamed["metadata"]["managedFields"][0]["manager"] = json!("you");
        assert_eq!(owners(&track(Some(&live), renamed, &by("x", SECOND), &deployments())), ["you Apply: .spec.replicas"]);
        let mut reset = live.clone();
        reset["metadata"]["managedFields"] = json!([{}]);
        assert_eq!(owners(&track(Some(&live), reset, &by("x", SECOND), &deployments())), Vec::<String>::new());
        let mut forgotten = live.clone();
        forgotten["metadata"].as_object_mut().unwrap().remove("managedFields");
        assert_eq!(owners(&track(Some(&live), forgotten, &by("x", SECOND), &deployments())), ["me Apply: .spec.replicas"]);
    }

    #[test]
    fn a_status_is_written_through_its_own_door() {
        let mut live = applied(None, &deployment(json!({"replicas": 3})), "me");
        live["status"] = json!({"replicas": 3});
        let live = track(
            Some(&applied(None, &deployment(json!({"replicas": 3})), "me")),
            live,
            &Writer { subresource: "status", ..by("node", SECOND) },
            &deployments(),
        );
        let mut with_status = deployment(json!({"replicas": 3}));
        with_status["status"] = json!({"replicas": 9});
        let object = applied(Some(&live), &with_status, "me");
        assert_eq!(object["status"]["replicas"], 3);
        assert_eq!(owners(&object), ["me Apply: .spec.replicas", "node Update: .status .status.replicas"]);
    }

    #[test]
    fn what_was_there_before_the_first_apply_has_an_owner() {
        let live = deployment(json!({"replicas": 3, "paused": true}));
        assert_eq!(
            conflicts(&live, &deployment(json!({"replicas": 4})), "me"),
            ["conflict with \"before-first-apply\" using apps/v1: .spec.replicas"]
        );
        let object = applied(Some(&live), &deployment(json!({"replicas": 3})), "me");
        assert_eq!(owners(&object), ["me Apply: .spec.replicas", "before-first-apply Update: .spec .spec.paused .spec.replicas"]);
    }

    #[test]
    fn kubectl_takes_over_what_it_applied_on_the_client_side() {
        let mut live = deployment(json!({"replicas": 3, "paused": true}));
        let configuration = deployment(json!({"replicas": 3})).to_string();
        live["metadata"]["annotations"] = json!({LAST_APPLIED: configuration});
        let live = track(None, live, &by("kubectl-client-side-apply", FIRST), &deployments());
        let object = apply(Some(&live), &deployment(json!({"replicas": 4})), &by("kubectl", SECOND), Force::No, &deployments()).unwrap();
        assert_eq!(object["spec"], json!({"replicas": 4, "paused": true}));
        let annotation = object["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(annotation).unwrap()["spec"]["replicas"], 4);
        assert_eq!(
            conflicts(&live, &deployment(json!({"paused": false})), "kubectl"),
            ["conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.paused"]
        );
    }

    #[test]
    fn atomic_parts_change_hands_as_a_whole() {
        let services = Lists::builtin("", "Service");
        let service = |selector: Value, ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": selector, "ports": ports}});
        let writer = |manager: &'static str| Writer { api_version: "v1", ..by(manager, FIRST) };
        let live = apply(None, &service(json!({"a": "1"}), json!([{"port": 80, "protocol": "TCP"}])), &writer("me"), Force::No, &services)
            .unwrap();
        assert_eq!(
            owners(&live)[0],
            "me Apply: .spec.selector .spec.ports[port=80,protocol=\"TCP\"] .spec.ports[port=80,protocol=\"TCP\"].port .spec.ports[port=80,protocol=\"TCP\"].protocol"
        );
        let error = apply(
            Some(&live),
            &service(json!({"b": "2"}), json!([{"port": 80, "protocol": "UDP"}])),
            &writer("other"),
            Force::No,
            &services,
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"me\": .spec.selector");
    }

    #[test]
    fn a_custom_resource_merges_as_its_schema_says() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "items": {"type": "object", "properties": {"id": {"type": "integer"}, "x": {"type": "string"}}}},
            "list": {"type": "array", "items": {"type": "string"}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}}}}}});
        let lists = Lists::of_schema(&schema);
        let link = |spec: Value| json!({"apiVersion": "isthmus.dev/v1", "kind": "Link", "metadata": {"name": "east", "labels": {"l": "v"}}, "spec": spec});
        let one = link(json!({"set": ["a"], "map": [{"id": 1, "x": "y"}], "list": ["p"], "whole": {"k": "v"}}));
        let live = apply(None, &one, &by("one", FIRST), Force::No, &lists).unwrap();
        assert_eq!(
            owners(&live),
            ["one Apply: .metadata.labels.l .spec.list .spec.whole .spec.map[id=1] .spec.map[id=1].id .spec.map[id=1].x .spec.set[=\"a\"]"]
        );
        let object = apply(Some(&live), &link(json!({"set": ["b"], "map": [{"id": 2}]})), &by("two", FIRST), Force::No, &lists).unwrap();
        assert_eq!(object["spec"]["set"], json!(["a", "b"]));
        assert_eq!(object["spec"]["map"], json!([{"id": 1, "x": "y"}, {"id": 2}]));
        let error = apply(Some(&live), &link(json!({"nope": 1})), &by("two", FIRST), Force::No, &lists).unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to create typed patch object (/east; isthmus.dev/v1, Kind=Link): .spec.nope: field not declared in schema"
        );
    }

    #[test]
    fn a_configuration_that_is_not_clear_is_refused() {
        let refused = |configuration: Value, expected: &str| match apply(None, &configuration, &by("me", FIRST), Force::No, &deployments())
        {
            Err(ApplyError::Invalid(message)) => assert!(message.contains(expected), "{message}"),
            other => panic!("{other:?}"),
        };
        refused(json!([]), "not an object");
        refused(
            containers(json!([{"name": "a"}, {"name": "a"}])),
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        );
        refused(containers(json!([{"image": "a"}])), "omits all key fields");
        refused(deployment(json!({"replicas": "3"})), ".spec.replicas: expected numeric (int or float), got \"3\"");
        refused(json!({"metadata": {"managedFields": []}}), "metadata.managedFields must be nil");
    }

    #[test]
    fn the_oldest_of_many_updaters_share_an_entry() {
        let mut object = track(None, deployment(json!({"replicas": 0})), &by("w0", "2026-01-01T00:00:00Z"), &deployments());
        for at in 1..15 {
            let mut next = object.clone();
            next["metadata"]["labels"][format!("l{at}")] = json!("v");
            object = track(Some(&object), next, &by(&format!("w{at}"), &format!("2026-01-01T00:00:{at:02}Z")), &deployments());
        }
        let entries = object["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!(entries.len(), 10);
        assert_eq!(entries[0]["manager"], "ancient-changes");
    }

    fn any_spec() -> impl Strategy<Value = Value> {
        let container = ("[abc]", "[xy]", prop::option::of(prop::collection::btree_map("[pq]", "[12]", 0..3)));
        let container = container.prop_map(|(name, image, env)| {
            let mut container = json!({"name": name, "image": image});
            if let Some(env) = env {
                container["env"] = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            }
            container
        });
        (prop::option::of(0..4i32), prop::collection::vec(container, 0..4), prop::collection::btree_map("[lm]", "[12]", 0..3)).prop_map(
            |(replicas, containers, labels)| {
                let mut unique: BTreeMap<String, Value> = BTreeMap::new();
                for container in containers {
                    unique.insert(container["name"].as_str().unwrap().to_owned(), container);
                }
                let mut spec =
                    json!({"template": {"metadata": {"labels": labels}, "spec": {"containers": unique.into_values().collect::<Vec<_>>()}}});
                if let Some(replicas) = replicas {
                    spec["replicas"] = json!(replicas);
                }
                spec
            },
        )
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<i8>().prop_map(Value::from), "[ab]{0,2}".prop_map(Value::from)];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(
                    "spec|template|containers|metadata|managedFields|fieldsV1|finalizers|f:a|ports|name|status",
                    inner,
                    0..5
                )
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn applying_twice_is_applying_once(a in any_spec(), b in any_spec()) {
            let live = applied(None, &deployment(a), "a");
            for manager in ["a", "b"] {
                let once = apply(Some(&live), &deployment(b.clone()), &by(manager, FIRST), Force::Yes, &deployments()).unwrap();
                let twice = apply(Some(&once), &deployment(b.clone()), &by(manager, SECOND), Force::Yes, &deployments()).unwrap();
                prop_assert_eq!(twice, once);
            }
        }

        #[test]
        fn a_lone_applier_gets_what_it_says(a in any_spec(), b in any_spec()) {
            let live = applied(None, &deployment(a), "me");
            let object = applied(Some(&live), &deployment(b.clone()), "me");
            let fresh = applied(None, &deployment(b), "me");
            let shape = deployments();
            prop_assert_eq!(field_set(&object, shape.shape()), field_set(&fresh, shape.shape()));
        }

        #[test]
        fn every_field_of_a_created_object_is_owned(a in any_spec(), b in any_spec()) {
            let created = track(None, deployment(a), &by("a", FIRST), &deployments());
            let mut changed = deployment(b);
            changed["metadata"]["managedFields"] = created["metadata"]["managedFields"].clone();
            let changed = track(Some(&created), changed, &by("b", SECOND), &deployments());
            let lists = deployments();
            let all = without_unowned(&field_set(&without_managed_fields(&changed), lists.shape()));
            let owned = Managers::of(Some(&changed)).0.into_values().fold(FieldSet::default(), |all, held| all.union(&held.fields));
            prop_assert!(all.difference(&owned).is_empty(), "{:?}", all.difference(&owned).paths());
        }

        #[test]
        fn no_object_panics(live in any_json(), other in any_json()) {
            for lists in [deployments(), Lists::of_schema(&live), Lists::builtin("x", "Y")] {
                let _ = apply(Some(&live), &other, &by("me", FIRST), Force::Yes, &lists);
                let _ = apply(None, &other, &by("kubectl", FIRST), Force::No, &lists);
                track(Some(&live), other.clone(), &by("me", FIRST), &lists);
                track(None, other.clone(), &by("me", FIRST), &lists);
            }
        }
    }
}
