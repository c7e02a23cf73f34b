//! How a process of the mesh gets its SVID: a new key, a CSR and its projected token, to its cluster's control, which it knows by bundle and id.
//!
//! The key and the SVID lie in the state folder (0600, memory-backed in a cluster), so a process that restarts while the control plane
//! is gone goes on as who it was, unless its own bundle trusts that SVID no longer. Renewal follows [`mesh_trust::Rotation`]; an SVID that could not be renewed stays in use until it ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mesh_names::{ClusterName, ParseError, SpiffeId, TrustDomain};
use mesh_runtime::clock;
use mesh_runtime::drain::Drain;
use mesh_trust::{
    Bundle, BundleError, Bundles, CertificateDer, Expected, Jitter, KeyPair, Purpose, Refusals, Rotation, SharedBundles, Step, Svid,
    SvidError, Timing, UnixTime, Verifier,
};

use super::causes::Causes;
use super::{files, retry::Retry};
use crate::connect::{CONTROL_ALPN, ConnectError, Connector, ControlAddress};
use crate::proto;
use crate::proto::identity_client::IdentityClient;
use crate::well_known::{CONTROL_ACCOUNT, SYSTEM_NAMESPACE};

/// What every process of the mesh but control is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct BootstrapFlags {
    /// Addresses of this cluster's control (gRPC), host:port, separated by commas.
    #[arg(long, env = "MESH_CONTROL", value_delimiter = ',', required = true)]
    pub control: Vec<ControlAddress>,
    /// This cluster's trust domain.
    #[arg(long, env = "MESH_TRUST_DOMAIN")]
    pub trust_domain: TrustDomain,
    /// This cluster's name.
    #[arg(long, env = "MESH_CLUSTER")]
    pub cluster: ClusterName,
    /// This trust domain's bundle, in SPIFFE format.
    #[arg(long, env = "MESH_BUNDLE", default_value = "/var/run/isthmus/bundle/bundle.json")]
    pub bundle: PathBuf,
    /// The projected service-account token; read again at each use.
    #[arg(long, env = "MESH_TOKEN", default_value = "/var/run/isthmus/token/token")]
    pub token: PathBuf,
    /// Where this process keeps its copy of what it needs to restart without a control plane: key, SVID, snapshot.
    #[arg(long, env = "MESH_STATE_DIR", default_value = "/var/run/isthmus/state")]
    pub state_dir: PathBuf,
    /// Where `/ready`, `/live` and `/metrics` are served.
    #[arg(long, env = "MESH_ADMIN", default_value = "0.0.0.0:4191")]
    pub admin: SocketAddr,
}

impl BootstrapFlags {
    /// The id of this cluster's control, the only one that its clients talk to.
    ///
    /// # Errors
    /// Never, for a trust domain that was parsed.
    pub fn control_id(&self) -> Result<SpiffeId, ParseError> {
        SpiffeId::workload(&self.trust_domain, &SYSTEM_NAMESPACE.parse()?, CONTROL_ACCOUNT)
    }
}

/// Who a process is now, and whom it trusts now. Both change while it runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Its SVID.
    pub svid: Arc<ArcSwap<Svid>>,
    /// The bundles of its own and every linked trust domain.
    pub bundles: SharedBundles,
    /// The verifier that reads `bundles`.
    pub verifier: Verifier,
    control: SpiffeId,
}

impl Credentials {
    /// A connector to this cluster's control, as who the process is at each connection.
    #[must_use]
    pub fn control_connector(&self) -> Connector {
        let own = self.clone();
        Connector::tls(move || {
            mesh_trust::client_config(Some(&own.svid.load()), &own.verifier, Expected::only(own.control.clone()), &[CONTROL_ALPN])
        })
    }
}

/// Which identity is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// That of the token's service account.
    Own,
    /// `…/sa/mesh-egress`: a gateway's second one, for its way out.
    Egress,
}

/// Obtains and renews one SVID.
#[derive(Debug)]
pub struct Bootstrap {
    flags: BootstrapFlags,
    asked: Asked,
    connector: Connector,
    bundles: SharedBundles,
    verifier: Verifier,
    control: SpiffeId,
}

/// Why no SVID was obtained.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The own bundle can't be read.
    #[error("could not read the bundle {path}: the ConfigMap isthmus-system/isthmus-bundle is mounted there")]
    BundleFile {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The own bundle, or the one that control sent, is none.
    #[error("the own trust domain's bundle can't be used")]
    Bundle(#[from] BundleError),
    /// The token can't be read.
    #[error("could not read the token {path}: a projected service-account token with audience isthmus is mounted there")]
    Token {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Control's own id can't be formed.
    #[error("the trust domain can't name a control")]
    ControlId(#[from] ParseError),
    /// There is nowhere to ask.
    #[error("no control address was given: pass --control")]
    NoControl,
    /// Control was not reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Control refused.
    #[error("control did not issue an SVID: {}", .0.message())]
    Refused(#[source] Box<tonic::Status>),
    /// The answer is no SVID.
    #[error("what control issued is no SVID for this process")]
    Svid(#[from] SvidError),
    /// The copy can't be written.
    #[error("could not keep the SVID in {path}")]
    Keep {
        /// Where it was to be.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

impl Bootstrap {
    /// For the process's own identity; its bundles begin as the bundle file.
    ///
    /// # Errors
    /// When the bundle file can't be used.
    pub fn own(flags: BootstrapFlags, refusals: Refusals) -> Result<Self, BootstrapError> {
        let json = std::fs::read(&flags.bundle).map_err(|source| BootstrapError::BundleFile { path: flags.bundle.clone(), source })?;
        let bundles = Bundles::of(Bundle::from_spiffe_json(flags.trust_domain.clone(), &json)?).shared();
        let verifier = Verifier::new(Arc::clone(&bundles), refusals);
        Self::of(flags, Asked::Own, bundles, verifier)
    }

    /// For a gateway's second identity, trusting whom the first trusts.
    ///
    /// # Errors
    /// When the trust domain can't name a control.
    pub fn egress(flags: BootstrapFlags, own: &Credentials) -> Result<Self, BootstrapError> {
        Self::of(flags, Asked::Egress, Arc::clone(&own.bundles), own.verifier.clone())
    }

    fn of(flags: BootstrapFlags, asked: Asked, bundles: SharedBundles, verifier: Verifier) -> Result<Self, BootstrapError> {
        let control = flags.control_id()?;
        let (checks, expected) = (verifier.clone(), control.clone());
        let connector = Connector::tls(move || mesh_trust::client_config(None, &checks, Expected::only(expected.clone()), &[CONTROL_ALPN]));
        Ok(Self { flags, asked, connector, bundles, verifier, control })
    }

    /// The SVID of the copy on disk if it is still good, else a new one; asks until it gets one. The second value renews it from then on.
    ///
    /// # Errors
    /// When the process may never get one: no control address.
    pub async fn obtain(self) -> Result<(Credentials, Renewal), BootstrapError> {
        if self.flags.control.is_empty() {
            return Err(BootstrapError::NoControl);
        }
        let mut rotation = Rotation::new(Timing::default());
        let mut retry = Retry::new(self.flags.control.clone(), clock::draw());
        let svid = match self.kept() {
            Some(svid) => svid,
            None => loop {
                match self.request(&retry).await {
                    Ok(svid) => break svid,
                    Err(error) => {
                        let pause = retry.on_failure(clock::draw());
                        tracing::warn!(error = %Causes(&error), ?pause, "no svid yet");
                        tokio::time::sleep(pause).await;
                    }
                }
            },
        };
        retry.on_success();
        rotation.on_issued(&svid, Jitter(clock::draw()));
        tracing::info!(id = %svid.id(), "svid held");
        let credentials = Credentials {
            svid: Arc::new(ArcSwap::from_pointee(svid)),
            bundles: Arc::clone(&self.bundles),
            verifier: self.verifier.clone(),
            control: self.control.clone(),
        };
        let renewal = Renewal { svid: Arc::clone(&credentials.svid), rotation, retry, bootstrap: self };
        Ok((credentials, renewal))
    }

    fn kept(&self) -> Option<Svid> {
        let path = self.file();
        let pem = files::read(&path).inspect_err(|error| tracing::warn!(%error, path = %path.display(), "kept svid not read")).ok()??;
        let svid = Svid::from_pem(std::str::from_utf8(&pem).ok()?)
            .inspect_err(|error| tracing::warn!(%error, path = %path.display(), "kept svid not used"))
            .ok()?;
        let lives = svid.id().trust_domain() == &self.flags.trust_domain && clock::wall() + LIFE_MIN < svid.not_after();
        if !lives {
            return None;
        }
        // Nobody is refused here who would be let in elsewhere: the checker counts for itself.
        let trusted = Verifier::new(Arc::clone(&self.bundles), Refusals::default()).verify(svid.chain(), UnixTime::now(), Purpose::Client);
        match trusted {
            Ok(_) => Some(svid),
            Err(refused) => {
                tracing::warn!(reason = refused.reason(), path = %path.display(), "kept svid is trusted no longer: a new one is asked for");
                None
            }
        }
    }

    fn file(&self) -> PathBuf {
        self.flags.state_dir.join(match self.asked {
            Asked::Own => "svid.pem",
            Asked::Egress => "egress.pem",
        })
    }

    async fn request(&self, retry: &Retry) -> Result<Svid, BootstrapError> {
        let address = retry.address().ok_or(BootstrapError::NoControl)?;
        let path = &self.flags.token;
        let token = std::fs::read_to_string(path).map_err(|source| BootstrapError::Token { path: path.clone(), source })?;
        let key = KeyPair::generate()?;
        let request =
            proto::IssueRequest { token: token.trim().to_owned(), csr_der: key.csr_der()?, for_egress: self.asked == Asked::Egress };
        let mut client = IdentityClient::new(self.connector.channel(address).await?);
        let mut request = tonic::Request::new(request);
        request.set_timeout(ISSUE_TIMEOUT);
        let reply = client.issue(request).await.map_err(|status| BootstrapError::Refused(Box::new(status)))?.into_inner();
        let svid = Svid::new(key, reply.chain.into_iter().map(CertificateDer::from).collect())?;
        if !reply.bundle.is_empty() {
            let bundle = Bundle::from_spiffe_json(self.flags.trust_domain.clone(), &reply.bundle)?;
            self.bundles.rcu(|held| Bundles::clone(held).with(bundle.clone()));
        }
        let file = self.file();
        files::replace(&file, svid.to_pem().as_bytes()).map_err(|source| BootstrapError::Keep { path: file, source })?;
        Ok(svid)
    }
}

/// Keeps one SVID fresh.
#[derive(Debug)]
pub struct Renewal {
    svid: Arc<ArcSwap<Svid>>,
    rotation: Rotation,
    retry: Retry,
    bootstrap: Bootstrap,
}

impl Renewal {
    /// Renews until the drain starts.
    pub async fn run(mut self, drain: Drain) {
        loop {
            let wait = match self.rotation.step(clock::wall()) {
                Step::Request => None,
                Step::WaitUntil(then) => Some(until(then)),
            };
            match wait {
                Some(wait) => tokio::select! {
                    _ = drain.started() => return,
                    () = tokio::time::sleep(wait.min(LOOK_EVERY)) => {}
                },
                None => tokio::select! {
                    _ = drain.started() => return,
                    () = self.renew() => {}
                },
            }
        }
    }

    async fn renew(&mut self) {
        match self.bootstrap.request(&self.retry).await {
            Ok(svid) => {
                self.rotation.on_issued(&svid, Jitter(clock::draw()));
                self.retry.on_success();
                tracing::info!(id = %svid.id(), "svid renewed");
                self.svid.store(Arc::new(svid));
            }
            Err(error) => {
                let _ = self.retry.on_failure(clock::draw());
                self.rotation.on_refused(clock::wall(), Jitter(clock::draw()));
                tracing::warn!(error = %Causes(&error), "svid not renewed");
            }
        }
    }
}

fn until(then: SystemTime) -> Duration {
    then.duration_since(clock::wall()).unwrap_or_default()
}

/// A kept SVID that ends sooner than this is not begun with.
const LIFE_MIN: Duration = Duration::from_secs(60);
const ISSUE_TIMEOUT: Duration = Duration::from_secs(10);
/// The wall clock may jump: it is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(60);
