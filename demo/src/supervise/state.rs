//! What runs where: the object that `mesh demo -o json` prints and `state.json` always holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::layout::Cluster;
use crate::node::Reported;

/// The whole demo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Demo {
    /// Where everything is written.
    pub dir: PathBuf,
    /// One kubeconfig with a context per cluster.
    pub kubeconfig: PathBuf,
    /// The clusters.
    pub clusters: Vec<DemoCluster>,
    /// Every process, but the supervisor.
    pub processes: Vec<DemoProcess>,
}

/// One cluster of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DemoCluster {
    /// Its name, and its context's.
    pub name: String,
    /// Its trust domain.
    pub trust_domain: String,
    /// Where its DNS server answers.
    pub dns: SocketAddr,
    /// Where tunnels to it begin.
    pub gateway: SocketAddr,
    /// The HTTP proxy of its storefront, once that runs.
    pub outbound: Option<SocketAddr>,
}

/// One process of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DemoProcess {
    /// The cluster.
    pub cluster: String,
    /// What it is: `apiserver`, `control`, `mirror-controller`, `gateway`, `dns`, `node`, `proxy` or `workload`.
    pub component: String,
    /// Its pid.
    pub pid: u32,
}

/// The processes that the supervisor itself started. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Started(Arc<Mutex<BTreeMap<Replica, u32>>>);

/// Cluster, component and number.
type Replica = (String, &'static str, u8);

impl Started {
    /// A replica runs as `pid`, or does not run.
    pub(super) fn set(&self, cluster: &str, component: &'static str, replica: u8, pid: Option<u32>) {
        let mut started = self.0.lock();
        match pid {
            Some(pid) => started.insert((cluster.to_owned(), component, replica), pid),
            None => started.remove(&(cluster.to_owned(), component, replica)),
        };
    }

    /// Whether a replica runs.
    pub(super) fn runs(&self, cluster: &str, component: &'static str, replica: u8) -> bool {
        self.0.lock().contains_key(&(cluster.to_owned(), component, replica))
    }

    /// All of them.
    fn processes(&self) -> Vec<DemoProcess> {
        let of = |((cluster, component, _), pid): (&Replica, &u32)| DemoProcess {
            cluster: cluster.clone(),
            component: (*component).to_owned(),
            pid: *pid,
        };
        self.0.lock().iter().map(of).collect()
    }
}

/// Puts together what the supervisor started and what each node reports. Pure.
pub(super) fn demo(dir: &std::path::Path, clusters: &[Cluster], started: &Started, reports: &[Vec<Reported>]) -> Demo {
    let mut processes = started.processes();
    for (cluster, report) in clusters.iter().zip(reports) {
        processes.extend(report.iter().map(|reported| DemoProcess {
            cluster: cluster.name.to_string(),
            component: reported.component.clone(),
            pid: reported.pid,
        }));
    }
    let cluster = |(cluster, report): (&Cluster, &Vec<Reported>)| DemoCluster {
        name: cluster.name.to_string(),
        trust_domain: cluster.trust_domain.to_string(),
        dns: cluster.dns(),
        gateway: cluster.gateways()[0],
        outbound: report.iter().find(|held| held.component == "proxy" && held.pod.starts_with(STOREFRONT)).map(Reported::outbound),
    };
    Demo { dir: dir.to_owned(), kubeconfig: dir.join(KUBECONFIG), clusters: clusters.iter().zip(reports).map(cluster).collect(), processes }
}

/// The merged kubeconfig in the demo's directory.
pub(super) const KUBECONFIG: &str = "kubeconfig";

const STOREFRONT: &str = "shop/storefront-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_names_every_process_and_the_storefronts_proxy() {
        let started = Started::default();
        started.set("east", "gateway", 0, Some(7));
        started.set("east", "gateway", 1, Some(8));
        started.set("east", "gateway", 1, None);
        let clusters = [Cluster::new("east", 10, "/demo/east".into()).unwrap()];
        let report = |component: &str, pid| Reported {
            pid,
            component: component.into(),
            pod: "shop/storefront-x".into(),
            address: [127, 10, 64, 3].into(),
        };
        let demo = demo("/demo".as_ref(), &clusters, &started, &[vec![report("workload", 20), report("proxy", 21)]]);
        assert_eq!(demo.clusters[0].outbound, Some("127.10.64.3:4140".parse().unwrap()));
        let pids: Vec<u32> = demo.processes.iter().map(|process| process.pid).collect();
        assert_eq!(pids, [7, 20, 21]);
    }
}
