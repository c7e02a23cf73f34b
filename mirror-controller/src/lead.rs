//! Which replica acts: one at a time, by a Lease in this cluster's API. Pure: a state machine that is handed the time and what the API says.
//!
//! A replica takes the Lease when nobody holds it, or when its holder did not renew it for as long as the Lease says, by this replica's own
//! clock: the times in it are somebody else's. A holder that could not renew in time stops writing before another may begin; it goes on
//! serving what it knows, since an API server that is away is no reason to leave this cluster's controls without it. Only when it sees
//! another hold the Lease is it done, and ends: what it knew is the other's to say now.

use std::time::{Duration, Instant};

/// The Lease as the API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty when it was given back.
    pub holder: String,
    /// How long it holds after a renewal.
    pub lasts: Duration,
    /// How often it changed hands.
    pub transitions: i32,
    /// The version that a write builds on.
    pub version: String,
}

/// A write to the Lease. It holds only if nobody wrote meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// There is none yet.
    Create,
    /// It is ours, and stays so.
    Renew {
        /// What it was read as.
        version: String,
    },
    /// It is free, or its holder is silent.
    Take {
        /// What it was read as.
        version: String,
        /// How often it will have changed hands.
        transitions: i32,
    },
}

/// Where this replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not led yet.
    Waits,
    /// It acts.
    Leads,
    /// It could not renew in time: it writes nothing, and serves what it knows.
    Lapsed,
    /// Another acts: this process is done.
    Lost,
}

/// One replica's part in the election.
#[derive(Clone, Debug)]
pub struct Election {
    own: String,
    seen: Option<(String, Instant)>,
    renewed: Option<Instant>,
    lost: bool,
}

impl Election {
    /// Of the replica that is called `own`, as no other is.
    #[must_use]
    pub fn new(own: String) -> Self {
        Self { own, seen: None, renewed: None, lost: false }
    }

    /// The Lease was read at `now`: what to write, if anything.
    pub fn on_read(&mut self, record: Option<&Record>, now: Instant) -> Option<Claim> {
        let Some(record) = record else { return Some(Claim::Create) };
        let version = record.version.clone();
        if record.holder == self.own {
            return Some(Claim::Renew { version });
        }
        self.lost |= self.renewed.is_some() && !record.holder.is_empty();
        if self.lost {
            return None;
        }
        let take = Claim::Take { version: version.clone(), transitions: record.transitions.saturating_add(1) };
        match &self.seen {
            _ if record.holder.is_empty() => Some(take),
            Some((seen, since)) if *seen == version => (now.saturating_duration_since(*since) >= record.lasts).then_some(take),
            _ => {
                self.seen = Some((version, now));
                None
            }
        }
    }

    /// The claim that was sent at `asked` was accepted.
    pub fn on_claimed(&mut self, asked: Instant) {
        self.renewed = Some(asked);
        self.seen = None;
    }

    /// Where this replica stands at `now`.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        match self.renewed {
            _ if self.lost => Standing::Lost,
            None => Standing::Waits,
            Some(renewed) if now.saturating_duration_since(renewed) < LEADS_FOR => Standing::Leads,
            Some(_) => Standing::Lapsed,
        }
    }
}

/// How long a Lease holds after its last renewal.
pub const LEASE: Duration = Duration::from_secs(10);
/// How long a holder goes on writing after its last renewal: what it has begun ends before another may begin.
pub const LEADS_FOR: Duration = Duration::from_secs(7);
/// How often the Lease is read, and renewed by its holder.
pub const EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str, version: u32) -> Record {
        Record { holder: holder.to_owned(), lasts: LEASE, transitions: 4, version: version.to_string() }
    }

    fn take(version: u32) -> Option<Claim> {
        Some(Claim::Take { version: version.to_string(), transitions: 5 })
    }

    fn leading(now: Instant) -> Election {
        let mut election = Election::new("a".to_owned());
        assert_eq!(election.on_read(None, now), Some(Claim::Create));
        election.on_claimed(now);
        election
    }

    #[test]
    fn the_first_creates_the_lease_and_leads_while_it_renews() {
        let now = Instant::now();
        let mut election = leading(now);
        assert_eq!(election.standing(now + EVERY), Standing::Leads);
        assert_eq!(election.on_read(Some(&record("a", 1)), now + EVERY), Some(Claim::Renew { version: "1".to_owned() }));
        election.on_claimed(now + EVERY);
        assert_eq!(election.standing(now + EVERY + LEADS_FOR - Duration::from_millis(1)), Standing::Leads);
    }

    #[test]
    fn a_replica_waits_while_the_holder_renews_and_takes_over_when_it_is_silent_for_the_lease() {
        let now = Instant::now();
        let mut election = Election::new("b".to_owned());
        for (version, second) in [(1, 0), (2, 9), (3, 18)] {
            assert_eq!(election.on_read(Some(&record("a", version)), now + Duration::from_secs(second)), None);
        }
        let last = now + Duration::from_secs(18);
        assert_eq!(election.on_read(Some(&record("a", 3)), last + LEASE - Duration::from_millis(1)), None);
        assert_eq!(election.standing(last + LEASE), Standing::Waits);
        assert_eq!(election.on_read(Some(&record("a", 3)), last + LEASE), take(3));
        election.on_claimed(last + LEASE);
        assert_eq!(election.standing(last + LEASE), Standing::Leads);
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        assert_eq!(Election::new("b".to_owned()).on_read(Some(&record("", 7)), Instant::now()), take(7));
    }

    #[test]
    fn a_restarted_holder_goes_on() {
        let claim = Election::new("a".to_owned()).on_read(Some(&record("a", 7)), Instant::now());
        assert_eq!(claim, Some(Claim::Renew { version: "7".to_owned() }));
    }

    #[test]
    fn a_holder_that_cannot_renew_stops_writing_before_another_may_begin_and_goes_on_when_nobody_did() {
        let now = Instant::now();
        let mut election = leading(now);
        assert!(LEADS_FOR + EVERY < LEASE);
        assert_eq!(election.standing(now + LEADS_FOR), Standing::Lapsed);
        let later = now + LEASE * 3;
        assert_eq!(election.on_read(Some(&record("a", 1)), later), Some(Claim::Renew { version: "1".to_owned() }));
        election.on_claimed(later);
        assert_eq!(election.standing(later), Standing::Leads);
    }

    #[test]
    fn a_holder_that_sees_another_hold_the_lease_is_done_for_good() {
        let now = Instant::now();
        let mut election = leading(now);
        assert_eq!(election.on_read(Some(&record("b", 2)), now + LEASE), None);
        assert_eq!(election.standing(now + LEASE), Standing::Lost);
        assert_eq!(election.on_read(Some(&record("", 3)), now + LEASE), None);
        assert_eq!(election.standing(now + LEASE), Standing::Lost);
    }
}
