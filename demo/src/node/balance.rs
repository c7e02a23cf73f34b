//! A kube-proxy in miniature: listens on every Service's cluster address and copies each connection to one of its ready endpoints.
//!
//! Invariant: it listens only while there is an endpoint, so that a Service without any refuses connections, as it does elsewhere. It has a
//! thread of its own: what goes through it must not slow the node down.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use mesh_runtime::drain::Drain;
use mesh_runtime::tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::observe::Seen;

/// Who answers at which address of a Service.
pub(crate) type Table = BTreeMap<SocketAddr, Vec<SocketAddr>>;

/// The table for what is seen. Pure.
pub(crate) fn table(seen: &Seen) -> Table {
    let mut table = Table::new();
    for service in &seen.services {
        let Some(spec) = &service.spec else { continue };
        let addresses: Vec<IpAddr> =
            spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|address| address.parse().ok()).collect();
        for port in spec.ports.iter().flatten().filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")) {
            let Ok(number) = u16::try_from(port.port) else { continue };
            let backends = backends(service, port, &seen.slices);
            if !backends.is_empty() {
                table.extend(addresses.iter().map(|address| (SocketAddr::new(*address, number), backends.clone())));
            }
        }
    }
    table
}

/// The ready endpoints of one port; when none is, those that still serve while they leave.
fn backends(service: &Service, port: &ServicePort, slices: &[Arc<EndpointSlice>]) -> Vec<SocketAddr> {
    let of_service = |slice: &&Arc<EndpointSlice>| {
        let named = slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
        slice.metadata.namespace == service.metadata.namespace && named == service.metadata.name.as_ref()
    };
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let all = |fits: fn(&Endpoint) -> bool| {
        let mut found: Vec<SocketAddr> = slices
            .iter()
            .filter(of_service)
            .filter_map(|slice| Some((slice, slice.ports.iter().flatten().find(|held| name(&held.name) == name(&port.name))?.port?)))
            .flat_map(|(slice, number)| slice.endpoints.iter().filter(|endpoint| fits(endpoint)).map(move |endpoint| (endpoint, number)))
            .flat_map(|(endpoint, number)| endpoint.addresses.iter().filter_map(move |address| socket(address, number)))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let ready = all(|endpoint| endpoint.conditions.as_ref().is_none_or(|said| said.ready != Some(false)));
    if ready.is_empty() { all(|endpoint| endpoint.conditions.as_ref().is_some_and(|said| said.serving == Some(true))) } else { ready }
}

fn socket(address: &str, port: i32) -> Option<SocketAddr> {
    Some(SocketAddr::new(address.parse().ok()?, u16::try_from(port).ok()?))
}

/// Serves what `tables` says until the drain starts, on a thread of its own.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn spawn(tables: watch::Receiver<Table>, drain: Drain) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("balance".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = serve(tables) => {}
                _ = drain.started() => {}
            }
        });
    })
}

async fn serve(mut tables: watch::Receiver<Table>) {
    let mut listening = BTreeMap::<SocketAddr, watch::Sender<Vec<SocketAddr>>>::new();
    let mut listeners = Tasks::new();
    loop {
        let table = tables.borrow_and_update().clone();
        listening.retain(|address, _| table.contains_key(address));
        let mut complete = true;
        for (address, backends) in table {
            if let Some(told) = listening.get(&address) {
                told.send_if_modified(|held| {
                    *held != backends && {
                        *held = backends;
                        true
                    }
                });
                continue;
            }
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let (told, backends) = watch::channel(backends);
                    listening.insert(address, told);
                    listeners.spawn(accept(listener, backends));
                }
                Err(error) => {
                    tracing::debug!(%error, %address, "service address not listened on yet");
                    complete = false;
                }
            }
        }
        tokio::select! {
            changed = tables.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(BIND_AGAIN), if !complete => {}
        }
    }
}

/// Accepts until the address is given up; connections made before go on.
async fn accept(listener: TcpListener, mut backends: watch::Receiver<Vec<SocketAddr>>) {
    let mut connections = Tasks::new();
    loop {
        tokio::select! {
            changed = backends.changed() => if changed.is_err() { break },
            () = connections.ended() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((client, _)) => {
                    let backends = backends.borrow().clone();
                    connections.spawn(copy(client, backends));
                }
                Err(error) => {
                    tracing::debug!(%error, "accept failed");
                    tokio::time::sleep(BIND_AGAIN).await;
                }
            },
        }
    }
    drop(listener);
    while !connections.is_empty() {
        connections.ended().await;
    }
}

async fn copy(mut client: TcpStream, backends: Vec<SocketAddr>) {
    let first = usize::try_from(rand::random::<u32>()).unwrap_or(0);
    for turn in 0..backends.len().min(DIALS_MAX) {
        let address = backends[(first + turn) % backends.len()];
        let Ok(Ok(mut server)) = tokio::time::timeout(DIAL_MAX, TcpStream::connect(address)).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
            tracing::debug!(%error, %address, "connection broke");
        }
        return;
    }
}

/// Connections held at once per address; when full we stop accepting, and the kernel's backlog pushes back.
const CONNECTIONS_MAX: usize = 4096;

const DIAL_MAX: Duration = Duration::from_secs(2);
const DIALS_MAX: usize = 3;
const BIND_AGAIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn seen(ready: bool, serving: bool) -> Seen {
        let service = json!({
            "metadata": { "name": "cart", "namespace": "shop" },
            "spec": { "clusterIP": "127.10.128.7", "clusterIPs": ["127.10.128.7"], "ports": [{ "name": "http", "port": 80 }] },
        });
        let slice = json!({
            "metadata": { "name": "cart-x", "namespace": "shop", "labels": { "kubernetes.io/service-name": "cart" } },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["127.10.64.3"], "conditions": { "ready": ready, "serving": serving } }],
            "ports": [{ "name": "http", "port": 8080 }],
        });
        Seen {
            services: vec![Arc::new(serde_json::from_value(service).unwrap())],
            slices: vec![Arc::new(serde_json::from_value(slice).unwrap())],
            ..Seen::default()
        }
    }

    #[test]
    fn an_address_of_a_service_leads_to_its_ready_endpoints_else_to_those_that_still_serve() {
        let led = Table::from([("127.10.128.7:80".parse().unwrap(), vec!["127.10.64.3:8080".parse().unwrap()])]);
        assert_eq!(table(&seen(true, true)), led);
        assert_eq!(table(&seen(false, true)), led);
        assert_eq!(table(&seen(false, false)), Table::new());
    }

    #[tokio::test]
    async fn a_connection_to_a_service_reaches_an_endpoint_with_its_half_close() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let front = TcpListener::bind(address).await.unwrap();
        let front_address = front.local_addr().unwrap();
        let (_told, backends) = watch::channel(vec!["127.0.0.1:1".parse().unwrap(), server.local_addr().unwrap()]);
        let mut tasks = Tasks::new();
        tasks.spawn(accept(front, backends));
        let mut client = TcpStream::connect(front_address).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        client.write_all(b"ping").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = String::new();
        served.read_to_string(&mut got).await.unwrap();
        served.write_all(b"pong").await.unwrap();
        drop(served);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!((got.as_str(), answer.as_str()), ("ping", "pong"));
    }
}
