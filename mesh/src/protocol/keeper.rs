//! Keeps conversations going: a hello for each connection, an exchange for each peer and shared mesh.
//!
//! One loop follows who is connected and what is attached; what it starts are its own tasks. An exchange
//! that ends is begun again after a pause that grows, and at once when there is a reason to hope.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::{
    sync::{Notify, mpsc},
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::sleep,
};
use wormhole_crdt::{DeviceId, MeshId};

use super::{Protocols, greeter::Unheard};
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

/// A device that has no room for a hello is asked again after this, for as long as it is there.
const BUSY_PAUSE: Duration = Duration::from_secs(15);

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
        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "a metadata exchange ended");
        if !error.is_peer_fault() {
            return false;
        }
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
    /// The last greeting of each connected device; a new one ends it.
    greetings: BTreeMap<DeviceId, AbortHandle>,
    tasks: JoinSet<()>,
    /// What each task that is no greeting is.
    running: HashMap<Id, (DeviceId, MeshId)>,
}

/// Runs until it is dropped, which ends all it started.
pub(super) async fn run(protocols: &Protocols, mut greeted: mpsc::Receiver<DeviceId>) {
    let mut connected = protocols.inner.streams.connected();
    let mut attached = protocols.inner.registry.changes();
    let mut keeper = Keeper::new(protocols);
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
            Some(ended) = keeper.tasks.join_next_with_id() => keeper.after_task(ended),
        }
    }
}

impl<'a> Keeper<'a> {
    fn new(protocols: &'a Protocols) -> Self {
        Self {
            protocols,
            peers: BTreeMap::new(),
            meshes: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            greetings: BTreeMap::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
        }
    }

    fn follow_peers(&mut self, now: &BTreeMap<DeviceId, u64>) {
        let gone: Vec<DeviceId> = self
            .peers
            .iter()
            .filter(|(peer, epoch)| now.get(peer) != Some(epoch))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in &gone {
            self.peers.remove(peer);
            if let Some(greeting) = self.greetings.remove(peer) {
                greeting.abort();
            }
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
        let greeting = self
            .tasks
            .spawn(async move { keep_greeting(&protocols, peer).await });
        if let Some(former) = self.greetings.insert(peer, greeting) {
            former.abort();
        }
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
        let task = self.tasks.spawn(async move {
            keep_exchanging(&protocols, peer, &attachment, &wake).await;
        });
        self.running.insert(task.id(), (peer, mesh));
    }

    fn after_task(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, panicked) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error).filter(JoinError::is_panic)),
        };
        let exchange = self.running.remove(&id);
        match (exchange, panicked) {
            (Some((peer, mesh)), None) => self.after_exchange(peer, mesh),
            (Some(exchange), Some(error)) => {
                tracing::error!(%error, "a metadata exchange panicked");
                // The next hello begins another; at once it would do the same again.
                self.exchanges.remove(&exchange);
            }
            (None, Some(error)) => tracing::error!(%error, "a greeting panicked"),
            (None, None) => {}
        }
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

/// Says hello until it is heard, a few times; to a device that has no room for it as long as it is there.
async fn keep_greeting(protocols: &Protocols, peer: DeviceId) {
    let mut pauses = GREETING_PAUSES.into_iter();
    let mut pause = pauses.next();
    while let Some(before) = pause {
        sleep(before).await;
        pause = match protocols.greet(peer).await {
            Ok(()) => None,
            Err(_) if !protocols.is_connected(&peer) => None,
            Err(Unheard::Busy) => Some(pauses.next().unwrap_or(BUSY_PAUSE)),
            Err(Unheard::Lost) => pauses.next(),
        };
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
            if wake.notified().now_or_never().is_some() {
                // It said hello while it was asked: it had left the mesh, and is back.
                pause = FIRST_PAUSE;
                continue;
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NetworkEvent, hello, lab::Lab};

    /// Takes streams and says nothing.
    struct Silent(Protocol);

    impl Handler for Silent {
        fn protocol(&self) -> Protocol {
            self.0
        }

        fn quota(&self) -> Quota {
            Quota {
                stranger: 99,
                member: 99,
                total: 99,
            }
        }

        fn accept(&self, stream: Stream) -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let _stream = stream;
                std::future::pending::<()>().await;
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn however_often_a_device_comes_back_it_is_greeted_by_one_task() {
        let mut lab = Lab::new();
        let (a, b) = (lab.node(1), lab.node(2));
        lab.memory.serve(b.id, Arc::new(Silent(hello::PROTOCOL)));
        let mut keeper = Keeper::new(&a.protocols);
        for epoch in 0..100 {
            keeper.follow_peers(&BTreeMap::from([(b.id, epoch)]));
            tokio::task::yield_now().await;
            keeper.greet_all();
            tokio::task::yield_now().await;
        }
        while keeper.tasks.try_join_next().is_some() {}
        assert_eq!(keeper.tasks.len(), 1);
        keeper.follow_peers(&BTreeMap::new());
        while keeper.tasks.join_next().await.is_some() {}
        assert!(keeper.greetings.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_has_no_room_for_a_hello_is_greeted_later() {
        let mut lab = Lab::new();
        let (mut a, b) = (lab.node(1), lab.node(2));
        let at_a = lab.found(&a);
        lab.memory.busy(b.id, hello::PROTOCOL, 20);
        lab.memory.busy(a.id, hello::PROTOCOL, 20);
        lab.admit(&at_a, &b, wormhole_crdt::Role::Writer);
        let told = loop {
            if let NetworkEvent::MemberPresent { device, .. } = a.events.recv().await.unwrap() {
                break device;
            }
        };
        assert_eq!(told, b.id);
    }
}
