//! Who owns which fields: `metadata.managedFields`, read and written. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Writer;
use super::set::{Element, FieldSet};

/// Who wrote, and how. Appliers are the same whichever version they apply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) subresource: String,
    /// Empty for appliers.
    api_version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What an owner owns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Holding {
    pub(super) api_version: String,
    pub(super) time: Option<String>,
    pub(super) fields: FieldSet,
}

impl Owner {
    pub(super) fn of(writer: &Writer<'_>, operation: Operation) -> Self {
        Self::new(writer.manager, operation, writer.api_version, writer.subresource)
    }

    fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        Self { manager: manager.to_owned(), operation, subresource: subresource.to_owned(), api_version: api_version.to_owned() }
    }

    /// As the real server names it in a conflict.
    pub(super) fn described(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// All owners of an object.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Managers(pub(super) BTreeMap<Owner, Holding>);

impl Managers {
    /// Reads an object's managed fields; what can't be read counts as none.
    pub(super) fn of(object: Option<&Value>) -> Self {
        object.and_then(managed_fields).and_then(|entries| Self::decode(entries).ok()).unwrap_or_default()
    }

    /// What a plain write starts from: a client may set the list itself, and an empty one (or one with an empty entry) resets it.
    pub(super) fn of_write(before: Option<&Value>, after: &Value, subresource: &str) -> Self {
        let given = managed_fields(after).filter(|_| subresource.is_empty());
        match given.map(Vec::as_slice) {
            Some([]) => Self::default(),
            Some([only]) if only.as_object().is_some_and(serde_json::Map::is_empty) => Self::default(),
            Some(entries) => match Self::decode(entries) {
                Ok(managers) if !managers.0.is_empty() => managers,
                _ => Self::of(before),
            },
            None => Self::of(before),
        }
    }

    fn decode(entries: &[Value]) -> Result<Self, String> {
        let mut managers = BTreeMap::new();
        for entry in entries {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            if text("apiVersion").is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            if text("fieldsType") != "FieldsV1" {
                return Err(format!("invalid fieldsType {:?}", text("fieldsType")));
            }
            let fields = entry.get("fieldsV1").map(FieldSet::decode).transpose()?.unwrap_or_default();
            let holding = Holding {
                api_version: text("apiVersion").to_owned(),
                time: entry.get("time").and_then(Value::as_str).map(str::to_owned),
                fields,
            };
            managers.insert(Owner::new(text("manager"), operation, text("apiVersion"), text("subresource")), holding);
        }
        Ok(Self(managers))
    }

    /// Whether anybody owns any of `fields`.
    pub(super) fn own_any(&self, fields: &FieldSet) -> bool {
        self.0.values().any(|holding| !holding.fields.intersection(fields).is_empty())
    }

    /// Writes the list into an object, in the real server's order.
    pub(super) fn write_to(&self, object: &mut Value) {
        let mut entries: Vec<(&Owner, &Holding)> = self.0.iter().filter(|(_, holding)| !holding.fields.is_empty()).collect();
        entries.sort_by(|(one, one_has), (other, other_has)| {
            (one.operation, &one_has.time, &one.manager, &one_has.api_version, &one.subresource).cmp(&(
                other.operation,
                &other_has.time,
                &other.manager,
                &other_has.api_version,
                &other.subresource,
            ))
        });
        let entries: Vec<Value> = entries.into_iter().map(|(owner, holding)| entry(owner, holding)).collect();
        set_managed_fields(object, entries);
    }

    /// An object that changes often under many names would grow without end: the oldest updaters are merged.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<(Option<String>, Owner)> = self
            .0
            .iter()
            .filter(|(owner, _)| owner.operation == Operation::Update)
            .map(|(owner, held)| (held.time.clone(), owner.clone()))
            .collect();
        let mut over = updaters.len().saturating_sub(UPDATERS_MAX);
        updaters.sort();
        let mut first_of_version: BTreeMap<String, Owner> = BTreeMap::new();
        for (_, owner) in updaters {
            if over == 0 {
                return;
            }
            let version = owner.api_version.clone();
            let Some(first) = first_of_version.get(&version) else {
                first_of_version.insert(version, owner);
                continue;
            };
            let bucket = Owner::new(ANCIENT, Operation::Update, &version, "");
            let start = self.0.remove(&bucket).or_else(|| self.0.remove(first));
            if let Some(Holding { api_version, time, fields }) = self.0.remove(&owner) {
                let fields = start.map_or_else(|| fields.clone(), |start| start.fields.union(&fields));
                self.0.insert(bucket, Holding { api_version, time, fields });
            }
            over -= 1;
        }
    }
}

/// The owners' list of an object.
pub(super) fn managed_fields(object: &Value) -> Option<&Vec<Value>> {
    object.get("metadata")?.get("managedFields")?.as_array()
}

/// The object without its owners' list.
pub(super) fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    set_managed_fields(&mut object, Vec::new());
    object
}

fn set_managed_fields(object: &mut Value, entries: Vec<Value>) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }
}

/// Fields that nobody owns: what names an object and what the server keeps about it.
pub(super) fn without_unowned(fields: &FieldSet) -> FieldSet {
    let mut unowned = FieldSet::default();
    for name in ["apiVersion", "kind", "metadata"] {
        unowned.insert(&[Element::field(name)]);
    }
    for name in
        ["name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields", "resourceVersion"]
    {
        unowned.insert(&[Element::field("metadata"), Element::field(name)]);
    }
    fields.difference(&unowned)
}

fn entry(owner: &Owner, holding: &Holding) -> Value {
    let mut entry = json!({
        "manager": owner.manager,
        "operation": owner.operation.name(),
        "apiVersion": holding.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": holding.fields.encode(),
    });
    if let Some(time) = &holding.time {
        entry["time"] = json!(time);
    }
    if !owner.subresource.is_empty() {
        entry["subresource"] = json!(owner.subresource);
    }
    entry
}

/// Updaters kept apart; past it the oldest share one entry.
const UPDATERS_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";
