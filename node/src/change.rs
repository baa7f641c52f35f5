//! Carries what a replica commits to the two journeys: out (made here) and in (made elsewhere).
//!
//! A replica calls its observers on the thread that committed, so [`Feed`] only puts the news into a
//! bounded queue; a task for each mesh ([`follow`]) takes it out. When the queue is full the lists
//! are lost but not the fact: the next news says that everything may have changed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use wormhole_crdt::{Change, Entries, EntryChange, Observer, Replica, Subscription};

use crate::node::{LocalMesh, Node, blocking};
use crate::{inbound, outbound};

/// Commits that may wait for the task of the mesh.
const WAITING_NEWS: usize = 256;

/// Longer lists are not carried: whoever is interested looks at the tree instead.
const LONGEST_LIST: usize = 4096;

/// How long commits may be in memory only, when they can be had again (from peers, or by scanning).
/// Long enough to gather the commits of a burst into one wait for the disk.
const FLUSH_DELAY: Duration = Duration::from_millis(30);

/// News of a replica.
#[derive(Debug, Clone)]
pub(crate) struct News {
    /// Which entries changed; `None` when it may be any.
    pub(crate) entries: Option<Vec<EntryChange>>,
    /// Where the change was made.
    pub(crate) origin: Origin,
    /// Whether the members changed.
    pub(crate) members: bool,
}

/// Where a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// On this device.
    Here,
    /// On another device.
    Elsewhere,
}

/// Hears what a replica commits.
#[derive(Debug)]
pub(crate) struct Feed {
    relay: Arc<Relay>,
    queue: Mutex<Option<mpsc::Receiver<News>>>,
    _subscription: Subscription,
}

#[derive(Debug)]
struct Relay {
    queue: mpsc::Sender<News>,
    lost: AtomicBool,
    /// News that were put into the queue, and those that were carried.
    told: AtomicU64,
    carried: AtomicU64,
    dirty: Notify,
    stir: Arc<Notify>,
}

impl Observer for Relay {
    fn changed(&self, change: &Change) {
        self.dirty.notify_one();
        let entries = match &change.entries {
            Entries::Listed(list) if list.len() <= LONGEST_LIST => Some(list.clone()),
            Entries::Listed(_) | Entries::Everything => None,
        };
        if !change.members && entries.as_ref().is_some_and(Vec::is_empty) {
            // Nothing is shown in another way, and yet more is known.
            self.stir.notify_one();
            return;
        }
        let origin = if change.local {
            Origin::Here
        } else {
            Origin::Elsewhere
        };
        let news = News {
            entries,
            origin,
            members: change.members,
        };
        // Counted first: nobody shall think that all is carried while it is on its way into the queue.
        self.told.fetch_add(1, Ordering::AcqRel);
        if self.queue.try_send(news).is_err() {
            self.lost.store(true, Ordering::Release);
            self.carried.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Feed {
    /// Listens to a replica from now on; `stir` is told when more is known.
    pub(crate) fn new(replica: &Replica, stir: Arc<Notify>) -> Self {
        let (sender, queue) = mpsc::channel(WAITING_NEWS);
        let relay = Arc::new(Relay {
            queue: sender,
            lost: AtomicBool::new(false),
            told: AtomicU64::new(0),
            carried: AtomicU64::new(0),
            dirty: Notify::new(),
            stir,
        });
        let subscription = replica.subscribe(relay.clone());
        Self {
            relay,
            queue: Mutex::new(Some(queue)),
            _subscription: subscription,
        }
    }

    /// Whether all news was carried: what is wanted now is known to whoever fetches it.
    pub(crate) fn is_idle(&self) -> bool {
        let carried = self.relay.carried.load(Ordering::Acquire);
        !self.relay.lost.load(Ordering::Acquire)
            && self.relay.told.load(Ordering::Acquire) == carried
    }
}

/// Sends every change of a mesh on its journey, until the mesh stops.
pub(crate) async fn follow(node: Node, mesh: Arc<LocalMesh>) {
    let relay = mesh.feed().relay.clone();
    let queue = mesh
        .feed()
        .queue
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let mut queue = queue.expect("one task follows a mesh");
    loop {
        let mut news = tokio::select! {
            biased;
            () = mesh.stop.cancelled() => return,
            news = queue.recv() => news.expect("the mesh holds the sending end"),
        };
        if relay.lost.swap(false, Ordering::AcqRel) {
            news = News {
                entries: None,
                origin: Origin::Elsewhere,
                members: true,
            };
        }
        match news.origin {
            Origin::Here => outbound::carry(&node, &mesh, news).await,
            Origin::Elsewhere => inbound::carry(&node, &mesh, news).await,
        }
        relay.carried.fetch_add(1, Ordering::AcqRel);
        relay.stir.notify_one();
    }
}

/// Makes commits durable a moment after they were made, until the mesh stops.
pub(crate) async fn flush(mesh: Arc<LocalMesh>) {
    let relay = mesh.feed().relay.clone();
    loop {
        tokio::select! {
            biased;
            () = mesh.stop.cancelled() => return,
            () = relay.dirty.notified() => tokio::time::sleep(FLUSH_DELAY).await,
        }
        let replica = mesh.replica().clone();
        if let Err(error) = blocking(move || replica.flush()).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(mesh = mesh.name(), error, "metadata cannot be made durable");
        }
    }
}
