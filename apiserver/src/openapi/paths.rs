//! The operations of one resource, as OpenAPI describes them. Pure.

use serde_json::{Map, Value, json};

use super::types::{REFERENCE, types};
use super::{DELETE_OPTIONS, GROUP_VERSION_KIND, PATCH, STATUS, prefix};

/// One kind in one version, and how it is served.
pub(super) struct Resource<'a> {
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) kind: &'a str,
    pub(super) plural: &'a str,
    pub(super) namespaced: bool,
    /// The name of its schema.
    pub(super) schema: &'a str,
    pub(super) subresources: &'a [&'a str],
    /// The patch types that it takes.
    pub(super) patches: &'a [&'a str],
}

/// What built-in kinds take.
pub(super) const BUILTIN_PATCHES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
/// Custom resources have no strategic merge; kubectl looks here to know.
pub(super) const CUSTOM_PATCHES: &[&str] = &["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];

/// Every path of the resource.
pub(super) fn of(resource: &Resource<'_>) -> Map<String, Value> {
    let root = format!("/{}", prefix(resource.group, resource.version));
    let all = format!("{root}/{}", resource.plural);
    let collection = if resource.namespaced { format!("{root}/namespaces/{{namespace}}/{}", resource.plural) } else { all.clone() };
    let one = format!("{collection}/{{name}}");
    let mut paths = Map::new();
    if resource.namespaced {
        let list = operation(resource, Action::List, "ForAllNamespaces", &gvk(resource), &format!("{}List", resource.schema));
        paths.insert(all, json!({"get": list, "parameters": list_parameters()}));
    }
    paths.insert(collection, collection_item(resource));
    paths.insert(one.clone(), object_item(resource));
    for subresource in resource.subresources {
        paths.insert(format!("{one}/{subresource}"), subresource_item(resource, subresource));
    }
    paths
}

/// The kind that each subresource speaks, by its schema.
pub(super) fn subresource_schemas<'a>(resource: &'a Resource<'_>) -> impl Iterator<Item = &'a str> {
    resource.subresources.iter().map(|subresource| schema_of(resource, subresource))
}

fn schema_of<'a>(resource: &'a Resource<'_>, subresource: &str) -> &'a str {
    match subresource {
        "scale" => "io.k8s.api.autoscaling.v1.Scale",
        "eviction" => "io.k8s.api.policy.v1.Eviction",
        "token" => "io.k8s.api.authentication.v1.TokenRequest",
        "binding" => "io.k8s.api.core.v1.Binding",
        _ => resource.schema,
    }
}

#[derive(Clone, Copy)]
enum Action {
    List,
    Get,
    Create,
    Replace,
    Patch,
    Delete,
    DeleteCollection,
}

impl Action {
    /// How Kubernetes calls it: in `x-kubernetes-action`, in an operation's id, in its description.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::List => ("list", "list", "list or watch objects of kind"),
            Self::Get => ("get", "read", "read the specified"),
            Self::Create => ("post", "create", "create a"),
            Self::Replace => ("put", "replace", "replace the specified"),
            Self::Patch => ("patch", "patch", "partially update the specified"),
            Self::Delete => ("delete", "delete", "delete a"),
            Self::DeleteCollection => ("deletecollection", "deleteCollection", "delete collection of"),
        }
    }
}

fn gvk(resource: &Resource<'_>) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn collection_item(resource: &Resource<'_>) -> Value {
    let gvk = gvk(resource);
    let mut list = operation(resource, Action::List, "", &gvk, &format!("{}List", resource.schema));
    list["parameters"] = list_parameters();
    let mut create = operation(resource, Action::Create, "", &gvk, resource.schema);
    create["parameters"] = write_parameters();
    create["requestBody"] = body(resource.schema);
    let mut delete = operation(resource, Action::DeleteCollection, "", &gvk, STATUS);
    delete["parameters"] = [list_parameters(), delete_parameters()].into_iter().flat_map(into_items).collect();
    json!({"get": list, "post": create, "delete": delete, "parameters": scope_parameters(resource, None)})
}

fn object_item(resource: &Resource<'_>) -> Value {
    let gvk = gvk(resource);
    let mut item = json!({
        "get": operation(resource, Action::Get, "", &gvk, resource.schema),
        "delete": operation(resource, Action::Delete, "", &gvk, STATUS),
        "parameters": scope_parameters(resource, Some(resource.kind)),
    });
    item["delete"]["parameters"] = delete_parameters();
    item["delete"]["requestBody"] = body(DELETE_OPTIONS);
    writes(&mut item, resource, "", &gvk, resource.schema);
    item
}

fn subresource_item(resource: &Resource<'_>, subresource: &str) -> Value {
    let schema = schema_of(resource, subresource);
    let gvk = match types().kind_of(schema) {
        Some((group, version, kind)) => json!({"group": group, "version": version, "kind": kind}),
        None => gvk(resource),
    };
    let suffix = capitalized(subresource);
    let mut item = json!({"parameters": scope_parameters(resource, Some(resource.kind))});
    match subresource {
        "eviction" | "token" | "binding" => {
            let mut create = operation(resource, Action::Create, &suffix, &gvk, schema);
            create["parameters"] = write_parameters();
            create["requestBody"] = body(schema);
            item["post"] = create;
        }
        _ => {
            item["get"] = operation(resource, Action::Get, &suffix, &gvk, schema);
            writes(&mut item, resource, &suffix, &gvk, schema);
        }
    }
    item
}

/// Adds `put` and `patch`.
fn writes(item: &mut Value, resource: &Resource<'_>, suffix: &str, gvk: &Value, schema: &str) {
    let mut replace = operation(resource, Action::Replace, suffix, gvk, schema);
    replace["parameters"] = write_parameters();
    replace["requestBody"] = body(schema);
    let mut patch = operation(resource, Action::Patch, suffix, gvk, schema);
    let force = query(
        "force",
        "boolean",
        "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people.",
    );
    patch["parameters"] = into_items(write_parameters()).chain([force]).collect();
    let contents = resource.patches.iter().map(|media| ((*media).to_owned(), json!({"schema": reference(PATCH)})));
    patch["requestBody"] = json!({"required": true, "content": Value::Object(contents.collect())});
    item["put"] = replace;
    item["patch"] = patch;
}

fn operation(resource: &Resource<'_>, action: Action, suffix: &str, gvk: &Value, schema: &str) -> Value {
    let (word, verb, description) = action.words();
    let scope = if resource.namespaced && suffix != "ForAllNamespaces" { "Namespaced" } else { "" };
    let group = resource.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    let tag = format!("{group}_{}", resource.version);
    let id = format!("{verb}{}{}{scope}{}{suffix}", capitalized(group), capitalized(resource.version), resource.kind);
    let content = json!({"schema": reference(schema)});
    let answer = |text: &str| json!({"description": text, "content": {"application/json": content, "application/yaml": content}});
    json!({
        "description": format!("{description} {}", resource.kind),
        "operationId": id,
        "tags": [tag],
        "responses": {"200": answer("OK"), "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": word,
        GROUP_VERSION_KIND: gvk,
    })
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("{REFERENCE}{schema}")})
}

fn body(schema: &str) -> Value {
    json!({"required": true, "content": {"*/*": {"schema": reference(schema)}}})
}

fn into_items(list: Value) -> impl Iterator<Item = Value> {
    match list {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
    .into_iter()
}

fn query(name: &str, kind: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
}

fn scope_parameters(resource: &Resource<'_>, name_of: Option<&str>) -> Value {
    let place = |name: &str, description: &str| json!({"name": name, "in": "path", "required": true, "description": description, "schema": {"type": "string", "uniqueItems": true}});
    let name = name_of.map(|kind| place("name", &format!("name of the {kind}")));
    let namespace = resource.namespaced.then(|| place("namespace", "object name and auth scope, such as for teams and projects"));
    name.into_iter().chain(namespace).collect()
}

fn write_parameters() -> Value {
    json!([
        query(
            "dryRun",
            "string",
            "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed"
        ),
        query("fieldManager", "string", "fieldManager is a name associated with the actor or entity that is making these changes."),
        query(
            "fieldValidation",
            "string",
            "fieldValidation instructs the server on how to handle objects in the request containing unknown or \
             duplicate fields. Valid values are: Ignore, Warn, Strict."
        ),
    ])
}

fn delete_parameters() -> Value {
    json!([
        query(
            "dryRun",
            "string",
            "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed"
        ),
        query(
            "gracePeriodSeconds",
            "integer",
            "The duration in seconds before the object should be deleted. The value zero indicates delete immediately."
        ),
        query("propagationPolicy", "string", "Whether and how garbage collection will be performed: Orphan, Background or Foreground."),
    ])
}

fn list_parameters() -> Value {
    json!([
        query("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."),
        query("continue", "string", "The continue option should be set when retrieving more results from the server."),
        query("fieldSelector", "string", "A selector to restrict the list of returned objects by their fields. Defaults to everything."),
        query("labelSelector", "string", "A selector to restrict the list of returned objects by their labels. Defaults to everything."),
        query("limit", "integer", "limit is a maximum number of responses to return for a list call."),
        query("resourceVersion", "string", "resourceVersion sets a constraint on what resource versions a request may be served from."),
        query("resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied to list calls."),
        query(
            "sendInitialEvents",
            "boolean",
            "sendInitialEvents may be set together with watch=true: the stream begins with synthetic events."
        ),
        query(
            "timeoutSeconds",
            "integer",
            "Timeout for the list/watch call. This limits the duration of the call, regardless of any activity or inactivity."
        ),
        query(
            "watch",
            "boolean",
            "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications."
        ),
    ])
}
