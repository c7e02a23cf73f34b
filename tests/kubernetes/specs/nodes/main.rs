//! Two real clusters with nodes, pods and a network between them: what everything of level 3 stands on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use mesh_kubernetes_tests::Clusters;
use mesh_kubernetes_tests::nodes::{Plan, Topology};
use serde_json::Value;

/// East and west, gateway-only, with the shop in both and a client in west. They end with this test program.
fn clusters() -> &'static Clusters {
    static CLUSTERS: OnceLock<Clusters> = OnceLock::new();
    CLUSTERS.get_or_init(|| {
        let images = ["pause", "tools", "shop"].map(image).to_vec();
        let clusters = Clusters::start(program(), Topology::GatewayOnly, images).unwrap();
        for cluster in ["east", "west"] {
            apply(&clusters, cluster, SHOP);
            apply(&clusters, cluster, CLIENT);
        }
        for cluster in ["east", "west"] {
            eventually("the shop is available", || {
                let said = clusters.kubectl(cluster, &["get", "deployment/web", "--output=jsonpath={.status.availableReplicas}"])?;
                ensure!(said == "2", "available: {said:?}; {}", clusters.kubectl(cluster, &["describe", "pods"])?);
                clusters.kubectl(cluster, &["wait", "--for=condition=Ready", "--timeout=1s", "pod/client"])
            });
        }
        clusters
    })
}

#[test]
fn the_shop_answers_in_each_cluster_by_its_service() {
    for cluster in ["east", "west"] {
        let service = clusters().kubectl(cluster, &["get", "service/web", "--output=jsonpath={.spec.clusterIP}"]).unwrap();
        let said = eventually("the shop answers", || inside(cluster, &format!("timeout 5 wget -q -O - http://{service}/")));
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["cluster"], cluster, "{said}");
        assert!(said["pod"].as_str().is_some_and(|pod| pod.starts_with("web-")), "{said}");
    }
}

#[test]
fn exec_and_logs_work_through_the_kubeconfig_of_the_machine() {
    for cluster in ["east", "west"] {
        assert_eq!(inside(cluster, "hostname").unwrap().trim(), "client");
        assert_eq!(clusters().kubectl(cluster, &["logs", "pod/client"]).unwrap().trim(), "the client is there");
    }
}

#[test]
fn a_node_port_reaches_the_other_cluster_and_a_pod_address_does_not() {
    let east = clusters().plan.cluster("east").unwrap().address();
    let said = eventually("the shop answers", || inside("west", &format!("timeout 5 wget -q -O - http://{east}:30080/")));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["cluster"], "east", "{said}");

    let pod = clusters().kubectl("east", &["get", "pods", "--selector=app=web", "--output=jsonpath={.items[0].status.podIP}"]).unwrap();
    let call = format!("nc -z -w 2 {pod} 8080");
    inside("east", &call).unwrap();
    let refused = inside("west", &call).unwrap_err().to_string();
    assert!(refused.contains("exit code 1"), "{refused}");
}

#[test]
fn the_contexts_have_users_of_their_own() {
    let text = std::fs::read(&clusters().ready.kubeconfig).unwrap();
    let kubeconfig: Value = serde_json::from_slice(&text).unwrap();
    let user = |index: usize| &kubeconfig["contexts"][index]["context"]["user"];
    assert_eq!((user(0), user(1)), (&"east-admin".into(), &"west-admin".into()));
    for cluster in kubeconfig["clusters"].as_array().unwrap() {
        assert!(cluster["cluster"]["server"].as_str().unwrap().starts_with("https://127.0.0.1:"), "{cluster}");
    }
}

#[test]
fn killed_clusters_leave_no_process_no_control_group_and_no_file() {
    let clusters = Clusters::start(program(), Topology::Flat, Vec::new()).unwrap();
    let (directory, first, nodes) = (clusters.plan.directory.clone(), clusters.ready.wan, clusters.ready.nodes.clone());
    let id = Plan::read(&clusters.plan.file()).unwrap().id;
    assert!(groups().iter().any(|group| group.display().to_string().contains(&id)), "clusters without a control group");

    let first = rustix::process::Pid::from_raw(first.cast_signed()).unwrap();
    rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
    eventually("all is gone", || {
        for (cluster, node) in &nodes {
            ensure!(!Path::new(&format!("/proc/{node}")).exists(), "the node of {cluster} still runs");
        }
        ensure!(!directory.exists(), "{} is still there", directory.display());
        ensure!(!groups().iter().any(|group| group.display().to_string().contains(&id)), "a control group is still there");
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        ensure!(!mounts.contains("isthmus-clusters"), "a mount is still there:\n{mounts}");
        Ok(())
    });
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_clusters"))
}

/// An archive that `cargo xtask images` made.
fn image(name: &str) -> PathBuf {
    let images = std::env::var_os("MESH_IMAGES").expect("MESH_IMAGES is not set: run the tests through `cargo xtask ci`");
    PathBuf::from(images).join(format!("{name}.tar"))
}

/// What `command` prints in the client of `cluster`.
fn inside(cluster: &str, command: &str) -> anyhow::Result<String> {
    clusters().kubectl(cluster, &["exec", "client", "--", "sh", "-c", command])
}

fn apply(clusters: &Clusters, cluster: &str, manifest: &str) {
    let mut kubectl = clusters.command(cluster);
    kubectl.args(["apply", "--filename=-"]).stdin(Stdio::piped());
    let mut child = kubectl.spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifest.replace("@cluster@", cluster).as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "kubectl apply in {cluster}");
}

/// Our control groups below every controller.
fn groups() -> Vec<PathBuf> {
    let controllers = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let groups = controllers.flat_map(|controller| std::fs::read_dir(controller.path()).into_iter().flatten().flatten());
    groups.map(|group| group.path()).filter(|path| path.display().to_string().contains(Plan::CGROUPS)).collect()
}

/// Polls `condition` until it holds; fails with the last reason after 90 s.
fn eventually<T>(what: &str, mut condition: impl FnMut() -> anyhow::Result<T>) -> T {
    let begun = Instant::now();
    loop {
        match condition().with_context(|| what.to_owned()) {
            Ok(value) => return value,
            Err(reason) if begun.elapsed() > Duration::from_secs(90) => panic!("not within 90 s: {reason:?}"),
            Err(_) => sleep(Duration::from_millis(100)),
        }
    }
}

const SHOP: &str = r#"{
  "apiVersion": "v1", "kind": "List", "items": [
    {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
      "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
      "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
        "name": "web", "image": "isthmus/shop", "imagePullPolicy": "IfNotPresent", "ports": [{"name": "http", "containerPort": 8080}],
        "securityContext": {
          "runAsNonRoot": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
          "seccompProfile": {"type": "RuntimeDefault"}
        },
        "env": [
          {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
          {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
          {"name": "SHOP_CLUSTER", "value": "@cluster@"}
        ],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1}
      }]}}
    }},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {
      "type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http", "nodePort": 30080}]
    }}
  ]
}"#;

const CLIENT: &str = r#"{
  "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
    "name": "client", "image": "isthmus/tools", "imagePullPolicy": "IfNotPresent",
    "command": ["sh", "-c", "echo the client is there; exec sleep 1000000"]
  }]}
}"#;
