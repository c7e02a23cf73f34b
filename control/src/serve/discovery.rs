//! One reader of Discovery.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use futures_util::{Stream, stream};
use mesh_api::proto;
use mesh_api::proto::discovery_request::Message;
use mesh_api::translate;
use mesh_runtime::drain::Drain;
use mesh_trust::VerifiedPeer;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::{Services, Which, chunks, life_of};
use crate::metrics::{Metrics, Reading};
use crate::publish::Publisher;

struct Reader {
    requests: Streaming<proto::DiscoveryRequest>,
    publisher: Arc<Publisher>,
    changes: watch::Receiver<u64>,
    metrics: Metrics,
    drain: Drain,
    ends_at: Instant,
    subscription: Option<Subscription>,
    waiting: VecDeque<proto::DiscoveryUpdate>,
    _reading: Reading,
}

struct Subscription {
    /// Empty means every kind.
    kinds: HashSet<proto::Kind>,
    cursor: Option<u64>,
    own: Option<proto::Own>,
}

/// What `peer` is told, until it goes or may no longer.
pub(super) fn updates(
    services: &Services,
    peer: &VerifiedPeer,
    requests: Streaming<proto::DiscoveryRequest>,
) -> impl Stream<Item = Result<proto::DiscoveryUpdate, Status>> + Send + use<> {
    let reader = Reader {
        requests,
        publisher: Arc::clone(&services.publisher),
        changes: services.publisher.changes(),
        metrics: services.metrics.clone(),
        drain: services.drain.clone(),
        ends_at: Instant::now() + life_of(peer),
        subscription: None,
        waiting: VecDeque::new(),
        _reading: services.metrics.reading(Which::Discovery),
    };
    stream::unfold(reader, |mut reader| async move { reader.next().await.map(|update| (Ok(update), reader)) })
}

impl Reader {
    async fn next(&mut self) -> Option<proto::DiscoveryUpdate> {
        loop {
            if let Some(update) = self.waiting.pop_front() {
                self.metrics.updated(Which::Discovery);
                return Some(update);
            }
            self.changes.borrow_and_update();
            self.gather();
            if !self.waiting.is_empty() {
                continue;
            }
            tokio::select! {
                _ = self.drain.started() => return None,
                () = tokio::time::sleep_until(self.ends_at) => return None,
                request = self.requests.message() => self.on_request(request.ok()??),
                changed = self.changes.changed() => changed.ok()?,
            }
        }
    }

    fn on_request(&mut self, request: proto::DiscoveryRequest) {
        match request.message {
            Some(Message::Subscribe(subscribe)) => {
                let kinds = subscribe.kinds().filter(|kind| *kind != proto::Kind::Unspecified).collect();
                let cursor = self.publisher.cursor(subscribe.resume.as_ref());
                self.subscription = Some(Subscription { kinds, cursor, own: None });
            }
            Some(Message::Ack(_)) => {
                self.metrics.acks.inc();
            }
            Some(Message::Report(report)) => {
                let sum = |of: fn(&proto::Traffic) -> u64| report.traffic.iter().fold(0_u64, |all, one| all.saturating_add(of(one)));
                self.metrics.reported([
                    ("succeeded", sum(|one| one.succeeded)),
                    ("failed", sum(|one| one.failed)),
                    ("refused", sum(|one| one.refused)),
                ]);
            }
            None => {}
        }
    }

    /// Queues what the reader lacks, if it lacks anything.
    fn gather(&mut self) {
        let Some(subscription) = &mut self.subscription else { return };
        let Some(told) = self.publisher.discovery(subscription.cursor) else { return };
        let delta = told.delta;
        let own = (subscription.own.as_ref() != Some(&told.own)).then(|| told.own.clone());
        let wanted = |kind| subscription.kinds.is_empty() || subscription.kinds.contains(&kind);
        let of_wanted = |key: &proto::ResourceKey| wanted(translate::kind_of(key));
        let upserts: Vec<proto::Resource> = delta
            .upserts
            .iter()
            .filter(|resource| translate::key_of(resource).is_some_and(|key| of_wanted(&key)))
            .map(|resource| resource.as_ref().clone())
            .collect();
        let removals: Vec<proto::ResourceKey> = delta.removals.into_iter().filter(of_wanted).collect();
        subscription.cursor = Some(delta.counter);
        subscription.own = Some(told.own.clone());
        if !delta.full && own.is_none() && upserts.is_empty() && removals.is_empty() {
            return;
        }
        let version = self.publisher.version(delta.counter);
        let update = |upserts| proto::DiscoveryUpdate { version: Some(version.clone()), upserts, ..proto::DiscoveryUpdate::default() };
        let mut updates: VecDeque<proto::DiscoveryUpdate> = chunks(upserts).into_iter().map(update).collect();
        if let Some(first) = updates.front_mut() {
            (first.full, first.own, first.removals) = (delta.full, own, removals);
        }
        if let Some(last) = updates.back_mut() {
            (last.built_from, last.read_to) = (told.age.built_from.clone(), told.age.read_to.clone());
            last.complete = delta.full.then_some(proto::Complete { cluster_id: told.own.cluster_id });
        }
        self.waiting = updates;
    }
}
