//! A peer that is a whole replica: buckets, signed envelopes, sessions, and a disk that forgets what
//! was not synced.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rand::{Rng, RngExt};

use crate::edit::{Edit, TreeError};
use crate::entry::{Counts, Entry, EntryChange, EntryKey};
use crate::error::EditError;
use crate::id::EntryId;
use crate::lab::{Disk, Link, NOW, key, mesh_on, sync};
use crate::member::Role;
use crate::replica::Replica;

pub(super) struct Peer {
    number: u8,
    disk: Disk,
    /// `None` only while it starts again.
    replica: Option<Replica>,
}

impl Peer {
    fn replica(&self) -> &Replica {
        self.replica.as_ref().expect("it runs")
    }
}

impl super::Peer for Peer {
    fn mesh(count: usize, _: &mut dyn Rng) -> Vec<Self> {
        let disks: Vec<Disk> = (0..count).map(|_| Disk::default()).collect();
        let replicas = mesh_on(&disks, &vec![Role::Writer; count - 1]);
        let numbered = (1..).zip(disks).zip(replicas);
        numbered
            .map(|((number, disk), replica)| Self {
                number,
                disk,
                replica: Some(replica),
            })
            .collect()
    }

    fn fresh_id(&mut self, parent: EntryId, rng: &mut dyn Rng) -> EntryId {
        self.replica().fresh_id(parent, rng).unwrap()
    }

    fn edit(&mut self, edits: &[Edit]) -> Result<Vec<EntryChange>, TreeError> {
        match self.replica().edit(edits, NOW) {
            Ok(outcome) => Ok(outcome.changes),
            Err(EditError::Tree(reason)) => Err(reason),
            Err(other) => panic!("{other}"),
        }
    }

    fn entries(&mut self) -> BTreeMap<EntryKey, Entry> {
        let mut entries = BTreeMap::new();
        let mut counts = Counts::default();
        self.replica()
            .walk(EntryId::ROOT, &mut |_, entry| {
                counts.files += u64::from(entry.file.is_some());
                counts.symlinks += u64::from(entry.target.is_some());
                counts.directories += u64::from(entry.is_directory());
                counts.bytes += entry.size();
                assert!(
                    entries.insert(entry.key, entry.clone()).is_none(),
                    "shown twice"
                );
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(self.replica().counts().unwrap(), counts);
        entries
    }

    fn assert_derived(&mut self) {
        for (key, entry) in self.entries() {
            assert_eq!(self.replica().entry(&key).unwrap(), Some(entry));
        }
    }

    fn pull(&mut self, from: &mut Self, rng: &mut dyn Rng) {
        let mut link = Link::new(from.replica(), self.replica(), rng.random());
        // The connection breaks after some messages, which are lost.
        for _ in 0..rng.random_range(1..12) {
            let end = usize::from(rng.random::<bool>());
            link.deliver(end).unwrap();
            link.poll(end).unwrap();
        }
    }

    fn pull_all(&mut self, from: &mut Self, _: &mut dyn Rng) {
        sync(self.replica(), from.replica());
    }

    fn crash(&mut self, edits: &[Edit]) {
        // Whether the tree takes it does not matter: it is not flushed, and so it is not kept.
        let _outcome = self.replica().edit_deferred(edits, NOW);
        // What closing the database writes comes too late.
        self.disk = self.disk.crash();
        self.replica = None;
        self.replica = Some(Replica::open(self.disk.database(), key(self.number)).unwrap());
    }
}
