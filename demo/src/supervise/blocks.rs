//! Which blocks 127.K.0.0/16 a demo takes. A block is taken by listening on one address in it, for as long as the demo lives; so two demos on
//! one machine never share one, and a demo that was killed leaves none behind.

use std::net::{Ipv4Addr, TcpListener};

/// The blocks of one demo. Dropping it gives them back.
#[derive(Debug)]
pub(super) struct Blocks {
    held: Vec<(u8, TcpListener)>,
}

impl Blocks {
    /// Takes `count` free blocks; `None` when there are not so many.
    pub(super) fn take(count: u8) -> Option<Self> {
        let free =
            (FIRST..=LAST).filter_map(|block| Some((block, TcpListener::bind((Ipv4Addr::new(127, block, 0, 254), LOCK_PORT)).ok()?)));
        let held: Vec<(u8, TcpListener)> = free.take(usize::from(count)).collect();
        (held.len() == usize::from(count)).then_some(Self { held })
    }

    /// Their numbers.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u8> {
        self.held.iter().map(|(block, _)| *block)
    }
}

/// 127.0.0.0/16 belongs to everybody, and other programs like low numbers.
const FIRST: u8 = 10;
const LAST: u8 = 250;
const LOCK_PORT: u16 = 4199;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_demos_never_share_a_block() {
        let (one, other) = (Blocks::take(2).unwrap(), Blocks::take(2).unwrap());
        assert!(one.numbers().all(|block| !other.numbers().any(|held| held == block)));
    }
}
