//! The OpenAPI v3 documents: what `kubectl explain`, `kubectl apply` and validating clients read. Pure.
//!
//! One document per group and version, in the form that Kubernetes publishes: schemas under `components`, operations under `paths`,
//! each with its group, version and kind. Built-in kinds come from `types`, custom resources from their own schema. Making a
//! document costs milliseconds: who serves it keeps it until the kinds of its group change.

mod marks;
mod paths;
pub(crate) mod shape;
pub(crate) mod types;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use shape::Shape;
use types::{REFERENCE, types};

/// One served version of a custom resource.
#[derive(Debug, Clone, Copy)]
pub struct CrdDoc<'a> {
    /// Its API group.
    pub group: &'a str,
    /// Such as `v1alpha1`.
    pub version: &'a str,
    /// Such as `Link`.
    pub kind: &'a str,
    /// Such as `links`.
    pub plural: &'a str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Its `openAPIV3Schema`.
    pub schema: &'a Value,
    /// Whether it has the status subresource.
    pub has_status: bool,
    /// Whether it has the scale subresource.
    pub has_scale: bool,
}

/// A built-in kind that is served.
#[derive(Debug, Clone, Copy)]
pub struct KindDoc<'a> {
    /// Such as `Deployment`.
    pub kind: &'a str,
    /// Such as `deployments`.
    pub plural: &'a str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Such as `status` and `scale`.
    pub subresources: &'a [&'a str],
}

/// `GET /openapi/v3`: where each group and version has its document. The hash lets clients keep what they have.
pub fn index(group_versions: &[(String, String)], hash_of: &dyn Fn(&str, &str) -> String) -> Value {
    let paths = group_versions.iter().map(|(group, version)| {
        let path = prefix(group, version);
        let hash = hash_of(group, version);
        (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
    });
    json!({"paths": Value::Object(paths.collect())})
}

/// The document of one group and version.
pub fn document(group: &str, version: &str, kinds: &[KindDoc<'_>], crds: &[CrdDoc<'_>]) -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for name in [STATUS, DELETE_OPTIONS, LIST_META] {
        schemas.add(name);
    }
    schemas.made.insert(PATCH.to_owned(), json!({"description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.", "type": "object"}));
    for kind in kinds {
        let Some(name) = types().name_of(group, kind.kind) else {
            continue;
        };
        schemas.add(name);
        let resource = paths::Resource {
            group,
            version,
            kind: kind.kind,
            plural: kind.plural,
            namespaced: kind.namespaced,
            schema: name,
            subresources: kind.subresources,
            patches: paths::BUILTIN_PATCHES,
        };
        finish(&resource, &mut schemas, &mut paths);
    }
    for crd in crds.iter().filter(|crd| crd.group == group && crd.version == version) {
        let name = name_of_custom(crd);
        schemas.add(OBJECT_META);
        schemas.made.insert(name.clone(), custom_schema(crd));
        let subresources: &[&str] = match (crd.has_status, crd.has_scale) {
            (true, true) => &["status", "scale"],
            (true, false) => &["status"],
            (false, true) => &["scale"],
            (false, false) => &[],
        };
        let resource = paths::Resource {
            group,
            version,
            kind: crd.kind,
            plural: crd.plural,
            namespaced: crd.namespaced,
            schema: &name,
            subresources,
            patches: paths::CUSTOM_PATCHES,
        };
        finish(&resource, &mut schemas, &mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": Value::Object(schemas.made.into_iter().collect())},
    })
}

/// The fields of an object that its built-in kind does not have, such as `spec.prots`: what strict validation refuses.
pub fn unknown_fields(group: &str, kind: &str, object: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    if let Some(shape) = types().shape_of(group, kind) {
        find_unknown(object, shape, "", &mut unknown);
    }
    unknown
}

/// Removes the fields that a built-in kind does not have, as a server that decodes into its own types loses them.
pub fn prune(group: &str, kind: &str, object: &mut Value) {
    if let Some(shape) = types().shape_of(group, kind) {
        remove_unknown(object, shape);
    }
}

fn remove_unknown(value: &mut Value, shape: Shape<'_>) {
    match value {
        Value::Object(fields) => fields.retain(|name, field| {
            let member = shape.member(name);
            if let Some(member) = member {
                remove_unknown(field, member);
            }
            member.is_some()
        }),
        Value::Array(items) => items.iter_mut().for_each(|item| remove_unknown(item, shape.items())),
        _ => {}
    }
}

fn find_unknown(value: &Value, shape: Shape<'_>, at: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                match shape.member(name) {
                    Some(member) => find_unknown(field, member, &path, unknown),
                    None => unknown.push(path),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                find_unknown(item, shape.items(), &format!("{at}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

fn finish(resource: &paths::Resource<'_>, schemas: &mut Schemas, paths: &mut Map<String, Value>) {
    schemas.made.insert(format!("{}List", resource.schema), list_schema(resource));
    for name in paths::subresource_schemas(resource) {
        schemas.add(name);
    }
    paths.extend(paths::of(resource));
}

/// The schemas of one document: those asked for, and all that they refer to.
#[derive(Default)]
struct Schemas {
    made: BTreeMap<String, Value>,
}

impl Schemas {
    fn add(&mut self, name: &str) {
        if self.made.contains_key(name) {
            return;
        }
        let Some(definition) = types().definition(name) else {
            return;
        };
        let mut schema = definition.clone();
        if let Some((group, version, kind)) = types().kind_of(name) {
            schema[GROUP_VERSION_KIND] = json!([{"group": group, "version": version, "kind": kind}]);
        }
        self.made.insert(name.to_owned(), schema);
        self.add_references(definition);
    }

    fn add_references(&mut self, schema: &Value) {
        match schema {
            Value::Array(items) => items.iter().for_each(|item| self.add_references(item)),
            Value::Object(fields) => {
                if let Some(name) = fields.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix(REFERENCE)) {
                    self.add(name);
                }
                fields.values().for_each(|field| self.add_references(field));
            }
            _ => {}
        }
    }
}

/// `api/v1`, `apis/apps/v1`.
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `dev.isthmus.v1alpha1.Link`.
fn name_of_custom(crd: &CrdDoc<'_>) -> String {
    let group: Vec<&str> = crd.group.split('.').rev().collect();
    format!("{}.{}.{}", group.join("."), crd.version, crd.kind)
}

fn custom_schema(crd: &CrdDoc<'_>) -> Value {
    let mut schema = if crd.schema.is_object() { crd.schema.clone() } else { json!({"x-kubernetes-preserve-unknown-fields": true}) };
    schema["type"] = json!("object");
    schema[GROUP_VERSION_KIND] = json!([{"group": crd.group, "version": crd.version, "kind": crd.kind}]);
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    let properties = &mut schema["properties"];
    properties["apiVersion"] = json!({"type": "string", "description": API_VERSION});
    properties["kind"] = json!({"type": "string", "description": KIND});
    properties["metadata"] = json!({"allOf": [{"$ref": format!("{REFERENCE}{OBJECT_META}")}], "description": METADATA});
    schema
}

fn list_schema(resource: &paths::Resource<'_>) -> Value {
    json!({
        "description": format!("{0}List is a list of {0}", resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION},
            "kind": {"type": "string", "description": KIND},
            "metadata": {"allOf": [{"$ref": format!("{REFERENCE}{LIST_META}")}], "description": METADATA},
            "items": {
                "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", resource.plural),
                "type": "array",
                "items": {"$ref": format!("{REFERENCE}{}", resource.schema)},
            },
        },
        GROUP_VERSION_KIND: [{"group": resource.group, "version": resource.version, "kind": format!("{}List", resource.kind)}],
    })
}

const GROUP_VERSION_KIND: &str = "x-kubernetes-group-version-kind";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized \
     schemas to the latest internal value, and may reject unrecognized values. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the \
     client submits requests to. Cannot be updated. In CamelCase. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

#[cfg(test)]
mod tests {
    use super::*;

    fn apps() -> Value {
        let kinds = [KindDoc { kind: "Deployment", plural: "deployments", namespaced: true, subresources: &["status", "scale"] }];
        document("apps", "v1", &kinds, &[])
    }

    fn links(schema: &Value) -> Value {
        let crd = CrdDoc {
            group: "isthmus.dev",
            version: "v1alpha1",
            kind: "Link",
            plural: "links",
            namespaced: false,
            schema,
            has_status: true,
            has_scale: false,
        };
        document("isthmus.dev", "v1alpha1", &[], &[crd])
    }

    #[test]
    fn the_index_names_each_document_with_its_hash() {
        let versions = [(String::new(), "v1".to_owned()), ("apps".to_owned(), "v1".to_owned())];
        assert_eq!(
            index(&versions, &|group, version| format!("{group}-{version}")),
            json!({"paths": {
                "api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=-v1"},
                "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=apps-v1"},
            }})
        );
    }

    #[test]
    fn pruning_takes_what_a_kind_does_not_have_and_leaves_what_is_free() {
        let mut object = json!({"apiVersion": "apps/v1", "metadata": {"labels": {"any": "one"}, "managedFields": [{"fieldsV1": {"f:spec": {"f:x": {}}}}]},
            "data": {"of": ["any", {"kind": 1}]}, "revision": 1});
        let whole = object.clone();
        object["extra"] = json!(1);
        object["metadata"]["labelz"] = json!({});
        prune("apps", "ControllerRevision", &mut object);
        assert_eq!(object, whole);
        let schema =
            json!({"type": "object", "properties": {"any": {"default": {"deep": [1]}, "x-kubernetes-preserve-unknown-fields": true}}});
        let whole = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
        let mut object = whole.clone();
        prune("apiextensions.k8s.io", "CustomResourceDefinition", &mut object);
        assert_eq!(object, whole);
    }

    #[test]
    fn kubectl_finds_what_it_explains() {
        let document = apps();
        let list = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["get"];
        let gvk = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
        assert_eq!(list[GROUP_VERSION_KIND], gvk);
        let schema = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(schema[GROUP_VERSION_KIND], json!([gvk]));
        let spec = &document["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"];
        assert_eq!(spec["required"], json!(["selector", "template"]));
        assert_eq!(spec["properties"]["template"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.PodTemplateSpec");
        assert_eq!(spec["properties"]["strategy"]["x-kubernetes-patch-strategy"], "retainKeys");
    }

    #[test]
    fn kubectl_finds_what_it_may_send() {
        let document = apps();
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        let names: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
        let of_links = links(&json!({"type": "object"}));
        let custom = &of_links["paths"]["/apis/isthmus.dev/v1alpha1/links/{name}"]["patch"]["requestBody"]["content"];
        assert!(custom["application/strategic-merge-patch+json"].is_null());
        assert!(custom["application/apply-patch+yaml"].is_object());
    }

    #[test]
    fn merge_keys_are_where_a_three_way_merge_looks_for_them() {
        let containers = &apps()["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(containers["x-kubernetes-list-type"], "map");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    }

    #[test]
    fn a_custom_resource_has_its_own_schema_and_the_usual_metadata() {
        let document = links(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "description": "what to import"}, "metadata": {"type": "object"}}}),
        );
        let schema = &document["components"]["schemas"]["dev.isthmus.v1alpha1.Link"];
        assert_eq!(schema["properties"]["spec"]["description"], "what to import");
        assert_eq!(
            schema["properties"]["metadata"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
        assert!(document["paths"]["/apis/isthmus.dev/v1alpha1/links/{name}/status"]["patch"].is_object());
    }

    #[test]
    fn every_document_is_closed() {
        fn check(value: &Value, document: &Value) {
            match value {
                Value::Array(items) => items.iter().for_each(|item| check(item, document)),
                Value::Object(fields) => {
                    if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
                        let found = name.strip_prefix(REFERENCE).and_then(|name| document["components"]["schemas"].get(name));
                        assert!(found.is_some(), "{name}");
                    }
                    fields.values().for_each(|field| check(field, document));
                }
                _ => {}
            }
        }
        let core = [
            KindDoc { kind: "Pod", plural: "pods", namespaced: true, subresources: &["status", "eviction", "binding", "log"] },
            KindDoc { kind: "ServiceAccount", plural: "serviceaccounts", namespaced: true, subresources: &["token"] },
            KindDoc { kind: "Unheard", plural: "unheards", namespaced: true, subresources: &[] },
        ];
        for document in [apps(), links(&json!({})), links(&json!(null)), document("", "v1", &core, &[])] {
            check(&document, &document);
        }
    }

    #[test]
    fn a_misspelt_field_is_found() {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "labels": {"any": "thing"}, "nmae": 1},
            "spec": {"template": {"spec": {"containers": [{"name": "a", "prots": []}]}}}});
        assert_eq!(unknown_fields("apps", "Deployment", &object), ["metadata.nmae", "spec.template.spec.containers[0].prots"]);
        assert_eq!(unknown_fields("isthmus.dev", "Link", &object), Vec::<String>::new());
    }
}
