//! Where everything of a demo cluster is: its addresses, its files, and the flags of each of its processes. Pure.
//!
//! Each cluster owns one block 127.K.0.0/16: 127.K.0.x for the control plane, 127.K.64.0/18 for pods, 127.K.128.0/17 for Services. Port
//! numbers are the same everywhere, so that what is learnt in one cluster holds in all.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use mesh_names::{ClusterName, ParseError, TrustDomain};

/// One cluster of the demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) name: ClusterName,
    pub(super) trust_domain: TrustDomain,
    /// The K of 127.K.0.0/16.
    pub(super) block: u8,
    /// Everything that it writes.
    pub(super) directory: PathBuf,
}

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// The Kubernetes API.
    Apiserver,
    /// The control plane.
    Control,
    /// The mirror controller.
    MirrorController,
    /// A gateway.
    Gateway,
    /// The DNS server.
    Dns,
    /// The node.
    Node,
}

impl Component {
    /// Its name in `state.json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apiserver => "apiserver",
            Self::Control => "control",
            Self::MirrorController => "mirror-controller",
            Self::Gateway => "gateway",
            Self::Dns => "dns",
            Self::Node => "node",
        }
    }

    /// The service account that it is, for those that are one.
    pub(super) fn account(self) -> Option<&'static str> {
        match self {
            Self::Apiserver => None,
            Self::Control => Some(mesh_api::well_known::CONTROL_ACCOUNT),
            Self::MirrorController => Some(mesh_api::well_known::MIRROR_ACCOUNT),
            Self::Gateway => Some(mesh_api::well_known::GATEWAY_ACCOUNT),
            Self::Dns => Some(mesh_api::well_known::DNS_ACCOUNT),
            Self::Node => Some("demo-node"),
        }
    }

    /// How many of it a cluster has.
    pub(super) fn replicas(self) -> u8 {
        match self {
            Self::Control | Self::Gateway => 2,
            Self::Apiserver | Self::MirrorController | Self::Dns | Self::Node => 1,
        }
    }

    /// The last number of the address of its first replica.
    fn host(self) -> u8 {
        match self {
            Self::Apiserver => 1,
            Self::Node => 2,
            Self::Control => 11,
            Self::MirrorController => 21,
            Self::Gateway => 31,
            Self::Dns => 53,
        }
    }
}

/// Those that start once the API is there.
pub(super) const AFTER_API: [Component; 5] =
    [Component::Control, Component::MirrorController, Component::Gateway, Component::Dns, Component::Node];

impl Cluster {
    /// The cluster called `name` in `block`.
    pub(super) fn new(name: &str, block: u8, directory: PathBuf) -> Result<Self, ParseError> {
        let name: ClusterName = name.parse()?;
        Ok(Self { trust_domain: TrustDomain::default_for(&name), name, block, directory })
    }

    /// The address of a replica, from 0.
    pub(super) fn address(&self, component: Component, replica: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.block, 0, component.host() + replica)
    }

    /// The addresses of its pods.
    pub(super) fn pods(&self) -> String {
        format!("127.{}.64.0/18", self.block)
    }

    /// The addresses of its Services.
    pub(super) fn services(&self) -> String {
        format!("127.{}.128.0/17", self.block)
    }

    /// Where its API listens.
    pub(super) fn api(&self) -> SocketAddr {
        self.socket(Component::Apiserver, 0, 6443)
    }

    /// Where its DNS server answers.
    pub(super) fn dns(&self) -> SocketAddr {
        self.socket(Component::Dns, 0, DNS_PORT)
    }

    /// Where tunnels to it begin.
    pub(super) fn gateways(&self) -> Vec<SocketAddr> {
        self.sockets(Component::Gateway, TUNNEL_PORT)
    }

    /// Where its controls listen.
    pub(super) fn controls(&self) -> Vec<SocketAddr> {
        self.sockets(Component::Control, CONTROL_PORT)
    }

    fn socket(&self, component: Component, replica: u8, port: u16) -> SocketAddr {
        SocketAddr::from((self.address(component, replica), port))
    }

    fn sockets(&self, component: Component, port: u16) -> Vec<SocketAddr> {
        (0..component.replicas()).map(|replica| self.socket(component, replica, port)).collect()
    }

    /// The admin's kubeconfig, as the API server writes it.
    pub(super) fn admin_kubeconfig(&self) -> PathBuf {
        self.directory.join("apiserver/admin.kubeconfig")
    }

    /// The kubeconfig of a component.
    pub(super) fn kubeconfig(&self, component: Component) -> PathBuf {
        self.directory.join(format!("{}.kubeconfig", component.as_str()))
    }

    /// The token with which a component calls the API.
    pub(super) fn api_token(&self, component: Component) -> PathBuf {
        self.directory.join(format!("{}.api-token", component.as_str()))
    }

    /// The token with which a component proves itself to control.
    pub(super) fn mesh_token(&self, component: Component) -> PathBuf {
        self.directory.join(format!("{}.token", component.as_str()))
    }

    /// The cluster's own bundle.
    pub(super) fn bundle(&self) -> PathBuf {
        self.directory.join("bundle.json")
    }

    /// Where the node writes.
    pub(super) fn node_directory(&self) -> PathBuf {
        self.directory.join("node")
    }

    /// Where a replica logs.
    pub(super) fn log(&self, component: Component, replica: u8) -> PathBuf {
        self.directory.join(format!("logs/{}-{replica}.log", component.as_str()))
    }

    /// The flags of a replica.
    pub(super) fn flags(&self, component: Component, replica: u8, mesh_binary: &str) -> Vec<String> {
        let mut flags = Flags::default();
        let admin = self.socket(component, replica, ADMIN_PORT);
        match component {
            Component::Apiserver => {
                flags.add("data-dir", self.directory.join("apiserver").display());
                flags.add("listen", self.api());
                flags.add("service-cluster-ip-range", self.services());
                flags.add("cluster-name", &self.name);
                flags.0.push("--allow-loopback-endpoints".to_owned());
            }
            Component::Control => {
                flags.add("kubeconfig", self.kubeconfig(component).display());
                flags.add("listen", self.socket(component, replica, CONTROL_PORT));
                flags.add("admin", admin);
                flags.add("imports", self.imports());
            }
            Component::MirrorController => {
                self.bootstrap(component, replica, &mut flags);
                flags.add("kubeconfig", self.kubeconfig(component).display());
                flags.add("listen", self.imports());
            }
            Component::Gateway => {
                self.bootstrap(component, replica, &mut flags);
                flags.add("listen", self.socket(component, replica, TUNNEL_PORT));
                flags.add("egress-address", self.address(component, replica));
                flags.add("workers", 1);
                flags.add("drain", "3s");
            }
            Component::Dns => {
                self.bootstrap(component, replica, &mut flags);
                flags.add("listen", self.dns());
            }
            Component::Node => {
                flags.add("kubeconfig", self.kubeconfig(component).display());
                flags.add("node", format!("{}-1", self.name));
                flags.add("address", self.address(component, replica));
                flags.add("pod-cidr", self.pods());
                flags.add("state-dir", self.node_directory().display());
                flags.add("mesh-binary", mesh_binary);
                flags.add("cluster", &self.name);
                flags.add("trust-domain", &self.trust_domain);
                flags.add("control", joined(&self.controls()));
                flags.add("bundle", self.bundle().display());
            }
        }
        flags.0
    }

    /// Where the mirror controller serves Imports.
    fn imports(&self) -> SocketAddr {
        self.socket(Component::MirrorController, 0, IMPORTS_PORT)
    }

    /// What every program that asks control is started with.
    fn bootstrap(&self, component: Component, replica: u8, flags: &mut Flags) {
        flags.add("control", joined(&self.controls()));
        flags.add("trust-domain", &self.trust_domain);
        flags.add("cluster", &self.name);
        flags.add("bundle", self.bundle().display());
        flags.add("token", self.mesh_token(component).display());
        flags.add("state-dir", self.directory.join(format!("state/{}-{replica}", component.as_str())).display());
        flags.add("admin", self.socket(component, replica, ADMIN_PORT));
    }
}

#[derive(Default)]
struct Flags(Vec<String>);

impl Flags {
    fn add(&mut self, name: &str, value: impl ToString) {
        self.0.extend([format!("--{name}"), value.to_string()]);
    }
}

fn joined(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The names of the first `count` clusters.
pub(super) fn names(count: u8) -> Vec<String> {
    let named = ["east", "west", "north"].into_iter().map(ToOwned::to_owned);
    named.chain((4..=u8::MAX).map(|number| format!("c{number}"))).take(usize::from(count)).collect()
}

pub(super) const TUNNEL_PORT: u16 = 4143;
pub(super) const CONTROL_PORT: u16 = 4150;
pub(super) const DNS_PORT: u16 = 4153;
pub(super) const ADMIN_PORT: u16 = 4191;
const IMPORTS_PORT: u16 = 4151;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_named_as_the_guide_names_them() {
        assert_eq!(names(5), ["east", "west", "north", "c4", "c5"]);
    }

    #[test]
    fn every_replica_has_an_address_of_its_own_in_its_clusters_block() {
        let east = Cluster::new("east", 10, "/demo/east".into()).unwrap();
        let all = AFTER_API.into_iter().chain([Component::Apiserver]);
        let mut addresses: Vec<Ipv4Addr> = all
            .flat_map(|component| (0..component.replicas()).map(move |replica| (component, replica)))
            .map(|(component, replica)| east.address(component, replica))
            .collect();
        let count = addresses.len();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), count);
        assert!(addresses.iter().all(|address| address.octets()[..3] == [127, 10, 0]));
        assert_eq!(east.flags(Component::Dns, 0, "mesh").join(" ").matches("127.10.0.53:4153").count(), 1);
    }
}
