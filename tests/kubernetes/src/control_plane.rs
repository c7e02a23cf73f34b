//! A cluster without nodes: etcd and the API server (level 1), and with the controller manager and the scheduler (level 2).
//!
//! On loopback each has an address of its own in 127.0.0.0/8, made from this process's id and its number, so that no two tests that run at
//! once can want the same port; in a [`PrivateNetwork`] it has the one that it is given.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Context as _;
use serde_json::Value;

use crate::components::{self, ApiServer, Audit, Component, Controllers, Controlling, Nodes, Published};
use crate::pki::{Pki, User};
use crate::private::PrivateNetwork;
use crate::process::Process;
use crate::tools;

/// How much of a cluster there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// etcd and the API server: nothing makes service accounts, ends namespaces or follows owner references.
    ApiServer,
    /// With the controller manager and the scheduler.
    Controllers,
}

/// Where a cluster runs, and whatever talks to it.
#[derive(Debug, Clone)]
pub enum Place {
    /// This machine's loopback.
    Loopback,
    /// That network, at that address.
    Private(Arc<PrivateNetwork>, IpAddr),
}

impl Place {
    /// How to start `program` there.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        match self {
            Self::Loopback => Command::new(program),
            Self::Private(network, _) => network.command(program),
        }
    }
}

/// What a control plane is made of.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// The cluster's name, and its context's.
    pub name: &'a str,
    pub level: Level,
    pub place: Place,
    /// Where everything of it lies; a tmpfs is best.
    pub directory: &'a Path,
    /// The range of service addresses.
    pub service_range: &'a str,
}

/// A running control plane; it ends when dropped, and with this process however that ends.
#[derive(Debug)]
pub struct ControlPlane {
    /// The cluster's name.
    pub name: String,
    /// The API server's address.
    pub address: SocketAddr,
    /// Whoever may do everything, in a file of its own.
    pub kubeconfig: PathBuf,
    /// Its certificates.
    pub pki: Pki,
    /// Who asked for what.
    pub audit: Audit,
    /// Where it runs.
    pub place: Place,
    _processes: Vec<Process>,
}

impl ControlPlane {
    /// Starts it, and waits until it is ready.
    ///
    /// # Errors
    /// When a program is missing, or does not become ready in time.
    pub fn start(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let (kc, place) = (tools::program("MESH_TOOLS_KC")?, plan.place.clone());
        let (ip, published) = match place {
            Place::Loopback => (own_address()?, Published::Nowhere),
            Place::Private(_, address) => (address, Published::At(address)),
        };
        let (etcd, address) = (SocketAddr::new(ip, ETCD), SocketAddr::new(ip, SECURE));
        let pki = Pki::make(&plan.directory.join("pki"), plan.name, &[ip, first_service(plan.service_range)?])?;
        let server = format!("https://{address}");
        let kubeconfig = pki.write_kubeconfig(&User::Admin, &server)?;
        let audit = Audit::in_directory(plan.directory)?;
        let controllers = if plan.level == Level::Controllers { Controllers::Run } else { Controllers::Absent };

        let api_server = ApiServer {
            pki: &pki,
            etcd,
            listen: address,
            published,
            service_range: plan.service_range,
            controllers,
            audit: Some(audit.clone()),
            more: Vec::new(),
        };
        let start = |component: &Component| {
            let mut command = place.command(&kc);
            component.complete(&mut command);
            Process::start(component.name, command, plan.directory)
        };
        let ask = |arguments: &[&str]| kubectl(&place, &kubeconfig, arguments).map(drop);
        let store = start(&components::etcd(&plan.directory.join("etcd"), etcd))?;
        let mut serving = start(&api_server.component())?;
        serving.until("it is ready", || ask(&["get", "--raw=/readyz"]))?;

        let mut processes = vec![serving, store];
        if plan.level == Level::Controllers {
            let controlling = Controlling { pki: &pki, server: &server, bind: ip, nodes: Nodes::Written };
            let mut controlled = start(&controlling.controller_manager()?)?;
            processes.push(start(&controlling.scheduler()?)?);
            // The last thing that anybody waits for here: pods and tokens need it.
            controlled.until("the default service account is there", || {
                ask(&["get", "--namespace=default", "serviceaccount/default", "configmap/kube-root-ca.crt"])
            })?;
            processes.push(controlled);
        }
        Ok(Self { name: plan.name.to_owned(), address, kubeconfig, pki, audit, place, _processes: processes })
    }

    /// What `kubectl` prints when it succeeds.
    ///
    /// # Errors
    /// When it fails; both outputs are in the error.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        kubectl(&self.place, &self.kubeconfig, arguments)
    }

    /// An object, or whatever else `kubectl … -o json` prints.
    ///
    /// # Errors
    /// When kubectl fails or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let printed = self.kubectl(&[arguments, &["--output=json"]].concat())?;
        serde_json::from_str(&printed).with_context(|| format!("kubectl {arguments:?} printed no JSON"))
    }
}

fn kubectl(place: &Place, kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = place.command(&tools::program("MESH_TOOLS_KUBECTL")?);
    // What kubectl remembers of a server (its kinds) must not outlive it: another one may have the same address.
    let home = kubeconfig.parent().context("a kubeconfig lies in a folder")?;
    tools::run(command.env("HOME", home).arg("--kubeconfig").arg(kubeconfig).args(arguments))
}

/// 127.64.0.0 to 127.127.255.255 by process id, whose greatest is below 2^22, and 127.128.0.0 on for the second control plane of a
/// process, 127.192.0.0 on for the third.
fn own_address() -> anyhow::Result<IpAddr> {
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let block = number.checked_add(1).filter(|block| *block < 4).context("a process starts three control planes at most")?;
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ok(Ipv4Addr::new(127, block * 64 + high % 64, middle, low).into())
}

/// The first address of a range, which is the API server's own Service.
fn first_service(range: &str) -> anyhow::Result<IpAddr> {
    let base = range.split_once('/').map(|(base, _)| base).with_context(|| format!("{range} is no range of addresses"))?;
    let base: Ipv4Addr = base.parse().with_context(|| format!("{range} is no range of IPv4 addresses"))?;
    Ok(Ipv4Addr::from_bits(base.to_bits() + 1).into())
}

static STARTED: AtomicU8 = AtomicU8::new(0);

const ETCD: u16 = 2379;
const SECURE: u16 = 6443;
