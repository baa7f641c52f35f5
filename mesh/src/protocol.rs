//! The upper half as one object: who says what to whom, and when.
//!
//! [`Protocols`] greets devices when they connect (and again when a mesh is attached), keeps one metadata exchange
//! per peer and shared mesh running, and forwards fetches, invites and joins to their modules. What is said is
//! theirs. [`Network`](crate::Network) owns it: it registers the handlers, runs [`Protocols::run`] and joins it.
//!
//! Of two devices the one with the smaller id speaks first, so that they do not do everything twice.

mod greeter;
mod keeper;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use wormhole_crdt::{DeviceId, MeshId, Timestamp};
use wormhole_store::FetchJob;

use self::{greeter::Greeter, keeper::Syncer};
use crate::{
    address::PeerAddr,
    attachment::{AttachedMesh, Exchange, Registry},
    fetch::{FetchError, Fetcher, Transfer},
    hello::Introduction,
    invite::{
        self, Asking, Clock, Invite, InviteError, InviteOffer, Inviter, JoinError, Joined, Seeker,
        Wish,
    },
    limit::RateLimits,
    peer::NetworkEvent,
    report::Report,
    serve::{Server, Upload},
    streams::{Handler, Streams},
};

/// Who this node is to others.
#[derive(Clone, Debug)]
pub(crate) struct LocalDevice {
    /// Its id.
    pub(crate) id: DeviceId,
    /// What its user calls it.
    pub(crate) name: String,
}

/// Everything that is spoken with other devices. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Protocols {
    inner: Arc<Inner>,
}

struct Inner {
    local: LocalDevice,
    introduction: Introduction,
    streams: Streams,
    registry: Registry,
    inviter: Inviter,
    fetcher: Fetcher,
    clock: Clock,
    /// Tells the keeper that a device said hello, whoever began.
    greeted: mpsc::Sender<DeviceId>,
    greeted_rx: Mutex<Option<mpsc::Receiver<DeviceId>>>,
    /// A mesh goes on after a pause.
    resumed: Notify,
}

/// Greetings that the keeper has not looked at yet. When full it looks at everybody anyway.
const GREETED: usize = 64;

impl Protocols {
    pub(crate) fn new(
        local: LocalDevice,
        streams: Streams,
        events: broadcast::Sender<NetworkEvent>,
    ) -> Self {
        Self::with_clock(local, streams, events, Arc::new(now))
    }

    /// [`Protocols::new`] with another idea of the time: how tests let invites expire.
    pub(crate) fn with_clock(
        local: LocalDevice,
        streams: Streams,
        events: broadcast::Sender<NetworkEvent>,
        clock: Clock,
    ) -> Self {
        let registry = Registry::new(events.clone());
        let inviter = Inviter::new(
            local.id,
            local.name.clone(),
            registry.clone(),
            streams.clone(),
            events,
            Arc::clone(&clock),
        );
        let introduction = Introduction {
            name: local.name.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (greeted, greeted_rx) = mpsc::channel(GREETED);
        let inner = Inner {
            introduction,
            fetcher: Fetcher::new(registry.clone(), streams.clone()),
            inviter,
            registry,
            streams,
            clock,
            local,
            greeted,
            greeted_rx: Mutex::new(Some(greeted_rx)),
            resumed: Notify::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// What answers the streams that others open.
    pub(crate) fn handlers(&self) -> Vec<Arc<dyn Handler>> {
        let inner = &self.inner;
        vec![
            Arc::new(Greeter::new(self.clone())),
            Arc::new(Syncer::new(self.clone())),
            Arc::new(Server::new(inner.registry.clone(), inner.streams.clone())),
            Arc::new(inner.inviter.clone()),
        ]
    }

    /// Greets, synchronises and tidies until cancelled. Runs once.
    pub(crate) async fn run(&self, cancel: CancellationToken) {
        let greeted = lock(&self.inner.greeted_rx).take();
        let Some(greeted) = greeted else { return };
        tokio::select! {
            () = keeper::run(self, greeted) => {}
            () = self.inner.inviter.run() => {}
            () = cancel.cancelled() => {}
        }
    }

    /// Carries a mesh: it is proved to the connected devices and exchanged with those that share it.
    pub(crate) fn attach(&self, mesh: AttachedMesh) {
        self.inner.registry.attach(mesh);
    }

    /// Stops carrying a mesh: its exchanges, fetches and invites end.
    pub(crate) fn detach(&self, mesh: MeshId) {
        self.inner.inviter.close(mesh);
        self.inner.registry.detach(mesh);
    }

    /// Stops synchronising, fetching and serving of one mesh.
    pub(crate) fn pause(&self, mesh: MeshId) {
        if let Some(mesh) = self.inner.registry.get(mesh) {
            mesh.pause();
        }
    }

    /// Goes on after [`Protocols::pause`].
    pub(crate) fn resume(&self, mesh: MeshId) {
        if let Some(mesh) = self.inner.registry.get(mesh) {
            mesh.resume();
            self.inner.resumed.notify_one();
        }
    }

    /// Changes the limits of one mesh.
    pub(crate) fn limit(&self, mesh: MeshId, rates: RateLimits) {
        if let Some(mesh) = self.inner.registry.get(mesh) {
            mesh.limits.set(rates);
        }
    }

    /// See [`Fetcher::fetch`].
    pub(crate) async fn fetch(
        &self,
        mesh: MeshId,
        jobs: Vec<FetchJob>,
        cancel: CancellationToken,
    ) -> Vec<Result<(), FetchError>> {
        self.inner.fetcher.fetch(mesh, jobs, cancel).await
    }

    /// The contents that are being brought now.
    pub(crate) fn transfers(&self) -> Vec<Transfer> {
        self.inner.fetcher.transfers()
    }

    /// What is being sent to the members of all carried meshes.
    pub(crate) fn uploads(&self) -> Vec<Upload> {
        let meshes = self.inner.registry.all();
        let uploads = meshes.iter().map(|(id, mesh)| mesh.uploads.snapshot(*id));
        uploads.flatten().collect()
    }

    /// Opens an invite; `addrs` are where this node listens.
    pub(crate) fn invite(
        &self,
        mesh: MeshId,
        offer: InviteOffer,
        addrs: Vec<PeerAddr>,
    ) -> Result<Invite, InviteError> {
        self.inner.inviter.invite(mesh, offer, addrs)
    }

    /// The invites that are still good; `addrs` are where this node listens.
    pub(crate) fn invites(&self, addrs: &[PeerAddr]) -> Vec<Invite> {
        self.inner.inviter.list(addrs)
    }

    /// The devices that wait for a person here to admit them.
    pub(crate) fn asking(&self) -> Vec<Asking> {
        self.inner.inviter.asking()
    }

    /// Admits or refuses one of them; false if it does not wait (any more).
    pub(crate) fn decide(&self, mesh: MeshId, device: DeviceId, admit: bool) -> bool {
        self.inner.inviter.decide(mesh, device, admit)
    }

    /// Joins a mesh; see [`invite`]. The mesh must then be attached.
    pub(crate) async fn join(
        &self,
        wish: &Wish<'_>,
        cancel: &CancellationToken,
    ) -> Result<Joined, JoinError> {
        let is_member = |mesh| self.inner.registry.get(mesh).is_some();
        let seeker = Seeker {
            device: self.inner.local.id,
            name: &self.inner.local.name,
            streams: &self.inner.streams,
            is_member: &is_member,
            clock: &self.inner.clock,
        };
        invite::join(&seeker, wish, cancel).await
    }

    /// The carried meshes, for tests that answer in the place of a handler.
    #[cfg(test)]
    pub(crate) fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// Waits until some device has said that it has the membership of a mesh as it is now; for ever if the mesh is
    /// not carried.
    pub(crate) async fn until_members_agreed(&self, mesh: MeshId) {
        match self.inner.registry.get(mesh) {
            Some(mesh) => mesh.until_agreed(mesh.replica.membership_mark()).await,
            None => std::future::pending().await,
        }
    }

    /// Tells the members of a mesh this of this device, from now on.
    pub(crate) fn report(&self, mesh: MeshId, report: Report) {
        if let Some(mesh) = self.inner.registry.get(mesh) {
            mesh.report(report);
        }
    }

    /// The devices that metadata is exchanged with.
    pub(crate) fn sync_state(&self, mesh: MeshId) -> Vec<Exchange> {
        self.inner
            .registry
            .get(mesh)
            .map_or_else(Vec::new, |mesh| mesh.sync_state())
    }

    /// The meshes that a connected device has proved.
    pub(crate) fn shared(&self, device: &DeviceId) -> Vec<MeshId> {
        self.inner.registry.shared_with(device)
    }
}

impl fmt::Debug for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Protocols").field(&self.inner.local).finish()
    }
}

fn now() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept here is whole after each single call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
