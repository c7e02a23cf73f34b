//! The Multi-Cluster Services API, rule by rule: what `docs/conformance/mcs.md` promises, seen with kubectl, dig and calls.

use std::time::Duration;

use mesh_tests::eventually::time_passes;
use mesh_tests::{World, eventually};
use serde_json::{Value, json};

const BOTH: [&str; 2] = ["east", "west"];

#[tokio::test]
async fn an_export_is_imported_everywhere_also_where_it_comes_from_and_leaves_nothing_behind() {
    let (_alone, world) = crate::world(2).await;
    world.apply("east", HELLO).unwrap();
    let east = id(&world, "east");
    for cluster in BOTH {
        let import = import(&world, cluster, "hello").await;
        let spec = &import["spec"];
        assert_eq!((&spec["type"], spec["ips"].as_array().unwrap().len()), (&json!("ClusterSetIP"), 1), "{import}");
        assert_eq!(spec["ports"], json!([port("tcp", "TCP", 42), port("udp", "UDP", 42)]));
        assert_eq!(spec["sessionAffinity"], "ClientIP");
        assert_eq!(spec["sessionAffinityConfig"], json!({ "clientIP": { "timeoutSeconds": 10 } }));
        assert_eq!((&spec["internalTrafficPolicy"], &spec["trafficDistribution"]), (&json!("Cluster"), &json!("PreferClose")));
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
        assert_eq!(import["status"]["clusters"], json!([{ "cluster": east }]));
        let metadata = &import["metadata"];
        assert_eq!((&metadata["labels"]["team"], &metadata["annotations"]["note"]), (&json!("shop"), &json!("for all")));
        assert_eq!(
            (&metadata["labels"]["own"], &metadata["labels"]["export"]),
            (&Value::Null, &Value::Null),
            "only what is exported travels"
        );
        // Its slices name the cluster that they stand for, and are its own.
        let (slices, _) = eventually("a slice for east", async || {
            let slices = get(&world, cluster, &["endpointslices", "-l", "multicluster.kubernetes.io/service-name=hello"])?;
            anyhow::ensure!(!slices["items"].as_array().is_some_and(Vec::is_empty), "{slices}");
            anyhow::Ok(slices)
        })
        .await;
        for slice in slices["items"].as_array().unwrap() {
            let (labels, owner) = (&slice["metadata"]["labels"], &slice["metadata"]["ownerReferences"][0]);
            assert_eq!(labels["multicluster.kubernetes.io/source-cluster"], json!(east));
            assert_ne!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io");
            assert_eq!((&owner["kind"], &owner["uid"]), (&json!("ServiceImport"), &metadata["uid"]));
        }
        // Both versions are served.
        let older = get(&world, cluster, &["serviceimports.v1alpha1.multicluster.x-k8s.io", "hello"]).unwrap();
        assert_eq!(older["spec"], import["spec"]);
        // The name has that address; a number that two ports share is said once.
        answered(&world, cluster, &["A", "hello.shop.svc.clusterset.local"], &[spec["ips"][0].as_str().unwrap()]).await;
        answered(&world, cluster, &["SRV", "hello.shop.svc.clusterset.local"], &["0 100 42 hello.shop.svc.clusterset.local."]).await;
        answered(&world, cluster, &["TXT", "dns-version.clusterset.local"], &["\"1.0.0\""]).await;
    }
    conditions(&world, "east", "hello", &["Conflict=False NoConflicts", "Ready=True Ready", "Valid=True Valid"]).await;
    world.kubectl("east", &["delete", "serviceexports", "hello", "-n", "shop"]).unwrap();
    for cluster in BOTH {
        eventually("import, Service and slices are gone", async || {
            let left = get(&world, cluster, &["serviceimports,services,endpointslices"])?;
            let names = left["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str());
            let of_hello: Vec<&str> = names.filter(|name| name.starts_with("hello-") || (*name == "hello" && cluster == "west")).collect();
            anyhow::ensure!(of_hello.is_empty(), "{of_hello:?}");
            Ok(())
        })
        .await;
        answered(&world, cluster, &["A", "hello.shop.svc.clusterset.local"], &[]).await;
    }
    get(&world, "east", &["services", "hello"]).unwrap();
}

#[tokio::test]
async fn exports_that_differ_merge_the_same_everywhere_and_all_who_take_part_are_told() {
    let (_alone, world) = crate::world(2).await;
    world.apply("east", HELLO).unwrap();
    import(&world, "west", "hello").await;
    // Timestamps have a grain of one second.
    time_passes(Duration::from_millis(1100)).await;
    world.apply("west", OTHER_HELLO).unwrap();
    let reasons = "Conflict=True PortConflict,TypeConflict,SessionAffinityConflict,SessionAffinityConfigConflict,AnnotationsConflict,LabelsConflict,TrafficDistributionConflict";
    for cluster in BOTH {
        conditions(&world, cluster, "hello", &[reasons, "Ready=True Ready", "Valid=True Valid"]).await;
    }
    let clusters = json!([{ "cluster": id(&world, "east") }, { "cluster": id(&world, "west") }]);
    for cluster in BOTH {
        eventually("the import is the union, and east, which is older, decides the rest", async || {
            let import = get(&world, cluster, &["serviceimports", "hello"])?;
            let spec = &import["spec"];
            anyhow::ensure!(spec["ports"] == json!([port("tcp", "TCP", 42), port("udp", "UDP", 42), port("stcp", "SCTP", 142)]), "{spec}");
            anyhow::ensure!(spec["type"] == "ClusterSetIP" && spec["sessionAffinity"] == "ClientIP", "{spec}");
            anyhow::ensure!(import["metadata"]["labels"]["team"] == "shop", "{import}");
            let mut named = import["status"]["clusters"].as_array().cloned().unwrap_or_default();
            named.sort_by_key(|one| one["cluster"] != clusters[0]["cluster"]);
            anyhow::ensure!(json!(named) == clusters, "{named:?}");
            Ok(())
        })
        .await;
    }
    // Once east is out of it, west's export decides: there is nothing left to disagree with.
    world.kubectl("east", &["delete", "serviceexports", "hello", "-n", "shop"]).unwrap();
    conditions(&world, "west", "hello", &["Conflict=False NoConflicts", "Ready=True Ready", "Valid=True Valid"]).await;
    for cluster in BOTH {
        eventually("the import is west's", async || {
            let import = get(&world, cluster, &["serviceimports", "hello"])?;
            let spec = &import["spec"];
            anyhow::ensure!(spec["type"] == "Headless" && spec["ips"].as_array().is_none_or(Vec::is_empty), "{spec}");
            anyhow::ensure!(import["metadata"]["labels"]["team"] == "other", "{import}");
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_can_t_be_exported_says_why_and_is_imported_nowhere() {
    let (_alone, world) = crate::world(2).await;
    world.apply("east", INVALID).unwrap();
    let invalid =
        |reason: &str| ["Conflict=False NoConflicts".to_owned(), "Ready=False Pending".to_owned(), format!("Valid=False {reason}")];
    for (name, reason) in [("elsewhere", "InvalidServiceType"), ("nothing", "NoService")] {
        let expected = invalid(reason);
        conditions(&world, "east", name, &expected.each_ref().map(String::as_str)).await;
    }
    // What was exported after them has come home by now, and they have not.
    world.apply("east", HELLO).unwrap();
    import(&world, "west", "hello").await;
    for (cluster, name) in BOTH.into_iter().flat_map(|cluster| [(cluster, "elsewhere"), (cluster, "nothing")]) {
        assert!(get(&world, cluster, &["serviceimports", name]).is_err(), "{name} in {cluster}");
    }
    // A Service that is made valid is exported.
    let manifest = "{apiVersion: v1, kind: Service, metadata: {name: nothing, namespace: shop}, spec: {ports: [{port: 80}]}}";
    world.apply("east", manifest).unwrap();
    import(&world, "west", "nothing").await;
}

#[tokio::test]
async fn a_port_that_only_one_cluster_exposes_is_answered_by_it_alone_and_other_traffic_goes_on() {
    let (_alone, world) = crate::world(2).await;
    let client = world.client("west");
    client.ok("http://cart.shop.svc.clusterset.local/").await.unwrap();
    let ports = json!({ "spec": { "ports": [
        { "name": "http", "port": 80, "targetPort": "http", "appProtocol": "http" },
        { "name": "admin", "port": 81, "targetPort": "http", "appProtocol": "http" },
    ] } });
    world.kubectl("east", &["patch", "service", "cart", "-n", "shop", "--type", "merge", "-p", &ports.to_string()]).unwrap();
    for cluster in BOTH {
        conditions(&world, cluster, "cart", &["Conflict=True PortConflict", "Ready=True Ready", "Valid=True Valid"]).await;
    }
    eventually("east answers on its port", async || client.ok("http://cart.shop.svc.clusterset.local:81/").await).await;
    for _ in 0..50 {
        let (theirs, ours) = ("http://cart.shop.svc.clusterset.local:81/", "http://cart.shop.svc.clusterset.local/");
        assert_eq!(client.ok(theirs).await.unwrap().cluster(), Some("east"));
        assert_eq!(client.ok(ours).await.unwrap().cluster(), Some("west"));
    }
    // The slices say the same to clients without a proxy.
    for (cluster, expected) in [("east", 2), ("west", 1)] {
        let selector = format!("multicluster.kubernetes.io/source-cluster={}", id(&world, cluster));
        eventually("the slices have the ports of their cluster", async || {
            let slices =
                get(&world, "west", &["endpointslices", "-l", &format!("multicluster.kubernetes.io/service-name=cart,{selector}")])?;
            anyhow::ensure!(slices["items"][0]["ports"].as_array().map(Vec::len) == Some(expected), "{slices}");
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_headless_import_has_no_address_and_its_pods_have_names() {
    let (_alone, world) = crate::world(2).await;
    let east = id(&world, "east");
    for cluster in BOTH {
        let import = import(&world, cluster, "stock").await;
        assert_eq!((&import["spec"]["type"], import["spec"]["ips"].as_array().map_or(0, Vec::len)), (&json!("Headless"), 0));
        let (slice, _) = eventually("a slice with both pods", async || {
            let slices = get(&world, cluster, &["endpointslices", "-l", "multicluster.kubernetes.io/service-name=stock"])?;
            let slice = slices["items"][0].clone();
            anyhow::ensure!(slice["endpoints"].as_array().map(Vec::len) == Some(2), "{slices}");
            anyhow::Ok(slice)
        })
        .await;
        assert_eq!(slice["metadata"]["labels"]["multicluster.kubernetes.io/source-cluster"], json!(east));
        for endpoint in slice["endpoints"].as_array().unwrap() {
            let (hostname, address) = (endpoint["hostname"].as_str().unwrap(), endpoint["addresses"][0].as_str().unwrap());
            let name = format!("{hostname}.{east}.stock.shop.svc.clusterset.local");
            answered(&world, cluster, &["A", &name], &[address]).await;
        }
        answered(&world, cluster, &["A", &format!("{east}.stock.shop.svc.clusterset.local")], &[]).await;
        let (targets, _) = eventually("one SRV record per pod", async || {
            let targets = world.dig(cluster, &["SRV", "_http._tcp.stock.shop.svc.clusterset.local"])?;
            anyhow::ensure!(targets.len() == 2, "{targets:?}");
            anyhow::Ok(targets)
        })
        .await;
        assert!(targets.iter().all(|target| target.ends_with(&format!(".{east}.stock.shop.svc.clusterset.local."))), "{targets:?}");
    }
}

#[tokio::test]
async fn a_cluster_says_its_id_and_that_it_is_a_member_while_it_is_linked() {
    let (_alone, world) = crate::world(2).await;
    let said = |name: &str| get(&world, "west", &["clusterproperties.about.k8s.io", name]);
    let (property, _) = eventually("the cluster's id", async || said("cluster.clusterset.k8s.io")).await;
    assert_eq!(property["spec"]["value"], json!(id(&world, "west")));
    eventually("its membership", async || said("clusterset.k8s.io")).await;
    for kind in ["links", "peers"] {
        world.kubectl("west", &["delete", kind, "--all"]).unwrap();
    }
    eventually("it is a member no more", async || {
        anyhow::ensure!(said("clusterset.k8s.io").is_err(), "still there");
        Ok(())
    })
    .await;
    said("cluster.clusterset.k8s.io").unwrap();
}

/// Objects of namespace `shop`, as JSON.
fn get(world: &World, cluster: &str, what: &[&str]) -> anyhow::Result<Value> {
    let arguments = [&["get", "-n", "shop", "-o", "json"], what].concat();
    Ok(serde_json::from_str(&world.kubectl(cluster, &arguments)?)?)
}

/// A ServiceImport, once it is ready.
async fn import(world: &World, cluster: &str, name: &str) -> Value {
    let ready = async || {
        let import = get(world, cluster, &["serviceimports", name])?;
        let conditions = import["status"]["conditions"].as_array().cloned().unwrap_or_default();
        anyhow::ensure!(conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"), "{import}");
        anyhow::Ok(import)
    };
    eventually(&format!("{name} is imported in {cluster}"), ready).await.0
}

/// What a ServiceExport says: `Type=Status Reason`, by type.
async fn conditions(world: &World, cluster: &str, name: &str, expected: &[&str]) {
    eventually(&format!("{name} in {cluster} says {expected:?}"), async || {
        let export = get(world, cluster, &["serviceexports", name])?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let said = export["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let said: Vec<String> =
            said.iter().map(|one| format!("{}={} {}", text(&one["type"]), text(&one["status"]), text(&one["reason"]))).collect();
        anyhow::ensure!(said == expected, "{said:?}");
        Ok(())
    })
    .await;
}

/// The cluster's DNS answers a question with exactly `expected`.
async fn answered(world: &World, cluster: &str, question: &[&str], expected: &[&str]) {
    eventually(&format!("{question:?} in {cluster}"), async || {
        let found = world.dig(cluster, question)?;
        anyhow::ensure!(found == expected, "{found:?}");
        Ok(())
    })
    .await;
}

fn id(world: &World, cluster: &str) -> String {
    get(world, cluster, &["namespaces", "kube-system"]).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn port(name: &str, protocol: &str, number: u16) -> Value {
    json!({ "name": name, "protocol": protocol, "port": number })
}

const HELLO: &str = "
apiVersion: v1
kind: Service
metadata: {name: hello, namespace: shop, labels: {own: stays}}
spec:
  ports: [{name: tcp, port: 42}, {name: udp, port: 42, protocol: UDP}]
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 10}}
  trafficDistribution: PreferClose
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: hello, namespace: shop, labels: {export: stays}}
spec:
  exportedLabels: {team: shop}
  exportedAnnotations: {note: for all}
";
const OTHER_HELLO: &str = "
apiVersion: v1
kind: Service
metadata: {name: hello, namespace: shop}
spec:
  clusterIP: None
  ports: [{name: tcp, port: 42}, {name: stcp, port: 142, protocol: SCTP}]
---
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata: {name: hello, namespace: shop}
spec:
  exportedLabels: {team: other}
";
const INVALID: &str = "
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: shop}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: elsewhere, namespace: shop}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: nothing, namespace: shop}
";
