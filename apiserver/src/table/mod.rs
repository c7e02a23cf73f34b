//! Shows objects as the rows that `kubectl get` prints: `meta.k8s.io/v1 Table`. Pure: `now` is an argument.
//!
//! Built-in kinds have the columns of Kubernetes' own printers (`builtin`, `pod`), custom resources those of their definition,
//! found by JSONPath (`path`). Cells never fail: what an object lacks is shown as the real server shows it.

mod builtin;
mod cells;
mod path;
mod pod;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use path::JsonPath;

/// What of each object a row carries besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Its metadata: what clients get that do not ask.
    #[default]
    Metadata,
    /// Nothing.
    None,
    /// All of it.
    Object,
}

/// The table of a list, or of one object.
///
/// `columns` are the `additionalPrinterColumns` of a custom resource's version; built-in kinds have their own.
pub fn table(group: &str, kind: &str, columns: Option<&[Value]>, list: &Value, now: Timestamp, include: IncludeObject) -> Value {
    let layout = Layout::of(group, kind, columns);
    let items = list.get("items").and_then(Value::as_array).map_or_else(|| std::slice::from_ref(list), Vec::as_slice);
    let rows: Vec<Value> = items.iter().map(|item| row(&layout, item, list, kind, now, include)).collect();
    let mut metadata = Map::new();
    for name in ["resourceVersion", "continue", "remainingItemCount"] {
        if let Some(value) = list.get("metadata").and_then(|found| found.get(name)) {
            metadata.insert(name.to_owned(), value.clone());
        }
    }
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": layout.columns(),
        "rows": rows,
    })
}

fn row(layout: &Layout, item: &Value, list: &Value, kind: &str, now: Timestamp, include: IncludeObject) -> Value {
    let mut row = json!({"cells": layout.cells(item, now)});
    if let Layout::Builtin(builtin::Printer { conditions: Some(conditions), .. }) = layout {
        let conditions = conditions(item);
        if !conditions.is_null() {
            row["conditions"] = conditions;
        }
    }
    row["object"] = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item.get("metadata").cloned().unwrap_or_default()})
        }
        IncludeObject::Object => whole(item, list, kind),
    };
    row
}

/// Items of a list may leave out what the list says once.
fn whole(item: &Value, list: &Value, kind: &str) -> Value {
    let mut object = item.clone();
    if let Value::Object(fields) = &mut object {
        fields.entry("kind").or_insert_with(|| kind.into());
        if let Some(version) = list.get("apiVersion") {
            fields.entry("apiVersion").or_insert_with(|| version.clone());
        }
    }
    object
}

/// Which columns there are, and how their cells are found.
enum Layout {
    Builtin(&'static builtin::Printer),
    Custom(Vec<CustomColumn>),
}

struct CustomColumn {
    definition: Value,
    kind: String,
    path: Option<JsonPath>,
}

impl Layout {
    fn of(group: &str, kind: &str, columns: Option<&[Value]>) -> Self {
        let columns = columns.unwrap_or_default();
        match builtin::printer(group, kind) {
            Some(printer) if columns.is_empty() => Self::Builtin(printer),
            _ if columns.is_empty() => Self::Custom(vec![CustomColumn::of(&age_column())]),
            _ => Self::Custom(columns.iter().map(CustomColumn::of).collect()),
        }
    }

    fn columns(&self) -> Vec<Value> {
        match self {
            Self::Builtin(printer) => printer.columns.iter().map(builtin::Column::definition).collect(),
            Self::Custom(columns) => {
                let name = builtin::NAME.definition();
                std::iter::once(name).chain(columns.iter().map(|column| column.definition.clone())).collect()
            }
        }
    }

    fn cells(&self, item: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Self::Builtin(printer) => (printer.cells)(item, now),
            Self::Custom(columns) => {
                let name = item["metadata"]["name"].as_str().unwrap_or_default().into();
                std::iter::once(name).chain(columns.iter().map(|column| column.cell(item, now))).collect()
            }
        }
    }
}

impl CustomColumn {
    fn of(column: &Value) -> Self {
        let text = |name: &str| column.get(name).and_then(Value::as_str).unwrap_or_default();
        let path = text("jsonPath");
        let described = format!("Custom resource definition column (in JSONPath format): {path}");
        let definition = json!({
            "name": text("name"),
            "type": text("type"),
            "format": text("format"),
            "description": if text("description").is_empty() { described.as_str() } else { text("description") },
            "priority": column.get("priority").and_then(Value::as_i64).unwrap_or_default(),
        });
        Self { definition, kind: text("type").to_owned(), path: JsonPath::parse(path).ok() }
    }

    fn cell(&self, item: &Value, now: Timestamp) -> Value {
        let Some(found) = self.path.as_ref().and_then(|path| path.first(item)) else {
            return Value::Null;
        };
        match self.kind.as_str() {
            "string" => match found {
                Value::String(_) | Value::Null => found.clone(),
                other => other.to_string().into(),
            },
            "integer" => found.as_i64().or_else(|| found.as_f64().map(whole_part)).map_or(Value::Null, Value::from),
            "number" if found.is_number() => found.clone(),
            "boolean" if found.is_boolean() => found.clone(),
            "date" => found.as_str().map_or(Value::Null, |text| since(text, now).into()),
            _ => Value::Null,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the real server cuts such a number the same way, and the cast saturates")]
fn whole_part(number: f64) -> i64 {
    number as i64
}

fn age_column() -> Value {
    json!({"name": "Age", "type": "date", "description": builtin::CREATED, "jsonPath": ".metadata.creationTimestamp"})
}

/// The time since a moment, as kubectl prints ages.
fn since(moment: &str, now: Timestamp) -> String {
    if moment.is_empty() {
        return "<unknown>".to_owned();
    }
    match moment.parse::<Timestamp>() {
        Ok(then) => duration(now.as_second().saturating_sub(then.as_second())),
        Err(_) => "<invalid>".to_owned(),
    }
}

/// Two or three significant figures of a duration: `42s`, `3m12s`, `2d4h`.
fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |large: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    match seconds {
        i64::MIN..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => pair(hours / 24, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => pair(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    /// The row of one object, its cells joined by `|`.
    pub(super) fn check(group: &str, kind: &str, object: Value, expected: &str) {
        let table = table(group, kind, None, &object, now(), IncludeObject::None);
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(cells.len(), columns, "{kind}: a cell for each column");
        let shown: Vec<String> = cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect();
        assert_eq!(shown.join("|"), expected, "{kind}");
    }

    #[test]
    fn ages_are_shown_as_kubectl_shows_them() {
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (42, "42s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (187_200, "2d4h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (64_800_000, "2y20d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn custom_columns_are_found_by_their_paths() {
        let columns = [
            json!({"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}),
            json!({"name": "Count", "type": "integer", "jsonPath": ".spec.count", "priority": 1}),
            json!({"name": "Ports", "type": "string", "jsonPath": ".spec.ports"}),
            json!({"name": "Gone", "type": "string", "jsonPath": ".spec.gone"}),
            json!({"name": "Odd", "type": "string", "jsonPath": "{.spec"}),
            json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
        ];
        let object = json!({
            "metadata": {"name": "east", "creationTimestamp": "2026-01-01T11:59:18Z"},
            "spec": {"count": 3, "ports": [80]},
            "status": {"conditions": [{"type": "Other", "status": "x"}, {"type": "Ready", "status": "True"}]},
        });
        let table = table("isthmus.dev", "Link", Some(&columns), &object, now(), IncludeObject::Metadata);
        assert_eq!(table["rows"][0]["cells"], json!(["east", "True", 3, "[80]", null, null, "42s"]));
        assert_eq!(table["columnDefinitions"][2]["priority"], 1);
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    }

    #[test]
    fn a_list_keeps_its_version_and_place() {
        let list = json!({
            "kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "7", "continue": "abc", "remainingItemCount": 2},
            "items": [{"metadata": {"name": "a"}, "data": {"x": "y"}}, {"metadata": {"name": "b"}}],
        });
        let table = table("", "ConfigMap", None, &list, now(), IncludeObject::Object);
        assert_eq!(table["metadata"], json!({"resourceVersion": "7", "continue": "abc", "remainingItemCount": 2}));
        assert_eq!(table["rows"][1]["cells"], json!(["b", 0, "<unknown>"]));
        assert_eq!(table["rows"][0]["object"]["kind"], "ConfigMap");
        assert_eq!(table["rows"][0]["object"]["apiVersion"], "v1");
    }

    #[test]
    fn a_kind_without_columns_shows_name_and_age() {
        check("isthmus.dev", "Peer", json!({"metadata": {"name": "west", "creationTimestamp": "2026-01-01T09:00:00Z"}}), "west|3h");
    }

    proptest! {
        #[test]
        fn no_object_panics(seconds in any::<i64>(), text in "\\PC{0,30}", index in 0..builtin::PRINTERS.len()) {
            duration(seconds);
            since(&text, now());
            let (group, kind, _) = &builtin::PRINTERS[index];
            for object in [json!(null), json!([1]), json!({"spec": text, "status": [text]}), json!({"status": {"conditions": text}, "spec": {"ports": [text]}})] {
                table(group, kind, None, &object, now(), IncludeObject::Object);
            }
        }
    }
}
