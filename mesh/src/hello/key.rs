//! What a hello proves with: a key for each epoch of a mesh whose secret this device knows.
//!
//! Whoever was a member of an epoch can prove it, however many have followed: so a device that was away is
//! recognised, and is told what it missed. What it is given is for the membership log, and for the sync session.

use std::fmt;

use wormhole_crdt::{EpochSecret, MeshId, Replica};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The context in which a key is derived from an epoch's secret.
const CONTEXT: &str = "wormhole 2026 hello of an epoch";

/// Epochs of one mesh that are recognised. Whoever has missed more of them proves the first.
const MAX_EPOCHS: usize = 1024;

/// Proves that a device was a member in one epoch. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub(crate) struct EpochKey([u8; 32]);

impl EpochKey {
    pub(crate) fn of(secret: &EpochSecret) -> Self {
        Self(secret.derive(CONTEXT))
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochKey(…)")
    }
}

/// A mesh of ours, with its keys: the current one, then that of the first epoch, which everybody was handed, then
/// the newest.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) mesh: MeshId,
    pub(crate) keys: Vec<EpochKey>,
}

impl Known {
    pub(crate) fn of(replica: &Replica) -> Self {
        let secrets = replica.epoch_secrets();
        Self {
            mesh: replica.mesh_id(),
            keys: ordered(secrets.iter().map(EpochKey::of)),
        }
    }
}

/// The current one is first already, the others are in the order in which they came.
fn ordered(keys: impl Iterator<Item = EpochKey>) -> Vec<EpochKey> {
    let mut keys: Vec<EpochKey> = keys.collect();
    if let Some(newest_first) = keys.get_mut(2..) {
        newest_first.reverse();
    }
    keys.truncate(MAX_EPOCHS);
    keys
}

/// As many keys as there is room for, shared among the meshes: each has its current one and that of its first epoch.
pub(crate) fn offered(meshes: &[Known], room: usize) -> Vec<&EpochKey> {
    let share = room / meshes.len().clamp(1, room);
    let keys = meshes
        .iter()
        .flat_map(|known| known.keys.iter().take(share));
    keys.take(room).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> EpochKey {
        EpochKey([number; 32])
    }

    #[test]
    fn the_current_and_the_first_epoch_have_a_place_however_many_there_are() {
        let keys = ordered([9, 1, 2, 3, 4].into_iter().map(key));
        assert_eq!(keys, [9, 1, 4, 3, 2].map(key));
        let known = |number| Known {
            mesh: MeshId::from_bytes([number; 32]),
            keys: ordered((0..200).map(key)),
        };
        for (meshes, each) in [(1, 128), (2, 64), (3, 42), (64, 2)] {
            let meshes: Vec<Known> = (0..meshes).map(known).collect();
            let offered = offered(&meshes, 128);
            assert_eq!(offered.len(), meshes.len() * each);
            assert_eq!(
                offered.iter().filter(|found| ***found == key(0)).count(),
                meshes.len()
            );
            assert_eq!(
                offered.iter().filter(|found| ***found == key(1)).count(),
                meshes.len()
            );
        }
        assert!(offered(&[], 128).is_empty());
    }
}
