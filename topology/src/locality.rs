//! Near before far: which linked clusters a request may spill to, in which order, and how much each group of them can take.

use std::sync::Arc;
use std::time::Instant;

use crate::loads::{EndpointKey, Loads};
use crate::model::{Gateway, Import, Link, LinkHealth, Remote};
use crate::route::{HEADROOM, ratio};
use crate::snapshot::Snapshot;
use crate::target::RequestKey;

/// How careful a pass over the candidates is. A pass is made only when the one before found nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caution {
    /// Nothing that is ejected, dark or already tried.
    Careful,
    /// Ejected ones too, and those that were tried: the ejections may be our own mistake.
    Ejected,
    /// Dark links too: an attempt that fails says more than no attempt.
    Dark,
}

impl Caution {
    pub(crate) const ALL: [Self; 3] = [Self::Careful, Self::Ejected, Self::Dark];

    /// Whether an endpoint may be used.
    pub(crate) fn allows(self, key: &EndpointKey, request: &RequestKey, loads: &Loads, now: Instant) -> bool {
        self != Self::Careful || (!loads.is_ejected(key, now) && !request.avoid.contains(key))
    }

    /// Whether a gateway may be used. One that refused this worker just now counts as dark, and so does a link without any other.
    pub(crate) fn allows_gateway(self, gateway: &Gateway, request: &RequestKey, loads: &Loads, now: Instant) -> bool {
        let key = EndpointKey::Gateway(gateway.address);
        match self {
            Self::Careful => loads.evidence().is_usable(gateway.address) && !loads.is_ejected(&key, now) && !request.avoid.contains(&key),
            Self::Ejected => loads.evidence().is_usable(gateway.address),
            Self::Dark => true,
        }
    }

    fn allows_link(self, link: &Link, request: &RequestKey, loads: &Loads, now: Instant) -> bool {
        let health = match link.health {
            LinkHealth::Healthy | LinkHealth::Degraded | LinkHealth::Unknown => true,
            LinkHealth::Unreachable => self == Self::Dark,
            LinkHealth::Drained => false,
        };
        health && link.gateways.iter().any(|gateway| self.allows_gateway(gateway, request, loads, now))
    }
}

/// Links that are used alike, and how much of the requests left over they can take.
#[derive(Debug)]
pub(crate) struct Tier<'a> {
    pub(crate) ways: Vec<Way<'a>>,
    pub(crate) share: f64,
    priority: u32,
}

/// One link of a tier.
#[derive(Debug)]
pub(crate) struct Way<'a> {
    pub(crate) link: &'a Arc<Link>,
    pub(crate) remote: &'a Arc<Remote>,
    /// Its part of the tier's requests: by its health, the same for links of equal health. A peer's weights divide its own part only.
    pub(crate) weight: u32,
}

/// The tiers of links that serve `import`, nearest first.
pub(crate) fn link_tiers<'a>(
    snapshot: &'a Snapshot,
    import: &Import,
    request: &RequestKey,
    loads: &Loads,
    (now, caution): (Instant, Caution),
) -> Vec<Tier<'a>> {
    let mut tiers: Vec<Tier<'a>> = Vec::new();
    for cluster in &import.clusters {
        let (Some(link), Some(remote)) = (snapshot.link(cluster), snapshot.remote(cluster, &import.id)) else { continue };
        let health = health(link, remote, request, loads, (now, caution));
        match tiers.iter_mut().find(|tier| tier.priority == link.priority) {
            Some(tier) => tier.add(link, remote, health),
            None => {
                let mut tier = Tier { ways: Vec::with_capacity(1), share: 0.0, priority: link.priority };
                tier.add(link, remote, health);
                tiers.push(tier);
            }
        }
    }
    tiers.sort_by_key(|tier| tier.priority);
    tiers
}

impl<'a> Tier<'a> {
    /// A tier of this link only; none when it cannot be used.
    pub(crate) fn of_one(
        link: &'a Arc<Link>,
        remote: &'a Arc<Remote>,
        request: &RequestKey,
        loads: &Loads,
        moment: (Instant, Caution),
    ) -> Option<Self> {
        let health = health(link, remote, request, loads, moment);
        let mut tier = Self { ways: Vec::with_capacity(1), share: 0.0, priority: link.priority };
        tier.add(link, remote, health);
        (tier.share > 0.0).then_some(tier)
    }

    fn add(&mut self, link: &'a Arc<Link>, remote: &'a Arc<Remote>, health: f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a health of 0 to 1 becomes 0 to 1000")]
        let weight = (health * 1000.0).ceil() as u32;
        self.ways.push(Way { link, remote, weight });
        self.share = (self.share + health * HEADROOM).min(1.0);
    }
}

/// The healthy part of what a link offers of a service, 0 to 1.
fn health(link: &Link, remote: &Remote, request: &RequestKey, loads: &Loads, (now, caution): (Instant, Caution)) -> f64 {
    if remote.port(request.port).is_none() || !caution.allows_link(link, request, loads, now) {
        return 0.0;
    }
    let degraded = if link.health == LinkHealth::Degraded { DEGRADED } else { 1.0 };
    if !remote.handles_valid {
        return degraded;
    }
    let (mut healthy, mut all) = (0_u64, 0_u64);
    for endpoint in &remote.endpoints {
        all += u64::from(endpoint.weight);
        let key = || EndpointKey::Handle(link.name.clone(), endpoint.handle.clone());
        let checked = loads.nothing_ejected() && request.avoid.is_empty() || caution.allows(&key(), request, loads, now);
        if endpoint.ready && checked {
            healthy += u64::from(endpoint.weight);
        }
    }
    if all == 0 { 0.0 } else { ratio(healthy, all) * degraded }
}

/// What a link counts for while some of its gateways do not answer: with the headroom, nearly all.
const DEGRADED: f64 = 0.7;
