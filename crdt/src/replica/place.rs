//! Which bucket a new entry's id falls into.
//!
//! The files of a directory share few buckets, so that the envelopes of an import hold few changes and its
//! registers are neighbours in the database. A bucket that is full spills into the emptiest of a few
//! others.

use rand::Rng;
use redb::ReadTransaction;

use super::Replica;
use crate::bucket::fill;
use crate::error::StorageError;
use crate::id::{BucketId, EntryId};
use crate::limit::BUCKET_SPILL_BYTES;

/// How many buckets are compared when one is full: two already keep the fullest close to the mean.
const CANDIDATES: usize = 3;

/// How many ids are given out before the fill of the bucket is looked at again.
const RUN: u32 = 32;

/// Where the last ids went.
#[derive(Debug, Default)]
pub(super) struct LastPlace {
    parent: Option<EntryId>,
    bucket: Option<BucketId>,
    left: u32,
}

impl Replica {
    /// An id for a new entry of `parent`.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn fresh_id(&self, parent: EntryId, rng: &mut dyn Rng) -> Result<EntryId, StorageError> {
        let mut last = self
            .inner
            .place
            .lock()
            .map_err(|_| StorageError::Poisoned)?;
        if let Some(bucket) = last.bucket
            && last.parent == Some(parent)
            && last.left > 0
        {
            last.left -= 1;
            return Ok(EntryId::random_in(bucket, rng));
        }
        let first = last.bucket.filter(|_| last.parent == Some(parent));
        let bucket = choose(&self.read()?, first.unwrap_or_else(|| parent.bucket()), rng)?;
        *last = LastPlace {
            parent: Some(parent),
            bucket: Some(bucket),
            left: RUN - 1,
        };
        Ok(EntryId::random_in(bucket, rng))
    }
}

fn choose(
    txn: &ReadTransaction,
    first: BucketId,
    rng: &mut dyn Rng,
) -> Result<BucketId, StorageError> {
    let mut best = (fill(txn, first)?, first);
    if best.0 < BUCKET_SPILL_BYTES {
        return Ok(first);
    }
    for _ in 0..CANDIDATES {
        let other = BucketId::random(rng);
        best = best.min((fill(txn, other)?, other));
    }
    Ok(best.1)
}
