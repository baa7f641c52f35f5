//! What we do on every connection: carry streams, measure the round trip, turn crowds away.
//!
//! `links` knows all connections and picks the best for a new stream, `handler` sits on each of them,
//! `gate` decides who gets in. The actor is the only caller.

mod gate;
mod handler;
mod links;

use std::time::Duration;

use libp2p::{ping, swarm::NetworkBehaviour};
use wormhole_crdt::DeviceId;

use self::gate::Gate;
pub(crate) use self::{
    handler::Opening,
    links::{Inbound, Link, Links, Origin},
};
use crate::{streams::Protocol, transport::Rooms};

/// How often the round trip is measured, and that a silent TCP connection is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// A ping without an answer for so long means that the path is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that runs on connections.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    /// Streams, and which connection they go over.
    pub(crate) links: Links,
    ping: ping::Behaviour,
}

impl Behaviour {
    pub(crate) fn new(local: DeviceId, protocols: &[Protocol], rooms: Rooms) -> Self {
        let ping = ping::Config::new()
            .with_interval(PING_INTERVAL)
            .with_timeout(PING_TIMEOUT);
        Self {
            links: Links::new(local, protocols, rooms),
            ping: ping::Behaviour::new(ping),
        }
    }
}
