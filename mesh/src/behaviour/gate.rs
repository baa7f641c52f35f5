//! Who gets in: limits per address and per device, and bans.
//!
//! Strangers may connect, because that is how a device joins, but only so many at once, so many from
//! one address (of IPv6 from one /64, which is what one customer gets), and so many that what they can make us
//! hold fits into one budget. Known devices (members of our meshes) always get in unless they are banned. Pure: the
//! clock is an argument.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};

use crate::{
    address::{Site, Wire},
    transport::stranger_bytes,
};

/// Connections to one device: one good one, and what a change of network leaves behind.
const MAX_PER_DEVICE: usize = 6;

/// Handshakes in progress from one IP address. Loopback is exempt, a machine may trust itself.
const MAX_PENDING_PER_IP: usize = 16;

/// Handshakes in progress from anywhere.
const MAX_PENDING: usize = 256;

/// Connections of strangers at once.
const MAX_STRANGERS: usize = 64;

/// Connections of strangers from one IP address (a household behind a router may join at once). Loopback is exempt.
const MAX_STRANGERS_PER_IP: usize = 8;

/// Connections of one stranger: one each way, when both dial at once, and one that is left over.
const MAX_PER_STRANGER: usize = 3;

/// What all connections of strangers together may make us hold: a hundred of QUIC, or ten of TCP.
const STRANGERS_BUDGET: usize = 32 << 20;

/// The first ban; each further one is twice as long, up to the last.
const FIRST_BAN: Duration = Duration::from_secs(30);
const LAST_BAN: Duration = Duration::from_secs(3600);

/// A clean record is restored after so long without misbehaviour.
const FORGIVEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Devices whose misbehaviour is remembered; beyond that the ones that were banned first are forgotten.
const MAX_RECORDS: usize = 4096;

/// Why somebody is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Its key is of a kind that no device of ours has.
    #[error("the peer has no Ed25519 identity")]
    NoDevice,
    /// It misbehaved lately.
    #[error("the device is banned for a while")]
    Banned,
    /// It has enough connections.
    #[error("the device has as many connections as it may")]
    Device,
    /// Its address has enough handshakes or strangers.
    #[error("too many connections from one address")]
    Address,
    /// There are enough strangers.
    #[error("too many unknown devices are connected")]
    Strangers,
}

/// The counts behind the decisions.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pending: HashMap<ConnectionId, Site>,
    known: HashSet<PeerId>,
    records: HashMap<PeerId, Record>,
}

/// What a device has done.
#[derive(Debug)]
struct Record {
    offences: u32,
    banned_until: Instant,
}

/// A connection that is up, as far as the gate cares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    /// Who.
    pub(crate) peer: PeerId,
    /// From where.
    pub(crate) ip: Option<IpAddr>,
    /// Over what.
    pub(crate) wire: Wire,
}

impl Gate {
    /// Says which devices are no strangers.
    pub(crate) fn set_known(&mut self, peer: PeerId, known: bool) {
        if known {
            self.known.insert(peer);
        } else {
            self.known.remove(&peer);
        }
    }

    /// Whether the device is no stranger.
    pub(crate) fn is_known(&self, peer: &PeerId) -> bool {
        self.known.contains(peer)
    }

    /// Whether the device is banned now.
    pub(crate) fn is_banned(&self, peer: &PeerId, now: Instant) -> bool {
        self.records
            .get(peer)
            .is_some_and(|record| record.banned_until > now)
    }

    /// A first packet came. Counts it until [`Gate::settled`].
    pub(crate) fn knock(&mut self, id: ConnectionId, ip: Option<IpAddr>) -> Result<(), Refusal> {
        let Some(ip) = ip else { return Ok(()) };
        let site = Site::of(ip);
        let same = self
            .pending
            .values()
            .filter(|other| **other == site)
            .count();
        if same >= MAX_PENDING_PER_IP && !ip.is_loopback() {
            return Err(Refusal::Address);
        }
        if self.pending.len() >= MAX_PENDING {
            return Err(Refusal::Strangers);
        }
        self.pending.insert(id, site);
        Ok(())
    }

    /// The handshake is over, one way or the other.
    pub(crate) fn settled(&mut self, id: ConnectionId) {
        self.pending.remove(&id);
    }

    /// A device proved who it is and wants to come in, while `guests` are in.
    pub(crate) fn enter(
        &self,
        guest: Guest,
        guests: impl Iterator<Item = Guest>,
        now: Instant,
    ) -> Result<(), Refusal> {
        if self.is_banned(&guest.peer, now) {
            return Err(Refusal::Banned);
        }
        let site = guest.ip.map(Site::of);
        let (mut own, mut strangers, mut neighbours, mut bytes) = (0, 0, 0, 0);
        for other in guests {
            own += usize::from(other.peer == guest.peer);
            if !self.is_known(&other.peer) {
                strangers += 1;
                bytes += stranger_bytes(other.wire);
                neighbours += usize::from(other.ip.map(Site::of) == site);
            }
        }
        if self.is_known(&guest.peer) {
            return if own < MAX_PER_DEVICE {
                Ok(())
            } else {
                Err(Refusal::Device)
            };
        }
        if own >= MAX_PER_STRANGER {
            return Err(Refusal::Device);
        }
        bytes += stranger_bytes(guest.wire);
        if strangers >= MAX_STRANGERS || bytes > STRANGERS_BUDGET {
            return Err(Refusal::Strangers);
        }
        let is_local = guest.ip.is_some_and(|ip| ip.is_loopback());
        if neighbours >= MAX_STRANGERS_PER_IP && !is_local {
            return Err(Refusal::Address);
        }
        Ok(())
    }

    /// Writes an offence down and bans the device, longer each time.
    pub(crate) fn punish(&mut self, peer: PeerId, now: Instant) {
        self.records
            .retain(|_, record| record.banned_until + FORGIVEN_AFTER > now);
        if self.records.len() >= MAX_RECORDS && !self.records.contains_key(&peer) {
            let first = self
                .records
                .iter()
                .min_by_key(|(_, record)| record.banned_until);
            if let Some(oldest) = first.map(|(peer, _)| *peer) {
                self.records.remove(&oldest);
            }
        }
        let record = self.records.entry(peer).or_insert(Record {
            offences: 0,
            banned_until: now,
        });
        let ban = FIRST_BAN
            .saturating_mul(1 << record.offences.min(16))
            .min(LAST_BAN);
        record.offences = record.offences.saturating_add(1);
        record.banned_until = now + ban;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(ip: &str) -> Guest {
        Guest {
            peer: PeerId::random(),
            ip: Some(ip.parse().unwrap()),
            wire: Wire::Quic,
        }
    }

    #[test]
    fn strangers_from_one_address_are_limited_and_members_are_not() {
        let mut gate = Gate::default();
        let now = Instant::now();
        let crowd: Vec<_> = (0..MAX_STRANGERS_PER_IP)
            .map(|_| guest("10.0.0.7"))
            .collect();
        let enter = |gate: &Gate, guest| gate.enter(guest, crowd.iter().copied(), now);

        let late = guest("10.0.0.7");
        assert_eq!(enter(&gate, late), Err(Refusal::Address));
        assert_eq!(
            enter(&gate, guest("10.0.0.8")),
            Ok(()),
            "another address has room"
        );
        gate.set_known(late.peer, true);
        assert_eq!(enter(&gate, late), Ok(()), "a member always has room");
    }

    #[test]
    fn a_crowd_of_strangers_leaves_room_for_members() {
        let mut gate = Gate::default();
        let crowd: Vec<_> = (0..MAX_STRANGERS)
            .map(|n| guest(&format!("10.0.{n}.1")))
            .collect();
        let late = guest("10.9.9.9");
        let enter = |gate: &Gate| gate.enter(late, crowd.iter().copied(), Instant::now());
        assert_eq!(enter(&gate), Err(Refusal::Strangers));
        gate.set_known(late.peer, true);
        assert_eq!(enter(&gate), Ok(()));
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one() {
        let gate = Gate::default();
        let crowd: Vec<_> = (1..=MAX_STRANGERS_PER_IP)
            .map(|n| guest(&format!("2001:db8:0:7::{n:x}")))
            .collect();
        let enter = |guest| gate.enter(guest, crowd.iter().copied(), Instant::now());
        assert_eq!(enter(guest("2001:db8:0:7:ffff::1")), Err(Refusal::Address));
        assert_eq!(enter(guest("2001:db8:0:8::1")), Ok(()));
        let mapped: Vec<_> = (0..MAX_STRANGERS_PER_IP)
            .map(|_| guest("10.0.0.7"))
            .collect();
        let late = guest("::ffff:10.0.0.7");
        let late = gate.enter(late, mapped.iter().copied(), Instant::now());
        assert_eq!(late, Err(Refusal::Address));
    }

    #[test]
    fn one_device_does_not_take_all_connections() {
        let mut gate = Gate::default();
        let greedy = guest("127.0.0.1");
        let enter = |gate: &Gate, own| {
            let own = std::iter::repeat_n(greedy, own);
            gate.enter(greedy, own, Instant::now())
        };
        assert_eq!(enter(&gate, MAX_PER_STRANGER - 1), Ok(()));
        assert_eq!(enter(&gate, MAX_PER_STRANGER), Err(Refusal::Device));
        gate.set_known(greedy.peer, true);
        assert_eq!(enter(&gate, MAX_PER_DEVICE - 1), Ok(()));
        assert_eq!(enter(&gate, MAX_PER_DEVICE), Err(Refusal::Device));
    }

    #[test]
    fn the_connections_of_one_address_are_counted_whatever_keys_they_show() {
        let gate = Gate::default();
        let mut crowd: Vec<Guest> = Vec::new();
        for _ in 0..4 {
            let one = guest("10.0.0.7");
            crowd.extend([one; MAX_PER_STRANGER - 1]);
        }
        let late = gate.enter(guest("10.0.0.7"), crowd.iter().copied(), Instant::now());
        assert_eq!(late, Err(Refusal::Address));
    }

    #[test]
    fn what_all_strangers_can_make_us_hold_fits_one_budget() {
        let mut gate = Gate::default();
        let mut crowd: Vec<Guest> = Vec::new();
        let mut bytes = 0;
        for n in 0..MAX_STRANGERS {
            for wire in [Wire::Tcp, Wire::Quic] {
                let ip = format!("10.0.{n}.{}", wire as u8);
                let one = Guest { wire, ..guest(&ip) };
                if gate
                    .enter(one, crowd.iter().copied(), Instant::now())
                    .is_ok()
                {
                    bytes += stranger_bytes(wire);
                    crowd.push(one);
                }
            }
        }
        assert!(bytes <= STRANGERS_BUDGET, "{bytes}");
        assert!(crowd.len() > 10);
        let member = Guest {
            wire: Wire::Tcp,
            ..guest("10.9.9.9")
        };
        gate.set_known(member.peer, true);
        assert_eq!(
            gate.enter(member, crowd.iter().copied(), Instant::now()),
            Ok(())
        );
    }

    #[test]
    fn a_ban_ends_and_the_next_is_longer() {
        let mut gate = Gate::default();
        let now = Instant::now();
        let bad = guest("10.0.0.7");
        gate.punish(bad.peer, now);
        assert_eq!(
            gate.enter(bad, std::iter::empty(), now),
            Err(Refusal::Banned)
        );
        let later = now + FIRST_BAN;
        assert!(!gate.is_banned(&bad.peer, later));
        gate.punish(bad.peer, later);
        assert!(gate.is_banned(&bad.peer, later + FIRST_BAN));
        assert!(!gate.is_banned(&bad.peer, later + 2 * FIRST_BAN));
    }

    #[test]
    fn half_open_handshakes_of_one_address_are_limited() {
        let mut gate = Gate::default();
        let ip = Some("10.0.0.7".parse().unwrap());
        let ids: Vec<_> = (0..MAX_PENDING_PER_IP)
            .map(ConnectionId::new_unchecked)
            .collect();
        for id in &ids {
            gate.knock(*id, ip).unwrap();
        }
        let next = ConnectionId::new_unchecked(999);
        assert_eq!(gate.knock(next, ip), Err(Refusal::Address));
        gate.settled(ids[0]);
        assert_eq!(gate.knock(next, ip), Ok(()));
    }
}
