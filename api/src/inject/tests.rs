//! What a pod looks like with a proxy, and which pods get none.

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Inbound, InjectError, Injection, PROXY_UID, Settings, apply, inject, wanted};

fn settings() -> Settings {
    Settings {
        cluster: "west".parse().unwrap(),
        trust_domain: "west.mesh".parse().unwrap(),
        bundle: r#"{"keys":[]}"#.to_owned(),
        proxy_image: "isthmus/proxy:1".to_owned(),
        init_image: "isthmus/init:1".to_owned(),
        inbound: Inbound::Permissive,
    }
}

fn web() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "web", "annotations": { "isthmus.dev/skip-outbound-ports": "25, 3306-3308", "isthmus.dev/skip-inbound-ports": "9000" } },
        "spec": {
            "initContainers": [{ "name": "migrate", "image": "web" }],
            "containers": [{ "name": "web", "image": "web", "readinessProbe": { "httpGet": { "path": "/", "port": 8080 } } }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
        },
    })
}

fn adds(pod: &Value) -> Vec<super::Add> {
    match inject(pod, &settings()).unwrap() {
        Injection::Add(adds) => adds,
        other => panic!("{other:?}"),
    }
}

fn injected(pod: &Value) -> Value {
    let mut meshed = pod.clone();
    apply(&mut meshed, &adds(pod));
    meshed
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn the_proxy_comes_before_everything_of_the_pods_own() {
    let meshed = injected(&web());
    assert_eq!(names(&meshed["spec"]["initContainers"]), ["isthmus-init", "isthmus-proxy", "migrate"]);
    assert_eq!(names(&meshed["spec"]["volumes"]), ["data", "isthmus-identity", "isthmus-state", "isthmus-run", "isthmus-nothing"]);
    assert_eq!(meshed["spec"]["containers"], web()["spec"]["containers"], "the pod's own containers and their probes are as they were");
    assert_eq!(meshed["spec"]["initContainers"][1]["restartPolicy"], "Always", "a sidecar that keeps no Job from ending");
    assert_eq!(meshed["metadata"]["annotations"]["isthmus.dev/injected"], "true");
    assert_eq!(
        meshed["spec"]["initContainers"][0]["args"],
        json!([
            "--proxy-uid=2140",
            "--outbound-port=4141",
            "--inbound-port=4142",
            "--skip-inbound-ports=4143,4191,9000",
            "--skip-outbound-ports=25,3306-3308"
        ])
    );
}

#[test]
fn the_patch_means_the_same_to_everybody_and_the_result_is_a_pod() {
    for pod in [web(), json!({ "spec": { "containers": [{ "name": "a" }] } }), json!({ "metadata": {}, "spec": { "containers": [] } })] {
        let patch: json_patch::Patch = serde_json::from_value(serde_json::to_value(adds(&pod)).unwrap()).unwrap();
        let mut by_others = pod.clone();
        json_patch::patch(&mut by_others, &patch).unwrap();
        assert_eq!(by_others, injected(&pod));
        let typed: Pod = serde_json::from_value(by_others.clone()).unwrap();
        let again = serde_json::to_value(typed).unwrap();
        assert_eq!(again["spec"]["initContainers"], by_others["spec"]["initContainers"], "no field is unknown");
        assert_eq!(again["spec"]["volumes"], by_others["spec"]["volumes"]);
    }
}

#[test]
fn nobody_is_injected_twice() {
    let meshed = injected(&web());
    assert_eq!(inject(&meshed, &settings()), Ok(Injection::Already));
    let mut by_hand = web();
    by_hand["spec"]["containers"][0]["name"] = "isthmus-proxy".into();
    assert_eq!(inject(&by_hand, &settings()), Ok(Injection::Already));
}

fn check(change: impl Fn(&mut Value), expected: &Expect) {
    let mut pod = web();
    change(&mut pod);
    expected.assert_eq(&match inject(&pod, &settings()) {
        Ok(Injection::Add(_)) => "injected".to_owned(),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("refused: {error}"),
    });
}

#[test]
fn what_cannot_have_a_proxy_goes_without_and_what_says_nonsense_is_refused() {
    check(|pod| pod["spec"]["hostNetwork"] = true.into(), &expect![[r#"Impossible("it shares its node's network")"#]]);
    check(|pod| pod["spec"]["os"] = json!({ "name": "windows" }), &expect![[r#"Impossible("it runs Windows")"#]]);
    check(
        |pod| pod["metadata"]["annotations"]["isthmus.dev/skip-inbound-ports"] = "22; flush ruleset".into(),
        &expect![[
            r#"refused: annotation isthmus.dev/skip-inbound-ports can't be used: "22; flush ruleset" is not a valid list of ports: it is ports and ranges of ports, 1 to 65535, separated by commas"#
        ]],
    );
    check(
        |pod| pod["metadata"]["annotations"]["isthmus.dev/skip-outbound-ports"] = "0".into(),
        &expect![[
            r#"refused: annotation isthmus.dev/skip-outbound-ports can't be used: "0" is not a valid list of ports: it is ports and ranges of ports, 1 to 65535, separated by commas"#
        ]],
    );
    check(|pod| pod["metadata"]["annotations"]["isthmus.dev/injected"] = "true".into(), &expect!["injected"]);
}

#[test]
fn nobody_runs_as_the_proxy() {
    let mut pod = web();
    pod["spec"]["securityContext"] = json!({ "runAsUser": PROXY_UID });
    assert_eq!(inject(&pod, &settings()), Err(InjectError::ProxyUser));
    let mut pod = web();
    pod["spec"]["initContainers"][0]["securityContext"] = json!({ "runAsUser": PROXY_UID });
    assert_eq!(inject(&pod, &settings()), Err(InjectError::ProxyUser));
}

#[test]
fn only_the_init_container_has_a_right_and_only_the_proxy_sees_its_key() {
    let meshed = injected(&web());
    let [init, proxy, own] = meshed["spec"]["initContainers"].as_array().unwrap().as_slice() else { panic!("three") };
    assert_eq!(init["securityContext"]["capabilities"], json!({ "drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"] }));
    assert_eq!(proxy["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(
        (&proxy["securityContext"]["runAsNonRoot"], &proxy["securityContext"]["readOnlyRootFilesystem"]),
        (&json!(true), &json!(true))
    );
    for other in [init, own, &meshed["spec"]["containers"][0]] {
        let mounts = other["volumeMounts"].as_array().into_iter().flatten();
        assert!(mounts.clone().all(|mount| mount["name"] != "isthmus-state" && mount["name"] != "isthmus-identity"), "{other}");
    }
}

#[test]
fn the_proxy_ends_before_the_kubelet_ends_it() {
    let drain = |grace: Value| {
        let mut pod = web();
        pod["spec"]["terminationGracePeriodSeconds"] = grace;
        let meshed = injected(&pod);
        let environment = meshed["spec"]["initContainers"][1]["env"].as_array().unwrap().clone();
        environment.iter().find(|one| one["name"] == "MESH_DRAIN").unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert_eq!([drain(Value::Null), drain(json!(10)), drain(json!(0)), drain(json!(600))], ["27", "7", "1", "30"]);
}

#[test]
fn the_pods_label_decides_else_the_namespaces_else_no() {
    for (pod, namespace, expected) in [
        (None, None, false),
        (None, Some("enabled"), true),
        (Some("disabled"), Some("enabled"), false),
        (Some("enabled"), Some("disabled"), true),
        (Some("yes"), Some("enabled"), false),
    ] {
        assert_eq!(wanted(pod, namespace), expected, "{pod:?} {namespace:?}");
    }
}

#[test]
fn a_pod_without_probes_says_none_to_its_proxy() {
    let told = |pod: &Value| {
        let pod = injected(pod);
        let environment = pod["spec"]["initContainers"][1]["env"].as_array().unwrap().clone();
        environment.into_iter().find(|variable| variable["name"] == "MESH_PROBES").map(|variable| variable["value"].clone())
    };
    let mut pod = web();
    pod["spec"]["containers"][0]["readinessProbe"] = json!({ "httpGet": { "path": "/healthz", "port": 8080 } });
    assert_eq!(told(&pod), Some(json!("8080/healthz")));
    pod["spec"]["containers"][0].as_object_mut().unwrap().retain(|name, _| !name.ends_with("Probe"));
    assert_eq!(told(&pod), None, "an empty list of probes is one that the proxy refuses");
}
