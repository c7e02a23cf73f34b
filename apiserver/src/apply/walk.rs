//! Walks two versions of an object side by side: which fields they have, where they differ, what they merge into. Pure.
//!
//! These are the walkers of structured-merge-diff. What can't be named by the schema's rules (an element without its key, a list where
//! a map should be) is treated as one leaf, so that no stored object can make a write fail.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::set::{Element, FieldSet};
use crate::openapi::shape::{ListRule, Shape};

/// How a value is taken apart.
enum Form<'a> {
    Leaf,
    Map,
    List(ListRule<'a>),
}

fn form<'a>(shape: Shape<'a>, one: Option<&Value>, other: Option<&Value>) -> Form<'a> {
    let (one, other) = (one.filter(|value| !value.is_null()), other.filter(|value| !value.is_null()));
    match (one.or(other), other.or(one)) {
        (Some(Value::Object(_)), Some(Value::Object(_))) if shape.allows("object") && !shape.is_atomic_map() => Form::Map,
        (Some(Value::Array(_)), Some(Value::Array(_))) if shape.allows("array") => match shape.list_rule() {
            ListRule::Atomic => Form::Leaf,
            rule => Form::List(rule),
        },
        _ => Form::Leaf,
    }
}

/// The fields of a map; null counts as empty.
fn fields(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_hollow(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(_) => false,
    }
}

fn member<'a>(shape: Shape<'a>, name: &str) -> Shape<'a> {
    shape.member(name).unwrap_or(Shape::Deduced)
}

/// The name of a list's element; the error says what it lacks.
pub(super) fn element(item: &Value, rule: &ListRule<'_>, shape: Shape<'_>) -> Result<Element, String> {
    match rule {
        ListRule::Keys(names) => {
            if !item.is_object() {
                return Err("associative list with keys may not have non-map elements".to_owned());
            }
            let inner = shape.items();
            let keys: BTreeMap<&str, &Value> =
                names.iter().filter_map(|name| Some((*name, item.get(*name).or_else(|| inner.default_of(name))?))).collect();
            if keys.is_empty() {
                return Err(format!("associative list with keys has an element that omits all key fields {names:?}"));
            }
            Ok(Element::keys(keys))
        }
        _ if item.is_object() || item.is_array() => Err("associative list without keys has an element that's not a scalar".to_owned()),
        _ if item.is_null() => Err("associative list without keys has an element that's an explicit null".to_owned()),
        _ => Ok(Element::value(item)),
    }
}

fn elements<'v>(list: &'v [Value], rule: &ListRule<'_>, shape: Shape<'_>) -> Vec<(Element, &'v Value)> {
    let named = |(index, item): (usize, &'v Value)| (element(item, rule, shape).unwrap_or_else(|_| Element::index(index)), item);
    list.iter().enumerate().map(named).collect()
}

/// Every field that an object mentions.
pub(super) fn field_set(value: &Value, shape: Shape<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    collect(value, shape, &mut set);
    set
}

/// Adds what is below a value; says whether the value is itself a field.
fn collect(value: &Value, shape: Shape<'_>, set: &mut FieldSet) -> bool {
    match form(shape, Some(value), None) {
        Form::Leaf => return true,
        Form::Map => {
            for (name, field) in fields(Some(value)) {
                let at = Element::field(name);
                let mut below = FieldSet::default();
                let own = collect(field, member(shape, name), &mut below);
                let hollow = field.is_null() || field.as_object().is_some_and(Map::is_empty);
                if own || hollow || !shape.has_field(name) {
                    set.insert(std::slice::from_ref(&at));
                }
                set.insert_below(at, below);
            }
        }
        Form::List(rule) => {
            for (at, all) in grouped(items(Some(value)), &rule, shape) {
                set.insert(std::slice::from_ref(&at));
                let mut below = FieldSet::default();
                if let [item] = all.as_slice() {
                    collect(item, shape.items(), &mut below);
                }
                set.insert_below(at, below);
            }
        }
    }
    false
}

/// Where two versions of an object differ.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) added: FieldSet,
}

impl Comparison {
    pub(super) fn between(before: &Value, after: &Value, shape: Shape<'_>) -> Self {
        let mut comparison = Self::default();
        comparison.compare(Some(before), Some(after), shape, &mut Vec::new());
        comparison
    }

    /// What the later version says that the earlier did not.
    pub(super) fn changed(&self) -> FieldSet {
        self.modified.clone().union(&self.added)
    }

    fn compare(&mut self, before: Option<&Value>, after: Option<&Value>, shape: Shape<'_>, path: &mut Vec<Element>) {
        match form(shape, before, after) {
            Form::Map if !(is_hollow(before) && is_hollow(after)) => {
                let names: BTreeSet<&String> = fields(before).chain(fields(after)).map(|(name, _)| name).collect();
                for name in names {
                    path.push(Element::field(name));
                    self.compare(
                        before.and_then(|value| value.get(name)),
                        after.and_then(|value| value.get(name)),
                        member(shape, name),
                        path,
                    );
                    path.pop();
                }
            }
            Form::List(rule) if !(is_hollow(before) && is_hollow(after)) => {
                self.compare_lists(items(before), items(after), &rule, shape, path)
            }
            _ => {
                match (before, after) {
                    (None, _) => self.added.insert(path),
                    (_, None) => self.removed.insert(path),
                    (Some(before), Some(after)) if before != after => self.modified.insert(path),
                    _ => {}
                }
                return;
            }
        }
        match (before, after) {
            (None, _) => self.added.insert(path),
            (_, None) => self.removed.insert(path),
            _ => {}
        }
    }

    fn compare_lists(&mut self, before: &[Value], after: &[Value], rule: &ListRule<'_>, shape: Shape<'_>, path: &mut Vec<Element>) {
        let (before, after) = (grouped(before, rule, shape), grouped(after, rule, shape));
        let names: BTreeSet<&Element> = before.keys().chain(after.keys()).collect();
        for name in names {
            let (old, new) = (first(&before, name), first(&after, name));
            path.push(name.clone());
            match (before.get(name).map_or(0, Vec::len), after.get(name).map_or(0, Vec::len)) {
                (..=1, ..=1) => self.compare(old, new, shape.items(), path),
                (2.., 2..) => {
                    if before.get(name) != after.get(name) {
                        self.modified.insert(path);
                    }
                }
                (2.., _) => {
                    if new.is_some() {
                        self.compare(None, new, shape.items(), path);
                    }
                    self.removed.insert(path);
                }
                (_, 2..) => {
                    if old.is_some() {
                        self.compare(old, None, shape.items(), path);
                    }
                    self.added.insert(path);
                }
            }
            path.pop();
        }
    }
}

fn first<'v>(groups: &BTreeMap<Element, Vec<&'v Value>>, name: &Element) -> Option<&'v Value> {
    groups.get(name).and_then(|all| all.first().copied())
}

fn grouped<'v>(list: &'v [Value], rule: &ListRule<'_>, shape: Shape<'_>) -> BTreeMap<Element, Vec<&'v Value>> {
    let mut groups: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for (name, item) in elements(list, rule, shape) {
        groups.entry(name).or_default().push(item);
    }
    groups
}

/// Lays an applied configuration over an object: nothing is removed, and what both say is as the configuration says.
pub(super) fn merge(live: &Value, applied: &Value, shape: Shape<'_>) -> Value {
    merge_sides(Some(live), Some(applied), shape).unwrap_or_else(|| Value::Object(Map::new()))
}

fn merge_sides(live: Option<&Value>, applied: Option<&Value>, shape: Shape<'_>) -> Option<Value> {
    if applied.is_none() || (is_hollow(live) && is_hollow(applied)) {
        return applied.or(live).cloned();
    }
    match form(shape, live, applied) {
        Form::Leaf => applied.or(live).cloned(),
        Form::Map => {
            let names: BTreeSet<&String> = fields(live).chain(fields(applied)).map(|(name, _)| name).collect();
            let merged = names.into_iter().filter_map(|name| {
                let value =
                    merge_sides(live.and_then(|value| value.get(name)), applied.and_then(|value| value.get(name)), member(shape, name));
                Some((name.clone(), value?))
            });
            Some(Value::Object(merged.collect()))
        }
        Form::List(rule) => Some(Value::Array(merge_lists(items(live), items(applied), &rule, shape))),
    }
}

/// Elements come in the configuration's order; those that only the object has stay where they were among their neighbours.
fn merge_lists(live: &[Value], applied: &[Value], rule: &ListRule<'_>, shape: Shape<'_>) -> Vec<Value> {
    let (left, right) = (elements(live, rule, shape), elements(applied, rule, shape));
    let left_groups = grouped(live, rule, shape);
    let on_right: BTreeMap<&Element, &Value> = right.iter().map(|(name, item)| (name, *item)).collect();
    let mut shared = right.iter().map(|(name, _)| name).filter(|name| left_groups.contains_key(*name)).peekable();
    let merged = |name: &Element| {
        let old = left_groups.get(name).filter(|all| all.len() == 1).and_then(|all| all.first().copied());
        merge_sides(old, on_right.get(name).copied(), shape.items())
    };
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let mut done: BTreeSet<&Element> = BTreeSet::new();
    let (mut l, mut r) = (left.iter().peekable(), right.iter().peekable());
    loop {
        if let (Some((mine, _)), Some((theirs, _))) = (l.peek(), r.peek()) {
            if mine == theirs {
                done.insert(mine);
                out.extend(merged(mine));
                l.next();
                r.next();
                shared.next();
                continue;
            }
            if on_right.contains_key(mine) && shared.peek().is_some_and(|next| *next != mine) {
                l.next();
                continue;
            }
        }
        if let Some((mine, item)) = l.peek() {
            if !on_right.contains_key(mine) {
                out.push((*item).clone());
                l.next();
                continue;
            }
            if done.contains(mine) {
                l.next();
            }
        }
        match r.next() {
            Some((theirs, _)) => {
                done.insert(theirs);
                out.extend(merged(theirs));
                shared.next_if(|next| *next == theirs);
            }
            None if l.peek().is_none() => return out,
            None => {}
        }
    }
}

/// Removes fields and elements; a map or list that this empties goes too.
pub(super) fn remove(value: &Value, gone: &FieldSet, shape: Shape<'_>) -> Option<Value> {
    match form(shape, Some(value), None) {
        Form::Leaf => Some(value.clone()),
        Form::Map => {
            let kept = fields(Some(value)).filter_map(|(name, field)| {
                let at = Element::field(name);
                Some((name.clone(), remove_at(field, &at, gone, member(shape, name))?))
            });
            let kept: Map<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Form::List(rule) => {
            let all = elements(items(Some(value)), &rule, shape);
            let kept: Vec<Value> = all.iter().filter_map(|(at, item)| remove_at(item, at, gone, shape.items())).collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
    }
}

fn remove_at(value: &Value, at: &Element, gone: &FieldSet, shape: Shape<'_>) -> Option<Value> {
    if gone.has(at) {
        return None;
    }
    match gone.below(at) {
        Some(below) => remove(value, below, shape),
        None => Some(value.clone()),
    }
}
