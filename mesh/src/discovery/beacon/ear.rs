//! Whose beacons are looked at: verifying a signature is not free, and anybody on the network may send.
//!
//! Each address has a share of its own, so that a flood from one does not keep the others from being heard. Addresses
//! can be forged, so those that were understood lately have their share whatever the rest do, and all others
//! together a larger one. Pure: the clock is an argument.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::address::Site;

/// The time that shares are counted in.
const WINDOW: Duration = Duration::from_secs(1);

/// Beacons of one address. Many nodes of one machine share that of loopback.
const SHARE: u32 = 32;

/// Beacons of all addresses that were not understood yet: a few hundredths of a core.
const STRANGERS_SHARE: u32 = 256;

/// Addresses that are kept apart; beyond that the one that was understood longest ago is a stranger again.
const MAX_SITES: usize = 512;

/// For how long an address counts as understood: longer than any device is silent.
const UNDERSTOOD: Duration = Duration::from_secs(300);

/// The shares of one listening socket.
#[derive(Debug, Default)]
pub(super) struct Ear {
    sites: HashMap<Site, Heard>,
    strangers: Count,
}

#[derive(Debug, Default)]
struct Heard {
    count: Count,
    understood: Option<Instant>,
}

/// How many came in the current window.
#[derive(Debug, Default)]
struct Count {
    since: Option<Instant>,
    number: u32,
}

impl Count {
    /// Counts one more, unless there were `most` already.
    fn takes(&mut self, most: u32, now: Instant) -> bool {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= WINDOW;
        if self.since.is_none_or(is_over) {
            (self.since, self.number) = (Some(now), 0);
        }
        let has_room = self.number < most;
        self.number += u32::from(has_room);
        has_room
    }
}

impl Heard {
    fn is_understood(&self, now: Instant) -> bool {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < UNDERSTOOD;
        self.understood.is_some_and(is_fresh)
    }
}

impl Ear {
    /// Whether to verify what came from this address.
    pub(super) fn listens_to(&mut self, ip: IpAddr, now: Instant) -> bool {
        let site = Site::of(ip);
        if self.sites.len() >= MAX_SITES && !self.sites.contains_key(&site) {
            self.forget(now);
        }
        let heard = self.sites.entry(site).or_default();
        heard.count.takes(SHARE, now)
            && (heard.is_understood(now) || self.strangers.takes(STRANGERS_SHARE, now))
    }

    /// What came from this address was a beacon.
    pub(super) fn understood(&mut self, ip: IpAddr, now: Instant) {
        if let Some(heard) = self.sites.get_mut(&Site::of(ip)) {
            heard.understood = Some(now);
        }
    }

    /// Forgets those that were never understood, or else the one that was longest ago.
    fn forget(&mut self, now: Instant) {
        let before = self.sites.len();
        self.sites.retain(|_, heard| heard.is_understood(now));
        if self.sites.len() == before
            && let Some(oldest) = self
                .sites
                .iter()
                .min_by_key(|(_, heard)| heard.understood)
                .map(|(site, _)| *site)
        {
            self.sites.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn a_flood_from_one_address_does_not_silence_the_others() {
        let (mut ear, now) = (Ear::default(), Instant::now());
        let flood = (0..10_000).filter(|_| ear.listens_to(ip(1), now)).count();
        assert_eq!(flood, SHARE as usize);
        assert!(ear.listens_to(ip(2), now));
        assert!(
            ear.listens_to(ip(1), now + WINDOW),
            "it was not deaf for good"
        );
    }

    #[test]
    fn a_flood_of_forged_addresses_does_not_silence_those_that_were_understood() {
        let (mut ear, now) = (Ear::default(), Instant::now());
        assert!(ear.listens_to(ip(7), now));
        ear.understood(ip(7), now);
        let later = now + 10 * WINDOW;
        let flood = (1000..100_000)
            .filter(|n| ear.listens_to(ip(*n), later))
            .count();
        assert_eq!(flood, STRANGERS_SHARE as usize);
        assert!(ear.listens_to(ip(7), later));
        assert!(ear.sites.len() <= MAX_SITES);
    }
}
