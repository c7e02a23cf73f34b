//! What a container runs: program, arguments and environment, as Kubernetes puts them together. Pure.
//!
//! `command` replaces the image's program and `args` its arguments; `$(VAR)` stands for a variable that was defined before, `$$` for a
//! dollar, and what names no variable stays as it is. The image `isthmus/shop` is the one that has a program of its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, EnvVar, ObjectFieldSelector, Pod};

use super::sidecar;

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    /// The program and its arguments, for `mesh internal`.
    pub(crate) arguments: Vec<String>,
    /// Every environment variable that it gets.
    pub(crate) environment: BTreeMap<String, String>,
}

/// Where a container finds itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) address: Ipv4Addr,
    pub(crate) host: Ipv4Addr,
    pub(crate) node: &'a str,
    pub(crate) cluster: &'a str,
    pub(crate) meshed: bool,
}

/// Why a container cannot be started; what `kubectl get pod` shows as its reason, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("image {image:?} has no program here: give the container a command, or use isthmus/shop")]
    NoProgram { image: String },
    #[error("variable {name} takes its value from something that this node cannot read: use value or valueFrom.fieldRef")]
    Source { name: String },
    #[error("variable {name} refers to {path:?}, which is no field that a container may ask for")]
    Field { name: String, path: String },
}

impl LaunchError {
    /// The reason of a waiting container.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoProgram { .. } => "ErrImageNeverPull",
            Self::Source { .. } | Self::Field { .. } => "CreateContainerConfigError",
        }
    }
}

/// What `container` runs in these surroundings.
pub(crate) fn launch(container: &Container, around: &Surroundings<'_>) -> Result<Launch, LaunchError> {
    let image = container.image.as_deref().unwrap_or_default();
    let shop = is_shop(image);
    if container.env_from.as_ref().is_some_and(|sources| !sources.is_empty()) {
        return Err(LaunchError::Source { name: "envFrom".into() });
    }
    let mut environment = if shop { shop_environment(around) } else { BTreeMap::new() };
    for variable in container.env.iter().flatten() {
        let value = value(variable, around, &environment)?;
        environment.insert(variable.name.clone(), value);
    }
    let expand = |words: &Option<Vec<String>>| words.iter().flatten().map(|word| expand(word, &environment)).collect::<Vec<_>>();
    let (command, arguments) = (expand(&container.command), expand(&container.args));
    let arguments = match (command.is_empty(), shop) {
        (false, _) => ["exec".to_owned(), "--".to_owned()].into_iter().chain(command).chain(arguments).collect(),
        (true, true) => ["shop".to_owned()].into_iter().chain(arguments).collect(),
        (true, false) => return Err(LaunchError::NoProgram { image: image.to_owned() }),
    };
    let name = around.pod.metadata.name.clone().unwrap_or_default();
    environment.entry("HOSTNAME".into()).or_insert(name);
    Ok(Launch { arguments, environment })
}

/// Whether an image is the demo's own workload, whatever its registry and tag.
fn is_shop(image: &str) -> bool {
    let path = image.split_once('@').map_or(image, |(path, _)| path);
    let path = path.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(path, |(path, _)| path);
    path == SHOP || path.strip_suffix(SHOP).is_some_and(|registry| registry.ends_with('/'))
}

/// What the shop is told without being asked to be: who it is, where to listen, and its sidecar.
fn shop_environment(around: &Surroundings<'_>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([
        ("SHOP_CLUSTER".to_owned(), around.cluster.to_owned()),
        ("POD_NAME".to_owned(), around.pod.metadata.name.clone().unwrap_or_default()),
        ("POD_IP".to_owned(), around.address.to_string()),
    ]);
    if around.meshed {
        environment.insert("HTTP_PROXY".to_owned(), sidecar::http_proxy(around.address));
        environment.insert("http_proxy".to_owned(), sidecar::http_proxy(around.address));
    }
    environment
}

fn value(variable: &EnvVar, around: &Surroundings<'_>, before: &BTreeMap<String, String>) -> Result<String, LaunchError> {
    let Some(source) = &variable.value_from else {
        return Ok(expand(variable.value.as_deref().unwrap_or_default(), before));
    };
    let reference = source.field_ref.as_ref().ok_or_else(|| LaunchError::Source { name: variable.name.clone() })?;
    field(reference, around).ok_or_else(|| LaunchError::Field { name: variable.name.clone(), path: reference.field_path.clone() })
}

fn field(reference: &ObjectFieldSelector, around: &Surroundings<'_>) -> Option<String> {
    let metadata = &around.pod.metadata;
    let account = || around.pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".into());
    let keyed =
        |held: &Option<BTreeMap<String, String>>, key: &str| held.as_ref().and_then(|held| held.get(key).cloned()).unwrap_or_default();
    match reference.field_path.as_str() {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "spec.nodeName" => Some(around.node.to_owned()),
        "spec.serviceAccountName" => Some(account()),
        "status.podIP" | "status.podIPs" => Some(around.address.to_string()),
        "status.hostIP" | "status.hostIPs" => Some(around.host.to_string()),
        path => {
            let key = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
            key("metadata.labels")
                .map(|key| keyed(&metadata.labels, key))
                .or_else(|| key("metadata.annotations").map(|key| keyed(&metadata.annotations, key)))
        }
    }
}

/// Replaces `$(NAME)` by the variable's value.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        let reference = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
        if let Some(after) = rest.strip_prefix("$$") {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = reference {
            match variables.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&rest[..rest.len() - after.len()]),
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded + rest
}

const SHOP: &str = "isthmus/shop";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::plan::testing::pod;
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    fn check(container: Value, meshed: bool, expected: &Expect) {
        let container: Container = serde_json::from_value(container).unwrap();
        let mut pod = pod("shop/cart-1");
        pod.metadata.labels = Some([("app".to_owned(), "cart".to_owned())].into());
        let around = Surroundings {
            pod: &pod,
            address: [127, 10, 64, 2].into(),
            host: [127, 10, 0, 2].into(),
            node: "east-1",
            cluster: "east",
            meshed,
        };
        let written = match launch(&container, &around) {
            Ok(launch) => {
                let environment: Vec<String> = launch.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{}\n{}\n", launch.arguments.join(" "), environment.join(" "))
            }
            Err(error) => format!("{}: {error}\n", error.reason()),
        };
        expected.assert_eq(&written);
    }

    #[test]
    fn the_shop_needs_no_command_and_learns_its_sidecar() {
        let container = json!({ "name": "c", "image": "isthmus/shop" });
        check(
            container,
            true,
            &expect![[r#"
            shop
            HOSTNAME=cart-1 HTTP_PROXY=http://127.10.64.2:4140 POD_IP=127.10.64.2 POD_NAME=cart-1 SHOP_CLUSTER=east http_proxy=http://127.10.64.2:4140
        "#]],
        );
    }

    #[test]
    fn any_program_is_run_with_its_variables_expanded() {
        let container = json!({
            "name": "c", "image": "python:3",
            "command": ["python3", "-m", "http.server"], "args": ["8000", "--bind", "$(POD_IP)", "$$(POD_IP)", "$(NOBODY)", "5$"],
            "env": [
                { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                { "name": "APP", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
                { "name": "BOTH", "value": "$(APP)@$(POD_IP) $(LATER)" },
                { "name": "LATER", "value": "x" },
            ],
        });
        check(
            container,
            true,
            &expect![[r#"
            exec -- python3 -m http.server 8000 --bind 127.10.64.2 $(POD_IP) $(NOBODY) 5$
            APP=cart BOTH=cart@127.10.64.2 $(LATER) HOSTNAME=cart-1 LATER=x POD_IP=127.10.64.2
        "#]],
        );
    }

    #[test]
    fn what_cannot_be_started_says_why() {
        check(
            json!({ "name": "c", "image": "nginx:1" }),
            false,
            &expect![[r#"
            ErrImageNeverPull: image "nginx:1" has no program here: give the container a command, or use isthmus/shop
        "#]],
        );
        let env = json!([{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }]);
        check(
            json!({ "name": "c", "image": "isthmus/shop", "env": env }),
            false,
            &expect![[r#"
            CreateContainerConfigError: variable A takes its value from something that this node cannot read: use value or valueFrom.fieldRef
        "#]],
        );
    }

    #[test]
    fn the_shops_image_may_have_a_registry_and_a_tag() {
        assert!(is_shop("isthmus/shop") && is_shop("isthmus/shop:1.0") && is_shop("ghcr.io:443/isthmus/shop@sha256:00"));
        assert!(!is_shop("other-isthmus/shop") && !is_shop("isthmus/shopping"));
    }
}
