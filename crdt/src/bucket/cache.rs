//! The buckets that are in memory, and how buckets rest in the database.
//!
//! A bucket rests as a snapshot plus the changes since (`inc`), so that storing one change costs one small
//! row; when the changes pile up the snapshot is written anew. Loading is lazy and the number of
//! loaded buckets is bounded. All access is through the one write transaction that is open, so memory and
//! database move together; when the transaction fails, [`Buckets::forget`] drops what ran ahead.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::Bucket;
use crate::error::{Damage, StorageError};
use crate::id::{BucketId, Hash};
use crate::limit::{CACHED_BUCKETS, MAX_INCREMENT_BYTES, MAX_INCREMENTS};

/// bucket → `Bucket::save`.
pub(crate) const SNAPSHOTS: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("snap");
/// (bucket, arrival number of the envelope) → change that the snapshot does not hold.
pub(crate) const INCREMENTS: TableDefinition<'_, (u16, u64), &[u8]> = TableDefinition::new("inc");

/// bucket → `Bucket::digest`, for every bucket that was ever written.
const DIGESTS: TableDefinition<'_, u16, &[u8; 32]> = TableDefinition::new("digest");

/// Creates the tables, so that readers need not care whether they exist.
pub(crate) fn create(txn: &WriteTransaction) -> Result<(), StorageError> {
    txn.open_table(SNAPSHOTS)?;
    txn.open_table(INCREMENTS)?;
    txn.open_table(DIGESTS)?;
    Ok(())
}

/// A hash of all registers: equal in two replicas exactly if they hold the same changes.
pub(crate) fn digest(txn: &ReadTransaction) -> Result<Hash, StorageError> {
    let mut hasher = blake3::Hasher::new();
    for row in txn.open_table(DIGESTS)?.iter()? {
        let (bucket, digest) = row?;
        hasher.update(&bucket.value().to_be_bytes());
        hasher.update(digest.value());
    }
    Ok(Hash::from_bytes(*hasher.finalize().as_bytes()))
}

/// The loaded buckets.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    loaded: BTreeMap<BucketId, Loaded>,
    /// Changed by the open transaction.
    touched: BTreeSet<BucketId>,
    clock: u64,
}

#[derive(Debug)]
struct Loaded {
    bucket: Bucket,
    /// When it was last used, on the cache's own clock.
    used: u64,
}

impl Buckets {
    /// The bucket, loaded if it is not.
    pub(crate) fn get(
        &mut self,
        txn: &WriteTransaction,
        id: BucketId,
    ) -> Result<&mut Bucket, StorageError> {
        self.clock += 1;
        let used = self.clock;
        if !self.loaded.contains_key(&id) {
            self.make_room();
            let bucket = load(txn, id)?;
            self.loaded.insert(id, Loaded { bucket, used });
        }
        let loaded = self
            .loaded
            .get_mut(&id)
            .expect("it was inserted if it was not there");
        loaded.used = used;
        Ok(&mut loaded.bucket)
    }

    /// Whether anything was ever stored for the bucket; cheaper than loading an empty one.
    pub(crate) fn is_stored(txn: &WriteTransaction, id: BucketId) -> Result<bool, StorageError> {
        let range = (id.number(), 0)..=(id.number(), u64::MAX);
        Ok(txn.open_table(SNAPSHOTS)?.get(id.number())?.is_some()
            || txn.open_table(INCREMENTS)?.range(range)?.next().is_some())
    }

    /// Stores a change that the loaded bucket holds already.
    pub(crate) fn store(
        &mut self,
        txn: &WriteTransaction,
        id: BucketId,
        arrival: u64,
        change: &[u8],
    ) -> Result<(), StorageError> {
        self.touched.insert(id);
        let bucket = self.get(txn, id)?;
        txn.open_table(DIGESTS)?
            .insert(id.number(), bucket.digest().as_bytes())?;
        bucket.increments += 1;
        bucket.increment_bytes += change.len() as u64;
        if bucket.increments <= MAX_INCREMENTS && bucket.increment_bytes <= MAX_INCREMENT_BYTES {
            txn.open_table(INCREMENTS)?
                .insert((id.number(), arrival), change)?;
            return Ok(());
        }
        save(txn, id, bucket)
    }

    /// Marks a bucket as changed before its change is stored.
    pub(crate) fn touch(&mut self, id: BucketId) {
        self.touched.insert(id);
    }

    /// The transaction was committed: memory and database agree.
    pub(crate) fn settle(&mut self) {
        self.touched.clear();
    }

    /// The transaction was given up: what it changed is loaded again when needed.
    pub(crate) fn forget(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            self.loaded.remove(&id);
        }
    }

    /// Puts a rebuilt bucket in the place of what is stored and loaded.
    pub(crate) fn replace(
        &mut self,
        txn: &WriteTransaction,
        id: BucketId,
        mut bucket: Bucket,
    ) -> Result<(), StorageError> {
        self.touched.insert(id);
        self.loaded.remove(&id);
        txn.open_table(DIGESTS)?
            .insert(id.number(), bucket.digest().as_bytes())?;
        save(txn, id, &mut bucket)
    }

    fn make_room(&mut self) {
        while self.loaded.len() >= CACHED_BUCKETS {
            let oldest = self.loaded.iter().min_by_key(|(_, loaded)| loaded.used);
            let Some((&id, _)) = oldest else { return };
            self.loaded.remove(&id);
        }
    }
}

fn load(txn: &WriteTransaction, id: BucketId) -> Result<Bucket, StorageError> {
    let snapshots = txn.open_table(SNAPSHOTS)?;
    let snapshot = snapshots.get(id.number())?;
    let increments = txn.open_table(INCREMENTS)?;
    let mut changes = Vec::new();
    for row in increments.range((id.number(), 0)..=(id.number(), u64::MAX))? {
        changes.push(row?.1.value().to_vec());
    }
    Bucket::load(snapshot.as_ref().map(redb::AccessGuard::value), &changes)
        .map_err(|_| StorageError::Damaged(Damage::Bucket(id)))
}

fn save(txn: &WriteTransaction, id: BucketId, bucket: &mut Bucket) -> Result<(), StorageError> {
    txn.open_table(SNAPSHOTS)?
        .insert(id.number(), bucket.save().as_slice())?;
    let mut increments = txn.open_table(INCREMENTS)?;
    increments.retain_in((id.number(), 0)..=(id.number(), u64::MAX), |_, _| false)?;
    bucket.increments = 0;
    bucket.increment_bytes = 0;
    Ok(())
}
