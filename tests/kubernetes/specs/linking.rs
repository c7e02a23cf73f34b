//! Two clusters with real API servers are linked: through gateways, tunnels and all.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::eventually::eventually;
use crate::mesh::{Installed, apply, link, mesh};

#[test]
fn a_link_is_shown_with_its_state_and_what_it_imports_and_can_be_waited_for() {
    let mesh = mesh();
    let (east, west) = (&mesh.east, &mesh.west);
    export(east, "catalog");
    apply(west.cluster, &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } }).to_string()).unwrap();
    link(west, east);

    let (shown, _) = eventually("the link imports the service", || {
        let shown = west.cluster.kubectl(&["get", "links"])?;
        let row: Vec<&str> = shown.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        ensure!(row.first() == Some(&"east") && row.get(1) == Some(&"Healthy") && row.contains(&"1"), "{shown}");
        Ok(shown)
    });
    let header: Vec<&str> = shown.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(header, ["NAME", "STATE", "CLUSTER", "SERVICES", "DATA-PATH", "AGE"]);

    let gateway = "10.72.0.21";
    for service in ["catalog-east", "catalog-clusterset"] {
        eventually("the mirror leads to the own gateway", || {
            west.cluster.kubectl(&["get", "service", service, "--namespace=shop"])?;
            let selector = format!("--selector=kubernetes.io/service-name={service}");
            let slices = west.cluster.json(&["get", "endpointslices", "--namespace=shop", &selector])?;
            let addresses = &slices["items"][0]["endpoints"][0]["addresses"];
            ensure!(*addresses == json!([gateway]), "{slices}");
            Ok(())
        });
    }
    let import = west.cluster.json(&["get", "serviceimport", "catalog", "--namespace=shop"]).unwrap();
    let ip = west.cluster.json(&["get", "service", "catalog-clusterset", "--namespace=shop"]).unwrap()["spec"]["clusterIP"].clone();
    assert_eq!((&import["spec"]["type"], &import["spec"]["ips"]), (&Value::from("ClusterSetIP"), &json!([ip])), "{import}");

    west.cluster.kubectl(&["delete", "link", "east", "--wait=true", "--timeout=30s"]).unwrap();
    eventually("what was imported is gone", || {
        let left = west.cluster.kubectl(&["get", "services,serviceimports,endpointslices", "--namespace=shop", "--output=name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    });
}

/// A service in namespace `shop` with one ready pod, exported. The node is only written, so the pod's status is too.
fn export(installed: &Installed, name: &str) {
    let cluster = installed.cluster;
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "written" } });
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } });
    apply(cluster, &json!({ "apiVersion": "v1", "kind": "List", "items": [node, namespace] }).to_string()).unwrap();
    eventually("the namespace has its service account", || cluster.kubectl(&["get", "serviceaccount", "default", "--namespace=shop"]));
    let labels = json!({ "app": name });
    let of = |kind: &str, version: &str, rest: Value| {
        let mut object = rest;
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        object["metadata"] =
            json!({ "name": name, "namespace": "shop", "labels": labels, "annotations": { "isthmus.dev/injected": "true" } });
        object
    };
    let pod = json!({ "spec": {
        "nodeName": "written", "terminationGracePeriodSeconds": 0, "containers": [{ "name": "web", "image": "web:1", "ports": [{ "containerPort": 8080 }] }],
    } });
    let service =
        json!({ "spec": { "selector": labels, "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http" }] } });
    let items = [of("Pod", "v1", pod), of("Service", "v1", service), of("ServiceExport", "multicluster.x-k8s.io/v1beta1", json!({}))];
    apply(cluster, &json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()).unwrap();
    let address = "10.71.64.1";
    let status = json!({ "status": {
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "hostIP": "10.71.0.1",
        "conditions": [{ "type": "Ready", "status": "True" }, { "type": "ContainersReady", "status": "True" }],
    } });
    let patch = ["patch", "pod", name, "--namespace=shop", "--subresource=status", "--type=merge", "--patch", &status.to_string()];
    cluster.kubectl(&patch).unwrap();
    eventually("the service has an endpoint", || {
        let selector = format!("--selector=kubernetes.io/service-name={name}");
        let slices = cluster.json(&["get", "endpointslices", "--namespace=shop", &selector])?;
        ensure!(slices["items"][0]["endpoints"][0]["conditions"]["ready"] == true, "{slices}");
        Ok(())
    });
}
