//! What one device shows of itself on the local network, and what another one sees of it.

use std::{collections::BTreeSet, time::Duration};

use tokio::sync::watch;
use wormhole_crdt::{DeviceId, DeviceKey};

use crate::address::PeerAddr;

/// Nameplates that one device may show at once; more invites than a person hands out in a minute.
pub(super) const MAX_NAMEPLATES: usize = 8;

/// Characters of a nameplate, at most.
const MAX_NAMEPLATE_LEN: usize = 16;

/// A device that was seen on the local network. Not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// Who it says it is.
    pub(crate) device: DeviceId,
    /// Where it says it listens.
    pub(crate) addrs: Vec<PeerAddr>,
    /// Its open invites.
    pub(crate) nameplates: BTreeSet<String>,
    /// By what it was seen.
    pub(crate) source: Source,
    /// For how long to believe it; zero takes the sighting back.
    pub(crate) ttl: Duration,
}

/// What saw a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    /// Multicast DNS.
    Mdns,
    /// The UDP beacon.
    Beacon,
}

/// What the discovery tasks need to know about this device.
#[derive(Clone)]
pub(crate) struct Presence {
    /// Signs beacons.
    pub(crate) key: DeviceKey,
    /// Where QUIC and TCP listen.
    pub(crate) port: u16,
    /// Invites to show.
    pub(crate) nameplates: watch::Receiver<BTreeSet<String>>,
}

/// Keeps what may be a nameplate, drops the rest. For texts from the network.
pub(super) fn parse_nameplates<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    texts
        .filter(|text| !text.is_empty() && text.len() <= MAX_NAMEPLATE_LEN)
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        .take(MAX_NAMEPLATES)
        .map(str::to_owned)
        .collect()
}
