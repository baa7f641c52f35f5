//! Dials under way, who waits for them, and what their failures mean to a person.

use std::{collections::HashMap, error::Error, io};

use libp2p::{
    Multiaddr, PeerId,
    core::transport::TransportError,
    swarm::{ConnectionId, DialError as SwarmError},
};
use tokio::sync::oneshot;
use wormhole_crdt::DeviceId;

use crate::{
    address::PeerAddr,
    behaviour::Opening,
    error::{DialError, OpenError},
    identity,
    transport::{self, QuicError},
};

/// Streams that may wait for a connection to one device.
const MAX_WAITING_PER_DEVICE: usize = 64;

/// Devices that streams may wait for.
const MAX_WAITING_DEVICES: usize = 256;

/// Dials to bare addresses at once.
const MAX_ADDRESS_DIALS: usize = 64;

/// Where the answer to a dial by address goes.
pub(super) type Reply = oneshot::Sender<Result<DeviceId, DialError>>;

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Dialler {
    waiting: HashMap<PeerId, Vec<Opening>>,
    by_address: HashMap<ConnectionId, (PeerAddr, Reply)>,
}

impl Dialler {
    /// Keeps a stream until the device is connected or the dial failed.
    pub(super) fn wait(&mut self, peer: PeerId, opening: Opening) {
        let is_new = !self.waiting.contains_key(&peer);
        if is_new && self.waiting.len() >= MAX_WAITING_DEVICES {
            let device = opening.peer;
            return opening.fail(OpenError::Backlog { peer: device });
        }
        let openings = self.waiting.entry(peer).or_default();
        openings.retain(|opening| !opening.reply.is_closed());
        if openings.len() >= MAX_WAITING_PER_DEVICE {
            let device = opening.peer;
            return opening.fail(OpenError::Backlog { peer: device });
        }
        openings.push(opening);
    }

    /// The streams that wait for a device which is connected now.
    pub(super) fn connected(&mut self, peer: &PeerId) -> Vec<Opening> {
        self.waiting.remove(peer).unwrap_or_default()
    }

    /// Tells everybody who waits for the device that it cannot be reached.
    pub(super) fn unreachable(&mut self, peer: &PeerId, reason: &DialError) {
        for opening in self.connected(peer) {
            let peer = opening.peer;
            opening.fail(OpenError::Unreachable {
                peer,
                source: reason.clone(),
            });
        }
    }

    /// Whether there is room for another dial by address.
    pub(super) fn has_room(&mut self) -> bool {
        self.by_address.retain(|_, (_, reply)| !reply.is_closed());
        self.by_address.len() < MAX_ADDRESS_DIALS
    }

    /// Remembers who asked for a dial by address.
    pub(super) fn asked(&mut self, id: ConnectionId, addr: PeerAddr, reply: Reply) {
        self.by_address.insert(id, (addr, reply));
    }

    /// A dial by address ended; answers whoever asked for it.
    pub(super) fn answered(
        &mut self,
        id: ConnectionId,
        result: impl FnOnce(PeerAddr) -> Result<DeviceId, DialError>,
    ) {
        if let Some((addr, reply)) = self.by_address.remove(&id)
            && reply.send(result(addr)).is_err()
        {
            tracing::trace!(%addr, "nobody waits for the dial any more");
        }
    }
}

/// What a failed dial to `addr` means.
pub(super) fn explain(error: &SwarmError, addr: PeerAddr) -> DialError {
    match error {
        // libp2p leaves our own listening addresses out of a dial before it begins.
        SwarmError::LocalPeerId { .. } | SwarmError::NoAddresses => DialError::Myself { addr },
        SwarmError::WrongPeerId { obtained, .. } => match identity::device_id(obtained) {
            Some(found) => DialError::WrongDevice { addr, found },
            None => DialError::Handshake { addr },
        },
        SwarmError::Denied { .. } => DialError::Refused { addr },
        SwarmError::Transport(errors) => errors
            .iter()
            .map(|(_, error)| blame(error))
            .max()
            .unwrap_or(Blame::Silence)
            .explain(addr),
        SwarmError::Aborted | SwarmError::DialPeerConditionFalse(_) => {
            DialError::Unreachable { addr }
        }
    }
}

/// The address that a failed dial was about, for the message.
pub(super) fn address_of(error: &SwarmError) -> Option<PeerAddr> {
    let addr: Option<&Multiaddr> = match error {
        SwarmError::LocalPeerId { address } | SwarmError::WrongPeerId { address, .. } => {
            Some(address)
        }
        SwarmError::Transport(errors) => errors.first().map(|(addr, _)| addr),
        SwarmError::Denied { .. }
        | SwarmError::Aborted
        | SwarmError::NoAddresses
        | SwarmError::DialPeerConditionFalse(_) => None,
    };
    addr.and_then(PeerAddr::from_multiaddr)
}

/// Whose fault a transport error is, the most telling last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blame {
    /// We have no socket for that address.
    NoRoute,
    /// Nobody answered.
    Silence,
    /// Somebody answered, and it was no handshake.
    Handshake,
}

impl Blame {
    fn explain(self, addr: PeerAddr) -> DialError {
        match self {
            Self::NoRoute => DialError::NoRoute { addr },
            Self::Silence => DialError::Unreachable { addr },
            Self::Handshake => DialError::Handshake { addr },
        }
    }
}

fn blame(error: &TransportError<io::Error>) -> Blame {
    match error {
        TransportError::MultiaddrNotSupported(_) => Blame::NoRoute,
        TransportError::Other(error) => blame_io(error),
    }
}

/// Looks through the wrappings of an error for one that says what happened.
fn blame_io(error: &io::Error) -> Blame {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::TimedOut => return Blame::Silence,
        io::ErrorKind::AddrNotAvailable => return Blame::NoRoute,
        _ => {}
    }
    let mut cause: Option<&(dyn Error + 'static)> = error.get_ref().map(|inner| inner as _);
    while let Some(inner) = cause {
        if let Some(inner) = inner.downcast_ref::<io::Error>() {
            return blame_io(inner);
        }
        match inner.downcast_ref::<transport::Error>() {
            Some(transport::Error::Tcp(error)) => return blame_io(error),
            Some(transport::Error::Quic(error)) => return blame_quic(error),
            None => {}
        }
        cause = inner.source();
    }
    Blame::Handshake
}

fn blame_quic(error: &QuicError) -> Blame {
    match error {
        QuicError::NoSocket => Blame::NoRoute,
        QuicError::Timeout | QuicError::Handshake(quinn::ConnectionError::TimedOut) => {
            Blame::Silence
        }
        QuicError::Handshake(_)
        | QuicError::Refused(_)
        | QuicError::NoIdentity
        | QuicError::Socket(_) => Blame::Handshake,
    }
}
