//! What outlives the process. Only of the embedded server: a test may not restart another.

use std::io::Write;

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
};
use tokio_util::sync::CancellationToken;

use crate::world::{client, config, config_map, soon};

/// A server on a directory, until it is stopped.
struct Running {
    client: Client,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn on(data: &std::path::Path) -> Self {
        let server = mesh_apiserver::Server::bind(config(data)).await.unwrap();
        let client = client(serde_json::from_value(server.kubeconfig()).unwrap()).await;
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.run(shutdown.clone()));
        Self { client, shutdown, running }
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn stop(self) {
        self.shutdown.cancel();
        soon("the server's end", self.running).await.unwrap();
    }
}

#[tokio::test]
async fn a_restart_keeps_uids_and_versions_never_go_back() {
    let data = tempfile::tempdir().unwrap();
    let mut seen: Option<(Option<String>, u64)> = None;
    for _ in 0..2 {
        let server = mesh_apiserver::Server::bind(config(data.path())).await.unwrap();
        assert!(matches!(
            mesh_apiserver::Server::bind(config(data.path())).await,
            Err(mesh_apiserver::StartError::Journal(mesh_apiserver::JournalError::Locked { .. })),
        ));
        let kubeconfig = serde_json::from_value(server.kubeconfig()).unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.run(shutdown.clone()));
        let api = Api::<Namespace>::all(client(kubeconfig).await);
        let uid = api.get("kube-system").await.unwrap().metadata.uid;
        let version: u64 = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap().parse().unwrap();
        if let Some((uid_before, version_before)) = &seen {
            assert_eq!(&uid, uid_before);
            assert!(version >= *version_before, "{version} is older than {version_before}");
        }
        seen = Some((uid, version));
        shutdown.cancel();
        soon("the server's end", running).await.unwrap();
    }
}

#[tokio::test]
async fn a_watch_from_before_a_restart_is_told_to_list_again() {
    let data = tempfile::tempdir().unwrap();
    let first = Running::on(data.path()).await;
    let old = first.config_maps().create(&PostParams::default(), &config_map("a", &[])).await.unwrap();
    first.config_maps().create(&PostParams::default(), &config_map("b", &[])).await.unwrap();
    first.stop().await;
    let second = Running::on(data.path()).await;
    let version = old.metadata.resource_version.unwrap();
    let mut events = std::pin::pin!(second.config_maps().watch(&WatchParams::default(), &version).await.unwrap());
    match soon("the answer", events.try_next()).await.unwrap() {
        Some(WatchEvent::Error(status)) => assert_eq!((status.code, status.reason.as_str()), (410, "Expired")),
        other => panic!("{other:?}"),
    }
    second.stop().await;
}

#[tokio::test]
async fn a_write_that_a_crash_tore_is_forgotten_and_no_other() {
    let data = tempfile::tempdir().unwrap();
    let first = Running::on(data.path()).await;
    let kept = first.config_maps().create(&PostParams::default(), &config_map("kept", &[])).await.unwrap();
    first.config_maps().create(&PostParams::default(), &config_map("gone", &[])).await.unwrap();
    first.config_maps().delete("gone", &DeleteParams::default()).await.unwrap();
    first.stop().await;
    let mut journal = std::fs::OpenOptions::new().append(true).open(data.path().join("journal")).unwrap();
    journal.write_all(b"0123456789abcdef {\"version\":99,\"key\"").unwrap();
    let second = Running::on(data.path()).await;
    assert_eq!(second.config_maps().get("kept").await.unwrap(), kept);
    assert!(second.config_maps().get_opt("gone").await.unwrap().is_none());
    let next = second.config_maps().create(&PostParams::default(), &config_map("next", &[])).await.unwrap();
    second.stop().await;
    let third = Running::on(data.path()).await;
    assert_eq!(third.config_maps().get("next").await.unwrap(), next);
    third.stop().await;
}
