//! The channels between the handle, the protocols, discovery and the actor. All bounded.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::{broadcast, mpsc, watch};
use wormhole_crdt::DeviceId;

use crate::{
    actor::{Inlets, Outlets, Statuses},
    discovery::Sighting,
    peer::NetworkEvent,
    streams::Streams,
};

/// Commands that may wait for the actor; who has more waits in turn.
const COMMANDS: usize = 256;

/// Sightings that may wait for the actor.
const SIGHTINGS: usize = 64;

/// Events that a slow follower may be behind before it misses some.
const EVENTS: usize = 256;

/// Both ends of everything.
pub(super) struct Wiring {
    /// For the protocols.
    pub(super) streams: Streams,
    /// For the handle.
    pub(super) statuses: watch::Receiver<Statuses>,
    /// For the handle and the protocols.
    pub(super) events: broadcast::Sender<NetworkEvent>,
    /// For the membership.
    pub(super) wanted: watch::Sender<BTreeSet<DeviceId>>,
    /// For discovery.
    pub(super) sightings: mpsc::Sender<Sighting>,
    /// For discovery.
    pub(super) nameplates: watch::Receiver<BTreeSet<String>>,
    /// For the actor.
    pub(super) inlets: Inlets,
    /// For the actor.
    pub(super) outlets: Outlets,
}

impl Wiring {
    pub(super) fn new() -> Self {
        let (commands_tx, commands) = mpsc::channel(COMMANDS);
        let (sightings_tx, sightings) = mpsc::channel(SIGHTINGS);
        let (connected, connected_rx) = watch::channel(Arc::default());
        let (discovered, discovered_rx) = watch::channel(Arc::default());
        let (statuses, statuses_rx) = watch::channel(Arc::default());
        let (wanted_tx, wanted) = watch::channel(BTreeSet::new());
        let (nameplates_tx, nameplates) = watch::channel(BTreeSet::new());
        let (events, _) = broadcast::channel(EVENTS);
        let nameplates_tx = Arc::new(nameplates_tx);
        Self {
            streams: Streams::new(commands_tx, connected_rx, discovered_rx, nameplates_tx),
            statuses: statuses_rx,
            events: events.clone(),
            wanted: wanted_tx,
            sightings: sightings_tx,
            nameplates,
            inlets: Inlets {
                commands,
                wanted,
                sightings,
            },
            outlets: Outlets {
                connected,
                discovered,
                statuses,
                events,
            },
        }
    }
}
