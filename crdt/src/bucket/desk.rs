//! Registers on a desk, for tests: a database in memory with nothing but buckets in it.

use std::collections::BTreeMap;

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable};

use super::change::Incoming;
use super::key::RegisterKey;
use super::past::Past;
use super::{Buckets, REGISTERS, Replaces, STATES, create, digest};
use crate::error::ChangeFault;
use crate::id::{Author, BucketId, Hash};
use crate::register::Put;

/// One replica's registers, and what each author had seen, as its log would tell.
pub(crate) struct Desk {
    db: Database,
    pasts: BTreeMap<Author, Past>,
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
        let past = self
            .pasts
            .entry(*author)
            .or_insert_with(|| Past::of(author));
        past.learn(deps);
        let txn = self.db.begin_write().unwrap();
        let bucket = puts[0].id.bucket();
        let bytes = Buckets::open(&txn)
            .unwrap()
            .write(bucket, author, envelope, past, puts, &Replaces::Seen)
            .unwrap();
        txn.commit().unwrap();
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
        let incoming = Incoming::parse(bucket, bytes, author)?;
        let txn = self.db.begin_write().unwrap();
        {
            let mut buckets = Buckets::open(&txn).unwrap();
            buckets.check(bucket, &incoming).unwrap()?;
            let past = self
                .pasts
                .entry(*author)
                .or_insert_with(|| Past::of(author));
            past.learn(deps);
            buckets.apply(bucket, &incoming, envelope, past).unwrap();
        }
        txn.commit().unwrap();
        Ok(incoming.clock)
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
            let (sum, size, actors) = value.value();
            bytes.extend(key.value().to_be_bytes());
            bytes.extend(sum);
            bytes.extend(size.to_be_bytes());
            bytes.extend(actors);
        }
        bytes
    }
}
