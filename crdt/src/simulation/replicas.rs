//! A peer that is a whole replica: buckets, signed envelopes, sessions, and a disk that forgets what
//! was not synced.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rand::{Rng, RngExt};

use crate::edit::{Edit, TreeError};
use crate::entry::{Counts, Entry, EntryChange, EntryKey};
use crate::error::EditError;
use crate::id::EntryId;
use crate::lab::{Disk, Link, NOW, ends, key, mesh_on};
use crate::member::Role;
use crate::replica::Replica;

/// How many devices may join later.
const LATER: usize = 3;

pub(super) struct Peer {
    number: u8,
    disk: Disk,
    backup: Option<Disk>,
    /// `None` only while it starts again.
    replica: Option<Replica>,
}

impl Peer {
    fn replica(&self) -> &Replica {
        self.replica.as_ref().expect("it runs")
    }

    /// Nothing is fetched after it, so that the logs keep their holes for a while.
    fn take_snapshot(&mut self, from: &Self, rng: &mut dyn Rng) {
        let mut link = Link::with_snapshots(from.replica(), self.replica(), rng.random());
        let mut busy = true;
        while busy && self.replica().is_new() {
            busy = false;
            for end in [0, 1] {
                busy |= link.deliver(end).unwrap();
                busy |= link.poll(end).unwrap();
            }
        }
    }

    fn start_from(&mut self, disk: Disk) {
        self.disk = disk;
        self.replica = None;
        self.replica = Some(Replica::open(self.disk.database(), key(self.number)).unwrap());
    }
}

impl super::Peer for Peer {
    fn mesh(count: usize, _: &mut dyn Rng) -> Vec<Self> {
        let disks: Vec<Disk> = (0..count).map(|_| Disk::default()).collect();
        let replicas = mesh_on(&disks, &vec![Role::Writer; count - 1]);
        for number in count..count + LATER {
            let device = key(u8::try_from(number + 1).unwrap()).device_id();
            let name = format!("device {number}");
            replicas[0].admit(device, &name, Role::Writer, NOW).unwrap();
        }
        let numbered = (1..).zip(disks).zip(replicas);
        numbered
            .map(|((number, disk), replica)| Self {
                number,
                disk,
                backup: None,
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
        let mut link = Link::with_snapshots(from.replica(), self.replica(), rng.random());
        // The connection breaks after some messages, which are lost.
        for _ in 0..rng.random_range(1..12) {
            let end = usize::from(rng.random::<bool>());
            link.deliver(end).unwrap();
            link.poll(end).unwrap();
        }
    }

    fn pull_all(&mut self, from: &mut Self, rng: &mut dyn Rng) {
        // What a device wrote itself, and got back from others, it passes on only when that is durable.
        for replica in [self.replica(), from.replica()] {
            replica.flush().unwrap();
        }
        let mut link = Link::with_snapshots(self.replica(), from.replica(), rng.random());
        link.run().unwrap();
        let (one, other) = (self.replica(), from.replica());
        if ends(one) == ends(other) {
            assert_eq!(one.digest().unwrap(), other.digest().unwrap());
        }
    }

    /// By a snapshot, which may be cut off.
    fn join(from: &mut Self, number: usize, rng: &mut dyn Rng) -> Option<Self> {
        let number = u8::try_from(number + 1).unwrap();
        from.replica().role_of(&key(number).device_id())?;
        let disk = Disk::default();
        let welcome = from.replica().welcome();
        let replica = Replica::join(disk.database(), &welcome, key(number), rng).unwrap();
        let mut peer = Self {
            number,
            disk,
            backup: None,
            replica: Some(replica),
        };
        match rng.random_range(0..3) {
            0 => {}
            1 => peer.pull(from, rng),
            _ => peer.take_snapshot(from, rng),
        }
        Some(peer)
    }

    fn assert_settled(&mut self, other: &mut Self) {
        let (one, other) = (self.replica(), other.replica());
        assert_eq!(ends(one), ends(other));
        assert_eq!(one.digest().unwrap(), other.digest().unwrap());
        for replica in [one, other] {
            assert!(replica.shared().gap.is_none(), "all logs are complete");
        }
    }

    fn crash(&mut self, edits: &[Edit]) {
        // Whether the tree takes it does not matter: it is not flushed, and so it is not kept.
        let _outcome = self.replica().edit_deferred(edits, NOW);
        // What closing the database writes comes too late.
        self.start_from(self.disk.crash());
    }

    /// One with holes in its logs is rare, so it is not given up for another.
    fn back_up(&mut self) {
        if self.backup.is_none() || self.replica().shared().gap.is_some() {
            self.backup = Some(self.disk.crash());
        }
    }

    fn restore(&mut self, witness: &mut Self) -> bool {
        let (one, other) = (self.replica(), witness.replica());
        // What it holds for the one that is set back must survive a crash of its own.
        other.flush().unwrap();
        let known = ends(one) == ends(other) && other.shared().gap.is_none();
        let backup = self.backup.as_ref().filter(|_| known).map(Disk::crash);
        let restored = backup.is_some();
        if let Some(disk) = backup {
            self.start_from(disk);
        }
        restored
    }
}
