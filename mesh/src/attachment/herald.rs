//! Tells followers when a member of one mesh can be fetched from.
//!
//! A hello proves that a device knows the mesh's secret, and the membership log says who is a member. Either
//! may come first: a device that was admitted elsewhere is greeted before its admission is known here, and one
//! that was removed still knows the secret. Only who is both is told of.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;
use wormhole_crdt::{DeviceId, Replica};

use crate::peer::NetworkEvent;

/// See the module.
pub(super) struct Herald {
    replica: Replica,
    events: broadcast::Sender<NetworkEvent>,
    /// Connected devices that said hello and were not told of, as they are not known to be members.
    waiting: Mutex<BTreeSet<DeviceId>>,
}

impl Herald {
    pub(super) fn new(replica: Replica, events: broadcast::Sender<NetworkEvent>) -> Self {
        Self {
            replica,
            events,
            waiting: Mutex::default(),
        }
    }

    /// The device has proved the secret.
    pub(super) fn greeted(&self, device: DeviceId) {
        // First noted, then looked up: an admission that comes in between is not missed.
        self.waiting().insert(device);
        self.members_changed();
    }

    /// The device is gone.
    pub(super) fn left(&self, device: &DeviceId) {
        self.waiting().remove(device);
    }

    /// Perhaps one of those who wait is a member now.
    pub(super) fn members_changed(&self) {
        let is_member = |device: &DeviceId| self.replica.role_of(device).is_some();
        let members: Vec<_> = self.waiting().extract_if(.., is_member).collect();
        let mesh = self.replica.mesh_id();
        for device in members {
            // An error says that nobody follows.
            drop(
                self.events
                    .send(NetworkEvent::MemberPresent { mesh, device }),
            );
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<DeviceId>> {
        // The set is whole after each call on it: a panic elsewhere does not spoil it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
