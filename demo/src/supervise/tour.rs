//! The guided tour: what to try, with the addresses of this very demo. Pure.

use super::state::{Demo, DemoCluster};

/// The text that is printed once everything runs.
pub(super) fn tour(demo: &Demo, seconds: f64) -> String {
    let kubeconfig = demo.kubeconfig.display();
    let names: Vec<&str> = demo.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    let mut text =
        format!("\n{} are linked, {seconds:.1} s after the start. Everything is in {}\n", names.join(" and "), demo.dir.display());
    text += &format!(
        "\n  Look around\n    export KUBECONFIG={kubeconfig}\n    kubectl --context {} get pods,services,serviceexports -n shop\n",
        names[0]
    );
    if let Some((caller, outbound)) = caller(demo) {
        text += &format!("\n  Call catalog, which only east has, as storefront in {}: `peer` is who east saw calling\n", caller.name);
        text += &format!("    curl -x http://{outbound} http://catalog.shop.svc.clusterset.local/\n");
        text += &format!(
            "\n  Ask for a name\n    dig @{} -p {} +short catalog.shop.svc.clusterset.local\n",
            caller.dns.ip(),
            caller.dns.port()
        );
    }
    if let Some(gateway) = demo.processes.iter().find(|process| process.cluster == "east" && process.component == "gateway") {
        text += &format!("\n  Kill a gateway of east while you call; it is back in 10 s\n    kill -9 {}\n", gateway.pid);
    }
    text += "\n  Export a program that is not ours, and call it from the other side\n";
    text += &format!("    kubectl --context {} apply -f {}\n", names[0], demo.dir.join(HELLO_FILE).display());
    if let Some((_, outbound)) = caller(demo) {
        text += &format!("    curl -x http://{outbound} http://hello.shop.svc.clusterset.local/\n");
    }
    text += "\nCtrl-C ends everything.\n";
    text
}

/// The cluster that the tour calls from: one that is not the first, where the interesting services are.
fn caller(demo: &Demo) -> Option<(&DemoCluster, std::net::SocketAddr)> {
    let others = demo.clusters.iter().skip(1).chain(&demo.clusters);
    others.filter_map(|cluster| Some((cluster, cluster.outbound?))).next()
}

/// The manifest that the tour applies, and its name in the demo's directory.
pub(super) const HELLO: &str = include_str!("../../../deploy/demo/hello.yaml");
pub(super) const HELLO_FILE: &str = "hello.yaml";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::state::DemoProcess;

    #[test]
    fn the_tour_names_addresses_pids_and_files_of_this_demo() {
        let cluster = |name: &str, block: u8| DemoCluster {
            name: name.into(),
            trust_domain: format!("{name}.mesh"),
            dns: ([127, block, 0, 53], 4153).into(),
            gateway: ([127, block, 0, 31], 4143).into(),
            outbound: Some(([127, block, 64, 3], 4140).into()),
        };
        let gateway = DemoProcess { cluster: "east".into(), component: "gateway".into(), pid: 42 };
        let demo = Demo {
            dir: "/demo".into(),
            kubeconfig: "/demo/kubeconfig".into(),
            clusters: vec![cluster("east", 10), cluster("west", 11)],
            processes: vec![gateway],
        };
        let text = tour(&demo, 12.3);
        for part in [
            "export KUBECONFIG=/demo/kubeconfig",
            "curl -x http://127.11.64.3:4140 http://catalog.shop.svc.clusterset.local/",
            "dig @127.11.0.53 -p 4153 +short catalog.shop.svc.clusterset.local",
            "kill -9 42",
            "kubectl --context east apply -f /demo/hello.yaml",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
