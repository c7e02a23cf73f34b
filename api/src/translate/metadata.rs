//! Which labels and annotations travel from an export to the import. Decided once, for the exporter, the importer and whoever reads an
//! import back: what one of them let through and another did not would be a conflict that nobody made.
//!
//! Keys and values have to be what an API server takes: one that it refuses would keep the whole import from being written.

use std::collections::BTreeMap;

/// Whether a label or annotation of this key may travel. Those that Kubernetes or the mesh give a meaning never do.
#[must_use]
pub fn travels(key: &str) -> bool {
    let (domain, name) = key.split_once('/').unwrap_or(("", key));
    let reserved = RESERVED.iter().any(|ours| domain == *ours || domain.strip_suffix(ours).is_some_and(|rest| rest.ends_with('.')));
    // The customary labels of applications are the user's own; who manages an import is ours to say.
    !reserved || (domain == "app.kubernetes.io" && name != "managed-by")
}

pub(super) fn travelling_labels<'a>(of: impl Iterator<Item = (&'a String, &'a String)>, bytes_max: usize) -> BTreeMap<String, String> {
    cut(of.filter(|(key, value)| is_qualified(key) && travels(key) && is_label_value(value)), bytes_max)
}

pub(super) fn travelling_annotations<'a>(of: impl Iterator<Item = (&'a String, &'a String)>, bytes_max: usize) -> BTreeMap<String, String> {
    cut(of.filter(|(key, _)| is_qualified(key) && travels(key)), bytes_max)
}

/// The first by key, as many as are taken.
fn cut<'a>(of: impl Iterator<Item = (&'a String, &'a String)>, bytes_max: usize) -> BTreeMap<String, String> {
    let all: BTreeMap<&String, &String> = of.collect();
    let mut bytes = 0;
    let fits = |(key, value): &(&String, &String)| {
        bytes += key.len() + value.len();
        bytes <= bytes_max
    };
    let taken = all.into_iter().take(PAIRS_MAX).take_while(fits);
    taken.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A name with an optional domain before it, as Kubernetes has keys of labels and application protocols.
pub(super) fn is_qualified(text: &str) -> bool {
    let (domain, name) = text.split_once('/').map_or((None, text), |(domain, name)| (Some(domain), name));
    domain.is_none_or(is_domain) && !name.is_empty() && is_label_value(name)
}

fn is_domain(text: &str) -> bool {
    text.len() <= DOMAIN_MAX && text.split('.').all(|label| label.parse::<mesh_names::Label>().is_ok())
}

/// At most 63 of letters, digits, `-`, `_` and `.`, a letter or digit at both ends; or nothing.
fn is_label_value(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= NAME_MAX && bytes.iter().copied().all(inside) && edge(bytes.first()) && edge(bytes.last())
}

const RESERVED: [&str; 3] = ["kubernetes.io", "k8s.io", "isthmus.dev"];
const NAME_MAX: usize = 63;
const DOMAIN_MAX: usize = 253;
/// Pairs that travel with one export.
pub(super) const PAIRS_MAX: usize = 64;
/// Bytes of labels that travel with one export.
pub(super) const LABELS_MAX: usize = 16 * 1024;
/// Bytes of annotations that travel with one export.
pub(super) const ANNOTATIONS_MAX: usize = 64 * 1024;
