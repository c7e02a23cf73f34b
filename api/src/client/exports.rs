//! Follows what one peer exports to this cluster. Its words are other people's: bounded, and held when they can't be right.
//!
//! Invariant: what [`Exports`] says was complete, and a broken stream changes nothing of it. The session that the stream runs in is the
//! mirror controller's to open.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use mesh_names::{ClusterId, ServiceId};
use tonic::transport::Channel;

use super::hold::{self, Age, Complete, Hold};
use crate::connect::MESSAGE_MAX;
use crate::proto;
use crate::proto::exports_client::ExportsClient;
use crate::translate::{Exported, Invalid};

/// Everything that a peer exports to this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exports {
    /// The peer.
    pub cluster: ClusterId,
    /// Its exports.
    pub services: BTreeMap<ServiceId, Arc<Exported>>,
    /// Its bundle in SPIFFE format, as it last said; empty when it never did.
    pub bundle: Vec<u8>,
    /// How long the handles hold after each message.
    pub lease: Duration,
}

/// What one peer's stream has told so far.
#[derive(Debug)]
pub struct ExportsState {
    expected: ClusterId,
    kept: Option<Complete<Exports>>,
    age: Age,
    coming: Option<Coming>,
    held: Option<Hold>,
}

/// A full state that is not in use yet: still being told, or held.
#[derive(Debug)]
struct Coming {
    exports: Exports,
    age: Age,
    complete: bool,
}

/// Why a peer's stream ended.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The peer, its gateway or the way there broke it.
    #[error("the stream broke: {}", .0.message())]
    Stream(#[source] Box<tonic::Status>),
    /// The other side ended it.
    #[error("the other side ended the stream")]
    Ended,
    /// It says more than any cluster does.
    #[error("it exports more than {SERVICES_MAX} services")]
    TooMany,
    /// It has not read as far as what is known already: another of its replicas may have.
    #[error("the other side is behind")]
    Behind(#[source] Hold),
}

impl From<tonic::Status> for FollowError {
    fn from(status: tonic::Status) -> Self {
        Self::Stream(Box::new(status))
    }
}

impl ExportsState {
    /// Nothing told yet by the cluster with this id; a listing of any other is held.
    #[must_use]
    pub fn new(expected: ClusterId) -> Self {
        Self { expected, kept: None, age: Age::default(), coming: None, held: None }
    }

    /// The last complete state.
    #[must_use]
    pub fn exports(&self) -> Option<&Complete<Exports>> {
        self.kept.as_ref()
    }

    /// Why the newest listing is not used, if it is not.
    #[must_use]
    pub fn held(&self) -> Option<&Hold> {
        self.held.as_ref()
    }

    /// Takes one update, and returns what of it was passed over.
    ///
    /// # Errors
    /// When the peer exports more than is taken.
    pub fn on_update(&mut self, mut update: proto::ExportsUpdate) -> Result<Vec<Invalid>, FollowError> {
        if update.full || (self.kept.is_none() && self.coming.is_none()) {
            self.coming = Some(Coming { exports: Exports::nothing(self.expected.clone()), age: Age::default(), complete: false });
        }
        let (built_from, read_to) = (std::mem::take(&mut update.built_from), std::mem::take(&mut update.read_to));
        match self.coming.take() {
            Some(mut coming) => {
                coming.age.take(built_from, read_to);
                self.gather(coming, update)
            }
            None => {
                self.age.take(built_from, read_to);
                let mut next = self.kept.as_ref().map_or_else(|| Exports::nothing(self.expected.clone()), |kept| kept.get().clone());
                let invalid = next.take(update)?;
                self.kept = Some(Complete::listed(next));
                Ok(invalid)
            }
        }
    }

    /// The stream ended: what was only half told, or held, is forgotten; the last complete state stays.
    pub fn on_disconnect(&mut self) {
        self.coming = None;
    }

    fn gather(&mut self, mut coming: Coming, update: proto::ExportsUpdate) -> Result<Vec<Invalid>, FollowError> {
        let complete = update.complete.as_ref().map(|complete| complete.cluster_id.parse::<ClusterId>());
        let mut invalid = coming.exports.take(update)?;
        match complete {
            Some(Ok(found)) => {
                coming.exports.cluster = found;
                coming.complete = true;
            }
            Some(Err(source)) => invalid.push(Invalid::Name { field: "complete.cluster_id", source }),
            None => {}
        }
        if !coming.complete {
            self.coming = Some(coming);
            return Ok(invalid);
        }
        match self.check(&coming.exports).and_then(|()| self.age.check(&coming.age)) {
            Ok(()) => {
                (self.held, self.age) = (None, coming.age);
                self.kept = Some(Complete::listed(coming.exports));
            }
            Err(why) => {
                self.held = Some(why);
                self.coming = Some(coming);
            }
        }
        Ok(invalid)
    }

    fn check(&self, next: &Exports) -> Result<(), Hold> {
        let known = self.kept.as_ref().map(|kept| &kept.get().services);
        let missing = known.map_or(0, |known| known.keys().filter(|id| !next.services.contains_key(*id)).count());
        hold::check(Some(&self.expected), &next.cluster, known.map_or(0, BTreeMap::len), missing)
    }
}

impl Exports {
    fn nothing(cluster: ClusterId) -> Self {
        Self { cluster, services: BTreeMap::new(), bundle: Vec::new(), lease: Duration::ZERO }
    }

    fn take(&mut self, update: proto::ExportsUpdate) -> Result<Vec<Invalid>, FollowError> {
        let mut invalid = Vec::new();
        for said in &update.upserts {
            match Exported::try_from(said) {
                Ok(exported) => {
                    self.services.insert(exported.id.clone(), Arc::new(exported));
                }
                Err(error) => invalid.push(error),
            }
        }
        for removed in &update.removals {
            if let Ok(id) = ServiceId::parse(&removed.namespace, &removed.name) {
                self.services.remove(&id);
            }
        }
        if !update.bundle.is_empty() {
            self.bundle = update.bundle;
        }
        if update.lease_seconds > 0 {
            self.lease = Duration::from_secs(update.lease_seconds.into());
        }
        if self.services.len() > SERVICES_MAX { Err(FollowError::TooMany) } else { Ok(invalid) }
    }
}

/// Follows the exports of the control behind `channel` into `state`; `told` is called after each update, with what was passed over.
///
/// # Errors
/// Always, in the end: with what ended the stream.
pub async fn follow(
    channel: Channel,
    state: &mut ExportsState,
    mut told: impl FnMut(&ExportsState, &[Invalid]),
) -> Result<Infallible, FollowError> {
    let mut client = ExportsClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
    state.on_disconnect();
    let mut updates = client.follow(proto::FollowRequest { resume: None }).await?.into_inner();
    loop {
        let update = updates.message().await?.ok_or(FollowError::Ended)?;
        let invalid = state.on_update(update)?;
        told(state, &invalid);
        if let Some(why @ Hold::Older { .. }) = state.held() {
            // It may catch up without a change to tell of, so waiting for one could take for ever.
            return Err(FollowError::Behind(why.clone()));
        }
    }
}

/// Services of one peer that are taken at most: a link's quota.
const SERVICES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn update(full: bool, names: &[&str], complete: Option<&str>) -> proto::ExportsUpdate {
        let service = |name: &&str| proto::ExportedService {
            id: Some(proto::ServiceRef { namespace: "shop".into(), name: (*name).into() }),
            ..proto::ExportedService::default()
        };
        proto::ExportsUpdate {
            full,
            upserts: names.iter().map(service).collect(),
            complete: complete.map(|id| proto::Complete { cluster_id: id.into() }),
            ..proto::ExportsUpdate::default()
        }
    }

    fn check(state: &mut ExportsState, update: proto::ExportsUpdate, expected: Option<&str>) {
        state.on_update(update).unwrap();
        let names = state.exports().map(|exports| exports.get().services.keys().map(|id| id.name().as_str()).collect::<Vec<_>>().join(" "));
        assert_eq!(names.as_deref(), expected);
    }

    #[test]
    fn exports_are_believed_when_the_listing_is_complete_and_from_the_expected_cluster() {
        let mut state = ExportsState::new("east".parse().unwrap());
        check(&mut state, update(true, &["a"], None), None);
        check(&mut state, update(false, &["b"], Some("east")), Some("a b"));
        check(&mut state, update(false, &["c"], None), Some("a b c"));
        check(&mut state, update(true, &[], Some("other")), Some("a b c"));
        assert!(state.held().is_some());
        check(&mut state, update(true, &["c"], Some("east")), Some("c"));
        assert!(state.held().is_none());
    }

    #[test]
    fn an_older_listing_is_held() {
        let mut state = ExportsState::new("east".parse().unwrap());
        let said = |version: &str| [("exports".to_owned(), version.to_owned())].into();
        let at = |version: &str, names: &[&str]| proto::ExportsUpdate { built_from: said(version), ..update(true, names, Some("east")) };
        check(&mut state, at("6", &["a", "b"]), Some("a b"));
        let withdrawn = proto::ServiceRef { namespace: "shop".into(), name: "b".into() };
        let delta = proto::ExportsUpdate { removals: vec![withdrawn], built_from: said("7"), ..proto::ExportsUpdate::default() };
        check(&mut state, delta, Some("a"));
        check(&mut state, at("6", &["a", "b"]), Some("a"));
        assert!(matches!(state.held(), Some(Hold::Older { known: 7, found: 6, .. })));
        state.on_disconnect();
        check(&mut state, proto::ExportsUpdate { read_to: said("7"), ..at("6", &["a", "c"]) }, Some("a c"));
        assert!(state.held().is_none());
    }

    #[test]
    fn a_broken_stream_withdraws_nothing() {
        let mut state = ExportsState::new("east".parse().unwrap());
        check(&mut state, update(true, &["a"], Some("east")), Some("a"));
        check(&mut state, update(true, &[], None), Some("a"));
        state.on_disconnect();
        check(&mut state, update(true, &["b"], Some("east")), Some("b"));
    }

    #[test]
    fn a_removal_is_believed_at_once() {
        let mut state = ExportsState::new("east".parse().unwrap());
        check(&mut state, update(true, &["a", "b"], Some("east")), Some("a b"));
        let removal = proto::ServiceRef { namespace: "shop".into(), name: "a".into() };
        check(&mut state, proto::ExportsUpdate { removals: vec![removal], ..proto::ExportsUpdate::default() }, Some("b"));
    }

    #[test]
    fn a_listing_that_lost_more_than_half_is_held() {
        let mut state = ExportsState::new("east".parse().unwrap());
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        check(&mut state, update(true, &names, Some("east")), Some("a b c d e f g h i j"));
        check(&mut state, update(true, &["a"], Some("east")), Some("a b c d e f g h i j"));
        check(&mut state, update(false, &["b", "c", "d", "e"], None), Some("a b c d e"));
    }
}
