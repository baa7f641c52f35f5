//! Which epoch is current, by the log, and when it must be another one.
//!
//! A rotation replaces those that it builds on; of several that were made apart all stay readable, and the one with the
//! smallest hash is written under. Whoever could know its secret and is no member any more makes another one due: that is
//! who was a member where the rotation stands and is not among those that it names as gone, and who was admitted
//! later or apart from it, because a member is given the secret by whoever has it.

use std::collections::BTreeSet;

use super::MemberLog;
use crate::epoch::EpochSecret;
use crate::epoch::keys::{self, KeyList};
use crate::id::{DeviceId, DeviceKey, EpochId, Hash, Timestamp};
use crate::limit::MAX_ROTATION_LEAVES;
use crate::member::graph::Node;
use crate::member::place::Places;
use crate::member::record::{Action, Record};

/// The context in which the secret of a new epoch is derived.
const SECRET: &str = "wormhole 2026 secret of an epoch";

/// A new epoch: the record that names it, and what goes with the record.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) record: Record,
    pub(crate) secret: EpochSecret,
    pub(crate) keys: Vec<u8>,
}

impl MemberLog {
    /// The epochs that rotations which count name: those to write under first, then the others, the newest first.
    pub(crate) fn epochs(&self) -> impl Iterator<Item = EpochId> {
        let latest = self.graph.latest_rotations(&self.effective);
        let older = self.graph.rotations().rev();
        let older = older.filter(|(place, _)| self.effective.contains(*place));
        latest
            .into_iter()
            .chain(older.map(|(_, node)| node))
            .filter_map(named)
            .map(|(epoch, _)| epoch)
    }

    /// Whether any record names this epoch.
    pub(crate) fn names_epoch(&self, epoch: &EpochId) -> bool {
        let mut all = self.graph.rotations();
        all.any(|(_, node)| named(node).is_some_and(|(named, _)| named == *epoch))
    }

    /// Whether this is the list of a rotation that no other replaced.
    pub(crate) fn keeps(&self, list: &[u8]) -> bool {
        let Some(read) = KeyList::read(list) else {
            return false;
        };
        let mut latest = self.latest_lists();
        latest.any(|(epoch, hash)| epoch == read.epoch && hash == keys::hash(list))
    }

    /// The epochs of rotations that no other replaced, with the hash of the list of each.
    pub(crate) fn latest_lists(&self) -> impl Iterator<Item = (EpochId, Hash)> {
        let latest = self.graph.latest_rotations(&self.effective);
        latest.into_iter().filter_map(named)
    }

    /// Whether somebody who is no member may know the secret of the current epoch.
    pub(crate) fn needs_rotation(&self) -> bool {
        let latest = self.graph.latest_rotations(&self.effective);
        let past = latest.first().map(|node| {
            let mut past = node.past.clone();
            past.extend(self.graph.place(&node.record.hash));
            past
        });
        let past = past.unwrap_or_default();
        let before = self.effective_in(&past);
        let gone = self.named_as_gone(&past);
        let mut devices = self.graph.devices();
        devices.any(|device| {
            !self.state.members.contains_key(device)
                && self.could_know(device, (&past, &before), &gone)
        })
    }

    fn could_know(
        &self,
        device: &DeviceId,
        (past, before): (&Places, &Places),
        gone: &BTreeSet<Hash>,
    ) -> bool {
        let mut admissions = self.graph.about(device).iter().filter(|place| {
            let node = self.graph.node(**place);
            node.is_some_and(|node| {
                let action = &node.record.action;
                matches!(action, Action::Found { .. } | Action::Admit { .. })
            })
        });
        if admissions.any(|place| self.effective.contains(*place) && !past.contains(*place)) {
            return true;
        }
        let Some((_, seat)) = self.graph.seat(device, &|at| before.contains(at)) else {
            return false;
        };
        let mut admissions = seat.admissions.iter();
        admissions.any(|at| {
            let node = self.graph.node(*at);
            node.is_some_and(|node| !gone.contains(&node.record.hash))
        })
    }

    /// The admissions that the rotations of this part name as ended by their devices.
    fn named_as_gone(&self, past: &Places) -> BTreeSet<Hash> {
        let within = self.graph.rotations();
        let within = within.filter(|(at, _)| past.contains(*at) && self.effective.contains(*at));
        within
            .filter_map(|(_, node)| match &node.record.action {
                Action::Rotate { left, .. } => Some(left),
                _ => None,
            })
            .flatten()
            .copied()
            .collect()
    }

    /// Makes an epoch for those who are members now. The caller inserts the record.
    ///
    /// Its secret is derived from the device's key and all that it is made for, so nobody else can know it and no
    /// two epochs have the same.
    pub(crate) fn rotate(&self, key: &DeviceKey, now: Timestamp) -> Rotation {
        let heads = self.cited(&key.device_id());
        let gone = self.named_as_gone(&self.graph.past_of(&heads));
        let left = self.told_leaves().map(|(admission, _)| *admission);
        let left = left.filter(|admission| !gone.contains(admission));
        let left: Vec<Hash> = left.take(MAX_ROTATION_LEAVES).collect();
        let members: Vec<DeviceId> = self.state.members.keys().copied().collect();
        let made_for = (self.mesh, &heads, &left, &members, now);
        let made_for = postcard::to_stdvec(&made_for).expect("memory takes any value");
        let secret = EpochSecret::from_bytes(key.derive(SECRET, &made_for));
        let keys = keys::seal(&secret, members);
        let action = Action::Rotate {
            epoch: secret.id(),
            keys: keys::hash(&keys),
            left,
        };
        Rotation {
            record: self.next(key, now, action),
            secret,
            keys,
        }
    }
}

fn named(node: &Node) -> Option<(EpochId, Hash)> {
    match node.record.action {
        Action::Rotate { epoch, keys, .. } => Some((epoch, keys)),
        _ => None,
    }
}
