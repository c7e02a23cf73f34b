//! The gRPC services: Identity for anybody with a token, Discovery for the own trust domain, Exports for each peer's one control caller.
//!
//! A stream is a cursor into what is published: it is asked for what it lacks when something has changed and when its reader has taken
//! the last answer, so a slow reader skips states. It ends when its reader's SVID does, when its right is gone, or when control drains.

mod discovery;
mod exports;

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::BoxStream;
use mesh_api::proto;
use mesh_api::proto::discovery_server::{Discovery, DiscoveryServer};
use mesh_api::proto::exports_server::{Exports, ExportsServer};
use mesh_api::proto::identity_server::{Identity, IdentityServer};
use mesh_runtime::clock;
use mesh_runtime::drain::Drain;
use mesh_trust::VerifiedPeer;
use prost::Message;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::accept::{Caller, Connection};
use crate::issue::{Authority, Refusal, Registrar};
use crate::metrics::{Metrics, Stream as Which};
use crate::observe::Observer;
use crate::publish::Publisher;

/// What the services answer from. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    /// What was observed, for Identity.
    pub observer: Observer,
    /// Who issues.
    pub registrar: Arc<Registrar>,
    /// What is published.
    pub publisher: Arc<Publisher>,
    /// What is counted.
    pub metrics: Metrics,
    /// When streams end.
    pub drain: Drain,
}

impl Services {
    /// Serves the connections that come in until the drain has started and the streams have ended.
    ///
    /// # Errors
    /// When the transport fails as a whole.
    pub(crate) async fn serve(self, incoming: impl Stream<Item = std::io::Result<Connection>>) -> Result<(), tonic::transport::Error> {
        let drain = self.drain.clone();
        Server::builder()
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_TIMEOUT))
            .max_concurrent_streams(Some(STREAMS_MAX))
            .add_service(IdentityServer::new(self.clone()).max_decoding_message_size(REQUEST_MAX))
            .add_service(DiscoveryServer::new(self.clone()).max_decoding_message_size(REQUEST_MAX))
            .add_service(ExportsServer::new(self).max_decoding_message_size(REQUEST_MAX))
            .serve_with_incoming_shutdown(incoming, async move {
                drain.started().await;
            })
            .await
    }

    fn denied(&self, reason: &'static str, status: Status) -> Status {
        self.metrics.denied.count(reason);
        status
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Arc<VerifiedPeer>, Status> {
        let caller = request.extensions().get::<Caller>().and_then(|caller| caller.0.clone());
        caller.ok_or_else(|| self.denied("no-certificate", Status::unauthenticated("this service asks for a client certificate")))
    }
}

#[tonic::async_trait]
impl Identity for Services {
    async fn issue(&self, request: Request<proto::IssueRequest>) -> Result<Response<proto::IssueReply>, Status> {
        let authority = Authority::of(&self.observer.now());
        match self.registrar.issue(authority, request.into_inner(), clock::wall()).await {
            Ok((id, reply)) => {
                self.metrics.issued.inc();
                tracing::info!(%id, "issued");
                Ok(Response::new(reply))
            }
            Err(refusal) => {
                tracing::warn!(reason = refusal.reason(), error = %refusal, "not issued");
                Err(self.denied(refusal.reason(), status_of(&refusal)))
            }
        }
    }
}

#[tonic::async_trait]
impl Discovery for Services {
    type StreamStream = BoxStream<'static, Result<proto::DiscoveryUpdate, Status>>;

    async fn stream(&self, request: Request<Streaming<proto::DiscoveryRequest>>) -> Result<Response<Self::StreamStream>, Status> {
        let peer = self.caller(&request)?;
        let own = self.publisher.trust_domain().ok_or_else(starting)?;
        if *peer.id().trust_domain() != own {
            return Err(self.denied("discovery-from-outside", Status::permission_denied("discovery is for the own trust domain")));
        }
        Ok(Response::new(Box::pin(discovery::updates(self, &peer, request.into_inner()))))
    }
}

#[tonic::async_trait]
impl Exports for Services {
    type FollowStream = BoxStream<'static, Result<proto::ExportsUpdate, Status>>;

    async fn follow(&self, request: Request<proto::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let peer = self.caller(&request)?;
        self.publisher.trust_domain().ok_or_else(starting)?;
        if self.publisher.exports(peer.id(), None).is_none() {
            return Err(self.denied("not-the-control-caller", not_a_caller()));
        }
        Ok(Response::new(Box::pin(exports::updates(self, peer, request.into_inner().resume.as_ref()))))
    }
}

fn status_of(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::NotReady | Refusal::Review(_) => Status::unavailable(refusal.to_string()),
        Refusal::Token { .. } | Refusal::NotAServiceAccount => Status::unauthenticated(refusal.to_string()),
        Refusal::NotAGateway => Status::permission_denied(refusal.to_string()),
        Refusal::Issue(mesh_trust::IssueError::Csr { .. }) => Status::invalid_argument(refusal.to_string()),
        Refusal::Issue(_) => Status::internal(refusal.to_string()),
    }
}

fn starting() -> Status {
    Status::unavailable("control has not seen the whole cluster yet: ask another replica")
}

fn not_a_caller() -> Status {
    Status::permission_denied("no peer names this identity as its control caller")
}

/// How long a peer's SVID still lives.
fn life_of(peer: &VerifiedPeer) -> Duration {
    peer.expires_at().duration_since(clock::wall()).unwrap_or_default()
}

/// Groups messages so that each update stays small; there is always one group, an empty one if need be.
fn chunks<T: Message>(messages: Vec<T>) -> Vec<Vec<T>> {
    let mut chunks = vec![Vec::new()];
    let mut size = 0;
    for message in messages {
        let length = message.encoded_len();
        if size > 0 && size + length > CHUNK_BYTES {
            chunks.push(Vec::new());
            size = 0;
        }
        size += length;
        if let Some(last) = chunks.last_mut() {
            last.push(message);
        }
    }
    chunks
}

/// What one update holds at most, a larger single resource aside.
const CHUNK_BYTES: usize = 512 * 1024;
/// What a request may be.
const REQUEST_MAX: usize = 256 * 1024;
/// Streams of one connection; a proxy needs two.
const STREAMS_MAX: u32 = 32;
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
