//! A peer whose registers are in memory: multi-value registers and envelopes without signatures.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, RngExt};
use redb::{Database, ReadableDatabase};

use crate::edit::{Edit, Hand, Performed, TreeError, perform};
use crate::entry::{Counts, Entry, EntryChange, EntryKey};
use crate::id::{Branch, DeviceTag, EntryId};
use crate::index::{View, apply, rebuild};
use crate::register::{
    Attributes, ContentRecord, Packed, Placement, Put, Register, RegisterError, Registers, check,
};
use crate::rule::full;

type Vector = BTreeMap<usize, usize>;

/// One write: by whom, in which envelope, which of its writes.
type Dot = (usize, usize, usize);

/// What one operation wrote, and what its writer had seen.
#[derive(Clone)]
struct Envelope {
    seen: Vector,
    writes: Vec<(Put, Vec<Dot>)>,
}

#[derive(Clone, Default)]
struct Memory {
    values: BTreeMap<(Register, EntryId), BTreeMap<Dot, Vec<u8>>>,
}

pub(super) struct Peer {
    number: usize,
    tag: DeviceTag,
    db: Database,
    registers: Memory,
    lamport: u64,
    log: BTreeMap<usize, Vec<Envelope>>,
}

impl Memory {
    fn read<T: Packed>(&self, register: Register, id: &EntryId) -> Result<Vec<T>, RegisterError> {
        self.values
            .get(&(register, *id))
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|bytes| {
                T::decode(bytes).map_err(|source| RegisterError::Value { id: *id, source })
            })
            .collect()
    }

    fn siblings(&self, put: &Put) -> Vec<Dot> {
        let values = self.values.get(&(put.register, put.id));
        values
            .into_iter()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect()
    }

    fn write(&mut self, dot: Dot, put: &Put, over: &[Dot]) {
        let values = self.values.entry((put.register, put.id)).or_default();
        values.retain(|dot, _| !over.contains(dot));
        values.insert(dot, put.value.clone());
    }
}

impl Registers for Memory {
    fn placements(&self, id: &EntryId) -> Result<Vec<Placement>, RegisterError> {
        self.read(Register::Placement, id)
    }

    fn contents(&self, id: &EntryId) -> Result<Vec<ContentRecord>, RegisterError> {
        self.read(Register::Content, id)
    }

    fn attributes(&self, id: &EntryId) -> Result<Vec<Attributes>, RegisterError> {
        self.read(Register::Attributes, id)
    }

    fn ids(&self) -> Result<Vec<EntryId>, RegisterError> {
        let ids: BTreeSet<EntryId> = self.values.keys().map(|(_, id)| *id).collect();
        Ok(ids.into_iter().collect())
    }
}

impl Peer {
    fn hand(&self) -> Hand {
        Hand {
            device: self.tag,
            branch: Branch::from_bytes([0; 8]),
        }
    }

    fn seen(&self) -> Vector {
        self.log
            .iter()
            .map(|(author, log)| (*author, log.len()))
            .collect()
    }

    fn write_envelope(&mut self, author: usize, envelope: Envelope) -> Vec<EntryId> {
        let log = self.log.entry(author).or_default();
        for (position, (put, over)) in envelope.writes.iter().enumerate() {
            let lamport = check(&put.id, put.register, &put.value).unwrap();
            self.lamport = self.lamport.max(lamport);
            self.registers
                .write((author, log.len(), position), put, over);
        }
        let touched = envelope.writes.iter().map(|(put, _)| put.id).collect();
        log.push(envelope);
        touched
    }

    /// Applies up to `limit` envelopes in one transaction each, whatever order causality permits.
    fn receive(&mut self, from: &Self, mut limit: usize, rng: &mut dyn Rng) {
        loop {
            let ready: Vec<usize> = from
                .log
                .iter()
                .filter(|(author, log)| {
                    let have = self.log.get(author).map_or(0, Vec::len);
                    log.get(have).is_some_and(|envelope| {
                        envelope.seen.iter().all(|(author, count)| {
                            self.log.get(author).map_or(0, Vec::len) >= *count
                        })
                    })
                })
                .map(|(author, _)| *author)
                .collect();
            if ready.is_empty() || limit == 0 {
                return;
            }
            limit -= 1;
            let author = ready[rng.random_range(0..ready.len())];
            let have = self.log.get(&author).map_or(0, Vec::len);
            let before = super::Peer::entries(self);
            let touched = self.write_envelope(author, from.log[&author][have].clone());
            let txn = self.db.begin_write().unwrap();
            let changes = apply(&txn, &self.registers, &touched).unwrap();
            commit(txn);
            super::world::assert_told(&before, &super::Peer::entries(self), &changes);
        }
    }
}

fn commit(mut txn: redb::WriteTransaction) {
    txn.set_durability(redb::Durability::None).unwrap();
    txn.commit().unwrap();
}

impl super::Peer for Peer {
    fn mesh(count: usize, rng: &mut dyn Rng) -> Vec<Self> {
        (0..count)
            .map(|number| {
                let backend = redb::backends::InMemoryBackend::new();
                let db = Database::builder().create_with_backend(backend).unwrap();
                let txn = db.begin_write().unwrap();
                rebuild(&txn, &Memory::default()).unwrap();
                commit(txn);
                Self {
                    number,
                    tag: DeviceTag::from_bytes([u8::try_from(number).unwrap() + 1; 8]),
                    db,
                    registers: Memory::default(),
                    lamport: rng.random_range(0..100),
                    log: BTreeMap::new(),
                }
            })
            .collect()
    }

    fn fresh_id(&mut self, _: EntryId, rng: &mut dyn Rng) -> EntryId {
        EntryId::random(rng)
    }

    fn edit(&mut self, edits: &[Edit]) -> Result<Vec<EntryChange>, TreeError> {
        let txn = self.db.begin_write().unwrap();
        let performed = perform(&txn, &self.registers, edits, self.hand(), self.lamport)?;
        commit(txn);
        let Performed {
            puts,
            changes,
            lamport,
        } = performed;
        self.lamport = self.lamport.max(lamport);
        if !puts.is_empty() {
            let over: Vec<Vec<Dot>> = puts
                .iter()
                .map(|put| self.registers.siblings(put))
                .collect();
            let seen = self.seen();
            let writes = puts.into_iter().zip(over).collect();
            self.write_envelope(self.number, Envelope { seen, writes });
        }
        Ok(changes)
    }

    fn entries(&mut self) -> BTreeMap<EntryKey, Entry> {
        let view = View::open(&self.db.begin_read().unwrap()).unwrap();
        let mut entries = BTreeMap::new();
        view.walk(&EntryId::ROOT, &mut |_, entry| {
            assert!(
                entries.insert(entry.key, entry.clone()).is_none(),
                "shown twice"
            );
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        let mut counts = Counts::default();
        for entry in entries.values() {
            counts.files += u64::from(entry.file.is_some());
            counts.symlinks += u64::from(entry.target.is_some());
            counts.directories += u64::from(entry.is_directory());
            counts.bytes += entry.size();
        }
        assert_eq!(view.counts().unwrap(), counts);
        let conflicts = entries.values().filter(|entry| entry.conflict).count();
        assert_eq!(view.conflicts().unwrap().len(), conflicts);
        entries
    }

    fn assert_derived(&mut self) {
        assert_eq!(
            self.entries(),
            full::derive(&self.registers),
            "index is not the derivation"
        );
    }

    fn pull(&mut self, from: &mut Self, rng: &mut dyn Rng) {
        let limit = rng.random_range(1..8);
        self.receive(from, limit, rng);
    }

    fn join(_: &mut Self, _: usize, _: &mut dyn Rng) -> Option<Self> {
        None
    }

    fn assert_settled(&mut self, _: &mut Self) {}

    fn back_up(&mut self) {}

    fn restore(&mut self, _: &mut Self) -> bool {
        false
    }

    fn pull_all(&mut self, from: &mut Self, rng: &mut dyn Rng) {
        self.receive(from, usize::MAX, rng);
    }

    fn crash(&mut self, edits: &[Edit]) {
        let txn = self.db.begin_write().unwrap();
        // Whether the tree would have taken it does not matter: it is not committed.
        let _unused = perform(&txn, &self.registers, edits, self.hand(), self.lamport);
        txn.abort().unwrap();
        let before = self.entries();
        let txn = self.db.begin_write().unwrap();
        rebuild(&txn, &self.registers).unwrap();
        commit(txn);
        assert_eq!(self.entries(), before, "a rebuilt index differs");
    }
}
