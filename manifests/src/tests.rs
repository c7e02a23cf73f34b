//! What always holds of an installation.

use std::collections::BTreeSet;

use expect_test::expect;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::{Install, Object, objects};

fn west() -> Install {
    Install::new("west".parse().unwrap())
}

/// The object as its Kubernetes type writes it again: a field that the type lacks is gone then.
fn again<K: serde::de::DeserializeOwned + serde::Serialize>(object: &Object) -> Value {
    serde_json::to_value(serde_json::from_value::<K>(object.body().clone()).unwrap()).unwrap()
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    let root = mesh_trust::Root::generate("root", std::time::SystemTime::UNIX_EPOCH, std::time::Duration::from_secs(60)).unwrap();
    let issuer = root.issuer_for(&west().trust_domain, std::time::SystemTime::UNIX_EPOCH, std::time::Duration::from_secs(60)).unwrap();
    let bundle = mesh_trust::Bundle::new(west().trust_domain, 1, vec![issuer.bundle_authority().clone()]).unwrap();
    for object in objects(&west()).iter().chain(&crate::trust::objects(&bundle, Some(&issuer))) {
        let written = match object.kind() {
            "Namespace" => again::<Namespace>(object),
            "CustomResourceDefinition" => again::<CustomResourceDefinition>(object),
            "ServiceAccount" => again::<ServiceAccount>(object),
            "ConfigMap" => again::<ConfigMap>(object),
            "Secret" => again::<Secret>(object),
            "Service" => again::<Service>(object),
            "Deployment" => again::<Deployment>(object),
            "PodDisruptionBudget" => again::<PodDisruptionBudget>(object),
            "NetworkPolicy" => again::<NetworkPolicy>(object),
            "ClusterRole" => again::<ClusterRole>(object),
            "ClusterRoleBinding" => again::<ClusterRoleBinding>(object),
            "Role" => again::<Role>(object),
            "RoleBinding" => again::<RoleBinding>(object),
            "MutatingWebhookConfiguration" => again::<MutatingWebhookConfiguration>(object),
            other => panic!("{other} is no kind of an installation"),
        };
        // Empty lists and maps are the same as none to Kubernetes, and some types leave them out.
        assert_eq!(without_empty(&crate::whole(written)), without_empty(object.body()), "{} {}", object.kind(), object.name());
    }
}

fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            map.iter().filter(|(_, held)| !is_empty(held)).map(|(key, held)| (key.clone(), without_empty(held))).collect()
        }
        Value::Array(items) => items.iter().map(without_empty).collect(),
        other => other.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty) || value == ""
}

#[test]
fn the_objects_of_an_installation_in_the_order_in_which_they_are_applied() {
    let listed: String = objects(&west()).iter().map(|object| format!("{} {}\n", object.kind(), object.name())).collect();
    expect![[r#"
        Namespace isthmus-system
        CustomResourceDefinition links.isthmus.dev
        CustomResourceDefinition peers.isthmus.dev
        CustomResourceDefinition serviceexports.multicluster.x-k8s.io
        CustomResourceDefinition serviceimports.multicluster.x-k8s.io
        CustomResourceDefinition clusterproperties.about.k8s.io
        ConfigMap isthmus
        ServiceAccount mesh-control
        ServiceAccount mesh-mirror-controller
        ServiceAccount mesh-gateway
        ServiceAccount mesh-egress
        ServiceAccount mesh-dns
        ClusterRole isthmus-control
        ClusterRoleBinding isthmus-control
        ClusterRole isthmus-mirror-controller
        ClusterRoleBinding isthmus-mirror-controller
        Role mesh-control
        RoleBinding mesh-control
        Role mesh-mirror-controller
        RoleBinding mesh-mirror-controller
        ClusterRole isthmus-view
        ClusterRole isthmus-edit
        Service mesh-gateway
        Service mesh-control
        Service mesh-webhook
        Service mesh-mirror-controller
        Service mesh-dns
        NetworkPolicy isthmus-deny
        NetworkPolicy mesh-control
        NetworkPolicy mesh-gateway
        NetworkPolicy mesh-dns
        NetworkPolicy mesh-mirror-controller
        PodDisruptionBudget mesh-control
        PodDisruptionBudget mesh-gateway
        PodDisruptionBudget mesh-dns
        PodDisruptionBudget mesh-mirror-controller
        Deployment mesh-control
        Deployment mesh-gateway
        Deployment mesh-dns
        Deployment mesh-mirror-controller
        MutatingWebhookConfiguration isthmus-injector
    "#]]
    .assert_eq(&listed);
}

fn pods() -> Vec<(String, Value)> {
    let installed = objects(&west());
    let deployments = installed.iter().filter(|object| object.kind() == "Deployment");
    deployments.map(|object| (object.name().to_owned(), object.body()["spec"]["template"]["spec"].clone())).collect()
}

#[test]
fn every_container_is_nobody_and_can_change_nothing() {
    assert_eq!(pods().len(), 4);
    for (name, pod) in pods() {
        let security = &pod["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{name}");
        assert!(security["runAsUser"].as_u64().is_some_and(|user| user > 0), "{name}");
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod[field].is_null(), "{name} {field}");
        }
        for container in pod["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["capabilities"], serde_json::json!({ "drop": ["ALL"] }), "{name}");
            assert!(security["privileged"].is_null(), "{name}");
            for probe in ["livenessProbe", "readinessProbe"] {
                assert_eq!(container[probe]["httpGet"]["port"], "admin", "{name} {probe}");
            }
            assert_eq!(container["imagePullPolicy"], "IfNotPresent", "{name}");
        }
        for volume in pod["volumes"].as_array().unwrap() {
            assert!(volume["hostPath"].is_null(), "{name}");
            assert!(volume["emptyDir"].is_null() || volume["emptyDir"]["medium"] == "Memory", "{name}: keys lie in memory only");
        }
    }
}

#[test]
fn who_asks_nothing_of_the_api_gets_no_token_for_it() {
    let asking: Vec<String> =
        pods().into_iter().filter(|(_, pod)| pod["automountServiceAccountToken"] == true).map(|(name, _)| name).collect();
    assert_eq!(asking, ["mesh-control", "mesh-mirror-controller"]);
}

#[test]
fn no_role_has_a_wildcard_and_no_secret_is_read_but_by_name() {
    let installed = objects(&west());
    for object in installed.iter().filter(|object| object.kind().ends_with("Role")) {
        for rule in object.body()["rules"].as_array().unwrap() {
            for list in ["apiGroups", "resources", "verbs"] {
                assert!(!rule[list].as_array().unwrap().contains(&"*".into()), "{}: {rule}", object.name());
            }
            let secrets = rule["resources"].as_array().unwrap().contains(&"secrets".into());
            let only_creates = rule["verbs"] == serde_json::json!(["create"]);
            assert!(!secrets || only_creates || rule["resourceNames"].is_array(), "{}: {rule}", object.name());
            assert!(!secrets || object.kind() == "Role", "{}: Secrets of the own namespace only", object.name());
        }
    }
}

#[test]
fn every_selector_finds_pods_and_every_port_is_one_of_theirs() {
    let installed = objects(&west());
    let deployment = |selector: &Value| {
        let of = |object: &&Object| object.kind() == "Deployment" && object.body()["spec"]["selector"]["matchLabels"] == *selector;
        installed.iter().find(of).unwrap_or_else(|| panic!("{selector} selects nothing")).body()
    };
    for service in installed.iter().filter(|object| object.kind() == "Service") {
        let pod = deployment(&service.body()["spec"]["selector"]);
        let ports: Vec<(&Value, &Value)> = pod["spec"]["template"]["spec"]["containers"][0]["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| (&port["containerPort"], &port["protocol"]))
            .collect();
        for port in service.body()["spec"]["ports"].as_array().unwrap() {
            assert!(ports.contains(&(&port["targetPort"], &port["protocol"])), "{}: {port}", service.name());
        }
    }
    for budget in installed.iter().filter(|object| object.kind() == "PodDisruptionBudget") {
        deployment(&budget.body()["spec"]["selector"]["matchLabels"]);
    }
}

#[test]
fn the_injector_never_asks_about_the_mesh_itself_or_the_system() {
    let installed = objects(&west());
    let injector = installed.last().unwrap();
    assert_eq!(injector.kind(), "MutatingWebhookConfiguration");
    for webhook in injector.body()["webhooks"].as_array().unwrap() {
        let never = &webhook["namespaceSelector"]["matchExpressions"][1];
        assert_eq!((never["operator"].as_str(), never["key"].as_str()), (Some("NotIn"), Some("kubernetes.io/metadata.name")));
        let named: BTreeSet<&str> = never["values"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(named.is_superset(&BTreeSet::from(["isthmus-system", "kube-system"])));
        assert!(webhook["clientConfig"]["caBundle"].is_null(), "control writes it");
    }
}

#[test]
fn every_kind_of_an_object_is_known_with_its_place() {
    for object in objects(&west()) {
        assert_eq!(object.of().kind, object.kind());
        assert_eq!(object.of().api_version, object.body()["apiVersion"]);
        assert_eq!(object.of().namespaced, object.namespace().is_some(), "{} {}", object.kind(), object.name());
    }
}

#[test]
fn the_documents_are_read_as_what_was_written() {
    let installed = objects(&west());
    let read: Vec<Value> = serde_saphyr::from_multiple(&crate::yaml::documents(&installed)).unwrap();
    assert_eq!(read, installed.iter().map(|object| object.body().clone()).collect::<Vec<_>>());
}
