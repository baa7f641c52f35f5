//! Registers on a desk, for tests: a database in memory with nothing but buckets in it.

use std::collections::BTreeMap;

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable};

use super::change::Incoming;
use super::key::RegisterKey;
use super::past::Past;
use super::row::{Mark, OpRef};
use super::{Actor, Buckets, Carrier, REGISTERS, STATES, Writers, create, digest};
use crate::error::{ChangeFault, StorageError};
use crate::id::{Author, BucketId, Hash, Line};
use crate::register::Put;

/// One replica's registers, and what each author had seen, as its log would tell.
pub(crate) struct Desk {
    db: Database,
    pasts: BTreeMap<Author, Past>,
}

/// Nobody has forked.
struct Unforked;

impl Writers for Unforked {
    fn writer_of(&self, op: &OpRef, _: &Mark) -> Result<Actor, StorageError> {
        Ok(op.actor)
    }
}

/// What tells the envelopes of these tests apart.
fn mark(author: &Author, envelope: u64) -> Mark {
    let seq = envelope.to_be_bytes();
    let hash = blake3::hash(&[author.to_key().as_slice(), &seq].concat());
    Hash::from_bytes(*hash.as_bytes()).mark()
}

impl Desk {
    pub(crate) fn new() -> Self {
        let db = Builder::new()
            .create_with_backend(InMemoryBackend::new())
            .unwrap();
        let txn = db.begin_write().unwrap();
        create(&txn).unwrap();
        txn.commit().unwrap();
        Self {
            db,
            pasts: BTreeMap::new(),
        }
    }

    /// Makes a change of the puts' bucket.
    pub(crate) fn write(&mut self, author: &Author, envelope: u64, puts: &[Put]) -> Vec<u8> {
        self.write_having_seen(author, envelope, &[], puts)
    }

    /// Makes a change by an author that had seen these envelopes of others.
    pub(crate) fn write_having_seen(
        &mut self,
        author: &Author,
        envelope: u64,
        deps: &[(Author, u64)],
        puts: &[Put],
    ) -> Vec<u8> {
        let bucket = puts[0].id.bucket();
        let made = |buckets: &Buckets<'_>, carrier: &Carrier<'_>| {
            buckets.draft(author, puts.to_vec(), carrier).unwrap()
        };
        let (bytes, change) = self.carry(author, envelope, deps, made);
        self.apply(bucket, author, envelope, &change);
        bytes
    }

    /// Takes a change if it breaks no rule; gives its clock.
    pub(crate) fn offer(
        &mut self,
        bucket: BucketId,
        author: &Author,
        envelope: u64,
        deps: &[(Author, u64)],
        bytes: &[u8],
    ) -> Result<u64, ChangeFault> {
        let incoming = Incoming::parse(bucket, bytes, author, envelope)?;
        self.carry(author, envelope, deps, |_, _| ());
        self.apply(bucket, author, envelope, &incoming);
        Ok(incoming.clock)
    }

    fn apply(&mut self, bucket: BucketId, author: &Author, envelope: u64, change: &Incoming) {
        let txn = self.db.begin_write().unwrap();
        let carrier = Carrier {
            seq: envelope,
            mark: mark(author, envelope),
            past: &self.pasts[author],
            writers: &Unforked,
        };
        let mut buckets = Buckets::open(&txn).unwrap();
        buckets.apply(bucket, change, &carrier).unwrap();
        drop(buckets);
        txn.commit().unwrap();
    }

    fn carry<T>(
        &mut self,
        author: &Author,
        envelope: u64,
        deps: &[(Author, u64)],
        ask: impl FnOnce(&Buckets<'_>, &Carrier<'_>) -> T,
    ) -> T {
        let line = Line::from(author);
        let past = self.pasts.entry(*author).or_insert_with(|| Past::of(&line));
        let deps: Vec<_> = deps
            .iter()
            .map(|(of, seq)| (Line::from(of), *seq))
            .collect();
        past.learn(&deps);
        let txn = self.db.begin_write().unwrap();
        let carrier = Carrier {
            seq: envelope,
            mark: mark(author, envelope),
            past,
            writers: &Unforked,
        };
        ask(&Buckets::open(&txn).unwrap(), &carrier)
    }

    pub(crate) fn values(&self, key: RegisterKey) -> Vec<Vec<u8>> {
        let txn = self.db.begin_write().unwrap();
        let mut values = Buckets::open(&txn).unwrap().values(key).unwrap();
        values.sort();
        values
    }

    pub(crate) fn clear(&mut self, bucket: BucketId) {
        let txn = self.db.begin_write().unwrap();
        Buckets::open(&txn).unwrap().clear(bucket).unwrap();
        txn.commit().unwrap();
    }

    /// Cuts the end off the register's row, as damage would.
    pub(crate) fn damage(&mut self, key: RegisterKey) -> bool {
        let txn = self.db.begin_write().unwrap();
        let row = {
            let table = txn.open_table(REGISTERS).unwrap();
            let row = table.get(&key.to_bytes()).unwrap().unwrap();
            row.value().to_vec()
        };
        txn.open_table(REGISTERS)
            .unwrap()
            .insert(&key.to_bytes(), &row[..row.len() - 1])
            .unwrap();
        Buckets::open(&txn).unwrap().values(key).is_err()
    }

    pub(crate) fn digest(&self) -> Hash {
        digest(&self.db.begin_read().unwrap()).unwrap()
    }

    /// Every byte that is stored.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let txn = self.db.begin_read().unwrap();
        let mut bytes = Vec::new();
        for row in txn
            .open_table(REGISTERS)
            .unwrap()
            .range::<&[u8; 17]>(..)
            .unwrap()
        {
            let (key, value) = row.unwrap();
            bytes.extend_from_slice(key.value());
            bytes.extend_from_slice(value.value());
        }
        for row in txn.open_table(STATES).unwrap().range::<u16>(..).unwrap() {
            let (key, value) = row.unwrap();
            let (sum, size, _) = value.value();
            bytes.extend(key.value().to_be_bytes());
            bytes.extend(sum);
            bytes.extend(size.to_be_bytes());
        }
        bytes
    }
}
