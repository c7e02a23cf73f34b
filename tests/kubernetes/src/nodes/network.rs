//! The network between the clusters: a bridge in the namespace `wan`, and a namespace per cluster with a link to it. [`commands`] is pure.
//! No namespace has a way out, so that nothing of a test ever leaves the machine.

use anyhow::Context as _;
use rustix::mount::{MountFlags, mount};

use super::plan::{Cluster, Plan, Topology};
use crate::tools::run;

/// Makes it. Called in the network and mount namespace that becomes `wan`.
///
/// # Errors
/// When the kernel refuses.
pub fn make(plan: &Plan) -> anyhow::Result<()> {
    // Named namespaces are mounts below /run: here they go with this mount namespace.
    mount("tmpfs", "/run", "tmpfs", MountFlags::NOSUID, None).context("could not mount a /run of its own")?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")?;
    for arguments in commands(plan) {
        run(std::process::Command::new(&plan.tools.ip).args(arguments.split(' ')))?;
    }
    Ok(())
}

/// What `ip` is told, in order.
#[must_use]
pub fn commands(plan: &Plan) -> Vec<String> {
    let bridge = ["link set lo up", "link add wan0 type bridge", "addr add 172.30.0.1/24 dev wan0", "link set wan0 up"];
    let mut all: Vec<String> = bridge.map(str::to_owned).into();
    all.extend(plan.clusters.iter().flat_map(attach));
    if plan.topology == Topology::Flat {
        for cluster in &plan.clusters {
            let others = plan.clusters.iter().filter(|other| *other != cluster);
            all.extend(others.map(|other| format!("-n {} route add {} via {}", cluster.name, other.pods(), other.address())));
        }
    }
    all
}

fn attach(cluster: &Cluster) -> [String; 8] {
    let (name, address) = (&cluster.name, cluster.address());
    [
        format!("netns add {name}"),
        format!("link add {name} type veth peer name {UPLINK} netns {name}"),
        format!("link set {name} master wan0"),
        format!("link set {name} up"),
        format!("-n {name} addr add {address}/24 dev {UPLINK}"),
        format!("-n {name} link set lo up"),
        format!("-n {name} link set {UPLINK} up"),
        format!("-n {name} route add default via 172.30.0.1"),
    ]
}

/// What hides pods behind their node's address, where other clusters have no route to them.
#[must_use]
pub fn masquerade(cluster: &Cluster) -> String {
    format!(
        "table ip isthmus-clusters {{\n  chain postrouting {{\n    type nat hook postrouting priority srcnat;\n    \
         ip saddr {} oifname \"{UPLINK}\" masquerade\n  }}\n}}\n",
        cluster.pods()
    )
}

/// A node's own end of its link.
pub const UPLINK: &str = "uplink";

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;

    #[test]
    fn each_cluster_hangs_on_the_bridge_and_nothing_leads_out() {
        let commands = commands(&plan(Topology::GatewayOnly));
        for expected in [
            "link add east type veth peer name uplink netns east",
            "-n east addr add 172.30.0.11/24 dev uplink",
            "-n west addr add 172.30.0.12/24 dev uplink",
            "-n west route add default via 172.30.0.1",
        ] {
            assert!(commands.iter().any(|command| command == expected), "{expected} is not in {commands:#?}");
        }
        assert!(!commands.iter().any(|command| command.contains("route add 10.")), "{commands:#?}");
    }

    #[test]
    fn pod_ranges_are_routed_to_each_other_on_a_flat_network_only() {
        let commands = commands(&plan(Topology::Flat));
        let routes: Vec<_> = commands.iter().filter(|command| command.contains("route add 10.")).collect();
        assert_eq!(routes, ["-n east route add 10.12.0.0/24 via 172.30.0.12", "-n west route add 10.11.0.0/24 via 172.30.0.11"]);
    }
}
