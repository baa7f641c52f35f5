//! What the rest of the program sees of the connections: who is there, how, how fast.
//!
//! Written by the actor only. State goes out through `watch`, happenings through a lossy broadcast.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{broadcast, watch};
use wormhole_crdt::DeviceId;

use crate::{
    address::Wire,
    behaviour::Link,
    limit::{Limits, Meter, Traffic, Urgency},
    peer::{NetworkEvent, PeerStatus},
    streams::{About, Connected, ConnectedPeers, Protocol, Standing},
};

/// All peers as people see them.
pub(crate) type Statuses = Arc<Vec<PeerStatus>>;

/// The published state.
pub(super) struct View {
    peers: BTreeMap<DeviceId, Peer>,
    limits: Arc<Limits>,
    epoch: u64,
    connected: watch::Sender<ConnectedPeers>,
    statuses: watch::Sender<Statuses>,
    events: broadcast::Sender<NetworkEvent>,
}

/// What is known of one device.
struct Peer {
    status: PeerStatus,
    epoch: u64,
    /// Whether followers were told that it is there.
    is_told: bool,
    traffic: Arc<Traffic>,
    counted: (u64, u64),
    /// Its own small limits while it is a stranger.
    stranger: Arc<Limits>,
}

impl View {
    pub(super) fn new(
        limits: Arc<Limits>,
        connected: watch::Sender<ConnectedPeers>,
        statuses: watch::Sender<Statuses>,
        events: broadcast::Sender<NetworkEvent>,
    ) -> Self {
        Self {
            peers: BTreeMap::new(),
            limits,
            epoch: 0,
            connected,
            statuses,
            events,
        }
    }

    /// The device made another connection: perhaps it restarted and knows nothing of the former ones.
    pub(super) fn renewed(&mut self, device: DeviceId) {
        self.epoch += 1;
        let peer = self
            .peers
            .entry(device)
            .or_insert_with(|| Peer::new(device));
        peer.epoch = self.epoch;
    }

    /// The device is connected, or connected in another way than before.
    pub(super) fn linked(&mut self, device: DeviceId, link: &Link) {
        let peer = self
            .peers
            .entry(device)
            .or_insert_with(|| Peer::new(device));
        peer.status.connected = true;
        peer.status.path = Some(link.path);
        peer.status.wire = link.addr.wire();
        peer.status.addr = Some(link.addr);
        peer.status.last_error = None;
        self.publish_connected();
        self.publish();
    }

    /// The device is a member of a mesh of ours: followers hear of it, once while it is connected. Of
    /// strangers they hear nothing.
    pub(super) fn greet_member(&mut self, device: DeviceId) {
        if let Some(peer) = self.peers.get_mut(&device)
            && let Some(path) = peer.status.path.filter(|_| peer.status.connected)
            && !std::mem::replace(&mut peer.is_told, true)
        {
            self.tell(NetworkEvent::PeerUp { device, path });
        }
    }

    /// The last connection to the device is gone; it stays on the page if we want it back.
    pub(super) fn unlinked(&mut self, device: DeviceId, wanted: bool) {
        let Entry::Occupied(mut entry) = self.peers.entry(device) else {
            return;
        };
        let was_told = std::mem::take(&mut entry.get_mut().is_told);
        if wanted {
            let peer = entry.get_mut();
            let kept = PeerStatus::unconnected(device);
            let status = std::mem::replace(&mut peer.status, kept);
            peer.status.name = status.name;
            peer.status.addr = status.addr;
            peer.status.version = status.version;
            peer.status.last_error = status.last_error;
        } else {
            entry.remove();
        }
        self.publish_connected();
        self.publish();
        if was_told {
            self.tell(NetworkEvent::PeerDown { device });
        }
    }

    /// We want (or no longer want) to be connected to the device.
    pub(super) fn set_wanted(&mut self, device: DeviceId, wanted: bool) {
        if wanted {
            let peer = self
                .peers
                .entry(device)
                .or_insert_with(|| Peer::new(device));
            peer.stranger.give_way_to(Arc::clone(&self.limits));
        } else if let Some(peer) = self.peers.get_mut(&device) {
            peer.stranger = Arc::new(Limits::stranger());
            if !peer.status.connected {
                self.peers.remove(&device);
            }
        }
        self.publish();
    }

    /// A dial to the device, or an exchange with it, failed.
    pub(super) fn failed(&mut self, device: &DeviceId, reason: String) {
        if let Some(peer) = self.peers.get_mut(device) {
            peer.status.last_error = Some(reason);
            self.publish();
        }
    }

    /// What the device said about itself.
    pub(super) fn described(&mut self, device: &DeviceId, about: About) {
        if let Some(peer) = self.peers.get_mut(device) {
            let About {
                name,
                version,
                protocol,
                meshes,
                problem,
            } = about;
            peer.status.name = name.or(peer.status.name.take());
            peer.status.version = version.or(peer.status.version.take());
            peer.status.protocol = protocol.or(peer.status.protocol.take());
            peer.status.meshes = meshes;
            peer.status.last_error = problem;
            self.publish();
        }
    }

    /// A ping came back. Shown with the next tick.
    pub(super) fn measured(&mut self, device: &DeviceId, rtt: Duration) {
        if let Some(peer) = self.peers.get_mut(device) {
            peer.status.rtt = Some(rtt);
        }
    }

    /// Computes rates; call at a steady pace.
    pub(super) fn tick(&mut self, elapsed: Duration) {
        for peer in self.peers.values_mut() {
            let now = peer.traffic.totals();
            let (up, down) = peer.counted;
            peer.status.up_rate = smooth(peer.status.up_rate, now.0 - up, elapsed);
            peer.status.down_rate = smooth(peer.status.down_rate, now.1 - down, elapsed);
            peer.counted = now;
        }
        self.publish();
    }

    /// What the next stream to or from the device is measured and limited by.
    pub(super) fn meter(
        &mut self,
        device: DeviceId,
        standing: Standing,
        protocol: Protocol,
    ) -> Meter {
        let peer = self
            .peers
            .entry(device)
            .or_insert_with(|| Peer::new(device));
        let limits = match standing {
            Standing::Member => &self.limits,
            Standing::Stranger => &peer.stranger,
        };
        Meter {
            traffic: Arc::clone(&peer.traffic),
            limits: Arc::clone(limits),
            urgency: Urgency::of(protocol),
        }
    }

    /// Passes a happening on to whoever follows.
    pub(super) fn tell(&self, event: NetworkEvent) {
        tracing::debug!(?event, "network");
        // An error says that nobody follows.
        drop(self.events.send(event));
    }

    fn publish_connected(&self) {
        let connected = self.peers.iter().filter_map(|(device, peer)| {
            let status = &peer.status;
            let connected = Connected {
                epoch: peer.epoch,
                path: status.path.filter(|_| status.connected)?,
                wire: status.wire.unwrap_or(Wire::Tcp),
                addr: status.addr?,
            };
            Some((*device, connected))
        });
        let connected: BTreeMap<_, _> = connected.collect();
        self.connected.send_if_modified(|shown| {
            let changed = **shown != connected;
            if changed {
                *shown = Arc::new(connected);
            }
            changed
        });
    }

    fn publish(&self) {
        let statuses = self
            .peers
            .values()
            .map(|peer| peer.status.clone())
            .collect();
        self.statuses.send_replace(Arc::new(statuses));
    }
}

impl Peer {
    fn new(device: DeviceId) -> Self {
        Self {
            status: PeerStatus::unconnected(device),
            epoch: 0,
            is_told: false,
            traffic: Arc::default(),
            counted: (0, 0),
            stranger: Arc::new(Limits::stranger()),
        }
    }
}

/// A rate that follows the last few seconds and reaches zero.
fn smooth(before: u64, bytes: u64, elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let now = bytes.saturating_mul(1000) / millis;
    (before + now) / 2
}
