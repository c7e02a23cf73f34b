//! What the clusters are: names, addresses and files, decided once by whoever starts them and read by every process below. Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::tools;

/// Two clusters and the network between them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where everything of them lies while they run. It is removed with them.
    pub directory: PathBuf,
    /// What their control groups are named after: the id of the process that sees to them.
    pub id: String,
    pub topology: Topology,
    pub clusters: Vec<Cluster>,
    /// Archives that every cluster gets before it counts as ready.
    pub images: Vec<PathBuf>,
    pub tools: Tools,
}

/// How far pod addresses reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Topology {
    /// To their own cluster only; another one is reached at its node's address.
    GatewayOnly,
    /// Everywhere: pod ranges are routed to each other.
    Flat,
}

/// One cluster of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub name: String,
    /// From 1: addresses are made of it.
    pub number: u8,
}

/// The programs that the processes use, by full path.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tools {
    pub kc: PathBuf,
    pub kubectl: PathBuf,
    pub node_root: PathBuf,
    pub ip: PathBuf,
    pub nft: PathBuf,
    pub nsenter: PathBuf,
    pub unshare: PathBuf,
}

impl Tools {
    /// What `cargo xtask tools` brought.
    ///
    /// # Errors
    /// When one is missing.
    pub fn find() -> anyhow::Result<Self> {
        Ok(Self {
            kc: tools::program("MESH_TOOLS_KC")?,
            kubectl: tools::program("MESH_TOOLS_KUBECTL")?,
            node_root: tools::program("MESH_TOOLS_NODE_ROOT")?,
            ip: tools::program("MESH_TOOLS_IP")?,
            nft: tools::program("MESH_TOOLS_NFT")?,
            nsenter: tools::program("MESH_TOOLS_NSENTER")?,
            unshare: tools::program("MESH_TOOLS_UNSHARE")?,
        })
    }
}

impl Plan {
    /// The cluster of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn cluster(&self, name: &str) -> anyhow::Result<&Cluster> {
        self.clusters.iter().find(|cluster| cluster.name == name).with_context(|| format!("there is no cluster {name}"))
    }

    /// The file that holds this plan.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.join("plan.json")
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When there is no such file, or it is not a plan.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no plan of clusters", file.display()))
    }

    /// A cluster's folder in the machine's files.
    #[must_use]
    pub fn folder(&self, cluster: &Cluster) -> PathBuf {
        self.directory.join(&cluster.name)
    }

    /// The root that a cluster's processes see, from the machine.
    #[must_use]
    pub fn root(&self, cluster: &Cluster) -> PathBuf {
        self.folder(cluster).join("root")
    }

    /// A cluster's control group, below each controller's.
    #[must_use]
    pub fn cgroup(&self, cluster: &Cluster) -> String {
        format!("{}{}-{}", Self::CGROUPS, self.id, cluster.name)
    }

    /// How the names of all such control groups start.
    pub const CGROUPS: &str = "isthmus-clusters-";
}

impl Cluster {
    /// The node's name in Kubernetes.
    #[must_use]
    pub fn node(&self) -> String {
        format!("{}-1", self.name)
    }

    /// The node's address on the network between the clusters.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        Ipv4Addr::new(172, 30, 0, 10 + self.number).into()
    }

    /// Where pods get their addresses from.
    #[must_use]
    pub fn pods(&self) -> String {
        format!("10.{}.0.0/24", 10 + self.number)
    }

    /// Where services get their addresses from.
    #[must_use]
    pub fn services(&self) -> String {
        format!("10.{}.0.0/16", 110 + self.number)
    }

    /// The API server's own service address.
    #[must_use]
    pub fn api_service(&self) -> IpAddr {
        Ipv4Addr::new(10, 110 + self.number, 0, 1).into()
    }

    /// Where pods expect the cluster's DNS.
    #[must_use]
    pub fn dns_service(&self) -> IpAddr {
        Ipv4Addr::new(10, 110 + self.number, 0, 10).into()
    }
}

/// Where each API server listens in its own network namespace.
pub const API_PORT: u16 = 6443;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// East and west, with tools that nobody starts.
    pub(crate) fn plan(topology: Topology) -> Plan {
        let cluster = |(name, number): (&str, u8)| Cluster { name: name.to_owned(), number };
        let none = PathBuf::new;
        let tools = Tools { kc: none(), kubectl: none(), node_root: none(), ip: none(), nft: none(), nsenter: none(), unshare: none() };
        let clusters = [("east", 1), ("west", 2)].map(cluster).to_vec();
        Plan { directory: "/clusters".into(), id: "7".to_owned(), topology, clusters, images: Vec::new(), tools }
    }

    #[test]
    fn no_two_clusters_share_an_address_range_or_a_control_group() {
        let plan = plan(Topology::Flat);
        let (east, west) = (plan.cluster("east").unwrap(), plan.cluster("west").unwrap());
        assert_eq!((east.pods().as_str(), west.pods().as_str()), ("10.11.0.0/24", "10.12.0.0/24"));
        assert_eq!((east.services().as_str(), west.services().as_str()), ("10.111.0.0/16", "10.112.0.0/16"));
        assert_eq!(east.api_service().to_string(), "10.111.0.1");
        assert_eq!((plan.cgroup(east).as_str(), plan.cgroup(west).as_str()), ("isthmus-clusters-7-east", "isthmus-clusters-7-west"));
        assert!(plan.cluster("north").is_err());
    }
}
