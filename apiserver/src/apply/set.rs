//! Sets of fields, and their form on the wire (`fieldsV1`). Pure.
//!
//! A path is a row of elements: a field's name, an element of a keyed list, an element of a set. Elements are kept as they are
//! written (`f:spec`, `k:{"name":"web"}`, `v:"x"`), with keys in order, so that equal elements are equal texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use crate::openapi::shape::Shape;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element(String);

impl Element {
    pub(super) fn field(name: &str) -> Self {
        Self(format!("f:{name}"))
    }

    /// An element of a keyed list, by the values of its keys.
    pub(super) fn keys(keys: BTreeMap<&str, &Value>) -> Self {
        let keys: Map<String, Value> = keys.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        Self(format!("k:{}", Value::Object(keys)))
    }

    /// An element of a set, by itself.
    pub(super) fn value(value: &Value) -> Self {
        Self(format!("v:{value}"))
    }

    /// An element that has no name of its own.
    pub(super) fn index(index: usize) -> Self {
        Self(format!("i:{index}"))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_at_checked(2).ok_or_else(|| format!("key must be 2 characters long: {text}"))?;
        let json = || serde_json::from_str::<Value>(rest).map_err(|error| format!("{text}: {error}"));
        match kind {
            "f:" => Ok(Self::field(rest)),
            "v:" => Ok(Self::value(&json()?)),
            "i:" => rest.parse().map(Self::index).map_err(|error| format!("{text}: {error}")),
            "k:" => match json()? {
                Value::Object(keys) => Ok(Self::keys(keys.iter().map(|(name, value)| (name.as_str(), value)).collect())),
                other => Err(format!("{text}: {other} is not a map of keys")),
            },
            _ => Err(format!("unknown path element type: {text}")),
        }
    }

    fn name(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }
}

/// As conflicts name it: `.spec`, `[name="web"]`, `[="x"]`.
impl fmt::Display for Element {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.0.get(2..).unwrap_or_default();
        match self.0.get(..2) {
            Some("f:") => write!(to, ".{rest}"),
            Some("v:") => write!(to, "[={rest}]"),
            Some("k:") => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(rest).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(to, "[{}]", keys.join(","))
            }
            _ => write!(to, "[{rest}]"),
        }
    }
}

/// A set of paths. Invariant: no child is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct FieldSet {
    members: BTreeSet<Element>,
    children: BTreeMap<Element, Self>,
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Adds a path; the empty path is no field and adds nothing.
    pub(super) fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Adds everything below an element.
    pub(super) fn insert_below(&mut self, element: Element, below: Self) {
        if !below.is_empty() {
            self.children.insert(element, below);
        }
    }

    pub(super) fn has(&self, element: &Element) -> bool {
        self.members.contains(element)
    }

    pub(super) fn below(&self, element: &Element) -> Option<&Self> {
        self.children.get(element)
    }

    pub(super) fn union(mut self, other: &Self) -> Self {
        self.members.extend(other.members.iter().cloned());
        for (element, theirs) in &other.children {
            let ours = self.children.remove(element).unwrap_or_default();
            self.children.insert(element.clone(), ours.union(theirs));
        }
        self
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self { members: self.members.intersection(&other.members).cloned().collect(), children: BTreeMap::new() };
        for (element, ours) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                both.insert_below(element.clone(), ours.intersection(theirs));
            }
        }
        both
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        let mut rest = Self { members: self.members.difference(&other.members).cloned().collect(), children: BTreeMap::new() };
        for (element, ours) in &self.children {
            rest.insert_below(element.clone(), other.children.get(element).map_or_else(|| ours.clone(), |theirs| ours.difference(theirs)));
        }
        rest
    }

    /// Removes a field and all below it.
    pub(super) fn remove_field(&mut self, name: &str) {
        let element = Element::field(name);
        self.members.remove(&element);
        self.children.remove(&element);
    }

    /// Adds the fields that are only passed through, as far as the schema names them: `spec` when `spec.replicas` is there.
    pub(super) fn with_named_fields(&self, shape: Shape<'_>) -> Self {
        let mut members = self.members.clone();
        let mut children = BTreeMap::new();
        for (element, below) in &self.children {
            let inner = match element.name() {
                Some(name) => {
                    if shape.has_field(name) {
                        members.insert(element.clone());
                    }
                    shape.member(name).unwrap_or(Shape::Deduced)
                }
                None => shape.items(),
            };
            children.insert(element.clone(), below.with_named_fields(inner));
        }
        Self { members, children }
    }

    /// Every path, as conflicts name it.
    pub(super) fn paths(&self) -> Vec<String> {
        let own = self.members.iter().map(Element::to_string);
        let inner = self.children.iter().flat_map(|(element, below)| below.paths().into_iter().map(move |path| format!("{element}{path}")));
        own.chain(inner).collect()
    }

    /// The set as `fieldsV1`.
    pub(super) fn encode(&self) -> Value {
        let mut fields = Map::new();
        for element in &self.members {
            fields.insert(element.0.clone(), Value::Object(Map::new()));
        }
        for (element, below) in &self.children {
            let mut inner = below.encode();
            if self.members.contains(element) {
                inner["."] = Value::Object(Map::new());
            }
            fields.insert(element.0.clone(), inner);
        }
        Value::Object(fields)
    }

    /// Reads `fieldsV1`.
    pub(super) fn decode(fields: &Value) -> Result<Self, String> {
        let fields = fields.as_object().ok_or("fieldsV1 is not an object")?;
        let mut set = Self::default();
        for (name, below) in fields.iter().filter(|(name, _)| *name != ".") {
            let element = Element::parse(name)?;
            let inner = Self::decode(below)?;
            if inner.is_empty() || below.get(".").is_some() {
                set.members.insert(element.clone());
            }
            set.insert_below(element, inner);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_read_back_as_they_were_written() {
        let fields = json!({"f:spec": {".": {}, "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:replicas": {}},
            "f:metadata": {"f:finalizers": {"v:\"a\"": {}}}});
        let set = FieldSet::decode(&fields).unwrap();
        assert_eq!(set.encode(), fields);
        assert_eq!(
            set.paths(),
            [
                ".spec",
                ".metadata.finalizers[=\"a\"]",
                ".spec.replicas",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].port"
            ]
        );
    }

    #[test]
    fn the_order_of_keys_makes_no_difference() {
        let one = FieldSet::decode(&json!({"k:{\"b\":1,\"a\":2}": {}})).unwrap();
        assert_eq!(one, FieldSet::decode(&json!({"k:{\"a\":2,\"b\":1}": {}})).unwrap());
    }

    #[test]
    fn malformed_sets_are_refused() {
        for fields in [
            json!([]),
            json!({"x": {}}),
            json!({"f:a": 1}),
            json!({"k:1": {}}),
            json!({"v:x": {}}),
            json!({"z:a": {}}),
            json!({"é": {}}),
            json!({"i:-1": {}}),
        ] {
            assert!(FieldSet::decode(&fields).is_err(), "{fields}");
        }
    }

    fn any_set() -> impl Strategy<Value = FieldSet> {
        prop::collection::vec(prop::collection::vec("[abc]", 1..4), 0..6).prop_map(|paths| {
            let mut set = FieldSet::default();
            for path in paths {
                set.insert(&path.iter().map(|name| Element::field(name)).collect::<Vec<_>>());
            }
            set
        })
    }

    proptest! {
        #[test]
        fn sets_obey_the_laws_of_sets(a in any_set(), b in any_set()) {
            prop_assert_eq!(FieldSet::decode(&a.encode()).unwrap(), a.clone());
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert!(a.difference(&b).intersection(&b).is_empty());
            prop_assert_eq!(a.clone().union(&b), b.clone().union(&a));
            prop_assert!(a.difference(&a).is_empty());
        }
    }
}
