//! Who was seen on the local network lately. Bounded; forgets by itself. The clock is an argument.

use std::{collections::BTreeMap, time::Instant};

use wormhole_crdt::DeviceId;

use super::sighting::{Sighting, Source};
use crate::{address::PeerAddr, streams::Discovered};

/// Devices that are remembered; a LAN with more is an attack or needs addresses by hand.
const MAX_DEVICES: usize = 512;

/// Addresses that one sighting may claim: those of a laptop with wire, radio and IPv6. Whoever is seen is dialled
/// at all of them, and what is seen may be a lie.
const MAX_ADDRS: usize = 6;

/// The sightings that still count.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    seen: BTreeMap<(DeviceId, Source), (Sighting, Instant)>,
}

impl Roster {
    /// Takes a sighting in. Returns whether it says anything new.
    pub(crate) fn note(&mut self, mut sighting: Sighting, now: Instant) -> bool {
        let key = (sighting.device, sighting.source);
        if sighting.ttl.is_zero() {
            return self.seen.remove(&key).is_some();
        }
        sighting.addrs.retain(PeerAddr::is_dialable);
        sighting.addrs.truncate(MAX_ADDRS);
        let until = now + sighting.ttl;
        let has_room = self.seen.len() < MAX_DEVICES;
        match self.seen.get_mut(&key) {
            Some((known, expiry)) => {
                let is_new =
                    known.addrs != sighting.addrs || known.nameplates != sighting.nameplates;
                *known = sighting;
                *expiry = until;
                is_new
            }
            None if has_room => {
                self.seen.insert(key, (sighting, until));
                true
            }
            None => false,
        }
    }

    /// Forgets what is too old. Returns whether there was any.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let before = self.seen.len();
        self.seen.retain(|_, (_, until)| *until > now);
        self.seen.len() != before
    }

    /// Where the device says it listens.
    pub(crate) fn addrs(&self, device: &DeviceId) -> Vec<PeerAddr> {
        let range = (*device, Source::Mdns)..=(*device, Source::Beacon);
        self.seen
            .range(range)
            .flat_map(|(_, (seen, _))| seen.addrs.iter().copied())
            .collect()
    }

    /// Everything that is known, one entry per device.
    pub(crate) fn list(&self) -> Vec<Discovered> {
        let mut devices = BTreeMap::<DeviceId, Discovered>::new();
        for ((device, _), (seen, _)) in &self.seen {
            let entry = devices.entry(*device).or_insert_with(|| Discovered {
                device: *device,
                addrs: Vec::new(),
                nameplates: Default::default(),
            });
            entry.nameplates.extend(seen.nameplates.iter().cloned());
            for addr in &seen.addrs {
                if !entry.addrs.contains(addr) {
                    entry.addrs.push(*addr);
                }
            }
        }
        devices.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;

    fn sighting(source: Source, addr: &str, nameplate: &str) -> Sighting {
        Sighting {
            device: DeviceId::from_bytes([1; 32]),
            addrs: vec![addr.parse().unwrap()],
            nameplates: BTreeSet::from([nameplate.to_owned()]),
            source,
            ttl: Duration::from_secs(60),
        }
    }

    #[test]
    fn what_two_sources_say_is_put_together() {
        let mut roster = Roster::default();
        let now = Instant::now();
        assert!(roster.note(sighting(Source::Mdns, "10.0.0.7:1", "7"), now));
        assert!(
            !roster.note(sighting(Source::Mdns, "10.0.0.7:1", "7"), now),
            "nothing new"
        );
        assert!(roster.note(sighting(Source::Beacon, "10.0.0.8:1", "9"), now));
        let [device] = &roster.list()[..] else {
            panic!("one device")
        };
        assert_eq!(device.addrs.len(), 2);
        assert_eq!(
            device.nameplates,
            BTreeSet::from(["7".to_owned(), "9".to_owned()])
        );
    }

    #[test]
    fn a_sighting_is_forgotten_or_taken_back() {
        let mut roster = Roster::default();
        let now = Instant::now();
        roster.note(sighting(Source::Mdns, "10.0.0.7:1", "7"), now);
        assert!(!roster.expire(now + Duration::from_secs(59)));
        assert!(roster.expire(now + Duration::from_secs(61)));
        assert_eq!(roster.list(), []);

        roster.note(sighting(Source::Beacon, "10.0.0.7:1", "7"), now);
        let farewell = Sighting {
            ttl: Duration::ZERO,
            ..sighting(Source::Beacon, "10.0.0.7:1", "7")
        };
        assert!(roster.note(farewell, now));
        assert_eq!(roster.list(), []);
    }

    #[test]
    fn a_lan_full_of_lies_is_bounded() {
        let mut roster = Roster::default();
        let now = Instant::now();
        for n in 0..2 * MAX_DEVICES as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            let device = DeviceId::from_bytes(id);
            roster.note(
                Sighting {
                    device,
                    ..sighting(Source::Mdns, "10.0.0.7:1", "7")
                },
                now,
            );
        }
        assert_eq!(roster.list().len(), MAX_DEVICES);
    }
}
