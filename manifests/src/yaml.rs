//! Values as YAML: block style, keys in a fixed order, every doubtful string in double quotes. Written here because the Helm templates need
//! expressions in the places of values, which no serializer would leave alone.

use std::fmt::Write as _;

use serde_json::Value;

use crate::knobs::{CLOSE, OPEN};
use crate::object::Object;

/// Several objects as one stream of documents.
#[must_use]
pub fn documents<'a>(objects: impl IntoIterator<Item = &'a Object>) -> String {
    objects.into_iter().map(|object| format!("---\n{}", document(object.body()))).collect()
}

/// One value as a document.
#[must_use]
pub fn document(value: &Value) -> String {
    let mut text = String::new();
    block(&mut text, value, 0);
    text
}

/// Writes `value`, whose every line is indented by `depth` levels.
fn block(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_by_key(|key| (FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()), key.as_str()));
            for key in keys {
                indent(text, depth);
                text.push_str(&scalar(&Value::String(key.clone())));
                entry(text, &map[key], depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                indent(text, depth);
                text.push('-');
                item_of(text, item, depth);
            }
        }
        other => {
            indent(text, depth);
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

fn entry(text: &mut String, value: &Value, depth: usize) {
    text.push(':');
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            block(text, value, depth + 1);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            block(text, value, depth + 1);
        }
        other => {
            let _ = writeln!(text, " {}", scalar(other));
        }
    }
}

/// An item of a sequence: its first line stands behind the dash.
fn item_of(text: &mut String, item: &Value, depth: usize) {
    let mut own = String::new();
    block(&mut own, item, depth + 1);
    text.push(' ');
    text.push_str(own.trim_start_matches(' '));
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) => string_of(string),
        other => other.to_string(),
    }
}

/// A string: an expression alone keeps its type, one in a longer string is filled in, anything else is quoted unless it can't be mistaken.
fn string_of(string: &str) -> String {
    if let Some(expression) = string.strip_prefix(OPEN).and_then(|rest| rest.strip_suffix(CLOSE)).filter(|inner| !inner.contains(CLOSE)) {
        return format!("{{{{ {expression} | toJson }}}}");
    }
    if string.contains(OPEN) {
        return Value::String(string.to_owned()).to_string().replace(OPEN, "{{ ").replace(CLOSE, " }}");
    }
    if is_plain(string) { string.to_owned() } else { Value::String(string.to_owned()).to_string() }
}

/// Whether every YAML reader takes the bare word for this very string: it begins with a letter, or with a slash or a point before one, and
/// is none of the words for truth and nothing.
fn is_plain(string: &str) -> bool {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let begins = string.trim_start_matches(['/', '.']).starts_with(|letter: char| letter.is_ascii_alphabetic());
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-/".contains(letter);
    begins && string.len() < 200 && string.chars().all(allowed) && !words.contains(&string.to_ascii_lowercase().as_str())
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

/// What a reader looks for first.
const FIRST: &[&str] = &["apiVersion", "kind", "metadata", "name", "namespace"];

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn nothing_is_mistaken_for_something_else() {
        let value = json!({
            "kind": "Thing", "apiVersion": "v1", "list": [{ "b": 1, "a": ["x", ["y", {}]] }, [], "no", "1", "0x1", "1e3", ".5", "~", ""],
            "text": "two\nlines: {{ not a template }} \"#\"", "isthmus.dev/on": true, "on": null, "path": "/ready", "time": "30s",
        });
        let text = document(&value);
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value, "{text}");
        expect![[r##"
            apiVersion: v1
            kind: Thing
            isthmus.dev/on: true
            list:
              - a:
                  - x
                  - - "y"
                    - {}
                b: 1
              - []
              - "no"
              - "1"
              - "0x1"
              - "1e3"
              - ".5"
              - "~"
              - ""
            "on": null
            path: /ready
            text: "two\nlines: {{ not a template }} \"#\""
            time: "30s"
        "##]]
        .assert_eq(&text);
    }

    #[test]
    fn an_expression_keeps_its_type_alone_and_is_filled_in_within_a_string() {
        let text = document(
            &json!({ "replicas": format!("{OPEN}.Values.replicas{CLOSE}"), "image": format!("{OPEN}.a{CLOSE}/b:{OPEN}.c{CLOSE}") }),
        );
        assert_eq!(text, "image: \"{{ .a }}/b:{{ .c }}\"\nreplicas: {{ .Values.replicas | toJson }}\n");
    }
}
