//! What a person does with `kubectl`, done with the pinned one.

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    tools::Tool,
    world::{World, soon},
};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:1", ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
"#;

#[tokio::test]
async fn kubectl_applies_gets_describes_and_deletes() {
    let world = World::start().await;
    let kubectl = Tool::kubectl(&world);
    assert_eq!(kubectl.ok_with("apply -f -", WEB).await, "deployment.apps/web created\nservice/web created\n");
    assert_eq!(kubectl.ok_with("apply -f -", WEB).await, "deployment.apps/web unchanged\nservice/web unchanged\n");
    let changed = WEB.replace("web:1", "web:2");
    assert_eq!(kubectl.ok_with("apply -f -", &changed).await, "deployment.apps/web configured\nservice/web unchanged\n");
    let shown = kubectl.ok("get deployments -o wide").await;
    assert!(shown.starts_with("NAME") && shown.contains("0/2") && shown.contains("web:2"), "{shown}");
    let shown = kubectl.ok("get all -o name").await;
    assert_eq!(shown, "service/web\ndeployment.apps/web\n");
    let told = kubectl.ok("describe deployment web").await;
    assert!(told.contains("Replicas:") && told.contains("2 desired"), "{told}");
    let told = kubectl.ok("describe service web").await;
    assert!(told.contains("TargetPort:") && told.contains("80/TCP"), "{told}");
    assert_eq!(kubectl.ok("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}").await, "web:2");
    let gone = kubectl.ok_with("delete -f - --wait", WEB).await;
    assert!(gone.contains("deployment.apps \"web\" deleted") && gone.contains("service \"web\" deleted"), "{gone}");
    let missing = kubectl.refused("get deployment web", "").await;
    assert!(missing.contains("deployments.apps \"web\" not found"), "{missing}");
}

#[tokio::test]
async fn kubectl_apply_is_told_of_a_field_that_does_not_exist_and_can_be_tried() {
    let world = World::start().await;
    let kubectl = Tool::kubectl(&world);
    let refused = kubectl.refused("apply -f -", &WEB.replace("replicas", "replicaz")).await;
    assert!(refused.contains("strict decoding error: unknown field \"spec.replicaz\""), "{refused}");
    kubectl.ok("delete service web").await;
    let tried = kubectl.ok_with("apply -f - --dry-run=server", WEB).await;
    assert_eq!(tried, "deployment.apps/web created (server dry run)\nservice/web created (server dry run)\n");
    assert!(kubectl.ok("get all").await.is_empty());
}

#[tokio::test]
async fn kubectl_takes_a_list_of_objects_and_refuses_a_kind_that_nobody_serves() {
    let world = World::start().await;
    let kubectl = Tool::kubectl(&world);
    let list = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}, {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}]}";
    assert_eq!(kubectl.ok_with("create -f -", list).await, "configmap/a created\nconfigmap/b created\n");
    let both = kubectl.ok("get configmaps a b -o yaml").await;
    kubectl.ok_with("apply -f -", &both).await;
    let refused = kubectl.refused("apply -f -", "{apiVersion: none.example.com/v1, kind: None, metadata: {name: a}}").await;
    assert!(refused.contains("no matches for kind \"None\" in version \"none.example.com/v1\""), "{refused}");
}

#[tokio::test]
async fn kubectl_applies_on_the_server_and_is_told_who_owns_what() {
    let world = World::start().await;
    let kubectl = Tool::kubectl(&world);
    let apply = "apply --server-side -f -";
    assert_eq!(kubectl.ok_with(apply, WEB).await, "deployment.apps/web serverside-applied\nservice/web serverside-applied\n");
    let other = WEB.replace("replicas: 2", "replicas: 5");
    let refused = kubectl.refused(&format!("{apply} --field-manager=other"), &other).await;
    assert!(refused.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas"), "{refused}");
    kubectl.ok_with(&format!("{apply} --field-manager=other --force-conflicts"), &other).await;
    assert_eq!(kubectl.ok("get deploy web -o jsonpath={.spec.replicas}").await, "5");
    let owners = kubectl.ok("get deploy web --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}").await;
    assert_eq!(owners.split(' ').collect::<std::collections::BTreeSet<_>>(), ["kubectl", "other"].into());
}

#[tokio::test]
async fn kubectl_moves_from_client_side_to_server_side_apply() {
    let world = World::start().await;
    let kubectl = Tool::kubectl(&world);
    kubectl.ok_with("apply -f -", WEB).await;
    kubectl.ok_with("apply --server-side -f -", &WEB.replace("web:1", "web:2")).await;
    assert_eq!(kubectl.ok("get deploy web -o jsonpath={.spec.template.spec.containers[*].image}").await, "web:2");
}

#[tokio::test]
async fn kubectl_patches_scales_labels_edits_and_waits() {
    let world = World::start().await;
    let kubectl = Tool::kubectl(&world);
    let kubectl = kubectl.with("KUBE_EDITOR", "sed -i s/web:5/web:6/");
    kubectl.ok_with("apply -f -", WEB).await;
    let container = r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"web:3"}]}}}}"#;
    kubectl.ok(&format!("patch deploy web -p {container}")).await;
    kubectl.ok(r#"patch deploy web --type=merge -p {"metadata":{"annotations":{"a":"b"}}}"#).await;
    kubectl.ok(r#"patch deploy web --type=json -p [{"op":"test","path":"/metadata/annotations/a","value":"b"}]"#).await;
    let refused = kubectl.refused(r#"patch deploy web --type=json -p [{"op":"remove","path":"/spec/none"}]"#, "").await;
    assert!(refused.contains("rejected our request"), "{refused}");
    assert_eq!(kubectl.ok("scale deploy web --replicas=4").await, "deployment.apps/web scaled\n");
    kubectl.ok("label deploy web tier=front").await;
    kubectl.ok("set image deploy/web web=web:5").await;
    assert_eq!(kubectl.ok("edit deploy web").await, "deployment.apps/web edited\n");
    let seen = "get deploy -l tier=front -o jsonpath={.items[0].spec.replicas},{..image},{..containerPort}";
    assert_eq!(kubectl.ok(seen).await, "4,web:6,80");
    kubectl.ok("wait deploy/web --for=jsonpath={.spec.replicas}=4 --timeout=100s").await;
    kubectl.ok("rollout restart deploy/web").await;
    kubectl.ok_with("replace -f -", WEB).await;
    kubectl.ok("delete deploy web --cascade=foreground").await;
}

#[tokio::test]
async fn kubectl_watches() {
    let world = World::start().await;
    let kubectl = Tool::kubectl(&world);
    kubectl.ok_with("apply -f -", WEB).await;
    let mut watching = kubectl.command("get deploy -w -o name").spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    assert_eq!(soon("the listing", lines.next_line()).await.unwrap().as_deref(), Some("deployment.apps/web"));
    kubectl.ok("label deploy web a=b").await;
    assert_eq!(soon("the change", lines.next_line()).await.unwrap().as_deref(), Some("deployment.apps/web"));
    watching.kill().await.unwrap();
}

#[tokio::test]
async fn kubectl_explains_built_in_and_custom_kinds() {
    let world = World::start().await;
    let kubectl = Tool::kubectl(&world);
    let told = kubectl.ok("explain deployment.spec.template.spec.containers.image").await;
    assert!(told.contains("FIELD: image <string>") && told.contains("Container image name"), "{told}");
    let group = format!("{}.example.com", world.namespace);
    let definition = format!(
        "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: gadgets.{group}}}, spec: {{group: {group}, \
         scope: Namespaced, names: {{plural: gadgets, kind: Gadget, shortNames: [gd]}}, versions: [{{name: v1, served: true, storage: true, \
         additionalPrinterColumns: [{{name: Size, type: integer, jsonPath: .spec.size}}], schema: {{openAPIV3Schema: {{type: object, \
         properties: {{spec: {{type: object, properties: {{size: {{type: integer, description: How big it is.}}}}}}}}}}}}}}]}}}}"
    );
    kubectl.ok_with("apply -f -", &definition).await;
    kubectl.ok(&format!("wait crd/gadgets.{group} --for=condition=Established --timeout=100s")).await;
    // A real server publishes what it says of a kind a moment after it serves it.
    let published = async { while !kubectl.succeeds("explain gadget.spec").await {} };
    soon("the published schema", published).await;
    let told = kubectl.ok("explain gadget.spec").await;
    assert!(told.contains("size\t<integer>") && told.contains("How big it is."), "{told}");
    let gadget = format!("{{apiVersion: {group}/v1, kind: Gadget, metadata: {{name: one}}, spec: {{size: 3}}}}");
    kubectl.ok_with("apply -f -", &gadget).await;
    kubectl.ok_with("apply --server-side --force-conflicts -f -", &gadget.replace('3', "4")).await;
    let shown = kubectl.ok("get gd").await;
    assert_eq!(shown.split_whitespace().take(4).collect::<Vec<_>>(), ["NAME", "SIZE", "one", "4"]);
    kubectl.ok(&format!("delete crd gadgets.{group}")).await;
}

#[tokio::test]
async fn kubectl_ends_a_namespace_with_all_that_is_in_it() {
    let world = World::start().await;
    let kubectl = Tool::kubectl(&world);
    let held = "{apiVersion: v1, kind: ConfigMap, metadata: {name: held, finalizers: [example.com/hold]}}";
    kubectl.ok_with("apply -f -", held).await;
    kubectl.ok(&format!("delete namespace {} --wait=false", world.namespace)).await;
    assert!(kubectl.ok(&format!("get namespace {}", world.namespace)).await.contains("Terminating"));
    let refused = kubectl.refused("apply -f -", WEB).await;
    assert!(refused.contains("because it is being terminated"), "{refused}");
    kubectl.ok(r#"patch configmap held --type=merge -p {"metadata":{"finalizers":null}}"#).await;
    kubectl.ok(&format!("wait namespace/{} --for=delete --timeout=100s", world.namespace)).await;
    let refused = kubectl.refused("delete namespace default", "").await;
    assert!(refused.contains("(Forbidden): namespaces \"default\" is forbidden: this namespace may not be deleted"), "{refused}");
}

#[tokio::test]
async fn kubectl_creates_by_typed_clients_that_speak_protobuf() {
    let world = World::start().await;
    let kubectl = Tool::kubectl(&world);
    let own = format!("{}-own", world.namespace);
    assert_eq!(kubectl.ok(&format!("create namespace {own}")).await, format!("namespace/{own} created\n"));
    kubectl.ok(&format!("delete namespace {own}")).await;
    kubectl.ok("create configmap c --from-literal=a=b").await;
    assert_eq!(kubectl.ok("get configmap c -o jsonpath={.data}").await, r#"{"a":"b"}"#);
    kubectl.ok("create secret generic s --from-literal=a=b").await;
    assert_eq!(kubectl.ok("get secret s -o jsonpath={.data}{.type}").await, r#"{"a":"Yg=="}Opaque"#);
    kubectl.ok("create serviceaccount robot").await;
    let token = kubectl.ok("create token robot --audience=mesh --duration=20m").await;
    assert_eq!(token.split('.').count(), 3, "{token}");
    kubectl.ok("create deployment web --image=web:1 --replicas=0 --port=80").await;
    let seen = kubectl.ok("get deployment web -o jsonpath={.spec.replicas},{.spec.strategy.type},{..containerPort},{..hostPort}").await;
    assert_eq!(seen, "0,RollingUpdate,80,");
    kubectl.ok("expose deployment web --port=80").await;
    kubectl.ok("create service clusterip plain --tcp=81:8080").await;
    assert_eq!(kubectl.ok("get services -o jsonpath={.items[*].spec.ports[*].targetPort}").await, "8080 80");
    kubectl.ok("create role r --verb=get,list --resource=pods").await;
    assert_eq!(kubectl.ok("get role r -o jsonpath={.rules[0].verbs}").await, r#"["get","list"]"#);
    kubectl.ok("autoscale deployment web --max=3").await;
    kubectl.ok("create job once --image=i").await;
    assert_eq!(kubectl.ok("auth can-i get pods").await, "yes\n");
    assert!(kubectl.ok("auth whoami").await.contains("system:masters"));
    let refused = kubectl.refused("create namespace Not_A_Name", "").await;
    assert!(refused.contains("a lowercase RFC 1123 label"), "{refused}");
}
