//! Objects as other people's programs render them, beside those of `mesh install`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use mesh_manifests::{Install, Object, objects};
use serde_json::Value;

/// A file of `deploy/`.
pub(crate) fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// A program that `cargo xtask tools` provides; without it the test fails.
pub(crate) fn tool(variable: &str) -> Command {
    Command::new(std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: run the tests through `cargo xtask ci`")))
}

pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().expect("the tool starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Objects by kind and name, whatever their order was.
pub(crate) fn by_name(values: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    let name = |value: &Value| format!("{} {}", value["kind"].as_str().unwrap(), value["metadata"]["name"].as_str().unwrap());
    values.into_iter().filter(|value| !value.is_null()).map(|value| (name(&value), value)).collect()
}

pub(crate) fn read(text: &str) -> BTreeMap<String, Value> {
    by_name(serde_saphyr::from_multiple::<Value>(text).unwrap())
}

pub(crate) fn wanted(install: &Install, with: fn(&Object) -> bool) -> BTreeMap<String, Value> {
    by_name(objects(install).iter().filter(|object| with(object)).map(|object| object.body().clone()))
}

pub(crate) fn check(found: &BTreeMap<String, Value>, wanted: &BTreeMap<String, Value>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (name, value) in wanted {
        assert_eq!(&found[name], value, "{name}");
    }
}
