//! Whose disk holds which bytes: what the tree shows must be on one of them.
//!
//! A device fetches what it is shown from those that it meets, keeps what it had until it has the next
//! version, and forgets what it is not shown any more.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entries, body};
use crate::entry::{Entry, EntryKey, Kind, Version};

/// What lies at one key on a disk.
#[derive(Clone, Copy)]
struct Held {
    version: Version,
    body: [u8; 32],
}

/// The disks of all devices.
#[derive(Default)]
pub(super) struct Holding {
    disks: Vec<BTreeMap<EntryKey, Held>>,
}

impl Holding {
    pub(super) fn add(&mut self) {
        self.disks.push(BTreeMap::new());
    }

    /// A device is shown `entries`, and can bring what is in `bodies` to its disk.
    pub(super) fn show(&mut self, device: usize, entries: &Entries, bodies: &BTreeSet<[u8; 32]>) {
        let own: BTreeSet<[u8; 32]> = self.bodies(device);
        let disk = &mut self.disks[device];
        disk.retain(|key, _| entries.contains_key(key));
        for (key, entry) in entries {
            let Some(body) = file(entry) else {
                disk.remove(key);
                continue;
            };
            if own.contains(&body) || bodies.contains(&body) {
                let version = entry.version;
                disk.insert(*key, Held { version, body });
            }
        }
    }

    /// The bytes that are on a device's disk.
    pub(super) fn bodies(&self, device: usize) -> BTreeSet<[u8; 32]> {
        self.disks[device].values().map(|held| held.body).collect()
    }

    /// Whether a device has what it is shown.
    pub(super) fn has(&self, device: usize, entry: &Entry) -> bool {
        file(entry).is_none_or(|body| {
            let held = self.disks[device].get(&entry.key);
            held.is_some_and(|held| held.body == body)
        })
    }

    /// Whether some version of it is here.
    pub(super) fn has_some(&self, device: usize, entry: &Entry) -> bool {
        let earlier = entry.key.version.is_none() && self.disks[device].contains_key(&entry.key);
        earlier || self.has(device, entry)
    }

    /// The version of an entry that a device has on its disk, where it is another than the one shown.
    pub(super) fn in_hand(&self, device: usize, entry: &Entry) -> Option<Version> {
        let held = self.disks[device].get(&entry.key);
        held.filter(|_| !self.has(device, entry))
            .map(|held| held.version)
    }

    /// What is shown and on no disk.
    pub(super) fn missing<'a>(&self, entries: &'a Entries) -> Option<&'a Entry> {
        let all = |entry: &Entry| (0..self.disks.len()).any(|device| self.has(device, entry));
        entries.values().find(|entry| !all(entry))
    }
}

/// The bytes of a file. A link has none: the tree itself says where it points.
fn file(entry: &Entry) -> Option<[u8; 32]> {
    body(entry).filter(|_| entry.kind == Kind::File)
}
