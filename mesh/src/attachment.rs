//! The meshes that this node carries, and for each of them who is there.
//!
//! `Network::attach` puts a mesh in; every protocol looks it up here. An [`Attachment`] knows which connected
//! peers have proved a secret of the mesh (`hello` says so), whether the mesh is paused, and when there is news
//! to push. Membership itself is asked of the replica each time, so that a removed device is refused at once.

mod herald;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use wormhole_crdt::{Change, DeviceId, Hash, MeshId, Observer, Replica, Subscription};
use wormhole_store::Store;

use self::herald::Herald;
use crate::{
    limit::{Limits, RateLimits},
    peer::NetworkEvent,
    report::Report,
    serve::Uploads,
    version::{Capabilities, Terms},
};

/// A mesh to be carried.
#[derive(Clone)]
pub struct AttachedMesh {
    /// The metadata, and the secrets that prove to other devices that we belong together.
    pub replica: Replica,
    /// The bytes.
    pub store: Store,
    /// How fast its bytes may go, within the limits of the node. See [`Network::set_mesh_limits`].
    ///
    /// [`Network::set_mesh_limits`]: crate::Network::set_mesh_limits
    pub limits: RateLimits,
    /// Whether it begins paused. See [`Network::resume`](crate::Network::resume).
    pub paused: bool,
}

impl fmt::Debug for AttachedMesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachedMesh")
            .field("mesh", &self.replica.mesh_id())
            .finish_non_exhaustive()
    }
}

/// A carried mesh, with what the protocols know about it now.
pub(crate) struct Attachment {
    pub(crate) replica: Replica,
    pub(crate) store: Store,
    /// Its own limits, which its streams keep to beside those of the node.
    pub(crate) limits: Arc<Limits>,
    /// Ended by `detach`: everything that runs for this mesh stops.
    pub(crate) cancel: CancellationToken,
    /// What is being sent to its members.
    pub(crate) uploads: Uploads,
    paused: watch::Sender<bool>,
    present: watch::Sender<Presence>,
    news: watch::Sender<u64>,
    exchanges: Mutex<BTreeMap<DeviceId, State>>,
    /// What this device says of itself to the others.
    report: watch::Sender<Report>,
    /// The membership that some device last said to have, too. Outlasts the exchange with it.
    agreed: watch::Sender<Option<Hash>>,
    herald: Arc<Herald>,
    _subscription: Subscription,
}

/// Metadata that is exchanged with another device, as far as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The other device.
    pub device: DeviceId,
    /// Whether both know the same.
    pub in_sync: bool,
    /// What it said of itself last; `None` before the first time.
    pub report: Option<Report>,
    /// Whether it will say anything of itself: older programs do not.
    pub reports: bool,
}

/// What is known of an exchange.
#[derive(Clone, Debug, Default)]
struct State {
    /// Whether both know the same, and the mark of the membership that this holds for; `None` before the first step.
    in_sync: Option<(bool, Hash)>,
    report: Option<Report>,
}

/// The connected devices that have proved the secret, each with the number of its visit.
///
/// A device that leaves and comes back, as one that restarts does, has another visit: what was begun
/// with the former one knows from that that it is over, however short the absence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    visits: BTreeMap<DeviceId, (Visit, Terms)>,
    last: u64,
}

/// See [`Presence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visit(u64);

impl Presence {
    /// Who is there.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (DeviceId, Visit)> + '_ {
        self.visits
            .iter()
            .map(|(device, (visit, _))| (*device, *visit))
    }

    /// The device's visit, if it is there.
    pub(crate) fn visit(&self, device: &DeviceId) -> Option<Visit> {
        self.visits.get(device).map(|(visit, _)| *visit)
    }

    fn arrived(&mut self, device: DeviceId, terms: Terms) -> bool {
        if self.visits.contains_key(&device) {
            return false;
        }
        self.last += 1;
        self.visits.insert(device, (Visit(self.last), terms));
        true
    }
}

/// Counts the replica's commits, for everyone who pushes them on, and tells the herald of new members.
struct News {
    commits: watch::Sender<u64>,
    herald: Arc<Herald>,
}

impl Observer for News {
    fn changed(&self, change: &Change) {
        self.commits.send_modify(|count| *count += 1);
        if change.members {
            self.herald.members_changed();
        }
    }
}

impl Attachment {
    fn new(
        mesh: AttachedMesh,
        cancel: CancellationToken,
        events: broadcast::Sender<NetworkEvent>,
    ) -> Self {
        let news = watch::Sender::new(0);
        let herald = Arc::new(Herald::new(mesh.replica.clone(), events));
        let observer = News {
            commits: news.clone(),
            herald: Arc::clone(&herald),
        };
        let subscription = mesh.replica.subscribe(Arc::new(observer));
        Self {
            replica: mesh.replica,
            store: mesh.store,
            limits: Arc::new(Limits::new(mesh.limits)),
            cancel,
            uploads: Uploads::default(),
            paused: watch::Sender::new(mesh.paused),
            present: watch::Sender::default(),
            news,
            exchanges: Mutex::default(),
            report: watch::Sender::default(),
            agreed: watch::Sender::default(),
            herald,
            _subscription: subscription,
        }
    }

    pub(crate) fn id(&self) -> MeshId {
        self.replica.mesh_id()
    }

    /// Whether the device is a member, as far as this replica knows.
    pub(crate) fn is_member(&self, device: &DeviceId) -> bool {
        self.replica.role_of(device).is_some()
    }

    pub(crate) fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    pub(crate) fn pause(&self) {
        self.paused
            .send_if_modified(|paused| !std::mem::replace(paused, true));
    }

    pub(crate) fn resume(&self) {
        self.paused
            .send_if_modified(|paused| std::mem::replace(paused, false));
    }

    /// Waits until the mesh is paused.
    pub(crate) async fn until_paused(&self) {
        until(self.paused.subscribe(), |paused| *paused).await;
    }

    /// Waits until the mesh is not paused.
    pub(crate) async fn until_resumed(&self) {
        until(self.paused.subscribe(), |paused| !*paused).await;
    }

    /// Waits until the device has proved the secret.
    pub(crate) async fn until_present(&self, device: DeviceId) {
        until(self.present.subscribe(), |present| {
            present.visit(&device).is_some()
        })
        .await;
    }

    /// Waits until this visit of the device is over.
    pub(crate) async fn until_gone(&self, device: DeviceId, visit: Visit) {
        until(self.present.subscribe(), |present| {
            present.visit(&device) != Some(visit)
        })
        .await;
    }

    /// The connected devices that have proved the secret. Not all need be members.
    pub(crate) fn present(&self) -> watch::Receiver<Presence> {
        self.present.subscribe()
    }

    /// The device's visit, if it is there.
    pub(crate) fn visit(&self, device: &DeviceId) -> Option<Visit> {
        self.present.borrow().visit(device)
    }

    /// What was agreed on with the device when it said hello, if it is there.
    pub(crate) fn terms(&self, device: &DeviceId) -> Option<Terms> {
        let present = self.present.borrow();
        present.visits.get(device).map(|(_, terms)| *terms)
    }

    /// The device has proved the secret, perhaps not for the first time: it says hello again when it goes
    /// on after a pause.
    pub(crate) fn arrived(&self, device: DeviceId, terms: Terms) {
        self.present
            .send_if_modified(|present| present.arrived(device, terms));
        self.herald.greeted(device);
    }

    /// The device is gone, or must prove itself again.
    pub(crate) fn left(&self, device: DeviceId) {
        self.present
            .send_if_modified(|present| present.visits.remove(&device).is_some());
        self.herald.left(&device);
        self.sync_ended(device);
    }

    /// Rises with each commit of the replica.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Notes whether the device has what we have and we have what it has.
    ///
    /// It holds for the membership that has this mark.
    pub(crate) fn set_in_sync(&self, device: DeviceId, in_sync: bool, mark: Hash) {
        self.exchanges().entry(device).or_default().in_sync = Some((in_sync, mark));
        if in_sync {
            self.agreed.send_replace(Some(mark));
        }
    }

    /// Waits until some device has said that it has the membership that has this mark.
    pub(crate) async fn until_agreed(&self, mark: Hash) {
        until(self.agreed.subscribe(), |agreed| *agreed == Some(mark)).await;
    }

    pub(crate) fn sync_ended(&self, device: DeviceId) {
        self.exchanges().remove(&device);
    }

    /// The devices that we are exchanging metadata with.
    pub(crate) fn sync_state(&self) -> Vec<Exchange> {
        let now = self.replica.membership_mark();
        let states = self.exchanges().clone().into_iter();
        let exchanges = states.filter_map(|(device, state)| {
            let (in_sync, mark) = state.in_sync?;
            let terms = self.terms(&device);
            Some(Exchange {
                device,
                in_sync: in_sync && mark == now,
                report: state.report,
                reports: terms.is_some_and(|terms| terms.capabilities.has(Capabilities::REPORTS)),
            })
        });
        exchanges.collect()
    }

    /// Notes what the device says of itself.
    pub(crate) fn set_report(&self, device: DeviceId, report: Report) {
        self.exchanges().entry(device).or_default().report = Some(report);
    }

    /// Tells the others this of this device, from now on.
    pub(crate) fn report(&self, report: Report) {
        self.report.send_if_modified(|told| {
            let is_news = *told != report;
            *told = report;
            is_news
        });
    }

    /// What the others are told of this device.
    pub(crate) fn own_report(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    fn exchanges(&self) -> MutexGuard<'_, BTreeMap<DeviceId, State>> {
        // The map is whole after each call on it: a panic elsewhere does not spoil it.
        self.exchanges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a state; for ever if there will be no more changes.
async fn until<T>(mut state: watch::Receiver<T>, is_reached: impl FnMut(&T) -> bool) {
    let reached = state.wait_for(is_reached).await.is_ok();
    if !reached {
        std::future::pending::<()>().await;
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attachment").field(&self.id()).finish()
    }
}

/// All carried meshes by id; replaced as a whole when one comes or goes.
pub(crate) type Attachments = Arc<BTreeMap<MeshId, Arc<Attachment>>>;

/// Where protocols look meshes up. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    meshes: watch::Sender<Attachments>,
    events: broadcast::Sender<NetworkEvent>,
}

impl Registry {
    /// No meshes yet; `events` hears of the members that come.
    pub(crate) fn new(events: broadcast::Sender<NetworkEvent>) -> Self {
        Self {
            meshes: watch::Sender::default(),
            events,
        }
    }

    /// Carries a mesh from now on; one that was carried already is replaced.
    pub(crate) fn attach(&self, mesh: AttachedMesh) {
        let attachment = Attachment::new(mesh, CancellationToken::new(), self.events.clone());
        let attachment = Arc::new(attachment);
        self.meshes.send_modify(|meshes| {
            let mut next = BTreeMap::clone(meshes);
            if let Some(before) = next.insert(attachment.id(), attachment) {
                before.cancel.cancel();
            }
            *meshes = Arc::new(next);
        });
    }

    /// Stops carrying a mesh. What runs for it ends soon after.
    pub(crate) fn detach(&self, mesh: MeshId) -> Option<Arc<Attachment>> {
        let mut gone = None;
        self.meshes.send_if_modified(|meshes| {
            let mut next = BTreeMap::clone(meshes);
            gone = next.remove(&mesh);
            *meshes = Arc::new(next);
            gone.is_some()
        });
        if let Some(attachment) = &gone {
            attachment.cancel.cancel();
        }
        gone
    }

    pub(crate) fn get(&self, mesh: MeshId) -> Option<Arc<Attachment>> {
        self.meshes.borrow().get(&mesh).cloned()
    }

    pub(crate) fn all(&self) -> Attachments {
        self.meshes.borrow().clone()
    }

    /// Every change of what is carried.
    pub(crate) fn changes(&self) -> watch::Receiver<Attachments> {
        self.meshes.subscribe()
    }

    /// The meshes that a connected device has proved.
    pub(crate) fn shared_with(&self, device: &DeviceId) -> Vec<MeshId> {
        let meshes = self.all();
        meshes
            .iter()
            .filter(|(_, mesh)| mesh.visit(device).is_some())
            .map(|(id, _)| *id)
            .collect()
    }
}
