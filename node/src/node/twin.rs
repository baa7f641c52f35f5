//! Another node with this device's key: one identity in two places, as when a home was copied.
//!
//! The others take both for one device and speak with one of them at a time. The network hears a twin on the same LAN;
//! here is remembered for how long it is to be told.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wormhole_mesh::PeerAddr;

use super::Node;
use crate::event::EventKind;

/// A node makes itself heard every half a minute; one that was not heard for so long is gone.
const REMEMBERED: Duration = Duration::from_secs(120);

/// The twin that was heard last, and when.
#[derive(Debug, Default)]
pub(super) struct Twin(Mutex<Option<(PeerAddr, Instant)>>);

impl Twin {
    /// It was heard. Answers whether that is news.
    fn heard(&self, addr: PeerAddr, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.replace((addr, now));
        known.is_none_or(|(_, at)| now.duration_since(at) > REMEMBERED)
    }

    fn addr(&self, now: Instant) -> Option<PeerAddr> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|(_, at)| now.duration_since(*at) <= REMEMBERED)
            .map(|(addr, _)| addr)
    }
}

impl Node {
    /// A node with this device's key was heard.
    pub(crate) fn note_twin(&self, addr: PeerAddr) {
        if self.inner.twin.heard(addr, Instant::now()) {
            let problem = sentence(addr);
            tracing::error!("{problem}");
            self.events().raise(EventKind::SameKey {
                address: addr.to_string(),
                problem,
            });
        }
    }

    /// What is wrong with the node as a whole.
    pub(crate) fn problem(&self) -> Option<String> {
        self.inner.twin.addr(Instant::now()).map(sentence)
    }
}

fn sentence(addr: PeerAddr) -> String {
    format!(
        "another node, at {addr}, has the key of this device: the others take both for one; stop the one whose home was \
         copied, remove device.key and meshes from that home, and let it join as a device of its own"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_is_news_once_and_forgotten_when_it_is_silent() {
        let (twin, start) = (Twin::default(), Instant::now());
        let addr: PeerAddr = "192.168.1.4:4711".parse().unwrap();
        assert_eq!(twin.addr(start), None);
        assert!(twin.heard(addr, start));
        assert!(!twin.heard(addr, start + REMEMBERED));
        assert_eq!(twin.addr(start + 2 * REMEMBERED), Some(addr));
        let later = start + 3 * REMEMBERED;
        assert_eq!(twin.addr(later), None);
        assert!(twin.heard(addr, later));
    }
}
