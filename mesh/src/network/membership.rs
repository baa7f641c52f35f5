//! Whom to stay connected to: all members of all attached meshes but ourselves.
//!
//! Follows every replica's membership and publishes the union for the actor.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use wormhole_crdt::{Change, DeviceId, MeshId, Observer, Replica, Subscription};

/// The attached replicas and what follows from them.
pub(super) struct Membership {
    own: DeviceId,
    replicas: Mutex<BTreeMap<MeshId, (Replica, Subscription)>>,
    changed: Arc<Notify>,
    wanted: watch::Sender<BTreeSet<DeviceId>>,
}

/// Wakes the task when a membership log grew.
struct Waker(Arc<Notify>);

impl Observer for Waker {
    fn changed(&self, change: &Change) {
        if change.members {
            self.0.notify_one();
        }
    }
}

impl Membership {
    pub(super) fn new(own: DeviceId, wanted: watch::Sender<BTreeSet<DeviceId>>) -> Self {
        Self {
            own,
            replicas: Mutex::default(),
            changed: Arc::default(),
            wanted,
        }
    }

    /// Follows a replica from now on.
    pub(super) fn add(&self, replica: Replica) {
        let subscription = replica.subscribe(Arc::new(Waker(Arc::clone(&self.changed))));
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        let before = replicas.insert(replica.mesh_id(), (replica, subscription));
        drop(replicas);
        drop(before);
        self.changed.notify_one();
    }

    /// Stops following.
    pub(super) fn remove(&self, mesh: &MeshId) {
        let before = self
            .replicas
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(mesh);
        drop(before);
        self.changed.notify_one();
    }

    /// Keeps the published set right until cancelled.
    pub(super) async fn run(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = self.changed.notified() => {}
            }
            self.publish(self.members());
        }
    }

    /// Tells the actor whom to stay connected to.
    pub(super) fn publish(&self, wanted: BTreeSet<DeviceId>) {
        self.wanted.send_if_modified(|published| {
            let changed = *published != wanted;
            *published = wanted;
            changed
        });
    }

    fn members(&self) -> BTreeSet<DeviceId> {
        let replicas: Vec<Replica> = {
            let replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
            replicas
                .values()
                .map(|(replica, _)| replica.clone())
                .collect()
        };
        let members = replicas
            .iter()
            .flat_map(Replica::members)
            .map(|member| member.device);
        members.filter(|device| *device != self.own).collect()
    }
}
