//! The port of the gateways' way out for each port of each mirror Service: recorded in its slice, and the same for as long as that stands.
//!
//! A new one begins at a hash of its name, so that a mirror which comes back mostly has its old port, and a port just given up is seldom
//! the next one's: a gateway that is a moment behind then refuses instead of answering for another service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use mesh_api::translate::ExportedPort;
use mesh_names::{PortName, ServiceId};

use crate::model::MirrorSlice;

/// The ports that gateways may listen on for their way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressRange {
    first: u16,
    last: u16,
}

impl Default for EgressRange {
    fn default() -> Self {
        Self { first: 20_000, last: 29_999 }
    }
}

impl FromStr for EgressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bounds = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match bounds {
            Some((first, last)) if 1024 <= first && first <= last => Ok(Self { first, last }),
            _ => Err(format!("{text:?} is no range of ports: write it as 20000-29999, from 1024 on")),
        }
    }
}

impl fmt::Display for EgressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// What is assigned.
pub(super) struct Assigned {
    range: EgressRange,
    recorded: BTreeMap<Key, u16>,
    used: BTreeSet<u16>,
}

/// A port of a mirror Service. Its number does not matter: a slice's port is found by name.
type Key = (ServiceId, Option<PortName>);

impl Assigned {
    /// What the slices record; where two claim one port, the first keeps it.
    pub(super) fn recorded<'a>(range: EgressRange, slices: impl Iterator<Item = &'a MirrorSlice>) -> Self {
        let mut this = Self { range, recorded: BTreeMap::new(), used: BTreeSet::new() };
        for slice in slices {
            let service = ServiceId::new(slice.namespace.clone(), slice.service.clone());
            for port in &slice.ports {
                let key = (service.clone(), port.name.clone());
                let in_range = (range.first..=range.last).contains(&port.number);
                if in_range && !this.recorded.contains_key(&key) && this.used.insert(port.number) {
                    this.recorded.insert(key, port.number);
                }
            }
        }
        this
    }

    /// The port for this port of this Service; none when every port of the range is taken.
    pub(super) fn port(&mut self, service: &ServiceId, port: &ExportedPort) -> Option<u16> {
        let key = (service.clone(), port.name.clone());
        if let Some(recorded) = self.recorded.get(&key) {
            return Some(*recorded);
        }
        let size = u64::from(self.range.last - self.range.first) + 1;
        let begin = hash(&key) % size;
        let free = (0..size)
            .filter_map(|step| u16::try_from(u64::from(self.range.first) + (begin + step) % size).ok())
            .find(|candidate| !self.used.contains(candidate))?;
        self.used.insert(free);
        self.recorded.insert(key, free);
        Some(free)
    }
}

/// FNV-1a: the same in every release, which the standard library's hashes are not.
fn hash((service, port): &Key) -> u64 {
    let text = format!("{service}:{}", port.as_ref().map_or("", |name| name.as_str()));
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> ExportedPort {
        ExportedPort { name: None, number: "80".parse().unwrap(), transport: mesh_api::translate::Transport::Tcp, app_protocol: None }
    }

    #[test]
    fn each_service_gets_its_own_port_until_the_range_is_full() {
        let mut assigned = Assigned::recorded("2000-2002".parse().unwrap(), std::iter::empty());
        let mut of = |name: &str| assigned.port(&ServiceId::parse("shop", name).unwrap(), &port());
        let given: BTreeSet<_> = ["a", "b", "c"].into_iter().filter_map(&mut of).collect();
        assert_eq!(given, BTreeSet::from([2000, 2001, 2002]));
        assert_eq!(of("d"), None);
        assert!(of("a").is_some(), "what was assigned stays");
    }

    #[test]
    fn a_range_is_two_ports_in_order() {
        assert_eq!("20000-29999".parse(), Ok(EgressRange::default()));
        for bad in ["", "1", "2-1", "80-90", "2000-70000"] {
            assert!(bad.parse::<EgressRange>().is_err(), "{bad}");
        }
    }
}
