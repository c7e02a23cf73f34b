//! The pods that run here: started when they appear, ended when they are deleted or vanish, whatever the API server does meanwhile.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use super::addresses::Addresses;
use super::observe::{Seen, deleted_by_overlay_only};
use super::observed::Observed;
use super::pod::{Node, Run};
use super::{process, sidecar, status};

/// The running pods, by uid.
pub(crate) struct Kubelet {
    node: Node,
    addresses: Addresses,
    runs: HashMap<String, Held>,
    reported: Vec<Reported>,
}

#[derive(Debug)]
struct Held {
    run: Run,
    pod: String,
}

/// A process of a pod, as the supervisor reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reported {
    pub(crate) pid: u32,
    /// `proxy` or `workload`.
    pub(crate) component: String,
    /// `namespace/name`.
    pub(crate) pod: String,
    /// The pod's address.
    pub(crate) address: Ipv4Addr,
}

impl Reported {
    /// Where the HTTP proxy of a sidecar listens.
    pub(crate) fn outbound(&self) -> SocketAddr {
        SocketAddr::from((self.address, sidecar::OUTBOUND))
    }
}

impl Kubelet {
    /// Nothing runs yet.
    pub(crate) fn new(node: Node) -> Self {
        let addresses = Addresses::new(node.config.pod_cidr);
        Self { node, addresses, runs: HashMap::new(), reported: vec![] }
    }

    /// Starts and stops so that what runs is what is seen. Returns the pods whose deletion can be completed: nothing of them runs.
    pub(crate) fn sync(&mut self, seen: &Seen) -> Vec<Arc<Pod>> {
        let mut finished = Vec::new();
        let ours =
            |pod: &&Arc<Pod>| pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_none_or(|node| *node == self.node.config.node);
        let pods: Vec<&Arc<Pod>> = seen.pods.iter().filter(ours).collect();
        for pod in &pods {
            let Some(uid) = pod.metadata.uid.as_deref() else { continue };
            match (self.runs.get(uid), pod.metadata.deletion_timestamp.is_some()) {
                (None, false) if !status::is_ended(pod) => self.start(uid, pod, seen),
                (None, true) => finished.push(Arc::clone(pod)),
                (Some(held), true) if !deleted_by_overlay_only(pod) => {
                    held.run.stop(grace(pod));
                    if held.run.has_ended() {
                        finished.push(Arc::clone(pod));
                    }
                }
                (None | Some(_), _) => {}
            }
        }
        self.forget_vanished(&pods);
        finished
    }

    fn start(&mut self, uid: &str, pod: &Pod, seen: &Seen) {
        let wished = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok());
        let Some(address) = self.addresses.take(wished) else {
            tracing::error!(range = %self.node.config.pod_cidr, "no address is left for another pod");
            return;
        };
        let id = format!("{}/{}", pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default());
        tracing::info!(pod = id, %address, "starting");
        let run = Run::start(pod, sidecar::pod_is_meshed(pod, seen), address, &self.node);
        self.runs.insert(uid.to_owned(), Held { run, pod: id });
    }

    /// A pod whose object is gone has been deleted by force: its processes end now.
    fn forget_vanished(&mut self, pods: &[&Arc<Pod>]) {
        let addresses = &mut self.addresses;
        self.runs.retain(|uid, held| {
            if pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid)) {
                return true;
            }
            held.run.stop(Duration::ZERO);
            let ended = held.run.has_ended();
            if ended {
                addresses.free(held.run.address());
                held.run.clean();
            }
            !ended
        });
    }

    /// What is known of a pod's processes.
    pub(crate) fn observed(&self, pod: &Pod) -> Option<Observed> {
        Some(self.runs.get(pod.metadata.uid.as_deref()?)?.run.observed())
    }

    /// Writes `processes.json` when something in it changed.
    pub(crate) fn report(&mut self) {
        let mut reported: Vec<Reported> = self.runs.values().flat_map(Held::processes).collect();
        reported.sort_by(|a, b| (&a.pod, &a.component, a.pid).cmp(&(&b.pod, &b.component, b.pid)));
        if reported == self.reported {
            return;
        }
        let written = serde_json::to_vec(&reported)
            .map_err(std::io::Error::other)
            .and_then(|text| process::write_private(&self.report_file(), &text));
        match written {
            Ok(()) => self.reported = reported,
            Err(error) => tracing::warn!(%error, "processes not reported"),
        }
    }

    fn report_file(&self) -> PathBuf {
        self.node.config.state_dir.join(REPORT)
    }

    /// Ends every pod within `grace`.
    pub(crate) fn stop_all(&self, grace: Duration) {
        self.runs.values().for_each(|held| held.run.stop(grace));
    }

    /// Whether nothing runs any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.runs.values().all(|held| held.run.has_ended())
    }
}

impl Held {
    fn processes(&self) -> Vec<Reported> {
        let observed = self.run.observed();
        let reported =
            |component: &str, pid| Reported { pid, component: component.to_owned(), pod: self.pod.clone(), address: self.run.address() };
        let proxy = observed.proxy.as_ref().and_then(|proxy| proxy.pid).map(|pid| reported("proxy", pid));
        observed.workloads().map(|pid| reported("workload", pid)).chain(proxy).collect()
    }
}

fn grace(pod: &Pod) -> Duration {
    let asked = pod.metadata.deletion_grace_period_seconds.or_else(|| pod.spec.as_ref()?.termination_grace_period_seconds);
    Duration::from_secs(asked.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(30))
}

/// The file, in the node's state directory, that names every process of every pod.
pub(crate) const REPORT: &str = "processes.json";
