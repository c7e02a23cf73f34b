//! What one worker measured of the endpoints and gateways it calls: latency, requests in flight, failures and ejections.
//!
//! Each worker has its own table, so there is no lock. Latency is a peak EWMA: a slow answer counts at once, a fast one slowly.
//! A failure is charged to the stage that failed: the outer connection to the gateway, everything behind it to the endpoint.
//! Time is handed in; asking changes nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_names::{ClusterName, EndpointName, Handle};

use crate::health::Evidence;

/// What load is measured of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointKey {
    /// An endpoint of the own cluster.
    Local(EndpointName),
    /// An endpoint of a linked cluster.
    Handle(ClusterName, Handle),
    /// A gateway of a linked cluster.
    Gateway(SocketAddr),
}

impl EndpointKey {
    /// Whether a failure at `stage` is this one's: a gateway's are those of the outer connection, an endpoint's all others.
    fn answers_for(&self, stage: Stage) -> bool {
        matches!(self, Self::Gateway(_)) == (stage == Stage::Gateway)
    }
}

/// Where an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The outer connection to the gateway.
    Gateway,
    /// Reaching the endpoint: dialled by us, or by its gateway.
    Dial,
    /// The session with the endpoint: its handshake, a refusal, GOAWAY.
    Session,
    /// The exchange itself: a reset, a time-out, a gateway error of the application.
    Response,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// It failed at this stage.
    Failed(Stage),
    /// The client went away; nobody is to blame.
    Cancelled,
}

/// One worker's table, and what the process has seen of gateways.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    seed: u64,
    entries: HashMap<EndpointKey, Load>,
    ejections: usize,
    evidence: Arc<Evidence>,
}

#[derive(Clone, Debug)]
struct Load {
    latency: f64,
    measured: Instant,
    in_flight: u32,
    failures: u32,
    ejected: u32,
    ejected_until: Option<Instant>,
}

impl Loads {
    /// An empty table. `seed` (a hash of this process's own id) spreads callers over different endpoints.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// What spreads callers over different endpoints.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Takes over what the process now knows of gateways. One that has come back is used again at once, whatever failed before.
    pub fn see(&mut self, evidence: &Arc<Evidence>) {
        if Arc::ptr_eq(&self.evidence, evidence) {
            return;
        }
        let before = std::mem::replace(&mut self.evidence, Arc::clone(evidence));
        for gateway in before.dark().filter(|gateway| !evidence.is_dark(*gateway)) {
            self.reinstate(&EndpointKey::Gateway(gateway));
        }
    }

    /// What the process knows of gateways.
    #[must_use]
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// An attempt at `key` starts.
    pub fn on_started(&mut self, key: &EndpointKey, now: Instant) {
        self.entry(key, now).in_flight += 1;
    }

    /// An attempt at `key` that was started has ended.
    pub fn on_finished(&mut self, key: &EndpointKey, latency: Duration, outcome: Outcome, now: Instant) {
        let load = self.entry(key, now);
        load.in_flight = load.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Answered => {
                load.observe(latency.as_secs_f64(), now);
                load.failures = 0;
                self.reinstate(key);
            }
            Outcome::Failed(stage) if key.answers_for(stage) => self.on_failed(key, latency, stage, now),
            // Another's fault says that this one did its part, and nothing of how fast it is.
            Outcome::Failed(_) => load.failures = 0,
            Outcome::Cancelled => {}
        }
    }

    fn on_failed(&mut self, key: &EndpointKey, latency: Duration, stage: Stage, now: Instant) {
        let load = self.entry(key, now);
        if load.ejected_until.is_some_and(|until| now < until) {
            // Others that were under way when it was ejected fail for the same cause.
            return;
        }
        load.observe(latency.as_secs_f64().max(FAILURE_COSTS), now);
        load.failures += 1;
        if load.failures < if stage == Stage::Response { RESPONSE_FAILURES_MAX } else { 1 } {
            return;
        }
        load.failures = 0;
        load.ejected += 1;
        // The ejection keeps requests away; once it is over, an old failure must not do so for another minute.
        load.latency = LATENCY_MIN;
        let most = if matches!(key, EndpointKey::Gateway(_)) { GATEWAY_DOUBLINGS } else { EJECTION_DOUBLINGS };
        let doublings = (load.ejected - 1).min(most);
        let newly = load.ejected_until.replace(now + EJECTION * 2_u32.pow(doublings)).is_none();
        self.ejections += usize::from(newly);
    }

    /// Whether `key` is to be left alone for now.
    #[must_use]
    pub fn is_ejected(&self, key: &EndpointKey, now: Instant) -> bool {
        self.ejections > 0 && self.entries.get(key).and_then(|load| load.ejected_until).is_some_and(|until| now < until)
    }

    /// Whether nothing at all is ejected, so that nobody needs to be asked about.
    #[must_use]
    pub fn nothing_ejected(&self) -> bool {
        self.ejections == 0
    }

    /// What another request to `key` costs: its latency, times what it already works on.
    #[must_use]
    pub fn cost(&self, key: &EndpointKey, now: Instant) -> f64 {
        self.entries.get(key).map_or(LATENCY_MIN, |load| load.cost(now))
    }

    /// Requests in flight at `key`.
    #[must_use]
    pub fn in_flight(&self, key: &EndpointKey) -> u32 {
        self.entries.get(key).map_or(0, |load| load.in_flight)
    }

    /// Forgets what has not been called for a while. The worker calls it now and then, so that the table stays as small as what is used.
    pub fn sweep(&mut self, now: Instant) {
        self.entries.retain(|_, load| load.in_flight > 0 || now.saturating_duration_since(load.measured) < FORGOTTEN);
        self.ejections = self.entries.values().filter(|load| load.ejected_until.is_some()).count();
    }

    fn entry(&mut self, key: &EndpointKey, now: Instant) -> &mut Load {
        if !self.entries.contains_key(key) {
            self.entries.insert(key.clone(), Load::new(now));
        }
        self.entries.entry(key.clone()).or_insert_with(|| Load::new(now))
    }

    fn reinstate(&mut self, key: &EndpointKey) {
        if let Some(load) = self.entries.get_mut(key) {
            load.ejected = 0;
            self.ejections -= usize::from(load.ejected_until.take().is_some());
        }
    }
}

impl Load {
    fn new(now: Instant) -> Self {
        Self { latency: LATENCY_MIN, measured: now, in_flight: 0, failures: 0, ejected: 0, ejected_until: None }
    }

    fn observe(&mut self, latency: f64, now: Instant) {
        let old = self.remembered(now);
        self.latency = if latency > self.latency { latency } else { latency + (self.latency - latency) * old };
        self.measured = now;
    }

    /// How much of the old value still counts.
    fn remembered(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.measured).as_secs_f64() / MEMORY).exp()
    }

    fn cost(&self, now: Instant) -> f64 {
        let latency = if self.latency <= LATENCY_MIN { LATENCY_MIN } else { (self.latency * self.remembered(now)).max(LATENCY_MIN) };
        latency * f64::from(self.in_flight + 1)
    }
}

/// Below this no difference counts; it is also what an endpoint that was never called is taken to need. Seconds.
const LATENCY_MIN: f64 = 0.000_5;
/// The time after which a measurement counts for 1/e. Seconds.
const MEMORY: f64 = 10.0;
/// What a failure counts as, so that failing fast attracts nobody. Seconds.
const FAILURE_COSTS: f64 = 1.0;
/// Exchanges that fail in a row until their endpoint is ejected; failures to reach it need only one.
const RESPONSE_FAILURES_MAX: u32 = 5;
/// How long a first ejection lasts; each next one doubles it, this many times at most.
const EJECTION: Duration = Duration::from_secs(1);
const EJECTION_DOUBLINGS: u32 = 5;
/// Gateways are few, and each has its watch: they are tried again sooner.
const GATEWAY_DOUBLINGS: u32 = 2;
/// An entry that has not been used for this long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn local(name: &str) -> EndpointKey {
        EndpointKey::Local(name.parse().unwrap())
    }

    fn finish(loads: &mut Loads, key: &EndpointKey, millis: u64, outcome: Outcome, now: Instant) {
        loads.on_started(key, now);
        loads.on_finished(key, Duration::from_millis(millis), outcome, now);
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_a_fast_one_slowly() {
        let (mut loads, now, key) = (Loads::new(1), start(), local("a"));
        finish(&mut loads, &key, 100, Outcome::Answered, now);
        assert!((loads.cost(&key, now) - 0.1).abs() < 1e-9);
        finish(&mut loads, &key, 1, Outcome::Answered, now + Duration::from_millis(10));
        assert!(loads.cost(&key, now + Duration::from_millis(10)) > 0.09);
        assert!(loads.cost(&key, now + Duration::from_secs(60)) < 0.01);
    }

    #[test]
    fn requests_in_flight_multiply_the_cost() {
        let (mut loads, now, key) = (Loads::new(1), start(), local("a"));
        finish(&mut loads, &key, 10, Outcome::Answered, now);
        let idle = loads.cost(&key, now);
        loads.on_started(&key, now);
        loads.on_started(&key, now);
        assert!((loads.cost(&key, now) / idle - 3.0).abs() < 1e-9);
        assert_eq!(loads.in_flight(&key), 2);
    }

    #[test]
    fn an_endpoint_that_cannot_be_reached_is_left_alone_longer_each_time() {
        let (mut loads, now, key) = (Loads::new(1), start(), local("a"));
        finish(&mut loads, &key, 1, Outcome::Failed(Stage::Dial), now);
        assert!(loads.is_ejected(&key, now));
        assert!(!loads.is_ejected(&key, now + Duration::from_secs(1)));
        finish(&mut loads, &key, 1, Outcome::Failed(Stage::Dial), now + Duration::from_secs(1));
        assert!(loads.is_ejected(&key, now + Duration::from_millis(2900)));
        finish(&mut loads, &key, 1, Outcome::Answered, now + Duration::from_secs(4));
        assert!(loads.nothing_ejected());
    }

    #[test]
    fn failures_of_one_moment_are_one_cause() {
        let (mut loads, now, key) = (Loads::new(1), start(), local("a"));
        for _ in 0..20 {
            finish(&mut loads, &key, 1, Outcome::Failed(Stage::Dial), now);
        }
        assert!(!loads.is_ejected(&key, now + Duration::from_secs(1)));
    }

    #[test]
    fn a_gateway_whose_watch_sees_it_again_is_used_at_once() {
        let (mut loads, now) = (Loads::new(1), start());
        let address = "127.1.0.4:4143".parse().unwrap();
        let key = EndpointKey::Gateway(address);
        finish(&mut loads, &key, 1, Outcome::Failed(Stage::Gateway), now);
        let dark = Evidence::default().with_state(address, crate::ProbeState::Dark);
        loads.see(&Arc::new(dark.clone()));
        assert!(loads.is_ejected(&key, now));
        loads.see(&Arc::new(dark.with_state(address, crate::ProbeState::Alive)));
        assert!(!loads.is_ejected(&key, now));
    }

    #[test]
    fn a_gateway_is_not_slow_because_something_behind_it_failed() {
        let (mut loads, now) = (Loads::new(1), start());
        let key = EndpointKey::Gateway("127.1.0.4:4143".parse().unwrap());
        finish(&mut loads, &key, 2, Outcome::Answered, now);
        finish(&mut loads, &key, 900, Outcome::Failed(Stage::Response), now);
        assert!(loads.cost(&key, now) < 0.003);
    }

    #[test]
    fn what_was_ejected_is_no_dearer_than_a_stranger_once_that_is_over() {
        let (mut loads, now) = (Loads::new(1), start());
        for (key, stage) in [
            (EndpointKey::Gateway("127.1.0.4:4143".parse().unwrap()), Stage::Gateway),
            (EndpointKey::Handle("east".parse().unwrap(), "handle00".parse().unwrap()), Stage::Session),
        ] {
            finish(&mut loads, &key, 900, Outcome::Failed(stage), now);
            let over = now + EJECTION;
            assert!(!loads.is_ejected(&key, over));
            assert!((loads.cost(&key, over) - LATENCY_MIN).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn an_endpoint_is_ejected_after_five_failed_exchanges_in_a_row() {
        let (mut loads, now, key) = (Loads::new(1), start(), local("a"));
        for _ in 0..4 {
            finish(&mut loads, &key, 1, Outcome::Failed(Stage::Response), now);
        }
        assert!(!loads.is_ejected(&key, now));
        finish(&mut loads, &key, 1, Outcome::Failed(Stage::Response), now);
        assert!(loads.is_ejected(&key, now));
    }

    #[test]
    fn a_failure_is_charged_to_the_stage_that_failed() {
        let (mut loads, now) = (Loads::new(1), start());
        let gateway = EndpointKey::Gateway("127.1.0.4:4143".parse().unwrap());
        let handle = EndpointKey::Handle("east".parse().unwrap(), "handle00".parse().unwrap());
        for key in [&gateway, &handle] {
            finish(&mut loads, key, 1, Outcome::Failed(Stage::Session), now);
        }
        assert!(!loads.is_ejected(&gateway, now), "the gateway did its part");
        assert!(loads.is_ejected(&handle, now));
        for key in [&gateway, &handle] {
            finish(&mut loads, key, 1, Outcome::Failed(Stage::Gateway), now + Duration::from_secs(5));
        }
        assert!(loads.is_ejected(&gateway, now + Duration::from_secs(5)));
        assert!(!loads.is_ejected(&handle, now + Duration::from_secs(5)));
    }

    #[test]
    fn a_client_that_goes_away_is_nobodys_fault() {
        let (mut loads, now, key) = (Loads::new(1), start(), local("a"));
        let before = loads.cost(&key, now);
        finish(&mut loads, &key, 9000, Outcome::Cancelled, now);
        assert!((loads.cost(&key, now) - before).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_not_called_is_forgotten() {
        let (mut loads, now, key) = (Loads::new(1), start(), local("a"));
        finish(&mut loads, &key, 1, Outcome::Failed(Stage::Dial), now);
        loads.sweep(now + Duration::from_secs(601));
        assert!(loads.nothing_ejected() && loads.entries.is_empty());
    }
}
