//! A server to test: the embedded one, or the one that `ISTHMUS_TEST_KUBECONFIG` names.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
    core::Status,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// A client, a namespace of its own, and the embedded server that goes with it.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) kubeconfig: Kubeconfig,
    _stops: tokio_util::sync::DropGuard,
    _data: tempfile::TempDir,
}

impl World {
    /// The server under test.
    pub(crate) async fn start() -> Self {
        Self::with(mesh_apiserver::Loopback::Refuse, std::env::var("ISTHMUS_TEST_KUBECONFIG").ok()).await
    }

    /// The embedded server as the demo runs it, whichever is under test.
    pub(crate) async fn of_the_demo() -> Self {
        Self::with(mesh_apiserver::Loopback::Allow, None).await
    }

    async fn with(loopback_endpoints: mesh_apiserver::Loopback, kubeconfig: Option<String>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let kubeconfig = match kubeconfig {
            Some(path) => Kubeconfig::read_from(path).unwrap(),
            None => {
                let config = mesh_apiserver::Config { loopback_endpoints, ..config(data.path()) };
                let server = mesh_apiserver::Server::bind(config).await.unwrap();
                let kubeconfig = serde_json::from_value(server.kubeconfig()).unwrap();
                tokio::spawn(server.run(shutdown.clone()));
                kubeconfig
            }
        };
        let client = client(kubeconfig.clone()).await;
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"generateName": "test-"}})).unwrap();
        let namespace = Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        Self { client, namespace: namespace.metadata.name.unwrap(), kubeconfig, _stops: shutdown.drop_guard(), _data: data }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// A client of a kubeconfig's current context.
pub(crate) async fn client(kubeconfig: Kubeconfig) -> Client {
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

pub(crate) fn config(data: &std::path::Path) -> mesh_apiserver::Config {
    mesh_apiserver::Config {
        data_dir: data.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        service_range: "10.96.0.0/24".parse().unwrap(),
        loopback_endpoints: mesh_apiserver::Loopback::Refuse,
        token_auth_file: None,
        cluster_name: "test".to_owned(),
    }
}

pub(crate) fn config_map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data = data.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>();
    serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).unwrap()
}

/// Waits for what happens by itself.
pub(crate) async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what} did not happen in time"))
}

/// The Status of a request that must be refused.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> Box<Status> {
    match result.unwrap_err() {
        kube::Error::Api(status) => status,
        other => panic!("no status but {other}"),
    }
}

/// A real cluster's garbage collector pauses for half a minute when definitions come and go, as they do here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
