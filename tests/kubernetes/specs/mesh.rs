//! Isthmus in a cluster without nodes: its objects in the API, its programs as processes in the clusters' network.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use mesh_api::well_known;
use mesh_kubernetes_tests::{ControlPlane, Process, pki, tools};
use mesh_trust::{Bundle, Root};
use serde_json::{Value, json};

use crate::eventually::eventually;
use crate::world::world;

/// Isthmus in both clusters.
pub(crate) struct Mesh {
    pub(crate) east: Installed,
    pub(crate) west: Installed,
    /// Both contexts in one file.
    pub(crate) kubeconfig: PathBuf,
}

/// Isthmus in one cluster.
pub(crate) struct Installed {
    pub(crate) cluster: &'static ControlPlane,
    directory: PathBuf,
    /// The replicas of the mirror controller; none where one was killed.
    mirrors: Mutex<[Option<Process>; 2]>,
    _others: Vec<Process>,
}

/// The one mesh.
pub(crate) fn mesh() -> &'static Mesh {
    static MESH: LazyLock<Mesh> = LazyLock::new(|| start().expect("Isthmus in two clusters"));
    &MESH
}

fn start() -> anyhow::Result<Mesh> {
    let world = world();
    let now = SystemTime::now() - Duration::from_secs(300);
    let root = Root::generate("root of the specs", now, YEAR)?;
    let east = Installed::start(&world.east, &root, now)?;
    let west = Installed::start(&world.west, &root, now)?;
    let read = |cluster: &ControlPlane| anyhow::Ok(serde_json::from_slice::<Value>(&fs::read(&cluster.kubeconfig)?)?);
    let kubeconfig = east.directory.join("both.kubeconfig");
    fs::write(&kubeconfig, pki::merged(&[read(&world.east)?, read(&world.west)?]).to_string())?;
    Ok(Mesh { east, west, kubeconfig })
}

impl Mesh {
    /// Runs `mesh` with both clusters' kubeconfig.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.east.cluster.place.command(&tools::program("MESH_BIN")?);
        tools::run(command.args(arguments).arg("--kubeconfig").arg(&self.kubeconfig))
    }
}

/// A program of the mesh, and where it listens in its cluster.
#[derive(Clone, Copy)]
enum Program {
    Control,
    Gateway,
    Mirror(u8),
}

impl Program {
    fn address(self, cluster: &ControlPlane) -> IpAddr {
        let IpAddr::V4(api) = cluster.address.ip() else { unreachable!("the specs' clusters have IPv4 addresses") };
        let [a, b, ..] = api.octets();
        let host = match self {
            Self::Control => 11,
            Self::Gateway => 21,
            Self::Mirror(replica) => 31 + replica,
        };
        Ipv4Addr::new(a, b, 0, host).into()
    }

    fn word(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Gateway => "gateway",
            Self::Mirror(_) => "mirror-controller",
        }
    }

    fn account(self) -> &'static str {
        match self {
            Self::Control => well_known::CONTROL_ACCOUNT,
            Self::Gateway => well_known::GATEWAY_ACCOUNT,
            Self::Mirror(_) => well_known::MIRROR_ACCOUNT,
        }
    }
}

impl Installed {
    fn start(cluster: &'static ControlPlane, root: &Root, now: SystemTime) -> anyhow::Result<Self> {
        let directory = cluster.kubeconfig.parent().and_then(Path::parent).context("a cluster has a folder")?.join("mesh");
        fs::create_dir_all(&directory)?;
        definitions(cluster)?;
        let trust_domain = trust_domain(cluster).parse()?;
        let issuer = root.issuer_for(&trust_domain, now, YEAR)?;
        let bundle = Bundle::new(trust_domain, 1, vec![issuer.bundle_authority().clone()])?.to_spiffe_json();
        fs::write(directory.join("bundle.json"), &bundle)?;
        let (chain, key) = issuer.to_pem();
        apply(cluster, &json!({ "apiVersion": "v1", "kind": "List", "items": objects(cluster, &bundle, &chain, &key) }).to_string())?;
        let ingress = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": Program::Gateway.address(cluster) }] } } });
        let patch = ["patch", "service", well_known::GATEWAY_SERVICE, "--subresource=status", "--type=merge", "--patch"];
        cluster.kubectl(&[&in_system(&patch)[..], &[&ingress.to_string()]].concat())?;

        let mut installed = Self { cluster, directory, mirrors: Mutex::default(), _others: Vec::new() };
        for program in [Program::Control, Program::Gateway] {
            installed._others.push(installed.run(program)?);
        }
        for replica in 0..2 {
            installed.start_mirror(replica)?;
        }
        Ok(installed)
    }

    /// Starts a replica of the mirror controller.
    pub(crate) fn start_mirror(&self, replica: u8) -> anyhow::Result<()> {
        let process = self.run(Program::Mirror(replica))?;
        self.mirrors.lock().expect("no test panics while it holds this")[usize::from(replica)] = Some(process);
        Ok(())
    }

    /// Kills a replica of the mirror controller.
    pub(crate) fn kill_mirror(&self, replica: u8) {
        self.mirrors.lock().expect("no test panics while it holds this")[usize::from(replica)] = None;
    }

    /// Which replica's name that is.
    pub(crate) fn replica_called(&self, name: &str) -> anyhow::Result<u8> {
        let named = |replica: &u8| fs::read_to_string(self.state(Program::Mirror(*replica)).join("replica")).is_ok_and(|kept| kept == name);
        (0..2).find(named).with_context(|| format!("no replica is called {name:?}"))
    }

    fn run(&self, program: Program) -> anyhow::Result<Process> {
        let (cluster, address) = (self.cluster, program.address(self.cluster));
        let mut command = cluster.place.command(&tools::program("MESH_BIN")?);
        command.args(["internal", program.word(), "--admin", &format!("{address}:4191")]);
        if !matches!(program, Program::Gateway) {
            command.arg("--kubeconfig").arg(&cluster.kubeconfig);
        }
        match program {
            Program::Control => {
                let imports = [0, 1].map(|replica| format!("{}:{IMPORTS}", Program::Mirror(replica).address(cluster)));
                command.args(["--listen", &format!("{address}:{CONTROL}"), "--imports", &imports.join(",")]);
            }
            Program::Gateway => {
                command.args(["--listen", &format!("{address}:{TUNNEL}"), "--egress-address", &address.to_string(), "--workers", "1"]);
            }
            Program::Mirror(_) => {
                command.args(["--listen", &format!("{address}:{IMPORTS}")]);
            }
        }
        if !matches!(program, Program::Control) {
            let token = self.directory.join(format!("{}.token", program.account()));
            let create = ["create", "token", program.account(), "--audience", well_known::TOKEN_AUDIENCE, "--duration=24h"];
            fs::write(&token, cluster.kubectl(&in_system(&create))?.trim())?;
            command.args(["--control", &format!("{}:{CONTROL}", Program::Control.address(cluster))]);
            command.args(["--trust-domain", &trust_domain(cluster), "--cluster", &cluster.name]).arg("--token").arg(token);
            command.arg("--bundle").arg(self.directory.join("bundle.json")).arg("--state-dir").arg(self.state(program));
        }
        Process::start(&format!("{}-{address}", program.word()), command, &self.directory)
    }

    fn state(&self, program: Program) -> PathBuf {
        self.directory.join(format!("state-{}", program.address(self.cluster)))
    }
}

/// Writes the definitions of the mesh's kinds, and waits until they are served.
pub(crate) fn definitions(cluster: &ControlPlane) -> anyhow::Result<()> {
    let all = mesh_api::crd::all();
    let names = all.iter().filter_map(|definition| definition.metadata.name.clone()).map(|name| format!("crd/{name}"));
    let names: Vec<String> = names.collect();
    apply(cluster, &json!({ "apiVersion": "v1", "kind": "List", "items": all }).to_string())?;
    let wait = ["wait", "--for=condition=Established", "--timeout=30s"];
    cluster.kubectl(&[&wait[..], &names.iter().map(String::as_str).collect::<Vec<_>>()].concat()).map(drop)
}

/// Applies a manifest on the server, which must have nothing to warn of.
pub(crate) fn apply(cluster: &ControlPlane, manifest: &str) -> anyhow::Result<String> {
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    file.write_all(manifest.as_bytes())?;
    let path = file.path().display().to_string();
    cluster.kubectl(&["apply", "--server-side", "--field-manager=specs", "--warnings-as-errors", "--filename", &path])
}

/// Links `from` to `to`, so that it imports from there, and waits until the link is ready.
pub(crate) fn link(from: &Installed, to: &Installed) {
    let mesh = mesh();
    let (context, to) = (from.cluster.name.as_str(), to.cluster.name.as_str());
    eventually("the link is made", || mesh.run(&["multicluster", "link", "--context", context, "--to", to]));
    let wait = ["wait", "--for=condition=Ready", &format!("link/{to}"), "--timeout=1s"];
    eventually("the link is ready", || from.cluster.kubectl(&wait));
}

/// What `mesh install` will have written.
fn objects(cluster: &ControlPlane, bundle: &str, chain: &str, key: &str) -> Vec<Value> {
    let object = |kind: &str, name: &str, mut rest: Value| {
        rest["apiVersion"] = json!("v1");
        rest["kind"] = json!(kind);
        rest["metadata"] = json!({ "name": name, "namespace": well_known::SYSTEM_NAMESPACE });
        rest
    };
    let service = |name: &str, kind: &str, port: &str, number: u16| {
        object("Service", name, json!({ "spec": { "type": kind, "ports": [{ "name": port, "port": number, "targetPort": number }] } }))
    };
    let slice = |service: &str, program: Program, port: &str, number: u16| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("{service}-specs"), "namespace": well_known::SYSTEM_NAMESPACE,
                "labels": { "kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "specs" },
            },
            "endpoints": [{ "addresses": [program.address(cluster)], "conditions": { "ready": true } }],
            "ports": [{ "name": port, "port": number, "protocol": "TCP" }],
        })
    };
    let facts = json!({ "data": { "cluster": cluster.name, "trustDomain": trust_domain(cluster) } });
    let mut objects = vec![json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": well_known::SYSTEM_NAMESPACE } })];
    let accounts = [Program::Control, Program::Gateway, Program::Mirror(0)].map(Program::account);
    objects.extend(accounts.into_iter().chain([well_known::EGRESS_ACCOUNT]).map(|name| object("ServiceAccount", name, json!({}))));
    objects.extend([
        object("ConfigMap", well_known::FACTS, facts),
        object("ConfigMap", well_known::BUNDLE, json!({ "data": { well_known::BUNDLE_KEY: bundle } })),
        object("Secret", well_known::ISSUER, json!({ "type": "kubernetes.io/tls", "stringData": { "tls.crt": chain, "tls.key": key } })),
        service(well_known::GATEWAY_SERVICE, "LoadBalancer", well_known::TUNNEL_PORT, TUNNEL),
        service("mesh-control", "ClusterIP", "grpc", CONTROL),
        slice(well_known::GATEWAY_SERVICE, Program::Gateway, well_known::TUNNEL_PORT, TUNNEL),
        slice("mesh-control", Program::Control, "grpc", CONTROL),
    ]);
    objects
}

fn in_system<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["--namespace", well_known::SYSTEM_NAMESPACE], arguments].concat()
}

fn trust_domain(cluster: &ControlPlane) -> String {
    format!("{}.mesh", cluster.name)
}

const CONTROL: u16 = 4150;
const TUNNEL: u16 = 4143;
const IMPORTS: u16 = 4151;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
