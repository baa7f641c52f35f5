//! All connections, and which of several to one device is the best.
//!
//! Direct beats relayed, QUIC beats TCP, a later connection beats one that is probably dead (because it is
//! older, or ends at a port that the device no longer has). Of two equal
//! ones made at the same time both sides prefer the one that the device with the lower id dialled, so
//! that simultaneous dials end in one connection. Only the best connection
//! to a known device is held; the others, and those to strangers, go when they have been idle.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr,
    swarm::{
        CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, DialFailure, FromSwarm,
        ListenFailure, NetworkBehaviour, NotifyHandler, Stream as Raw, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
    },
};
use wormhole_crdt::DeviceId;

use super::{
    Gate,
    gate::{Guest, Refusal},
    handler::{Arrived, Handler, Hold, Name, Opening, Order},
};
use crate::{
    address::{PeerAddr, Wire},
    identity,
    peer::PathKind,
    streams::Protocol,
    transport::Rooms,
};

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// libp2p's name for it.
    pub(crate) id: ConnectionId,
    /// The other end.
    pub(crate) addr: PeerAddr,
    /// How it travels.
    pub(crate) path: PathKind,
    /// Who made it.
    pub(crate) origin: Origin,
    since: Instant,
    hold: Hold,
}

/// Connections made within this time of one another were made without knowing of each other. A later one
/// was made because the peer has no use of the former: it restarted, or changed networks.
const SIMULTANEOUS: Duration = Duration::from_secs(3);

impl Link {
    /// Lower is better, and both sides see the same.
    fn class(&self) -> (bool, Wire) {
        (
            self.path == PathKind::Relayed,
            self.addr.wire().unwrap_or(Wire::Tcp),
        )
    }

    /// Whether the peer has left the port where `old` ends. All QUIC connections of a program come from
    /// the one port on which it listens, so another port is another run of the program, and the former
    /// run said no goodbye. Beyond the local network a port may be an address translator's.
    fn has_moved(&self, old: &Self) -> bool {
        let is_near = |link: &Self| {
            link.addr.wire() == Some(Wire::Quic)
                && matches!(link.path, PathKind::Local | PathKind::Lan)
        };
        is_near(self)
            && is_near(old)
            && self.addr.ip() == old.addr.ip()
            && self.addr.port() != old.addr.port()
    }
}

/// Who made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// We did.
    Ours,
    /// The peer did.
    Theirs,
}

/// A stream that a peer opened, with its protocol agreed.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// By whom.
    pub(crate) peer: PeerId,
    /// For what.
    pub(crate) protocol: Protocol,
    /// How its connection travels.
    pub(crate) path: PathKind,
    /// The stream; no verdict has been sent.
    pub(crate) stream: Raw,
}

/// The connections of this device.
pub(crate) struct Links {
    local: DeviceId,
    names: Arc<[Name]>,
    peers: HashMap<PeerId, Vec<Link>>,
    /// Who may come in.
    pub(crate) gate: Gate,
    rooms: Rooms,
    /// Bounded by the swarm, which empties it before it does anything else.
    queue: VecDeque<ToSwarm<Inbound, Order>>,
    waker: Option<Waker>,
}

impl Links {
    pub(super) fn new(local: DeviceId, protocols: &[Protocol], rooms: Rooms) -> Self {
        Self {
            local,
            names: protocols.iter().copied().map(Name::new).collect(),
            peers: HashMap::new(),
            gate: Gate::default(),
            rooms,
            queue: VecDeque::new(),
            waker: None,
        }
    }

    /// The connection that a new stream to `peer` should use.
    pub(crate) fn best(&self, peer: &PeerId) -> Option<&Link> {
        let device = identity::device_id(peer)?;
        let links = self.peers.get(peer)?.iter(); // the oldest first
        links.reduce(|best, link| {
            if self.supersedes(&device, link, best) {
                link
            } else {
                best
            }
        })
    }

    /// Opens a stream on the best connection, or gives the request back if there is none.
    pub(crate) fn open(&mut self, peer: PeerId, opening: Opening) -> Result<(), Opening> {
        let Some((connection, path)) = self.best(&peer).map(|link| (link.id, link.path)) else {
            return Err(opening);
        };
        self.order(peer, connection, Order::Open(opening, path));
        Ok(())
    }

    /// Says whether `peer` is known: known devices are held on to and have a place at the gate.
    pub(crate) fn set_known(&mut self, peer: PeerId, known: bool) {
        self.gate.set_known(peer, known);
        self.rooms.set_known(peer, known);
        self.review(&peer);
    }

    /// Cuts every connection to `peer`.
    pub(crate) fn disconnect(&mut self, peer: PeerId) {
        if self.peers.contains_key(&peer) {
            let connection = CloseConnection::All;
            self.push(ToSwarm::CloseConnection {
                peer_id: peer,
                connection,
            });
        }
    }

    /// Whether `new` is to be used rather than `old`, which was there before.
    fn supersedes(&self, peer: &DeviceId, new: &Link, old: &Link) -> bool {
        if new.class() != old.class() {
            return new.class() < old.class();
        }
        if new.since.saturating_duration_since(old.since) > SIMULTANEOUS || new.has_moved(old) {
            return true;
        }
        let by_lower = |link: &Link| match link.origin {
            Origin::Ours => self.local < *peer,
            Origin::Theirs => *peer < self.local,
        };
        by_lower(new) && !by_lower(old)
    }

    /// Decides again which connections to `peer` are held.
    fn review(&mut self, peer: &PeerId) {
        let known = self.gate.is_known(peer);
        let Some(best) = self.best(peer).cloned() else {
            return;
        };
        let mut orders = Vec::new();
        for link in self.peers.get(peer).into_iter().flatten() {
            // Only the peer knows in which order it made two connections at once: it lets one go.
            let is_unclear = link.class() == best.class()
                && (link.origin, best.origin) == (Origin::Theirs, Origin::Theirs)
                && best.since.saturating_duration_since(link.since) <= SIMULTANEOUS
                && link.since.saturating_duration_since(best.since) <= SIMULTANEOUS;
            let is_spare = link.id != best.id && !is_unclear;
            let hold = if known && !is_spare {
                Hold::Keep
            } else {
                Hold::Release
            };
            if hold != link.hold {
                orders.push((link.id, hold));
            }
        }
        for (id, hold) in orders {
            let links = self.peers.get_mut(peer).into_iter().flatten();
            for link in links.filter(|link| link.id == id) {
                link.hold = hold;
            }
            self.order(*peer, id, Order::Hold(hold));
        }
    }

    fn order(&mut self, peer_id: PeerId, connection: ConnectionId, event: Order) {
        let handler = NotifyHandler::One(connection);
        self.push(ToSwarm::NotifyHandler {
            peer_id,
            handler,
            event,
        });
    }

    fn push(&mut self, event: ToSwarm<Inbound, Order>) {
        self.queue.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn admit(&self, peer: PeerId, addr: &Multiaddr) -> Result<Handler, ConnectionDenied> {
        if identity::device_id(&peer).is_none() {
            return Err(ConnectionDenied::new(Refusal::NoDevice));
        }
        let guest = Guest {
            peer,
            ip: ip_of(addr),
            wire: wire_of(PeerAddr::from_multiaddr(addr).as_ref()),
        };
        let guests = self.peers.iter().flat_map(|(peer, links)| {
            links.iter().map(|link| Guest {
                peer: *peer,
                ip: Some(link.addr.ip()),
                wire: wire_of(Some(&link.addr)),
            })
        });
        self.gate
            .enter(guest, guests, Instant::now())
            .map_err(ConnectionDenied::new)?;
        Ok(Handler::new(Arc::clone(&self.names)))
    }
}

impl NetworkBehaviour for Links {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.gate
            .knock(id, ip_of(remote))
            .map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.gate.settled(id);
        self.admit(peer, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(peer, addr)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                let remote = endpoint.get_remote_address();
                let Some(addr) = PeerAddr::from_multiaddr(remote) else {
                    tracing::warn!(%remote, "a connection from an address of no known form");
                    return;
                };
                let relayed = endpoint.is_relayed();
                let link = Link {
                    id: connection_id,
                    addr,
                    path: if relayed {
                        PathKind::Relayed
                    } else {
                        addr.path()
                    },
                    origin: if endpoint.is_dialer() {
                        Origin::Ours
                    } else {
                        Origin::Theirs
                    },
                    since: Instant::now(),
                    hold: Hold::Release,
                };
                self.peers.entry(peer_id).or_default().push(link);
                self.review(&peer_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                if let Some(links) = self.peers.get_mut(&peer_id) {
                    links.retain(|link| link.id != connection_id);
                    if links.is_empty() {
                        self.peers.remove(&peer_id);
                    }
                }
                self.review(&peer_id);
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. })
            | FromSwarm::DialFailure(DialFailure { connection_id, .. }) => {
                self.gate.settled(connection_id);
            }
            // The enum is libp2p's and open-ended; nothing else concerns connections.
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        arrived: THandlerOutEvent<Self>,
    ) {
        let Arrived { protocol, stream } = arrived;
        let mut links = self.peers.get(&peer).into_iter().flatten();
        let Some(path) = links
            .find(|link| link.id == connection)
            .map(|link| link.path)
        else {
            return; // the connection went away with its streams
        };
        let inbound = Inbound {
            peer,
            protocol,
            path,
            stream,
        };
        self.push(ToSwarm::GenerateEvent(inbound));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Inbound, THandlerInEvent<Self>>> {
        match self.queue.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// What a connection is made of; the more costly one, if nobody can tell.
fn wire_of(addr: Option<&PeerAddr>) -> Wire {
    addr.and_then(PeerAddr::wire).unwrap_or(Wire::Tcp)
}

/// The IP address in a multiaddr.
fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    addr.iter().find_map(|part| match part {
        multiaddr::Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        multiaddr::Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}
