//! Follows the own cluster's mirror controller: handles, weights and readiness of imported endpoints, and how the links are.
//!
//! Without it a service is called without handles, so a mirror controller that is gone withdraws nothing: the last state stays.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use mesh_names::{ClusterName, ServiceId};
use mesh_runtime::clock;
use mesh_runtime::drain::Drain;
use mesh_topology::{LinkHealth, Remote};
use tokio::sync::watch;

use super::causes::Causes;
use super::retry::Retry;
use crate::connect::{ConnectError, Connector, ControlAddress, MESSAGE_MAX};
use crate::proto;
use crate::proto::imports_client::ImportsClient;
use crate::translate::{self, Invalid, Told};

/// What the mirror controller knows and the Kubernetes API does not. Addresses are empty here: they are the Kubernetes API's to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imports {
    /// Each imported service, by link.
    pub remotes: BTreeMap<(ClusterName, ServiceId), Arc<Remote>>,
    /// What the probes say of each link.
    pub links: BTreeMap<ClusterName, LinkHealth>,
}

/// Follows whichever of `addresses` answers, until the drain starts. The receiver holds the last state; the future does the following.
#[must_use]
pub fn follow(addresses: Vec<ControlAddress>, connector: Connector) -> (watch::Receiver<Arc<Imports>>, Follower) {
    let (told, receiver) = watch::channel(Arc::default());
    let retry = Retry::new(addresses, clock::draw());
    (receiver, Follower { connector, retry, told })
}

/// Follows until it is told to stop.
#[derive(Debug)]
pub struct Follower {
    connector: Connector,
    retry: Retry,
    told: watch::Sender<Arc<Imports>>,
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("no address of a mirror controller was given")]
    NoAddress,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the imports stream broke: {}", .0.message())]
    Stream(#[source] Box<tonic::Status>),
    #[error("the mirror controller ended the imports stream")]
    Ended,
}

impl From<tonic::Status> for Broken {
    fn from(status: tonic::Status) -> Self {
        Self::Stream(Box::new(status))
    }
}

impl Follower {
    /// Follows until the drain starts.
    pub async fn run(mut self, drain: Drain) {
        loop {
            let Err(error) = tokio::select! {
                _ = drain.started() => return,
                broken = self.stream() => broken,
            };
            let pause = self.retry.on_failure(clock::draw());
            tracing::debug!(error = %Causes(&error), ?pause, "imports interrupted");
            tokio::select! {
                _ = drain.started() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn stream(&mut self) -> Result<Infallible, Broken> {
        let address = self.retry.address().ok_or(Broken::NoAddress)?;
        let channel = self.connector.channel(address).await?;
        let mut client = ImportsClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
        let mut updates = client.follow(proto::ImportsRequest { resume: None }).await?.into_inner();
        loop {
            let update = updates.message().await?.ok_or(Broken::Ended)?;
            self.retry.on_success();
            let (next, invalid) = self.told.borrow().with(update);
            for error in &invalid {
                tracing::warn!(error = %Causes(error), "import passed over");
            }
            self.told.send_if_modified(|held| {
                let changed = **held != next;
                *held = Arc::new(next);
                changed
            });
        }
    }
}

impl Imports {
    /// The state after `update`, and what of it was passed over.
    #[must_use]
    pub fn with(&self, update: proto::ImportsUpdate) -> (Self, Vec<Invalid>) {
        let mut next = if update.full { Self::default() } else { self.clone() };
        let mut invalid = Vec::new();
        for said in &update.upserts {
            match Remote::try_from(said) {
                Ok(remote) => {
                    next.remotes.insert((remote.link.clone(), remote.service.clone()), Arc::new(remote));
                }
                Err(error) => invalid.push(error),
            }
        }
        for removed in update.removals {
            let key = proto::ResourceKey { key: Some(proto::resource_key::Key::Remote(removed)) };
            match translate::told_removed(&key) {
                Ok(Some(Told::Change(mesh_topology::Change::Remote(link, service, _)))) => {
                    next.remotes.remove(&(link, service));
                }
                Ok(_) => {}
                Err(error) => invalid.push(error),
            }
        }
        for said in update.links {
            match said.link.parse::<ClusterName>() {
                Ok(link) => {
                    next.links.insert(link, said.health().into());
                }
                Err(source) => invalid.push(Invalid::Name { field: "links.link", source }),
            }
        }
        (next, invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_replaces_what_it_names_and_a_full_one_replaces_all() {
        let service = proto::ServiceRef { namespace: "shop".into(), name: "web".into() };
        let remote = |link: &str| proto::Remote { link: link.into(), service: Some(service.clone()), ..proto::Remote::default() };
        let state = |link: &str, health: proto::LinkHealth| proto::LinkState { link: link.into(), health: health.into() };
        let update = proto::ImportsUpdate {
            upserts: vec![remote("east"), remote("north")],
            links: vec![state("east", proto::LinkHealth::Healthy)],
            ..proto::ImportsUpdate::default()
        };
        let (first, invalid) = Imports::default().with(update);
        assert_eq!((first.remotes.len(), first.links.len(), invalid.len()), (2, 1, 0));
        let removals = vec![proto::RemoteKey { link: "east".into(), service: Some(service.clone()) }];
        let (second, _) = first.with(proto::ImportsUpdate { removals, ..proto::ImportsUpdate::default() });
        assert_eq!(second.remotes.len(), 1);
        let (third, _) = second.with(proto::ImportsUpdate { full: true, ..proto::ImportsUpdate::default() });
        assert_eq!(third, Imports::default());
    }
}
