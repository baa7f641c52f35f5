//! Telling others in the process that a replica changed.
//!
//! Changes are queued while the writer's lock is held, so they keep the order of the commits, and
//! delivered after it is released, so an observer may use the replica. One thread delivers at a
//! time; a thread that finds another one delivering leaves its change to that one.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Inner;
use crate::entry::EntryChange;

/// What one commit changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// What the tree shows differently.
    pub entries: Entries,
    /// Whether this device made the change, not a peer.
    pub local: bool,
    /// Whether the membership changed.
    pub members: bool,
}

/// Which entries a commit changed.
#[derive(Debug, Clone)]
pub enum Entries {
    /// These. A moved directory is one change; what is below it is not listed.
    Listed(Vec<EntryChange>),
    /// Too many to list: look at the tree again.
    Everything,
}

/// Hears of every commit.
pub trait Observer: Send + Sync {
    /// Called after the commit, in the order of the commits, with no lock held. Must be quick: it
    /// runs on the thread that made the change.
    fn changed(&self, change: &Change);
}

/// Keeps an observer subscribed; dropping it ends that.
pub struct Subscription {
    inner: Weak<Inner>,
    number: u64,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subscription").field(&self.number).finish()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.observers.lock().subscribed.remove(&self.number);
        }
    }
}

#[derive(Default)]
pub(super) struct Observers(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    subscribed: BTreeMap<u64, Arc<dyn Observer>>,
    next: u64,
    /// Bounded by the threads that commit at once: each delivers, or another one does it for it.
    waiting: VecDeque<Change>,
    delivering: bool,
}

impl Observers {
    pub(super) fn subscribe(
        &self,
        inner: &Arc<Inner>,
        observer: Arc<dyn Observer>,
    ) -> Subscription {
        let mut queue = self.lock();
        let number = queue.next;
        queue.next += 1;
        queue.subscribed.insert(number, observer);
        Subscription {
            inner: Arc::downgrade(inner),
            number,
        }
    }

    /// To be called under the writer's lock.
    pub(super) fn push(&self, change: Change) {
        let mut queue = self.lock();
        if !queue.subscribed.is_empty() {
            queue.waiting.push_back(change);
        }
    }

    /// To be called with no lock held.
    pub(super) fn deliver(&self) {
        loop {
            let (change, observers) = {
                let mut queue = self.lock();
                if queue.delivering {
                    return;
                }
                let Some(change) = queue.waiting.pop_front() else {
                    return;
                };
                queue.delivering = true;
                (
                    change,
                    queue.subscribed.values().cloned().collect::<Vec<_>>(),
                )
            };
            let _turn = Turn(self);
            for observer in observers {
                observer.changed(&change);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is never left half changed: nothing in here panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to deliver; given back also when an observer panics.
struct Turn<'a>(&'a Observers);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().delivering = false;
    }
}
