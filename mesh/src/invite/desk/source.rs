//! Where a joiner comes from, and how many conversations one place may begin.
//!
//! Device ids are free to make, addresses are not, so joiners are counted by address where there is one. Bounded;
//! the clock is an argument.

use std::{collections::BTreeMap, net::IpAddr};

use wormhole_crdt::{DeviceId, Timestamp};

use crate::address::Site;

/// Conversations that one source may begin at once ...
const BURST: u32 = 20;

/// ... and how often one more. Each costs the inviter a key exchange.
const EVERY_NANOS: i64 = 3_000_000_000;

/// Sources that are told apart; beyond that the one with the most left is forgotten, which loses nothing.
const MAX_SOURCES: usize = 256;

/// Who is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::invite) enum Source {
    /// Everybody at an address.
    Site(Site),
    /// One device, where no address is known.
    Device(DeviceId),
}

impl Source {
    /// Of a device that is connected from `ip`.
    pub(in crate::invite) fn of(device: DeviceId, ip: Option<IpAddr>) -> Self {
        ip.map_or(Self::Device(device), |ip| Self::Site(Site::of(ip)))
    }
}

/// What each source may still begin.
#[derive(Debug, Default)]
pub(super) struct Begins {
    sources: BTreeMap<Source, Left>,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    number: u32,
    since: Timestamp,
}

impl Left {
    fn fill(&mut self, now: Timestamp) {
        // A clock that was set back must not stop invites for ever.
        self.since = self.since.min(now);
        let elapsed = now.0.saturating_sub(self.since.0);
        let more = u32::try_from(elapsed / EVERY_NANOS).unwrap_or(u32::MAX);
        if more > 0 {
            self.number = self.number.saturating_add(more).min(BURST);
            self.since = now;
        }
    }
}

impl Begins {
    /// Takes one, if there is one.
    pub(super) fn take(&mut self, source: Source, now: Timestamp) -> bool {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            for left in self.sources.values_mut() {
                left.fill(now);
            }
            let richest = self.sources.iter().max_by_key(|(_, left)| left.number);
            if let Some(source) = richest.map(|(source, _)| *source) {
                self.sources.remove(&source);
            }
        }
        let left = self.sources.entry(source).or_insert(Left {
            number: BURST,
            since: now,
        });
        left.fill(now);
        let taken = left.number > 0;
        left.number = left.number.saturating_sub(1);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u32) -> Source {
        let ip = std::net::Ipv4Addr::from_bits(n).into();
        Source::of(DeviceId::from_bytes([1; 32]), Some(ip))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    #[test]
    fn who_begins_all_the_time_keeps_nobody_else_from_it() {
        let mut begins = Begins::default();
        let taken =
            |begins: &mut Begins, now| (0..1000).filter(|_| begins.take(source(1), now)).count();
        assert_eq!(taken(&mut begins, at(10)), 20);
        assert!(begins.take(source(2), at(10)), "another has its own");
        assert_eq!(taken(&mut begins, at(16)), 2);
        assert_eq!(
            taken(&mut begins, at(5)),
            0,
            "a clock set back gives nothing"
        );
        assert_eq!(taken(&mut begins, at(8)), 1, "and stops nothing");
    }

    #[test]
    fn the_sources_that_are_remembered_are_bounded_and_a_busy_one_is_not_forgotten() {
        let mut begins = Begins::default();
        while begins.take(source(1), at(10)) {}
        for n in 2..10_000 {
            assert!(begins.take(source(n), at(10)));
        }
        assert!(begins.sources.len() <= MAX_SOURCES);
        assert!(!begins.take(source(1), at(10)));
    }
}
