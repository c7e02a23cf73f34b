//! The server: bind opens every file and socket, run answers until it is told to stop.

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, write_private},
    failure::Failure,
    http::{
        Api,
        auth::{StaticTokens, User},
        openapi::Documents,
    },
    journal::JournalError,
    lifecycle,
    store::{Mode, Store},
    tls,
    tokens::Signer,
    write::Rules,
};

/// A bound server.
#[derive(Debug)]
pub struct Server {
    api: Arc<Api>,
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<ServerConfig>,
    kubeconfig: Value,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file.
    #[error("could not prepare {path}: is the data directory writable?")]
    File {
        /// What was being prepared.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address.
    #[error("could not listen on {address}: choose another --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The objects that always exist could not be written.
    #[error("could not write the first objects")]
    Objects(#[from] Failure),
}

impl Server {
    /// Opens the journal, the keys and the socket, and writes `admin.kubeconfig`.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let directory = &config.data_dir;
        let file = |path: PathBuf| move |source| StartError::File { path, source };
        let store = Arc::new(Store::open(directory)?);
        let refused = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let (authority, tls) = tls::open(directory, address.ip()).map_err(file(directory.join("ca.crt")))?;
        let signer = Signer::open(directory).map_err(file(directory.join("service-account.key")))?;
        let mut tokens = match &config.token_auth_file {
            Some(path) => StaticTokens::read(path).map_err(file(path.clone()))?,
            None => StaticTokens::default(),
        };
        let user = format!("{}-admin", config.cluster_name);
        let token_path = directory.join("admin.token");
        if !token_path.exists() {
            let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
            write_private(&token_path, token.as_bytes()).map_err(file(token_path.clone()))?;
        }
        let token = std::fs::read_to_string(&token_path).map_err(file(token_path))?;
        tokens.add(&token, User::named(&user, "", ["system:masters".to_owned()]));
        let kubeconfig = kubeconfig(&config.cluster_name, &address, &authority, &token);
        let path = directory.join("admin.kubeconfig");
        write_private(&path, format!("{kubeconfig:#}\n").as_bytes()).map_err(file(path))?;
        let rules = Rules { service_range: config.service_range, loopback_endpoints: config.loopback_endpoints, authority };
        store.write(Mode::Commit, |tx| lifecycle::start(tx, &rules))?;
        let api = Arc::new(Api { store, rules, signer, tokens, address: address.to_string(), documents: Documents::default() });
        Ok(Self { api, listener, address, tls, kubeconfig })
    }

    /// Where it serves.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The admin's kubeconfig, its context named after the cluster.
    pub fn kubeconfig(&self) -> Value {
        self.kubeconfig.clone()
    }

    /// Answers until `shutdown`; requests in flight get a moment to end, and watches are ended.
    pub async fn run(self, shutdown: CancellationToken) {
        let acceptor = tokio_rustls::TlsAcceptor::from(self.tls);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(serve(stream, acceptor.clone(), Arc::clone(&self.api), shutdown.clone()))),
                    Err(error) => {
                        tracing::warn!(%error, "could not accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        self.api.store.end_watches();
        let ended = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            connections.shutdown().await;
        }
    }
}

async fn serve(stream: TcpStream, acceptor: tokio_rustls::TlsAcceptor, api: Arc<Api>, shutdown: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let service = service_fn(move |request| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return report(ended),
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    report(connection.await);
}

fn report(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn kubeconfig(cluster: &str, address: &SocketAddr, authority: &str, token: &str) -> Value {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let user = format!("{cluster}-admin");
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": cluster, "preferences": {},
        "clusters": [{"name": cluster, "cluster": {"server": format!("https://{address}"), "certificate-authority-data": STANDARD.encode(authority)}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
    })
}

/// Connections held at once; past them the kernel's backlog pushes back.
const CONNECTIONS_MAX: usize = 4_096;
/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long requests in flight may take once the server stops.
const GRACE: Duration = Duration::from_secs(3);
