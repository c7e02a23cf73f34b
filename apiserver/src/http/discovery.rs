//! What is served: `/api`, `/apis` (aggregated and legacy), and the resource lists. Pure.

use serde_json::{Value, json};

use crate::kinds::{Kind, Registry, Stored};

/// Aggregated discovery (`APIGroupDiscoveryList`) of the core group, or of all others.
pub(crate) fn aggregated(kinds: &Registry, core: Core, version: &str) -> Value {
    let groups = kinds.groups().into_iter().filter(|(group, _)| group.is_empty() == (core == Core::Yes));
    let items = groups.map(|(group, versions)| {
        let versions = versions.iter().map(|version| {
            let resources = served(kinds, &group, version).map(aggregated_resource).collect::<Vec<_>>();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        });
        json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions.collect::<Vec<_>>()})
    });
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items.collect::<Vec<_>>(),
    })
}

/// Whether the core group is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Core {
    /// `/api`.
    Yes,
    /// `/apis`.
    No,
}

/// `APIGroupList`.
pub(crate) fn groups(kinds: &Registry) -> Value {
    let groups = kinds.groups().into_iter().filter(|(group, _)| !group.is_empty()).map(|(group, versions)| group_of(&group, &versions));
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.collect::<Vec<_>>()})
}

/// `APIGroup`, if the group is served.
pub(crate) fn group(kinds: &Registry, name: &str) -> Option<Value> {
    let (_, versions) = kinds.groups().into_iter().find(|(group, _)| group == name)?;
    let mut group = group_of(name, &versions);
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Some(group)
}

/// `APIVersions` of the core group.
pub(crate) fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `APIResourceList`, if the version is served.
pub(crate) fn resources(kinds: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for kind in served(kinds, group, version) {
        list.push(json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": verbs(kind), "shortNames": kind.short_names, "categories": kind.categories,
        }));
        list.extend(kind.subresources.iter().map(|subresource| {
            let (group, version, name) = response_kind(kind, subresource);
            json!({
                "name": format!("{}/{subresource}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "group": group, "version": version, "kind": name, "verbs": subresource_verbs(subresource),
            })
        }));
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    (!list.is_empty()).then(|| json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}))
}

fn served<'a>(kinds: &'a Registry, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Kind> {
    kinds.iter().map(AsRef::as_ref).filter(move |kind: &&Kind| kind.group == group && kind.version == version)
}

fn group_of(name: &str, versions: &[String]) -> Value {
    let versions =
        versions.iter().map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version})).collect::<Vec<_>>();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let subresources = kind.subresources.iter().map(|subresource| {
        let (group, version, name) = response_kind(kind, subresource);
        json!({
            "subresource": subresource, "responseKind": {"group": group, "version": version, "kind": name},
            "verbs": subresource_verbs(subresource),
        })
    });
    json!({
        "resource": kind.plural, "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular, "verbs": verbs(kind), "shortNames": kind.short_names, "categories": kind.categories,
        "subresources": subresources.collect::<Vec<_>>(),
    })
}

fn response_kind<'a>(kind: &'a Kind, subresource: &str) -> (&'a str, &'a str, &'a str) {
    match subresource {
        "scale" => ("autoscaling", "v1", "Scale"),
        "token" => ("authentication.k8s.io", "v1", "TokenRequest"),
        "eviction" => ("policy", "v1", "Eviction"),
        "binding" => ("", "v1", "Binding"),
        _ => (&kind.group, &kind.version, &kind.kind),
    }
}

fn verbs(kind: &Kind) -> &'static [&'static str] {
    match kind.stored {
        Stored::Kept => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        Stored::Answered => &["create"],
    }
}

fn subresource_verbs(subresource: &str) -> &'static [&'static str] {
    match subresource {
        "token" | "eviction" | "binding" => &["create"],
        "finalize" => &["update"],
        _ => &["get", "patch", "update"],
    }
}
