//! Keeps conversations going: a hello for each connection, an exchange for each peer and shared mesh.
//!
//! One loop follows who is connected and what is attached; what it starts are its own tasks. An exchange
//! that ends is begun again after a pause that grows, and at once when there is a reason to hope.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::sleep,
};
use wormhole_crdt::{DeviceId, MeshId};

use super::Protocols;
use crate::{
    attachment::Attachment,
    error::OpenError,
    peer::Misbehaviour,
    streams::{Handler, Protocol, Quota, Stream},
    sync::{self, SyncError},
};

/// The pause before the first new attempt at an exchange ...
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// ... doubled each time, up to this.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// Before each attempt to say hello; a device that hears none of them is not there.
const GREETING_PAUSES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(3),
    Duration::from_secs(15),
];

/// Answers exchanges that others open.
pub(super) struct Syncer {
    protocols: Protocols,
}

impl Syncer {
    pub(super) fn new(protocols: Protocols) -> Self {
        Self { protocols }
    }
}

impl fmt::Debug for Syncer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Syncer")
    }
}

impl Handler for Syncer {
    fn protocol(&self) -> Protocol {
        sync::PROTOCOL
    }

    fn quota(&self) -> Quota {
        // One for each shared mesh.
        Quota {
            stranger: 2,
            member: 64,
            total: 512,
        }
    }

    fn accept(&self, stream: Stream) -> BoxFuture<'static, ()> {
        let protocols = self.protocols.clone();
        Box::pin(async move {
            let peer = stream.peer();
            let ended = sync::accept(stream, peer, &protocols.inner.registry).await;
            protocols.after_sync(peer, ended).await;
        })
    }
}

impl Protocols {
    /// Notes how an exchange ended. True when the peer is to blame.
    async fn after_sync(&self, peer: DeviceId, ended: Result<(), SyncError>) -> bool {
        let Err(error) = ended else { return false };
        tracing::debug!(%peer, %error, "a metadata exchange ended");
        if !error.is_peer_fault() {
            return false;
        }
        tracing::warn!(%peer, error = &error as &dyn std::error::Error, "bad metadata");
        let reason = match &error {
            SyncError::Session(_) => Misbehaviour::BadMetadata,
            SyncError::Flood => Misbehaviour::Flood,
            SyncError::Frame(_)
            | SyncError::Closed
            | SyncError::Silent
            | SyncError::NotShared
            | SyncError::Gone
            | SyncError::Paused
            | SyncError::Panicked => Misbehaviour::BadFrame,
        };
        // It is disconnected now. If it comes back it must prove itself again.
        for mesh in self.inner.registry.all().values() {
            mesh.left(peer);
        }
        self.inner.streams.misbehaved(peer, reason).await;
        true
    }
}

/// What the loop knows.
struct Keeper<'a> {
    protocols: &'a Protocols,
    /// Connected devices, with the epoch of the connection that was greeted.
    peers: BTreeMap<DeviceId, u64>,
    /// Attached meshes. One that is attached anew is another one.
    meshes: BTreeMap<MeshId, Arc<Attachment>>,
    /// Running exchanges, each with what wakes it from its pause.
    exchanges: BTreeMap<(DeviceId, MeshId), Arc<Notify>>,
    tasks: JoinSet<Done>,
}

/// What a task of the loop was.
enum Done {
    Greeting,
    Exchange(DeviceId, MeshId),
}

/// Runs until it is dropped, which ends all it started.
pub(super) async fn run(protocols: &Protocols, mut greeted: mpsc::Receiver<DeviceId>) {
    let mut connected = protocols.inner.streams.connected();
    let mut attached = protocols.inner.registry.changes();
    let mut keeper = Keeper {
        protocols,
        peers: BTreeMap::new(),
        meshes: BTreeMap::new(),
        exchanges: BTreeMap::new(),
        tasks: JoinSet::new(),
    };
    loop {
        let now: BTreeMap<DeviceId, u64> = connected
            .borrow_and_update()
            .iter()
            .map(|(peer, c)| (*peer, c.epoch))
            .collect();
        let meshes = BTreeMap::clone(&attached.borrow_and_update());
        keeper.follow_peers(&now);
        keeper.follow_meshes(meshes);
        tokio::select! {
            changed = connected.changed() => {
                if changed.is_err() {
                    return; // the network has stopped
                }
            }
            changed = attached.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = protocols.inner.resumed.notified() => keeper.greet_all(),
            Some(peer) = greeted.recv() => keeper.after_greeting(peer),
            Some(done) = keeper.tasks.join_next() => match done {
                Ok(Done::Greeting) => {}
                Ok(Done::Exchange(peer, mesh)) => keeper.after_exchange(peer, mesh),
                Err(error) if error.is_panic() => {
                    tracing::error!(%error, "a conversation panicked");
                }
                Err(_cancelled) => {}
            },
        }
    }
}

impl Keeper<'_> {
    fn follow_peers(&mut self, now: &BTreeMap<DeviceId, u64>) {
        let gone: Vec<DeviceId> = self
            .peers
            .iter()
            .filter(|(peer, epoch)| now.get(peer) != Some(epoch))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in &gone {
            self.peers.remove(peer);
            for mesh in self.meshes.values() {
                mesh.left(*peer);
            }
        }
        for (peer, epoch) in now {
            let is_new = self.peers.insert(*peer, *epoch).is_none();
            // A device that came back may have said hello before its going was noticed, and that hello
            // was just forgotten: then both speak.
            let came_back = gone.contains(peer);
            if is_new && (came_back || self.protocols.speaks_first_to(peer)) {
                self.greet(*peer);
            }
        }
    }

    fn follow_meshes(&mut self, now: BTreeMap<MeshId, Arc<Attachment>>) {
        let is_known = |mesh: &Arc<Attachment>| {
            self.meshes
                .get(&mesh.id())
                .is_some_and(|known| Arc::ptr_eq(known, mesh))
        };
        let has_new = !now.values().all(is_known);
        self.meshes = now;
        if has_new {
            self.greet_all();
        }
    }

    /// What changed here the peers cannot know, so this device speaks, small id or not.
    fn greet_all(&mut self) {
        let peers: Vec<DeviceId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.greet(peer);
        }
    }

    fn greet(&mut self, peer: DeviceId) {
        let protocols = self.protocols.clone();
        self.tasks.spawn(async move {
            for pause in GREETING_PAUSES {
                sleep(pause).await;
                if protocols.greet(peer).await.is_ok() || !protocols.is_connected(&peer) {
                    break;
                }
            }
            Done::Greeting
        });
    }

    /// A device said hello: begin the exchanges that are not running, and end their pauses.
    fn after_greeting(&mut self, peer: DeviceId) {
        if !self.protocols.speaks_first_to(&peer) {
            return; // it opens the exchanges
        }
        for mesh in self.protocols.shared(&peer) {
            match self.exchanges.get(&(peer, mesh)) {
                Some(wake) => wake.notify_one(),
                None => self.exchange(peer, mesh),
            }
        }
    }

    fn exchange(&mut self, peer: DeviceId, mesh: MeshId) {
        let Some(attachment) = self.protocols.inner.registry.get(mesh) else {
            return;
        };
        let wake = Arc::new(Notify::new());
        self.exchanges.insert((peer, mesh), Arc::clone(&wake));
        let protocols = self.protocols.clone();
        self.tasks.spawn(async move {
            keep_exchanging(&protocols, peer, &attachment, &wake).await;
            Done::Exchange(peer, mesh)
        });
    }

    /// The peer went, or the mesh did. Either may be back already.
    fn after_exchange(&mut self, peer: DeviceId, mesh: MeshId) {
        self.exchanges.remove(&(peer, mesh));
        if self.protocols.shared(&peer).contains(&mesh) {
            self.exchange(peer, mesh);
        }
    }
}

impl Protocols {
    fn is_connected(&self, peer: &DeviceId) -> bool {
        self.inner.streams.connected().borrow().contains_key(peer)
    }

    fn speaks_first_to(&self, peer: &DeviceId) -> bool {
        self.inner.local.id < *peer
    }
}

/// Exchanges metadata for as long as the peer is there and the mesh attached.
async fn keep_exchanging(
    protocols: &Protocols,
    peer: DeviceId,
    mesh: &Arc<Attachment>,
    wake: &Notify,
) {
    let mut pause = FIRST_PAUSE;
    while let Some(visit) = mesh.visit(&peer)
        && !mesh.cancel.is_cancelled()
    {
        if mesh.is_paused() {
            tokio::select! {
                () = mesh.until_resumed() => {}
                () = mesh.until_gone(peer, visit) => {}
                () = mesh.cancel.cancelled() => {}
            }
            continue;
        }
        let ended = match protocols.inner.streams.open(peer, sync::PROTOCOL).await {
            Ok(stream) => sync::open(stream, peer, mesh).await,
            Err(OpenError::Stopped) => return,
            Err(error) => {
                tracing::debug!(%peer, %error, "cannot begin a metadata exchange");
                Ok(())
            }
        };
        if matches!(ended, Err(SyncError::NotShared)) {
            // It left the mesh. Its next hello says otherwise, if it is otherwise.
            mesh.left(peer);
        }
        if protocols.after_sync(peer, ended).await {
            return;
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
            () = wake.notified() => pause = FIRST_PAUSE,
            () = mesh.until_gone(peer, visit) => {}
            () = mesh.cancel.cancelled() => {}
        }
    }
}
