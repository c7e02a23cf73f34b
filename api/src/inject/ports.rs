//! Ports that go around the proxy, as people write them: `25,3306,9000-9010`.

use std::fmt;
use std::str::FromStr;

use mesh_names::ParseError;

/// Ports from the first to the last. Invariant: neither is 0, and they are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The first port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port, which may be the first.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }
}

/// Some ranges, in order and apart from one another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRanges(Vec<PortRange>);

impl PortRanges {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = PortRange> {
        self.0.iter().copied()
    }

    /// With these ports, too.
    #[must_use]
    pub fn with(&self, ports: &[u16]) -> Self {
        let more = ports.iter().filter(|port| **port != 0).map(|port| PortRange { first: *port, last: *port });
        Self::joined(self.0.iter().copied().chain(more).collect())
    }

    /// Ranges that meet become one: nft refuses a set whose parts overlap.
    fn joined(mut ranges: Vec<PortRange>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut().filter(|held| range.first <= held.last.saturating_add(1)) {
                Some(held) => held.last = held.last.max(range.last),
                None => joined.push(range),
            }
        }
        Self(joined)
    }
}

impl FromStr for PortRanges {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::new("list of ports", text, "it is ports and ranges of ports, 1 to 65535, separated by commas");
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (port(first)?, port(last)?);
            (first <= last).then_some(PortRange { first, last })
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let ranges: Option<Vec<PortRange>> = text.split(',').map(range).collect();
        let ranges = ranges.filter(|ranges| ranges.len() <= RANGES_MAX).ok_or_else(error)?;
        Ok(Self::joined(ranges))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&ranges.join(","))
    }
}

/// More is no list that a person wrote.
const RANGES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(text.parse::<PortRanges>().ok().map(|ranges| ranges.to_string()).as_deref(), expected, "{text:?}");
    }

    #[test]
    fn ports_are_sorted_joined_and_never_text() {
        check("", Some(""));
        check("3306, 25", Some("25,3306"));
        check("9000-9010,9005-9020,9021", Some("9000-9021"));
        check("65535,1-65535", Some("1-65535"));
        for bad in ["0", "65536", "x", "1-", "2-1", "25;drop", "25\n26", "25,,26", "-1", "0x19", "+25", "２５"] {
            check(bad, if bad == "+25" { Some("25") } else { None });
        }
    }

    #[test]
    fn our_own_ports_are_added_once() {
        assert_eq!("4143,80".parse::<PortRanges>().unwrap().with(&[4143, 4191, 0]).to_string(), "80,4143,4191");
    }
}
