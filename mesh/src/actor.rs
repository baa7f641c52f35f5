//! The only task that touches the swarm: commands in, connections and streams out.
//!
//! One biased loop. What it decides lives elsewhere and is mostly pure: `behaviour` (which connection,
//! who gets in), `keeper` (when to dial whom), `dialler` (who waits for a dial), `acceptor` (which
//! streams are served), `view` (what the others see). It never waits for anybody inside the loop.

mod acceptor;
mod dialler;
mod keeper;
mod view;

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use futures::StreamExt;
use libp2p::{
    PeerId, Swarm, ping,
    swarm::{
        ConnectionId, DialError as SwarmError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use rand::RngExt;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use wormhole_crdt::DeviceId;

pub(crate) use self::view::Statuses;
use self::{acceptor::Acceptor, dialler::Dialler, keeper::Keeper, view::View};
use crate::{
    address::{PeerAddr, Wire},
    behaviour::{Behaviour, BehaviourEvent, Inbound, Opening, Origin},
    discovery::{Book, Roster, Sighting},
    error::{DialError, OpenError},
    identity,
    limit::Limits,
    peer::{Misbehaviour, NetworkEvent},
    streams::{Command, Discovered, Handler, Standing},
};

/// How often rates are computed, sightings expire and the book is saved.
const TICK: Duration = Duration::from_secs(2);

/// What the actor is made of. Built by `network`.
pub(crate) struct Parts {
    /// Listening already.
    pub(crate) swarm: Swarm<Behaviour>,
    /// What comes in.
    pub(crate) inlets: Inlets,
    /// Where the state is published.
    pub(crate) outlets: Outlets,
    /// Who answers the streams of others.
    pub(crate) handlers: Vec<Arc<dyn Handler>>,
    /// Addresses that worked, shared with the handle.
    pub(crate) book: Arc<Mutex<Book>>,
    /// The node's bandwidth limits.
    pub(crate) limits: Arc<Limits>,
}

/// What comes in.
pub(crate) struct Inlets {
    /// Requests of the protocols.
    pub(crate) commands: mpsc::Receiver<Command>,
    /// The members of our meshes.
    pub(crate) wanted: watch::Receiver<BTreeSet<DeviceId>>,
    /// What discovery found.
    pub(crate) sightings: mpsc::Receiver<Sighting>,
}

/// Where the state is published.
pub(crate) struct Outlets {
    /// For protocols.
    pub(crate) connected: watch::Sender<crate::streams::ConnectedPeers>,
    /// For protocols.
    pub(crate) discovered: watch::Sender<Arc<Vec<Discovered>>>,
    /// For people.
    pub(crate) statuses: watch::Sender<Statuses>,
    /// For people.
    pub(crate) events: tokio::sync::broadcast::Sender<NetworkEvent>,
}

/// The task's state.
pub(crate) struct Actor {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    wanted: watch::Receiver<BTreeSet<DeviceId>>,
    sightings: mpsc::Receiver<Sighting>,
    acceptor: Acceptor,
    dialler: Dialler,
    keeper: Keeper,
    roster: Roster,
    book: Arc<Mutex<Book>>,
    view: View,
    discovered: watch::Sender<Arc<Vec<Discovered>>>,
    /// Devices that are no member any more, and since when: their connections end at one of the next ticks, so that
    /// what they are still told can come through.
    parting: Vec<(DeviceId, Instant)>,
    /// Writes of the book, one at a time.
    writes: JoinSet<io::Result<()>>,
}

impl Actor {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            swarm,
            inlets,
            outlets,
            handlers,
            book,
            limits,
        } = parts;
        let Inlets {
            commands,
            wanted,
            sightings,
        } = inlets;
        let Outlets {
            connected,
            discovered,
            statuses,
            events,
        } = outlets;
        Self {
            swarm,
            commands,
            wanted,
            sightings,
            acceptor: Acceptor::new(handlers),
            dialler: Dialler::default(),
            keeper: Keeper::default(),
            roster: Roster::default(),
            book,
            view: View::new(limits, connected, statuses, events),
            discovered,
            parting: Vec::new(),
            writes: JoinSet::new(),
        }
    }

    /// Runs until cancelled, then ends all streams and closes all connections.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.follow_wanted();
        loop {
            let due = self.keeper.next();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(()) = self.acceptor.finished() => {}
                Some(result) = self.writes.join_next() => log_write(result),
                Some(command) = self.commands.recv() => self.obey(command),
                Ok(()) = self.wanted.changed() => self.follow_wanted(),
                Some(sighting) = self.sightings.recv() => self.sighted(sighting),
                () = sleep_until(due.unwrap_or_else(far).into()), if due.is_some() => self.redial(),
                _ = tick.tick() => self.tick(),
                event = self.swarm.select_next_some() => self.swarmed(event),
            }
        }
        self.stop().await;
    }

    async fn stop(mut self) {
        self.commands.close();
        self.acceptor.shutdown().await;
        drop(self.swarm); // connections say goodbye; `network` waits until the packets are out
        while let Some(result) = self.writes.join_next().await {
            log_write(result);
        }
        let draft = self
            .book
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .changes();
        if let Some(draft) = draft {
            log_write(tokio::task::spawn_blocking(move || draft.write()).await);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open {
                peer,
                protocol,
                reply,
            } => {
                let standing = self.standing_of(&peer);
                let meter = self.view.meter(peer, standing, protocol);
                self.open(Opening {
                    peer,
                    protocol,
                    meter,
                    reply,
                });
            }
            Command::Dial { addr, reply } => self.dial_address(addr, reply),
            Command::Describe { peer, about } => self.view.described(&peer, about),
            Command::Misbehaved { peer, reason } => self.punish(peer, reason),
        }
    }

    fn open(&mut self, opening: Opening) {
        let peer = opening.peer;
        let Some(peer_id) = identity::peer_id(&peer) else {
            let source = DialError::NoAddress { device: peer };
            return opening.fail(OpenError::Unreachable { peer, source });
        };
        if let Err(opening) = self.swarm.behaviour_mut().links.open(peer_id, opening) {
            self.dialler.wait(peer_id, opening);
            if let Err(reason) = self.dial_device(peer, peer_id) {
                self.dialler.unreachable(&peer_id, &reason);
            }
        }
    }

    /// Dials a device at every address that we know. `Ok` if a dial is under way.
    fn dial_device(&mut self, device: DeviceId, peer: PeerId) -> Result<(), DialError> {
        if self
            .swarm
            .behaviour()
            .links
            .gate
            .is_banned(&peer, Instant::now())
        {
            return Err(DialError::Banned { device });
        }
        let mut addrs = self.roster.addrs(&device);
        addrs.extend(
            self.book
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .addrs(&device),
        );
        let mut multiaddrs = Vec::new();
        for addr in addrs.iter().flat_map(PeerAddr::multiaddrs) {
            if !multiaddrs.contains(&addr) {
                multiaddrs.push(addr);
            }
        }
        let first = *addrs.first().ok_or(DialError::NoAddress { device })?;
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(multiaddrs)
            .build();
        match self.swarm.dial(options) {
            Ok(()) | Err(SwarmError::DialPeerConditionFalse(_)) => Ok(()),
            Err(error) => Err(dialler::explain(&error, first)),
        }
    }

    fn dial_address(&mut self, addr: PeerAddr, reply: dialler::Reply) {
        let multiaddr = addr.multiaddrs().into_iter().next();
        let started = match multiaddr {
            Some(_) if !addr.is_dialable() => Err(DialError::Unreachable { addr }),
            Some(_) if !self.dialler.has_room() => Err(DialError::Busy),
            Some(multiaddr) => {
                let options = DialOpts::unknown_peer_id().address(multiaddr).build();
                let id = options.connection_id();
                self.swarm
                    .dial(options)
                    .map(|()| id)
                    .map_err(|error| dialler::explain(&error, addr))
            }
            None => Err(DialError::Unreachable { addr }),
        };
        match started {
            Ok(id) => self.dialler.asked(id, addr, reply),
            Err(error) => {
                if reply.send(Err(error)).is_err() {
                    tracing::trace!(%addr, "nobody waits for the dial any more");
                }
            }
        }
    }

    /// Dials whoever is due.
    fn redial(&mut self) {
        let now = Instant::now();
        for device in self.keeper.due(now) {
            let started = match identity::peer_id(&device) {
                Some(peer) => self.dial_device(device, peer),
                None => Err(DialError::NoAddress { device }),
            };
            if let Err(error) = started {
                self.view.failed(&device, error.to_string());
                self.keeper.failed(&device, now, jitter());
            }
        }
    }

    fn swarmed(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Links(inbound)) => self.accept(inbound),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.pinged(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            } => {
                self.connected(peer_id, connection_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "a connection ended");
                self.disconnected(peer_id);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => {
                self.dial_failed(connection_id, peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => {
                tracing::debug!(from = %send_back_addr, %error, "somebody did not get in");
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listening socket has trouble");
            }
            SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } => {
                tracing::warn!(?addresses, ?reason, "a listening socket closed");
            }
            // The enum is libp2p's and open-ended; the rest is progress.
            _ => {}
        }
    }

    fn connected(&mut self, peer: PeerId, id: ConnectionId) {
        let Some(device) = identity::device_id(&peer) else {
            return;
        };
        self.dialler.answered(id, |_| Ok(device));
        self.keeper.up(&device);
        self.view.renewed(device);
        self.show(device, peer);
        self.write_down(device, peer);
        for opening in self.dialler.connected(&peer) {
            self.open(opening);
        }
    }

    fn disconnected(&mut self, peer: PeerId) {
        let Some(device) = identity::device_id(&peer) else {
            return;
        };
        if self.swarm.behaviour().links.best(&peer).is_some() {
            return self.show(device, peer);
        }
        let wanted = self.keeper.wants(&device);
        self.swarm.behaviour_mut().links.set_known(peer, wanted);
        self.keeper.down(&device, Instant::now(), jitter());
        self.view.unlinked(device, wanted);
    }

    fn dial_failed(&mut self, id: ConnectionId, peer: Option<PeerId>, error: &SwarmError) {
        tracing::debug!(?peer, %error, "a dial failed");
        self.dialler
            .answered(id, |addr| Err(dialler::explain(error, addr)));
        let Some(peer) = peer else { return };
        let Some(device) = identity::device_id(&peer) else {
            return;
        };
        if self.swarm.is_connected(&peer) {
            return;
        }
        let reason = match dialler::address_of(error) {
            Some(addr) => dialler::explain(error, addr),
            None => DialError::NoAddress { device },
        };
        self.dialler.unreachable(&peer, &reason);
        self.view.failed(&device, reason.to_string());
        self.keeper.failed(&device, Instant::now(), jitter());
    }

    fn accept(&mut self, inbound: Inbound) {
        let Inbound {
            peer,
            protocol,
            path,
            stream,
        } = inbound;
        let Some(device) = identity::device_id(&peer) else {
            return;
        };
        let standing = self.standing(&peer);
        let meter = self.view.meter(device, standing, protocol);
        let stream = meter.wrap(stream, device, path);
        let gate = &self.swarm.behaviour().links.gate;
        let is_known = |peer: &PeerId| gate.is_known(peer);
        self.acceptor.accept(peer, protocol, is_known, stream);
    }

    fn pinged(&mut self, event: ping::Event) {
        match (identity::device_id(&event.peer), event.result) {
            (Some(device), Ok(rtt)) => self.view.measured(&device, rtt),
            (_, Ok(_)) | (_, Err(ping::Failure::Unsupported)) => {}
            (_, Err(error @ (ping::Failure::Timeout | ping::Failure::Other { .. }))) => {
                tracing::debug!(peer = %event.peer, %error, "no answer to a ping");
                self.swarm.close_connection(event.connection);
            }
        }
    }

    fn sighted(&mut self, sighting: Sighting) {
        let device = sighting.device;
        if identity::peer_id(&device).as_ref() == Some(self.swarm.local_peer_id()) {
            for addr in sighting.addrs {
                self.view.tell(NetworkEvent::SameKey { addr });
            }
            return;
        }
        let is_new = self.roster.note(sighting, Instant::now());
        self.keeper.hint(&device, Instant::now());
        if is_new {
            self.discovered.send_replace(Arc::new(self.roster.list()));
        }
    }

    fn follow_wanted(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let swarm = &self.swarm;
        let is_connected = |device: &DeviceId| {
            identity::peer_id(device).is_some_and(|peer| swarm.is_connected(&peer))
        };
        let (new, gone) = self.keeper.want(&wanted, is_connected, Instant::now());
        for (devices, is_wanted) in [(new, true), (gone, false)] {
            for device in devices {
                let Some(peer) = identity::peer_id(&device) else {
                    continue;
                };
                if !is_wanted {
                    self.parting.push((device, Instant::now()));
                }
                self.swarm.behaviour_mut().links.set_known(peer, is_wanted);
                self.view.set_wanted(device, is_wanted);
                if is_wanted {
                    self.view.greet_member(device);
                }
                self.write_down(device, peer);
            }
        }
    }

    fn punish(&mut self, device: DeviceId, reason: Misbehaviour) {
        let Some(peer) = identity::peer_id(&device) else {
            return;
        };
        let now = Instant::now();
        let is_member = self.keeper.wants(&device);
        let links = &mut self.swarm.behaviour_mut().links;
        links.disconnect(peer);
        if links.gate.is_banned(&peer, now) {
            return; // another stream of the same connection did the same
        }
        links.gate.punish(peer, now);
        // Followers hear of members and may tell people. Anybody can be a stranger, as often as it likes.
        tracing::debug!(%device, %reason, "a peer misbehaved and is cut off");
        self.view.failed(&device, reason.to_string());
        if is_member {
            self.view
                .tell(NetworkEvent::PeerMisbehaved { device, reason });
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.part(now);
        self.view.tick(TICK);
        if self.roster.expire(now) {
            self.discovered.send_replace(Arc::new(self.roster.list()));
        }
        let gate = &self.swarm.behaviour().links.gate;
        self.acceptor.reap(|peer| !gate.is_known(peer), now);
        self.save_book();
    }

    /// Ends the connections of those who are no member any more. Whatever they ask for is refused before.
    fn part(&mut self, now: Instant) {
        let keeper = &self.keeper;
        self.parting.retain(|(device, _)| !keeper.wants(device));
        let due = |(_, since): &mut (DeviceId, Instant)| now.duration_since(*since) >= TICK;
        for (device, _) in self.parting.extract_if(.., due) {
            if let Some(peer) = identity::peer_id(&device) {
                self.swarm.behaviour_mut().links.disconnect(peer);
            }
        }
    }

    /// Saves what is new in the book, unless a write is under way; then the next tick does.
    fn save_book(&mut self) {
        if self.writes.is_empty()
            && let Some(draft) = self
                .book
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .changes()
        {
            self.writes.spawn_blocking(move || draft.write());
        }
    }

    fn show(&mut self, device: DeviceId, peer: PeerId) {
        if let Some(link) = self.swarm.behaviour().links.best(&peer) {
            self.view.linked(device, link);
            if self.keeper.wants(&device) {
                self.view.greet_member(device);
            }
        }
    }

    /// Keeps the address of a known device that is connected. The source port of a QUIC connection is
    /// the one it listens on; that of a TCP connection is not.
    fn write_down(&mut self, device: DeviceId, peer: PeerId) {
        let links = &self.swarm.behaviour().links;
        if let Some(link) = links.best(&peer)
            && links.gate.is_known(&peer)
            && (link.origin == Origin::Ours || link.addr.wire() == Some(Wire::Quic))
        {
            let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            book.note(device, link.addr, SystemTime::now());
            drop(book);
            // At once: a device that is killed soon after it joined must find its mesh again.
            self.save_book();
        }
    }

    /// Only a membership log of ours makes a member. Who merely knows a mesh's secret (it was removed, or never
    /// admitted) is a stranger that may have a session, and hears in it what concerns it.
    fn standing(&self, peer: &PeerId) -> Standing {
        if self.swarm.behaviour().links.gate.is_known(peer) {
            Standing::Member
        } else {
            Standing::Stranger
        }
    }

    fn standing_of(&self, device: &DeviceId) -> Standing {
        identity::peer_id(device).map_or(Standing::Stranger, |peer| self.standing(&peer))
    }
}

/// A moment that does not come.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Between 0 and 1, to keep devices out of step.
fn jitter() -> f64 {
    rand::rng().random()
}

fn log_write(result: Result<io::Result<()>, tokio::task::JoinError>) {
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the address book could not be saved"),
        Err(error) => tracing::error!(%error, "saving the address book panicked"),
    }
}
