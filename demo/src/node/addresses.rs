//! Which address a pod gets: each its own, out of the node's range. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Hands out the addresses of one range in turn, so that one just freed is not given to another pod at once: its clients may still call it.
#[derive(Debug)]
pub(crate) struct Addresses {
    range: Ipv4Net,
    used: BTreeSet<Ipv4Addr>,
    next: Ipv4Addr,
}

impl Addresses {
    /// All free.
    pub(crate) fn new(range: Ipv4Net) -> Self {
        Self { range, used: BTreeSet::new(), next: range.network() }
    }

    /// `wished` (what the pod had before this node restarted) if it is free, else the next free one; `None` when all are taken.
    pub(crate) fn take(&mut self, wished: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let wished = wished.filter(|address| self.range.contains(address) && !self.used.contains(address));
        let address = wished.or_else(|| self.next_free())?;
        self.used.insert(address);
        if wished.is_none() {
            self.next = address;
        }
        Some(address)
    }

    /// The pod is gone.
    pub(crate) fn free(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }

    fn next_free(&self) -> Option<Ipv4Addr> {
        let hosts = || self.range.hosts();
        let is_free = |address: &Ipv4Addr| !self.used.contains(address);
        hosts().skip_while(|address| *address <= self.next).find(is_free).or_else(|| hosts().find(is_free))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_handed_out_in_turn_and_none_twice() {
        let mut addresses = Addresses::new("127.10.64.0/30".parse().unwrap());
        let first = addresses.take(None).unwrap();
        assert_eq!(first, Ipv4Addr::new(127, 10, 64, 1));
        addresses.free(first);
        assert_eq!(addresses.take(None), Some(Ipv4Addr::new(127, 10, 64, 2)));
        assert_eq!(addresses.take(Some(Ipv4Addr::new(127, 10, 64, 2))), Some(first), "a wish for a used one is not granted");
        assert_eq!(addresses.take(None), None);
    }

    #[test]
    fn a_pod_keeps_its_address_over_a_restart_of_the_node() {
        let mut addresses = Addresses::new("127.10.64.0/18".parse().unwrap());
        let had = Ipv4Addr::new(127, 10, 70, 9);
        assert_eq!(addresses.take(Some(had)), Some(had));
        assert_eq!(addresses.take(Some(Ipv4Addr::new(10, 0, 0, 1))), Some(Ipv4Addr::new(127, 10, 64, 1)));
    }
}
