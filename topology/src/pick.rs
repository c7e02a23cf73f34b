//! Power of two choices, weighted; and the part of a service's endpoints that one caller keeps to.

use std::time::Instant;

use crate::loads::{EndpointKey, Loads};

/// The randomness and the time of one decision, handed in.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// Now.
    pub at: Instant,
    bits: u64,
}

impl Draw {
    /// A draw from 64 random bits.
    #[must_use]
    pub fn new(at: Instant, bits: u64) -> Self {
        Self { at, bits }
    }

    /// The next 64 bits (splitmix64).
    pub(crate) fn next(&mut self) -> u64 {
        self.bits = self.bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.bits)
    }

    /// A number in [0, 1).
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64")]
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Draws two of `items` by weight and takes the first, unless the second is clearly cheaper; one when only one has weight, none when none
/// has. Small differences do not count: they are chance, and following them sends everybody to the same one.
pub(crate) fn pick<'a, T>(items: &'a [T], weight: impl Fn(&T) -> u32, cost: impl Fn(&T) -> f64, draw: &mut Draw) -> Option<&'a T> {
    let total: u64 = items.iter().map(|item| u64::from(weight(item))).sum();
    if total == 0 {
        return None;
    }
    let first = at(items, &weight, draw.below(total), None)?;
    let rest = total - u64::from(weight(&items[first]));
    if rest == 0 {
        return items.get(first);
    }
    let second = at(items, &weight, draw.below(rest), Some(first))?;
    let cheaper = if cost(&items[second]) * CLEARLY < cost(&items[first]) { second } else { first };
    items.get(cheaper)
}

fn at<T>(items: &[T], weight: impl Fn(&T) -> u32, mut left: u64, without: Option<usize>) -> Option<usize> {
    for (at, item) in items.iter().enumerate().filter(|(at, _)| Some(*at) != without) {
        let weight = u64::from(weight(item));
        if left < weight {
            return Some(at);
        }
        left -= weight;
    }
    None
}

/// The endpoints that one caller keeps sessions to: the first by rendezvous hash of its own id, more while they are busy. So 1,000
/// callers of 40 endpoints do not hold 40,000 sessions, and each endpoint still has callers.
pub(crate) struct Subset {
    least: Option<u64>,
    seed: u64,
}

/// What tells endpoints apart in a hash.
pub(crate) trait Named {
    /// The name.
    fn bytes(&self) -> &[u8];
}

impl Named for std::sync::Arc<crate::model::Endpoint> {
    fn bytes(&self) -> &[u8] {
        self.name.as_str().as_bytes()
    }
}

impl Named for std::sync::Arc<crate::model::RemoteEndpoint> {
    fn bytes(&self) -> &[u8] {
        self.handle.as_str().as_bytes()
    }
}

impl Subset {
    /// The subset of `items` for the process whose loads these are.
    pub(crate) fn of<T: Named>(items: &[T], loads: &Loads, key: impl Fn(&T) -> EndpointKey) -> Self {
        let seed = loads.seed();
        if items.len() <= SUBSET {
            return Self { least: None, seed };
        }
        let mut ranked: Vec<(u64, &T)> = items.iter().map(|item| (score(seed, item.bytes()), item)).collect();
        ranked.sort_unstable_by_key(|(score, _)| std::cmp::Reverse(*score));
        let mut size = SUBSET;
        let mut busy: u64 = ranked[..size].iter().map(|(_, item)| u64::from(loads.in_flight(&key(item)))).sum();
        while size < ranked.len() && busy >= BUSY * size as u64 {
            busy += u64::from(loads.in_flight(&key(ranked[size].1)));
            size += 1;
        }
        Self { least: Some(ranked[size - 1].0), seed }
    }

    pub(crate) fn has<T: Named>(&self, item: &T) -> bool {
        self.least.is_none_or(|least| score(self.seed, item.bytes()) >= least)
    }
}

fn score(seed: u64, bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    mix(hash)
}

fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// How much more the one may cost before the other is preferred; one request in flight against none is more than this.
const CLEARLY: f64 = 1.5;
/// Endpoints of one service that a caller keeps sessions to at least.
const SUBSET: usize = 4;
/// Requests in flight at each of them from which on one more is used.
const BUSY: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn picks(weights: &[u32], costs: &[f64], rounds: u64) -> Vec<usize> {
        let items: Vec<usize> = (0..weights.len()).collect();
        let mut counts = vec![0; items.len()];
        for round in 0..rounds {
            if let Some(item) = pick(&items, |item| weights[*item], |item| costs[*item], &mut Draw::new(start(), round)) {
                counts[*item] += 1;
            }
        }
        counts
    }

    #[test]
    fn the_clearly_cheaper_of_two_is_taken() {
        assert_eq!(picks(&[1, 1], &[2.0, 1.0], 100), [0, 100]);
    }

    #[test]
    fn a_small_difference_is_chance() {
        let counts = picks(&[1, 1], &[1.4, 1.0], 1000);
        assert!((400..600).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn weight_zero_is_never_taken() {
        assert_eq!(picks(&[0, 0], &[1.0, 1.0], 10), [0, 0]);
        assert_eq!(picks(&[0, 3, 0], &[0.0, 9.0, 0.0], 10), [0, 10, 0]);
    }

    #[test]
    fn at_equal_cost_the_weights_decide() {
        let counts = picks(&[1, 2, 1], &[1.0, 1.0, 1.0], 4000);
        assert!((1800..2200).contains(&counts[1]), "{counts:?}");
    }
}
