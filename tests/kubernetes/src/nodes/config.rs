//! What a node's programs are configured with: containerd, the pod network, kubelet and kube-proxy. Pure.

use serde_json::{Value, json};

use super::plan::Cluster;

/// containerd's configuration.
#[must_use]
pub fn containerd() -> String {
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE (as in many virtual machines) no pod would start otherwise.
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/isthmus/pause:latest"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#
    )
}

/// The pods' network: a bridge whose addresses come from the cluster's range, and host ports.
#[must_use]
pub fn cni(cluster: &Cluster) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true, "ipMasq": false,
                "ipam": {
                    "type": "host-local", "dataDir": "/run/cni",
                    "ranges": [[{ "subnet": cluster.pods() }]], "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// kubelet's configuration. The paths are the node's own.
#[must_use]
pub fn kubelet(cluster: &Cluster, cgroup: &str, pki: &KubeletFiles) -> Value {
    // Nobody else is on this machine's disk for the clusters' sake: kubelet must neither evict pods nor delete images for want of room.
    let never = json!({ "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%" });
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "authentication": {
            "anonymous": { "enabled": false }, "webhook": { "enabled": true }, "x509": { "clientCAFile": pki.authority },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": pki.certificate,
        "tlsPrivateKeyFile": pki.key,
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [cluster.dns_service()],
        "resolvConf": "/etc/resolv.conf",
        "evictionHard": never,
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
        "shutdownGracePeriod": "0s",
        "healthzBindAddress": "127.0.0.1",
    })
}

/// kubelet's certificates.
#[derive(Debug)]
pub struct KubeletFiles {
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

/// kube-proxy's configuration.
#[must_use]
pub fn kube_proxy(cluster: &Cluster, kubeconfig: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": { "kubeconfig": kubeconfig },
        "clusterCIDR": cluster.pods(),
        "hostnameOverride": cluster.node(),
        "metricsBindAddress": "127.0.0.1:10249",
        // Those settings belong to the whole machine, and can't be written from here.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    })
}

/// containerd's socket, in the node's root.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_keeps_to_its_control_group_and_evicts_nothing() {
        let files = KubeletFiles { authority: "/ca.crt".to_owned(), certificate: "/n.crt".to_owned(), key: "/n.key".to_owned() };
        let east = Cluster { name: "east".to_owned(), number: 1 };
        let config = kubelet(&east, "isthmus-clusters-7-east", &files);
        assert_eq!(config["cgroupRoot"], "/isthmus-clusters-7-east");
        assert_eq!(config["clusterDNS"], json!(["10.111.0.10"]));
        assert!(config["evictionHard"].as_object().unwrap().values().all(|threshold| threshold == "0%"));
    }

    #[test]
    fn the_sandbox_image_is_one_that_is_loaded() {
        assert!(containerd().contains("sandbox_image = \"docker.io/isthmus/pause:latest\""));
    }
}
