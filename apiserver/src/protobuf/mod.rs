//! Reads the protobuf bodies that Go's typed clients send, `kubectl create` among them. Pure.
//!
//! Such a client does not fall back on JSON, so reading is a must; it accepts JSON answers, so nothing is written. What a message's
//! fields are called is in `fields.txt`, made from Kubernetes' own types. A value is what Go would have written as JSON: zero values
//! of fields that are no pointers and may be left out are left out. Unknown fields are skipped.

mod wire;

use std::{collections::HashMap, sync::OnceLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use wire::{Data, Message};

/// The object in a body of type [`CONTENT_TYPE`]; the error says what can't be read.
pub(crate) fn object(body: &[u8]) -> Result<Value, String> {
    let body = body.strip_prefix(MAGIC).ok_or("the body does not begin as protobuf of Kubernetes does")?;
    let (mut types, mut raw) = (&[][..], &[][..]);
    for field in Message(body) {
        match field? {
            (1, Data::Bytes(bytes)) => types = bytes,
            (2, Data::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for field in Message(types) {
        match field? {
            (1, Data::Bytes(bytes)) => api_version = text(bytes)?,
            (2, Data::Bytes(bytes)) => kind = text(bytes)?,
            _ => {}
        }
    }
    let name = message_name(&api_version, &kind);
    let fields = fields_of(&name).ok_or_else(|| format!("{kind} of {api_version} can't be read from protobuf: send JSON"))?;
    let mut object = Map::from_iter([("apiVersion".to_owned(), json!(api_version)), ("kind".to_owned(), json!(kind))]);
    read(raw, fields, &mut object, DEPTH_MAX)?;
    Ok(Value::Object(object))
}

/// `rbac.authorization.k8s.io/v1`, `Role`: `rbac.v1.Role`. Options of a deletion are the same whichever version says them.
fn message_name(api_version: &str, kind: &str) -> String {
    if kind == "DeleteOptions" {
        return "meta.v1.DeleteOptions".to_owned();
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    format!("{}.{version}.{kind}", group.split('.').next().unwrap_or_default())
}

/// One field of a message, as the table has it.
#[derive(Debug)]
struct Field {
    number: u64,
    /// `-` for what Go embeds: its fields are the message's own.
    name: &'static str,
    /// Whether a zero value says nothing.
    drops_zero: bool,
    /// `s`, `i`, `b`, `y`, a message, or a list `[]` or map `{}` of those.
    kind: &'static str,
}

fn fields_of(message: &str) -> Option<&'static [Field]> {
    static TABLE: OnceLock<HashMap<&'static str, Vec<Field>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| include_str!("fields.txt").lines().filter_map(line).collect());
    table.get(message).map(Vec::as_slice)
}

fn line(line: &'static str) -> Option<(&'static str, Vec<Field>)> {
    let mut parts = line.split('|');
    let name = parts.next().filter(|name| !name.starts_with('#'))?;
    let field = |part: &'static str| {
        let mut words = part.split(' ');
        let (number, name, kind) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        Some(Field { number, name, drops_zero: kind.starts_with('?'), kind: kind.get(1..)? })
    };
    Some((name, parts.filter_map(field).collect()))
}

fn read(bytes: &[u8], fields: &'static [Field], object: &mut Map<String, Value>, depth: usize) -> Result<(), String> {
    let depth = depth.checked_sub(1).ok_or("the body nests too deep")?;
    for entry in Message(bytes) {
        let (number, data) = entry?;
        let Some(field) = fields.iter().find(|field| field.number == number) else { continue };
        if field.name == "-" {
            let embedded = fields_of(field.kind).ok_or_else(|| unread(field.kind))?;
            read(data.bytes()?, embedded, object, depth)?;
        } else if let Some(kind) = field.kind.strip_prefix("[]") {
            let value = value(kind, &data, depth)?;
            if let Value::Array(list) = object.entry(field.name).or_insert_with(|| json!([])) {
                list.push(value);
            }
        } else if let Some(kind) = field.kind.strip_prefix("{}") {
            let (key, value) = map_entry(kind, data.bytes()?, depth)?;
            if let Value::Object(map) = object.entry(field.name).or_insert_with(|| json!({})) {
                map.insert(key, value);
            }
        } else {
            let value = value(field.kind, &data, depth)?;
            let zero = value == json!("") || value == json!(0) || value == json!(false);
            if !(value.is_null() || field.drops_zero && zero) {
                object.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn map_entry(kind: &'static str, bytes: &[u8], depth: usize) -> Result<(String, Value), String> {
    let (mut key, mut found) = (String::new(), Value::Null);
    for entry in Message(bytes) {
        match entry? {
            (1, Data::Bytes(bytes)) => key = text(bytes)?,
            (2, data) => found = value(kind, &data, depth)?,
            _ => {}
        }
    }
    // An empty value is not always written.
    let empty = if matches!(kind, "s" | "y") { json!("") } else { Value::Null };
    Ok((key, if found.is_null() { empty } else { found }))
}

fn value(kind: &'static str, data: &Data<'_>, depth: usize) -> Result<Value, String> {
    Ok(match kind {
        "s" => json!(text(data.bytes()?)?),
        "i" => json!(data.number()?),
        "b" => json!(data.number()? != 0),
        "y" => json!(STANDARD.encode(data.bytes()?)),
        "resource.Quantity" => json!(text(first(data.bytes()?)?.bytes()?)?),
        "runtime.RawExtension" | "meta.v1.FieldsV1" => {
            serde_json::from_slice(first(data.bytes()?)?.bytes()?).map_err(|error| format!("{kind}: {error}"))?
        }
        "meta.v1.Time" => time(data.bytes()?, "%Y-%m-%dT%H:%M:%SZ")?,
        "meta.v1.MicroTime" => time(data.bytes()?, "%Y-%m-%dT%H:%M:%S%.6fZ")?,
        "intstr.IntOrString" => int_or_string(data.bytes()?)?,
        _ => match kind.strip_prefix("items:[]") {
            Some(kind) => {
                let items = Message(data.bytes()?).map(|entry| value(kind, &entry?.1, depth));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            None => {
                let mut object = Map::new();
                read(data.bytes()?, fields_of(kind).ok_or_else(|| unread(kind))?, &mut object, depth)?;
                Value::Object(object)
            }
        },
    })
}

/// The value of a message that only wraps one; absent is empty.
fn first(bytes: &[u8]) -> Result<Data<'_>, String> {
    Message(bytes).next().map_or(Ok(Data::Bytes(&[])), |entry| Ok(entry?.1))
}

fn time(bytes: &[u8], format: &str) -> Result<Value, String> {
    let (mut seconds, mut nanos) = (None, 0);
    for entry in Message(bytes) {
        match entry? {
            (1, data) => seconds = Some(data.number()?),
            (2, data) => nanos = i32::try_from(data.number()?).map_err(|error| error.to_string())?,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|error| error.to_string())?;
    Ok(json!(time.strftime(format).to_string()))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut words) = (false, 0, String::new());
    for entry in Message(bytes) {
        match entry? {
            (1, data) => is_text = data.number()? == 1,
            (2, data) => number = data.number()?,
            (3, data) => words = text(data.bytes()?)?,
            _ => {}
        }
    }
    Ok(if is_text { json!(words) } else { json!(number) })
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
}

fn unread(message: &str) -> String {
    format!("{message} can't be read from protobuf: send JSON")
}

/// The media type of these bodies.
pub(crate) const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";
/// Messages inside messages; Kubernetes' own types stay far below.
const DEPTH_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `kubectl create namespace shop` sends.
    const SHOP: &[u8] = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x1c\x0a\x14\x0a\x04shop\x12\x00\x1a\x00\"\x00*\x002\x008\x00B\x00\x12\x00\x1a\x02\x0a\x00\x1a\x00\"\x00";

    #[test]
    fn a_namespace_is_read_as_go_writes_it_in_json() {
        let expected = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}, "spec": {}, "status": {}});
        assert_eq!(object(SHOP).unwrap(), expected);
    }

    #[test]
    fn what_is_broken_or_unknown_is_refused() {
        for end in [0, 3, 4, 10, 20, 22, 30, 40] {
            assert!(object(&SHOP[..end]).is_err(), "cut at {end}");
        }
        let unknown = b"k8s\0\x0a\x0a\x0a\x02x1\x12\x04Thin";
        assert!(object(unknown).unwrap_err().contains("send JSON"));
    }

    #[test]
    fn every_message_of_the_table_is_there() {
        for line in include_str!("fields.txt").lines().filter_map(line) {
            for field in line.1 {
                let kind = field.kind.trim_start_matches("[]").trim_start_matches("{}").trim_start_matches("items:[]");
                let scalar = matches!(kind, "s" | "i" | "b" | "y");
                let special = matches!(
                    kind,
                    "meta.v1.Time"
                        | "meta.v1.MicroTime"
                        | "meta.v1.FieldsV1"
                        | "resource.Quantity"
                        | "intstr.IntOrString"
                        | "runtime.RawExtension"
                );
                assert!(scalar || special || fields_of(kind).is_some(), "{}.{}: {kind}", line.0, field.name);
            }
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut body = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x7f".to_vec();
            body.extend(bytes);
            let _ = object(&body);
        }
    }
}
