//! `mesh install` on a real API server, one of its own: everything is taken, each program may do what it does and nothing else, a new pod
//! is injected by the webhook, and `mesh uninstall` leaves nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use expect_test::expect_file;
use mesh_api::well_known::{INJECTOR, SYSTEM_NAMESPACE, WEBHOOK_SERVICE};
use mesh_kubernetes_tests::control_plane::Plan;
use mesh_kubernetes_tests::{ControlPlane, Level, Place, PrivateNetwork, Process, tools};
use serde_json::{Value, json};

use crate::eventually::eventually;
use crate::mesh::apply;

/// A cluster for one test, in a network of its own.
struct Cluster {
    plane: ControlPlane,
    directory: PathBuf,
}

impl Cluster {
    fn start(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let network = Arc::new(PrivateNetwork::start(&["10.73.0.0/16"]).unwrap());
        let place = Place::Private(network, [10, 73, 0, 1].into());
        let plan = Plan { name: "south", level: Level::Controllers, place, directory: &directory, service_range: "10.73.128.0/20" };
        Self { plane: ControlPlane::start(&plan).unwrap(), directory: directory.clone() }
    }

    fn mesh(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.plane.place.command(&tools::program("MESH_BIN")?);
        tools::run(command.args(arguments).arg("--kubeconfig").arg(&self.plane.kubeconfig))
    }

    fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.plane.kubectl(arguments)
    }

    /// Control with its webhook where the API server looks for it: at the address of the Service.
    fn control(&self) -> anyhow::Result<Process> {
        let service = self.plane.json(&["get", "service", WEBHOOK_SERVICE, "--namespace", SYSTEM_NAMESPACE])?;
        let webhook = format!("{}:443", service["spec"]["clusterIP"].as_str().context("the Service has an address")?);
        let mut command = self.plane.place.command(&tools::program("MESH_BIN")?);
        command.args(["internal", "control", "--listen", "10.73.0.11:4150", "--admin", "10.73.0.11:4191", "--webhook", &webhook]);
        command
            .args(["--proxy-image", "isthmus/proxy:1", "--init-image", "isthmus/init:1"])
            .arg("--kubeconfig")
            .arg(&self.plane.kubeconfig);
        Process::start("control", command, &self.directory)
    }
}

#[test]
fn an_installation_is_taken_whole_meshes_pods_and_leaves_nothing() {
    let south = Cluster::start("install");
    let install = ["install", "--cluster", "south", "--webhook-failure-policy", "Fail"];
    let planned = south.mesh(&[&install[..], &["--dry-run"]].concat()).unwrap();
    assert!(planned.lines().skip(1).all(|line| line.starts_with("create")), "nothing is there yet: {planned}");
    let applied = south.mesh(&[&install[..], &["--apply"]].concat()).unwrap();
    assert!(applied.lines().skip(1).all(|line| line.starts_with("create")), "{applied}");
    eventually("a second time changes nothing, and replaces no trust", || {
        let again = south.mesh(&[&install[..], &["--apply"]].concat())?;
        let other: Vec<&str> = again.lines().skip(1).filter(|line| !line.starts_with("unchanged") && !line.starts_with("keep")).collect();
        ensure!(other.is_empty(), "{other:?}");
        let kept: Vec<&str> =
            again.lines().filter(|line| line.starts_with("keep")).filter_map(|line| line.split_whitespace().last()).collect();
        ensure!(kept == ["isthmus-bundle", "isthmus-issuer"], "{again}");
        Ok(())
    });
    assert_eq!(south.mesh(&[&install[..], &["--diff"]].concat()).unwrap(), "");
    let diff = south.mesh(&["upgrade", "--replicas", "3", "--diff"]).unwrap();
    assert!(diff.contains("-   replicas: 2\n+   replicas: 3"), "{diff}");
    may_do_what_it_does(&south);

    let control = south.control().unwrap();
    let configuration = || south.plane.json(&["get", "mutatingwebhookconfiguration", INJECTOR]);
    eventually("control writes its certificate", || {
        let held = configuration()?;
        let webhooks = held["webhooks"].as_array().context("no webhooks")?;
        ensure!(webhooks.iter().all(|webhook| webhook["clientConfig"]["caBundle"].is_string()), "{held}");
        Ok(())
    });
    pods_are_injected_as_their_labels_say(&south);
    let bundle = configuration().unwrap()["webhooks"][0]["clientConfig"]["caBundle"].clone();
    south.mesh(&[&install[..], &["--apply"]].concat()).unwrap();
    assert_eq!(configuration().unwrap()["webhooks"][0]["clientConfig"]["caBundle"], bundle, "applying again takes no certificate away");

    leaves_nothing(&south);
    drop(control);
}

/// Compares what the API server says that each account may do.
fn may_do_what_it_does(south: &Cluster) {
    let mut table = String::new();
    for account in ["mesh-control", "mesh-mirror-controller", "mesh-gateway", "mesh-egress", "mesh-dns"] {
        for namespace in [SYSTEM_NAMESPACE, "default"] {
            let user = format!("--as=system:serviceaccount:{SYSTEM_NAMESPACE}:{account}");
            let listed = south.kubectl(&["auth", "can-i", "--list", "--no-headers", &user, "--namespace", namespace]).unwrap();
            let mut rows: Vec<String> = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            // What everybody may: ask about themselves, and read the API's own description.
            rows.retain(|row| !row.starts_with("[/") && !row.contains("selfsubject"));
            rows.sort();
            table += &format!("# {account} in {namespace}\n{}\n", rows.join("\n"));
        }
    }
    expect_file!["rights.txt"].assert_eq(&table);
}

fn pods_are_injected_as_their_labels_say(south: &Cluster) {
    let namespace = |name: &str, label: &str| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": { "isthmus.dev/inject": label } } });
    let namespaces =
        json!({ "apiVersion": "v1", "kind": "List", "items": [namespace("meshed", "enabled"), namespace("bare", "disabled")] });
    apply(&south.plane, &namespaces.to_string()).unwrap();
    for name in ["meshed", "bare"] {
        eventually("the namespace has its service account", || south.kubectl(&["get", "serviceaccount", "default", "--namespace", name]));
    }
    for (namespace, label, expected) in
        [("meshed", None, true), ("meshed", Some("disabled"), false), ("bare", None, false), ("bare", Some("enabled"), true)]
    {
        let name = format!("pod-{}", label.unwrap_or("plain"));
        let mut metadata = json!({ "name": name, "namespace": namespace });
        if let Some(label) = label {
            metadata["labels"] = json!({ "isthmus.dev/inject": label });
        }
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": { "containers": [{ "name": "web", "image": "web" }] } });
        eventually("the API server reaches the webhook", || apply(&south.plane, &pod.to_string()));
        let made = south.plane.json(&["get", "pod", &name, "--namespace", namespace]).unwrap();
        let proxies = made["spec"]["initContainers"].as_array().into_iter().flatten().filter(|one| one["restartPolicy"] == "Always");
        assert_eq!(proxies.count(), usize::from(expected), "{namespace} {label:?}: {made}");
        let tokens = made["spec"]["initContainers"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|one| one["volumeMounts"].as_array().into_iter().flatten());
        let api = tokens.filter(|mount| mount["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access")));
        assert_eq!(api.count(), 0, "neither of ours gets a token for the API: {made}");
    }
    let nonsense = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "nonsense", "namespace": "meshed", "annotations": { "isthmus.dev/skip-inbound-ports": "22; flush ruleset" } },
        "spec": { "containers": [{ "name": "web", "image": "web" }] },
    });
    let refused = apply(&south.plane, &nonsense.to_string()).unwrap_err().to_string();
    assert!(refused.contains("isthmus: annotation isthmus.dev/skip-inbound-ports"), "{refused}");
}

fn leaves_nothing(south: &Cluster) {
    let refused = south.mesh(&["uninstall", "--timeout", "60s"]).unwrap_err().to_string();
    assert!(refused.contains("still have a proxy") && refused.contains("meshed/pod-plain"), "{refused}");
    south.kubectl(&["get", "deployment", "mesh-control", "--namespace", SYSTEM_NAMESPACE]).unwrap();
    south.kubectl(&["get", "mutatingwebhookconfiguration", INJECTOR]).unwrap_err();
    for namespace in ["meshed", "bare"] {
        south.kubectl(&["delete", "pods", "--all", "--grace-period=0", "--force", "--namespace", namespace]).unwrap();
    }
    south.mesh(&["uninstall", "--timeout", "60s"]).unwrap();
    let all = ["namespaces", "crds", "clusterroles", "clusterrolebindings", "mutatingwebhookconfigurations"].join(",");
    let left = south.plane.json(&["get", &all, "--selector", "app.kubernetes.io/part-of=isthmus"]).unwrap();
    assert_eq!(left["items"], Value::Array(Vec::new()));
    let crds = south.kubectl(&["get", "crds", "--output", "name"]).unwrap();
    assert!(!crds.contains("isthmus") && !crds.contains("multicluster"), "{crds}");
    south.kubectl(&["get", "namespace", SYSTEM_NAMESPACE]).unwrap_err();
}
