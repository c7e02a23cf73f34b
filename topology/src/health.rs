//! Whether gateways and links live, as state machines that are handed the time.
//!
//! A gateway is pinged every second; three misses make it dark, two answers in a row bring it back. "I cannot see it" is all that a
//! probe ever says: nothing here concludes that the other cluster is down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::model::LinkHealth;

/// What a process has seen of gateways itself. An immutable value: the watcher publishes the next, workers read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    dark: BTreeSet<SocketAddr>,
    draining: BTreeSet<SocketAddr>,
}

impl Evidence {
    /// Nothing bad was seen of this gateway.
    #[must_use]
    pub fn is_usable(&self, gateway: SocketAddr) -> bool {
        !self.dark.contains(&gateway) && !self.draining.contains(&gateway)
    }

    /// The gateway does not answer.
    #[must_use]
    pub fn is_dark(&self, gateway: SocketAddr) -> bool {
        self.dark.contains(&gateway)
    }

    /// The gateways that do not answer.
    pub fn dark(&self) -> impl Iterator<Item = SocketAddr> {
        self.dark.iter().copied()
    }

    /// The next evidence, with this gateway answering or not. A gateway that answers again after a restart no longer drains.
    #[must_use]
    pub fn with_state(&self, gateway: SocketAddr, state: ProbeState) -> Self {
        let mut next = self.clone();
        match state {
            ProbeState::Dark => next.dark.insert(gateway),
            ProbeState::Alive | ProbeState::Unknown => next.dark.remove(&gateway),
        };
        next
    }

    /// The next evidence, with this gateway draining or not.
    #[must_use]
    pub fn with_draining(&self, gateway: SocketAddr, draining: bool) -> Self {
        let mut next = self.clone();
        if draining {
            next.draining.insert(gateway);
        } else {
            next.draining.remove(&gateway);
        }
        next
    }

    /// The next evidence, about these gateways only.
    #[must_use]
    pub fn only(&self, gateways: &BTreeSet<SocketAddr>) -> Self {
        Self {
            dark: self.dark.intersection(gateways).copied().collect(),
            draining: self.draining.intersection(gateways).copied().collect(),
        }
    }
}

/// What a probe says of a gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProbeState {
    /// Not asked long enough yet.
    #[default]
    Unknown,
    /// It answers.
    Alive,
    /// It does not.
    Dark,
}

/// What a prober is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeStep {
    /// Send this ping now, and call [`GatewayProbe::on_pinged`].
    Ping(u64),
    /// The ping that was sent has no answer in time: call [`GatewayProbe::on_missed`].
    Missed,
    /// Nothing before this moment.
    WaitUntil(Instant),
}

/// The probe of one gateway over one `watch` tunnel.
#[derive(Clone, Debug)]
pub struct GatewayProbe {
    state: ProbeState,
    number: u64,
    unanswered_since: Option<Instant>,
    next_at: Instant,
    misses: u32,
    answers: u32,
}

impl GatewayProbe {
    /// A probe that pings at once.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { state: ProbeState::Unknown, number: 0, unanswered_since: None, next_at: now, misses: 0, answers: 0 }
    }

    /// What the probe says.
    #[must_use]
    pub fn state(&self) -> ProbeState {
        self.state
    }

    /// What to do at `now`. Asking twice changes nothing.
    #[must_use]
    pub fn step(&self, now: Instant) -> ProbeStep {
        if let Some(sent) = self.unanswered_since {
            let late = sent + INTERVAL;
            return if now < late { ProbeStep::WaitUntil(late) } else { ProbeStep::Missed };
        }
        if now < self.next_at { ProbeStep::WaitUntil(self.next_at) } else { ProbeStep::Ping(self.number + 1) }
    }

    /// Ping `number` was sent.
    pub fn on_pinged(&mut self, number: u64, now: Instant) {
        self.number = number;
        self.unanswered_since = Some(now);
        self.next_at = now + INTERVAL;
    }

    /// The answer to ping `number` came; a late one for an older ping proves life just as well.
    pub fn on_pong(&mut self, number: u64) {
        if number == self.number {
            self.unanswered_since = None;
        }
        self.misses = 0;
        self.answers = self.answers.saturating_add(1);
        if self.state != ProbeState::Dark || self.answers >= ANSWERS {
            self.state = ProbeState::Alive;
        }
    }

    /// A ping was not answered in time, the tunnel broke, or a dial failed.
    pub fn on_missed(&mut self, now: Instant) {
        self.unanswered_since = None;
        self.next_at = self.next_at.max(now);
        self.answers = 0;
        self.misses = self.misses.saturating_add(1);
        if self.misses >= MISSES {
            self.state = ProbeState::Dark;
        }
    }

    /// The gateway refuses connections: it need not be asked three times to know that it cannot be used now.
    pub fn on_refused(&mut self, now: Instant) {
        self.on_missed(now);
        self.misses = MISSES;
        self.state = ProbeState::Dark;
    }
}

/// The probes of a link: one for each of its gateways.
#[derive(Clone, Debug, Default)]
pub struct LinkProbe {
    gateways: BTreeMap<SocketAddr, GatewayProbe>,
}

impl LinkProbe {
    /// Probes exactly these gateways from now on; what is known of those that stay is kept.
    pub fn follow(&mut self, gateways: &BTreeSet<SocketAddr>, now: Instant) {
        self.gateways.retain(|gateway, _| gateways.contains(gateway));
        for gateway in gateways {
            self.gateways.entry(*gateway).or_insert_with(|| GatewayProbe::new(now));
        }
    }

    /// The probe of one gateway.
    pub fn gateway(&mut self, gateway: SocketAddr) -> Option<&mut GatewayProbe> {
        self.gateways.get_mut(&gateway)
    }

    /// What the probes together say of the link; `Drained` is a person's word and never said here.
    #[must_use]
    pub fn health(&self) -> LinkHealth {
        let count = |state| self.gateways.values().filter(|probe| probe.state == state).count();
        let (alive, dark) = (count(ProbeState::Alive), count(ProbeState::Dark));
        match (alive, dark) {
            (0, 0) => LinkHealth::Unknown,
            (0, dark) if dark == self.gateways.len() => LinkHealth::Unreachable,
            (0, _) => LinkHealth::Unknown,
            (_, 0) => LinkHealth::Healthy,
            (_, _) => LinkHealth::Degraded,
        }
    }
}

/// How often a gateway is pinged, and how long an answer may take.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Misses in a row that make a gateway dark.
pub const MISSES: u32 = 3;
/// Answers in a row that bring a dark gateway back.
pub const ANSWERS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn gateway(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 1, 0, last], 4143))
    }

    /// Pings once a second from `start()`; `answers` says which pings are answered: `+` at once, `-` never.
    fn check(answers: &str, expected: ProbeState) {
        let mut now = start();
        let mut probe = GatewayProbe::new(now);
        for answer in answers.chars() {
            let ProbeStep::Ping(number) = probe.step(now) else { panic!("{:?} at ping of {answers}", probe.step(now)) };
            probe.on_pinged(number, now);
            if answer == '+' {
                probe.on_pong(number);
            }
            now += INTERVAL;
            if probe.step(now) == ProbeStep::Missed {
                probe.on_missed(now);
            }
        }
        assert_eq!(probe.state(), expected, "{answers}");
    }

    #[test]
    fn three_misses_in_a_row_make_a_gateway_dark_and_two_answers_bring_it_back() {
        check("", ProbeState::Unknown);
        check("+", ProbeState::Alive);
        check("--", ProbeState::Unknown);
        check("---", ProbeState::Dark);
        check("+--", ProbeState::Alive);
        check("+--+--", ProbeState::Alive);
        check("+---", ProbeState::Dark);
        check("+---+", ProbeState::Dark);
        check("+---++", ProbeState::Alive);
        check("+---+-+", ProbeState::Dark);
    }

    #[test]
    fn a_refused_connection_makes_a_gateway_dark_at_once() {
        let mut probe = GatewayProbe::new(start());
        probe.on_refused(start());
        assert_eq!(probe.state(), ProbeState::Dark);
    }

    #[test]
    fn asking_twice_changes_nothing() {
        let (now, probe) = (start(), GatewayProbe::new(start()));
        assert_eq!(probe.step(now), probe.step(now));
    }

    fn check_link(states: &[(u8, ProbeState)], expected: LinkHealth) {
        let mut link = LinkProbe::default();
        link.follow(&states.iter().map(|(last, _)| gateway(*last)).collect(), start());
        for (last, state) in states {
            let probe = link.gateway(gateway(*last)).unwrap();
            match state {
                ProbeState::Unknown => {}
                ProbeState::Alive => probe.on_pong(0),
                ProbeState::Dark => probe.on_refused(start()),
            }
        }
        assert_eq!(link.health(), expected, "{states:?}");
    }

    #[test]
    fn a_link_is_unreachable_only_when_every_gateway_is_dark() {
        use ProbeState::{Alive, Dark, Unknown};
        check_link(&[], LinkHealth::Unknown);
        check_link(&[(4, Alive), (5, Alive)], LinkHealth::Healthy);
        check_link(&[(4, Alive), (5, Dark)], LinkHealth::Degraded);
        check_link(&[(4, Unknown), (5, Dark)], LinkHealth::Unknown);
        check_link(&[(4, Dark), (5, Dark)], LinkHealth::Unreachable);
    }

    #[test]
    fn what_is_known_of_a_gateway_survives_a_change_of_the_others() {
        let mut link = LinkProbe::default();
        link.follow(&BTreeSet::from([gateway(4), gateway(5)]), start());
        link.gateway(gateway(4)).unwrap().on_refused(start());
        link.follow(&BTreeSet::from([gateway(4)]), start());
        assert_eq!(link.health(), LinkHealth::Unreachable);
    }

    #[test]
    fn evidence_says_which_gateways_may_be_used() {
        let seen = Evidence::default().with_state(gateway(4), ProbeState::Dark).with_draining(gateway(5), true);
        assert!(!seen.is_usable(gateway(4)) && !seen.is_usable(gateway(5)) && seen.is_usable(gateway(6)));
        assert!(seen.with_state(gateway(4), ProbeState::Alive).is_usable(gateway(4)));
        assert_eq!(seen.only(&BTreeSet::from([gateway(6)])), Evidence::default());
    }
}
