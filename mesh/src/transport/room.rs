//! How much of our memory a connection may fill: little for a stranger, plenty for a member.
//!
//! Bytes that come in wait in the windows of streams and connections until somebody reads them, and a stranger
//! decides when. So a connection begins with the room of a stranger, unless its device is known already, and
//! gets the rest when the device becomes known. The actor says who is known; the muxers ask at every turn.
//! What one connection of a stranger can cost is [`stranger_bytes`]; how many there may be is the gate's business.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
};

use futures::task::AtomicWaker;
use libp2p::PeerId;

use crate::address::Wire;

/// Streams that a peer may have open on one connection. Every protocol has smaller quotas of its own.
pub(super) const MAX_STREAMS: u32 = 256;

/// Unread bytes of a stranger on a QUIC connection, and as many of ours that it has not acknowledged: a quarter of
/// a second at the rate that strangers get, and an invite's messages but the last are 4 KiB.
pub(super) const STRANGER_WINDOW: u32 = 128 * 1024;

/// Streams of a stranger on a TCP connection, each with Yamux' least window: what the protocols grant it, and some
/// that are being refused.
pub(super) const STRANGER_STREAMS: usize = 12;

/// What a stream may hold in Yamux, whoever opened it.
pub(super) const YAMUX_WINDOW: usize = 256 * 1024;

/// What a connection of a stranger may cost, at most.
pub(crate) const fn stranger_bytes(wire: Wire) -> usize {
    match wire {
        Wire::Quic => 2 * STRANGER_WINDOW as usize,
        Wire::Tcp => STRANGER_STREAMS * YAMUX_WINDOW,
    }
}

/// Who is known, and the room of every open connection. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Rooms {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    known: HashSet<PeerId>,
    /// Pruned when another connection of the device is made; the gate bounds how many those are.
    open: HashMap<PeerId, Vec<Weak<Room>>>,
}

/// The room of one connection.
#[derive(Debug)]
pub(super) struct Room {
    is_wide: AtomicBool,
    waker: AtomicWaker,
}

impl Rooms {
    /// The device is known from now on, or no more.
    pub(crate) fn set_known(&self, peer: PeerId, known: bool) {
        let mut inner = self.lock();
        let changed = if known {
            inner.known.insert(peer)
        } else {
            inner.known.remove(&peer)
        };
        let open = inner.open.get(&peer).filter(|_| changed);
        let rooms: Vec<_> = open
            .into_iter()
            .flatten()
            .filter_map(Weak::upgrade)
            .collect();
        drop(inner);
        for room in rooms {
            room.is_wide.store(known, Ordering::Relaxed);
            room.waker.wake();
        }
    }

    /// The room of a new connection.
    pub(super) fn room(&self, peer: PeerId) -> Arc<Room> {
        let mut inner = self.lock();
        let is_wide = AtomicBool::new(inner.known.contains(&peer));
        let room = Arc::new(Room {
            is_wide,
            waker: AtomicWaker::new(),
        });
        inner.open.retain(|_, rooms| {
            rooms.retain(|room| room.strong_count() > 0);
            !rooms.is_empty()
        });
        inner
            .open
            .entry(peer)
            .or_default()
            .push(Arc::downgrade(&room));
        room
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Both maps are whole after each call on them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").finish_non_exhaustive()
    }
}

impl Room {
    /// Whether the device is known. `cx` is woken when that changes.
    pub(super) fn poll_wide(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.is_wide()
    }

    /// Whether the device is known now.
    pub(super) fn is_wide(&self) -> bool {
        self.is_wide.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_a_strangers_room_until_its_device_is_known_and_when_it_is_no_more() {
        let rooms = Rooms::default();
        let (peer, other) = (PeerId::random(), PeerId::random());
        let (early, foreign) = (rooms.room(peer), rooms.room(other));
        assert!(!early.is_wide());
        rooms.set_known(peer, true);
        assert!(early.is_wide() && rooms.room(peer).is_wide());
        assert!(!foreign.is_wide());
        rooms.set_known(peer, false);
        assert!(!early.is_wide() && !rooms.room(peer).is_wide());
    }

    #[test]
    fn connections_that_are_gone_leave_nothing_behind() {
        let rooms = Rooms::default();
        for _ in 0..1000 {
            drop(rooms.room(PeerId::random()));
        }
        assert!(rooms.lock().open.len() <= 1);
    }
}
