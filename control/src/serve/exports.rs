//! One reader of Exports: a peer's mirror controller, at the end of a session that came through our gateways.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use mesh_api::proto;
use mesh_runtime::drain::Drain;
use mesh_trust::VerifiedPeer;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::{Services, Which, chunks, life_of, not_a_caller};
use crate::metrics::{Metrics, Reading};
use crate::publish::Publisher;

struct Reader {
    peer: Arc<VerifiedPeer>,
    publisher: Arc<Publisher>,
    changes: watch::Receiver<u64>,
    metrics: Metrics,
    drain: Drain,
    ends_at: Instant,
    cursor: Option<u64>,
    bundle: Vec<u8>,
    renew_at: Instant,
    waiting: VecDeque<proto::ExportsUpdate>,
    _reading: Reading,
}

/// What `peer` is told, from what it holds on, until it goes or may no longer.
pub(super) fn updates(
    services: &Services,
    peer: Arc<VerifiedPeer>,
    resume: Option<&proto::Version>,
) -> impl Stream<Item = Result<proto::ExportsUpdate, Status>> + Send + use<> {
    let reader = Reader {
        cursor: services.publisher.cursor(resume),
        publisher: Arc::clone(&services.publisher),
        changes: services.publisher.changes(),
        metrics: services.metrics.clone(),
        drain: services.drain.clone(),
        ends_at: Instant::now() + life_of(&peer),
        bundle: Vec::new(),
        renew_at: Instant::now(),
        waiting: VecDeque::new(),
        _reading: services.metrics.reading(Which::Exports),
        peer,
    };
    stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await? {
            Ok(update) => Some((Ok(update), Some(reader))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

impl Reader {
    async fn next(&mut self) -> Option<Result<proto::ExportsUpdate, Status>> {
        loop {
            self.changes.borrow_and_update();
            if self.waiting.is_empty()
                && let Err(status) = self.gather()
            {
                self.metrics.denied.count("control-caller-revoked");
                return Some(Err(status));
            }
            if let Some(update) = self.waiting.pop_front() {
                self.metrics.updated(Which::Exports);
                self.renew_at = Instant::now() + LEASE_RENEWED;
                return Some(Ok(update));
            }
            tokio::select! {
                _ = self.drain.started() => return None,
                () = tokio::time::sleep_until(self.ends_at) => return None,
                () = tokio::time::sleep_until(self.renew_at) => self.waiting.push_back(self.update(self.cursor.unwrap_or_default())),
                changed = self.changes.changed() => changed.ok()?,
            }
        }
    }

    /// Queues what the peer lacks, if it lacks anything; fails once no Peer names it.
    fn gather(&mut self) -> Result<(), Status> {
        let told = self.publisher.exports(self.peer.id(), self.cursor).ok_or_else(not_a_caller)?;
        let delta = told.delta;
        self.cursor = Some(delta.counter);
        let bundle_changed = told.bundle != self.bundle;
        if !delta.full && !bundle_changed && delta.upserts.is_empty() && delta.removals.is_empty() {
            return Ok(());
        }
        let upserts: Vec<proto::ExportedService> = delta.upserts.iter().map(|service| service.as_ref().clone()).collect();
        let update = |upserts| proto::ExportsUpdate { upserts, ..self.update(delta.counter) };
        let mut updates: VecDeque<proto::ExportsUpdate> = chunks(upserts).into_iter().map(update).collect();
        if let Some(first) = updates.front_mut() {
            (first.full, first.removals) = (delta.full, delta.removals);
            if bundle_changed {
                first.bundle.clone_from(&told.bundle);
            }
        }
        if let Some(last) = updates.back_mut() {
            (last.built_from, last.read_to) = (told.age.built_from.clone(), told.age.read_to.clone());
            last.complete = delta.full.then_some(proto::Complete { cluster_id: told.cluster_id });
        }
        (self.bundle, self.waiting) = (told.bundle, updates);
        Ok(())
    }

    fn update(&self, counter: u64) -> proto::ExportsUpdate {
        proto::ExportsUpdate {
            version: Some(self.publisher.version(counter)),
            lease_seconds: LEASE_SECONDS,
            ..proto::ExportsUpdate::default()
        }
    }
}

/// How long the handles hold without another message.
const LEASE_SECONDS: u32 = 30;
/// A third of it: two messages may be lost.
const LEASE_RENEWED: Duration = Duration::from_secs(10);
