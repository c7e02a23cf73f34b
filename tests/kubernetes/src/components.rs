//! What each component of a control plane is started with. Pure: a component is a value that a test can print and compare; starting it is
//! [`crate::Process`]'s work, in this network namespace or in another.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::pki::{Pki, User};

/// A program of `kc`, and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    pub name: &'static str,
    pub arguments: Vec<String>,
}

impl Component {
    /// Completes a command that names the binary: it starts this component.
    pub fn complete(&self, kc: &mut Command) {
        kc.arg(self.name).args(&self.arguments);
    }

    fn of(name: &'static str, flags: &[(&str, String)]) -> Self {
        Self { name, arguments: flags.iter().map(|(flag, value)| format!("--{flag}={value}")).collect() }
    }
}

/// The store of one cluster in `directory`, served at `address` without TLS.
#[must_use]
pub fn etcd(directory: &Path, address: SocketAddr) -> Component {
    Component { name: "etcd", arguments: vec![directory.display().to_string(), address.to_string()] }
}

/// An API server.
#[derive(Debug, Clone)]
pub struct ApiServer<'a> {
    pub pki: &'a Pki,
    pub etcd: SocketAddr,
    pub listen: SocketAddr,
    pub published: Published,
    /// One range, or two with a comma between for dual stack.
    pub service_range: &'a str,
    pub controllers: Controllers,
    pub audit: Option<Audit>,
    /// Feature gates, versions of APIs and whatever else one test wants.
    pub more: Vec<(&'a str, String)>,
}

/// Which address the Service `kubernetes` leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// None: a loopback address may not be an endpoint. It is what issued documents name all the same.
    Nowhere,
    /// That one, which pods reach; and kubelets are called by the node addresses.
    At(IpAddr),
}

/// Whether a controller manager makes the `default` service accounts that pods otherwise need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controllers {
    Run,
    Absent,
}

/// Who asked for what, a line of JSON per request.
#[derive(Debug, Clone)]
pub struct Audit {
    policy: PathBuf,
    /// Where the lines are.
    pub log: PathBuf,
}

impl Audit {
    /// Every request's metadata, in `directory`.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn in_directory(directory: &Path) -> anyhow::Result<Self> {
        let audit = Self { policy: directory.join("audit-policy.yaml"), log: directory.join("audit.log") };
        // Once per request, when it is answered; a watch never ends in time, so its start counts.
        let policy = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],"rules":[{"level":"Metadata"}]}"#;
        fs::write(&audit.policy, policy)?;
        Ok(audit)
    }
}

impl ApiServer<'_> {
    /// What it is started with.
    #[must_use]
    pub fn component(&self) -> Component {
        let file = |name: &str| self.pki.path(name).display().to_string();
        let certificate = |user: &User| self.pki.certificate(user).display().to_string();
        let key = |user: &User| self.pki.key(user).display().to_string();
        let text = str::to_owned;
        let mut flags = vec![
            ("etcd-servers", format!("http://{}", self.etcd)),
            ("bind-address", self.listen.ip().to_string()),
            ("secure-port", self.listen.port().to_string()),
            ("tls-cert-file", file("apiserver.crt")),
            ("tls-private-key-file", file("apiserver.key")),
            ("client-ca-file", file("ca.crt")),
            ("authorization-mode", text("Node,RBAC")),
            ("service-cluster-ip-range", text(self.service_range)),
            ("service-account-issuer", text("https://kubernetes.default.svc")),
            ("service-account-key-file", file("sa.pub")),
            ("service-account-signing-key-file", file("sa.key")),
            ("requestheader-client-ca-file", file("ca.crt")),
            ("requestheader-allowed-names", text("front-proxy-client")),
            ("requestheader-username-headers", text("X-Remote-User")),
            ("requestheader-group-headers", text("X-Remote-Group")),
            ("requestheader-extra-headers-prefix", text("X-Remote-Extra-")),
            ("proxy-client-cert-file", certificate(&User::FrontProxy)),
            ("proxy-client-key-file", key(&User::FrontProxy)),
            ("allow-privileged", text("true")),
            ("profiling", text("false")),
        ];
        match self.published {
            Published::Nowhere => {
                flags.push(("endpoint-reconciler-type", text("none")));
                // Else the documents of OIDC name whatever address the machine has.
                flags.push(("external-hostname", self.listen.ip().to_string()));
            }
            Published::At(address) => {
                flags.push(("advertise-address", address.to_string()));
                flags.push(("kubelet-client-certificate", certificate(&User::KubeletClient)));
                flags.push(("kubelet-client-key", key(&User::KubeletClient)));
                flags.push(("kubelet-certificate-authority", file("ca.crt")));
                flags.push(("kubelet-preferred-address-types", text("InternalIP")));
            }
        }
        if self.controllers == Controllers::Absent {
            flags.push(("disable-admission-plugins", text("ServiceAccount")));
        }
        if let Some(audit) = &self.audit {
            flags.push(("audit-policy-file", audit.policy.display().to_string()));
            flags.push(("audit-log-path", audit.log.display().to_string()));
        }
        flags.extend(self.more.iter().cloned());
        Component::of("kube-apiserver", &flags)
    }
}

/// What a controller manager and a scheduler are started with: how they reach the API server, and where they answer about themselves.
#[derive(Debug, Clone)]
pub struct Controlling<'a> {
    pub pki: &'a Pki,
    /// The API server's URL.
    pub server: &'a str,
    pub bind: IpAddr,
    pub nodes: Nodes,
}

/// Whether nodes are real. One that is only written would be tainted as lost, and a workload's pods would wait on it for ever, while its
/// controller writes to objects whose every owner a test may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nodes {
    Real,
    Written,
}

impl Controlling<'_> {
    /// The controller manager. It may start only when the API server is ready: else it may lose a race with the first roles, and end.
    ///
    /// # Errors
    /// When its kubeconfig can't be written.
    pub fn controller_manager(&self) -> anyhow::Result<Component> {
        let file = |name: &str| self.pki.path(name).display().to_string();
        let all = "*,-node-ipam-controller,-node-route-controller,-cloud-node-lifecycle-controller";
        let of_nodes = if self.nodes == Nodes::Written { OF_NODES } else { &[] };
        let controllers = of_nodes.iter().fold(all.to_owned(), |so_far, controller| format!("{so_far},-{controller}-controller"));
        let mut flags = self.common(&User::ControllerManager)?;
        flags.extend([
            ("use-service-account-credentials", "true".to_owned()),
            ("service-account-private-key-file", file("sa.key")),
            ("root-ca-file", file("ca.crt")),
            ("cluster-signing-cert-file", file("ca.crt")),
            ("cluster-signing-key-file", file("ca.key")),
            ("controllers", controllers),
        ]);
        Ok(Component::of("kube-controller-manager", &flags))
    }

    /// The scheduler, which starts with the controller manager.
    ///
    /// # Errors
    /// When its kubeconfig can't be written.
    pub fn scheduler(&self) -> anyhow::Result<Component> {
        Ok(Component::of("kube-scheduler", &self.common(&User::Scheduler)?))
    }

    fn common(&self, user: &User) -> anyhow::Result<Vec<(&'static str, String)>> {
        let kubeconfig = self.pki.write_kubeconfig(user, self.server)?.display().to_string();
        Ok(vec![
            ("kubeconfig", kubeconfig.clone()),
            ("authentication-kubeconfig", kubeconfig.clone()),
            ("authorization-kubeconfig", kubeconfig),
            ("leader-elect", "false".to_owned()),
            ("bind-address", self.bind.to_string()),
            ("profiling", "false".to_owned()),
        ])
    }
}

/// Controllers that do nothing good without a node.
const OF_NODES: &[&str] =
    &["node-lifecycle", "deployment", "replicaset", "replicationcontroller", "statefulset", "daemonset", "job", "cronjob"];

#[cfg(test)]
mod tests {
    use super::*;

    fn api_server(published: Published, controllers: Controllers) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::make(folder.path(), "east", &[]).unwrap();
        let server = ApiServer {
            pki: &pki,
            etcd: "127.0.0.1:2379".parse().unwrap(),
            listen: "127.0.0.1:6443".parse().unwrap(),
            published,
            service_range: "10.111.0.0/16",
            controllers,
            audit: None,
            more: vec![("runtime-config", "api/all=true".to_owned())],
        };
        server.component().arguments
    }

    #[test]
    fn an_api_server_on_loopback_publishes_no_endpoint_and_calls_no_kubelet() {
        let flags = api_server(Published::Nowhere, Controllers::Absent);
        for flag in ["--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount", "--runtime-config=api/all=true"] {
            assert!(flags.iter().any(|given| given == flag), "{flag} in {flags:?}");
        }
        assert!(!flags.iter().any(|flag| flag.contains("kubelet")), "{flags:?}");
    }

    #[test]
    fn an_api_server_of_nodes_is_published_and_calls_their_kubelets() {
        let flags = api_server(Published::At("172.30.0.11".parse().unwrap()), Controllers::Run);
        for flag in ["--advertise-address=172.30.0.11", "--kubelet-preferred-address-types=InternalIP"] {
            assert!(flags.iter().any(|given| given == flag), "{flag} in {flags:?}");
        }
        assert!(!flags.iter().any(|flag| flag.starts_with("--endpoint-reconciler") || flag.starts_with("--disable-adm")), "{flags:?}");
    }
}
