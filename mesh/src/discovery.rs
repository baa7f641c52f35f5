//! Finding devices without a server: multicast DNS, a UDP beacon where multicast is dropped, and a book
//! of addresses that worked before.
//!
//! `mdns` and `beacon` each run as one task and report [`Sighting`]s; `roster` keeps them for a while;
//! `book` keeps addresses of known devices for months. Nothing that is found here is believed: whoever
//! answers at an address must prove its key.

mod beacon;
mod book;
mod interface;
mod mdns;
mod roster;

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use wormhole_crdt::{DeviceId, DeviceKey};

pub(crate) use self::{book::Book, roster::Roster};
use crate::{
    address::PeerAddr,
    config::{Discovery, NetworkConfig},
};

/// Nameplates that one device may show at once; more invites than a person hands out in a minute.
pub(crate) const MAX_NAMEPLATES: usize = 8;

/// Characters of a nameplate, at most.
pub(crate) const MAX_NAMEPLATE_LEN: usize = 16;

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

/// Starts what the configuration asks for. The tasks end when `cancel` does.
pub(crate) fn start(
    config: &NetworkConfig,
    presence: &Presence,
    sightings: &mpsc::Sender<Sighting>,
    tasks: &mut JoinSet<()>,
    cancel: &CancellationToken,
) {
    let scope = interface::Scope::new(config);
    if config.mdns == Discovery::On {
        let run = mdns::run(
            scope.clone(),
            presence.clone(),
            sightings.clone(),
            cancel.clone(),
        );
        tasks.spawn(run);
    }
    if config.beacon == Discovery::On {
        tasks.spawn(beacon::run(
            scope,
            presence.clone(),
            sightings.clone(),
            cancel.clone(),
        ));
    }
}

/// Keeps what may be a nameplate, drops the rest. For texts from the network.
fn parse_nameplates<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    texts
        .filter(|text| !text.is_empty() && text.len() <= MAX_NAMEPLATE_LEN)
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        .take(MAX_NAMEPLATES)
        .map(str::to_owned)
        .collect()
}
