//! Serves `Imports` to this cluster's controls, and to nobody else: handles, weights, readiness, and how the links are.
//!
//! A reader that is slow skips states: for each there is a cursor on the latest one, and no queue.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use mesh_api::proto;
use mesh_api::proto::imports_server::{Imports, ImportsServer};
use mesh_names::{ClusterName, ServiceId, SpiffeId};
use mesh_runtime::drain::Drain;
use mesh_runtime::tasks::Tasks;
use mesh_topology::{LinkHealth, Remote};
use mesh_transport::{Acceptor, tcp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

/// What is served: the latest state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// Each imported service, by link.
    pub remotes: BTreeMap<(ClusterName, ServiceId), Arc<Remote>>,
    /// What the probes say of each link.
    pub links: BTreeMap<ClusterName, LinkHealth>,
}

/// Listens for this cluster's controls.
pub struct Serve {
    listener: TcpListener,
    published: watch::Receiver<Option<Arc<Published>>>,
}

impl Serve {
    /// Opens the listener; the sender publishes. Until it has, readers wait and go on with what they had.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub fn bind(address: SocketAddr) -> io::Result<(Self, watch::Sender<Option<Arc<Published>>>)> {
        let (sender, published) = watch::channel(None);
        Ok((Self { listener: tcp::listen(address)?, published }, sender))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Closes every connection at once, for as long as it is asked.
    pub async fn turn_away(&self) {
        loop {
            if self.listener.accept().await.is_err() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    /// Serves callers that prove to be `control` until the drain starts.
    pub async fn run(self, acceptor: Acceptor, control: SpiffeId, drain: Drain) {
        let (connections, incoming) = mpsc::channel(HANDSHAKES_MAX);
        let service = Follow { published: self.published, replica: format!("{:016x}", rand::random::<u64>()) };
        let until = drain.clone();
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(PING_EVERY))
            .add_service(ImportsServer::new(service))
            .serve_with_incoming_shutdown(ReceiverStream::new(incoming), async move {
                until.started().await;
            });
        let accepting = accept(self.listener, Arc::new(acceptor), control, connections);
        tokio::select! {
            () = accepting => {}
            _ = drain.started() => {}
            served = serving => {
                if let Err(error) = served {
                    tracing::error!(%error, "imports are not served any more");
                }
            }
        }
    }
}

async fn accept(listener: TcpListener, acceptor: Arc<Acceptor>, control: SpiffeId, connections: mpsc::Sender<io::Result<Session>>) {
    let mut handshakes = Tasks::new();
    loop {
        while handshakes.len() >= HANDSHAKES_MAX {
            handshakes.ended().await;
        }
        let Ok((stream, from)) = listener.accept().await else {
            // Out of descriptors: what is open goes on, and the backlog waits.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (acceptor, control, connections) = (Arc::clone(&acceptor), control.clone(), connections.clone());
        handshakes.spawn(async move {
            if tcp::prepare(&stream).is_err() {
                return;
            }
            match acceptor.accept(stream).await {
                Ok((stream, peer)) if *peer.id() == control => {
                    // The receiver is gone only when nothing is served any more.
                    let _ = connections.send(Ok(Session(Box::new(stream)))).await;
                }
                Ok((_, peer)) => tracing::warn!(%from, peer = %peer.id(), "caller refused: only this cluster's control may follow imports"),
                Err(error) => tracing::warn!(%from, %error, "caller refused"),
            }
        });
    }
}

struct Follow {
    published: watch::Receiver<Option<Arc<Published>>>,
    replica: String,
}

#[tonic::async_trait]
impl Imports for Follow {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<proto::ImportsUpdate, Status>> + Send>>;

    async fn follow(&self, _: Request<proto::ImportsRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let cursor = Cursor { published: self.published.clone(), replica: self.replica.clone(), told: None, counter: 0 };
        let updates = futures_util::stream::unfold(cursor, |mut cursor| async move {
            let update = cursor.next().await?;
            Some((Ok(update), cursor))
        });
        Ok(Response::new(Box::pin(updates)))
    }
}

/// Where one reader is.
struct Cursor {
    published: watch::Receiver<Option<Arc<Published>>>,
    replica: String,
    told: Option<Arc<Published>>,
    counter: u64,
}

impl Cursor {
    async fn next(&mut self) -> Option<proto::ImportsUpdate> {
        loop {
            let Some(now) = self.published.borrow_and_update().clone() else {
                self.published.changed().await.ok()?;
                continue;
            };
            let update = match &self.told {
                None => Some(difference(&Published::default(), &now)),
                Some(told) => Some(difference(told, &now)).filter(|update| *update != proto::ImportsUpdate::default()),
            };
            let full = self.told.replace(now).is_none();
            if let Some(update) = update {
                self.counter += 1;
                let version = Some(proto::Version { replica: self.replica.clone(), counter: self.counter });
                return Some(proto::ImportsUpdate { version, full, ..update });
            }
            self.published.changed().await.ok()?;
        }
    }
}

fn difference(old: &Published, new: &Published) -> proto::ImportsUpdate {
    let changed = |(key, remote): &(&(ClusterName, ServiceId), &Arc<Remote>)| {
        old.remotes.get(*key).is_none_or(|held| !Arc::ptr_eq(held, remote) && held != *remote)
    };
    let removed = old.remotes.keys().filter(|key| !new.remotes.contains_key(*key));
    let links = new.links.iter().filter(|(name, health)| old.links.get(*name) != Some(*health));
    proto::ImportsUpdate {
        version: None,
        full: false,
        upserts: new.remotes.iter().filter(changed).map(|(_, remote)| remote.as_ref().into()).collect(),
        removals: removed.map(|(link, service)| proto::RemoteKey::of(link, service)).collect(),
        links: links
            .map(|(name, health)| proto::LinkState { link: name.to_string(), health: proto::LinkHealth::from(*health).into() })
            .collect(),
    }
}

/// An accepted caller, who is this cluster's control.
struct Session(Box<tokio_rustls::server::TlsStream<TcpStream>>);

impl Connected for Session {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Session {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Session {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Handshakes under way at once; past it, callers wait in the kernel's backlog.
const HANDSHAKES_MAX: usize = 64;
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
const PING_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_topology::LinkHealth::{Healthy, Unreachable};

    fn published(remotes: &[(&str, &str, bool)], health: LinkHealth) -> Arc<Published> {
        let remote = |(link, service, handles_valid): &(&str, &str, bool)| {
            let (link, service): (ClusterName, ServiceId) = (link.parse().unwrap(), service.parse().unwrap());
            let remote = Remote {
                link: link.clone(),
                service: service.clone(),
                ports: Vec::new(),
                identities: Vec::new(),
                addresses: Vec::new(),
                endpoints: Vec::new(),
                handles_valid: *handles_valid,
                proxyless: false,
            };
            ((link, service), Arc::new(remote))
        };
        Arc::new(Published { remotes: remotes.iter().map(remote).collect(), links: [("east".parse().unwrap(), health)].into() })
    }

    fn show(update: &proto::ImportsUpdate) -> String {
        let name = |service: &Option<proto::ServiceRef>| service.as_ref().map(|service| service.name.clone()).unwrap_or_default();
        let upserts: Vec<String> = update.upserts.iter().map(|remote| format!("+{}", name(&remote.service))).collect();
        let removals: Vec<String> = update.removals.iter().map(|key| format!("-{}", name(&key.service))).collect();
        format!("full: {}; {}; {} links", update.full, [upserts, removals].concat().join(" "), update.links.len())
    }

    #[tokio::test]
    async fn a_reader_is_told_everything_once_and_then_what_changed_since_it_last_looked() {
        let (sender, receiver) = watch::channel(None);
        let mut cursor = Cursor { published: receiver, replica: "a".into(), told: None, counter: 0 };
        sender.send_replace(Some(published(&[("east", "shop/a", true), ("east", "shop/b", true)], Healthy)));
        assert_eq!(show(&cursor.next().await.unwrap()), "full: true; +a +b; 1 links");
        sender.send_replace(Some(published(&[("east", "shop/a", true)], Healthy)));
        sender.send_replace(Some(published(&[("east", "shop/a", false), ("east", "shop/c", true)], Unreachable)));
        assert_eq!(show(&cursor.next().await.unwrap()), "full: false; +a +c -b; 1 links");
    }

    #[tokio::test]
    async fn nothing_is_told_before_there_is_something_to_tell() {
        let (sender, receiver) = watch::channel(None);
        let mut cursor = Cursor { published: receiver, replica: "a".into(), told: None, counter: 0 };
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), cursor.next()).await.is_err());
        drop(sender);
        assert_eq!(cursor.next().await, None);
    }
}
