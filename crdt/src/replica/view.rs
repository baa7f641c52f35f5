//! The registers as the tree's rules read them: through the cache, inside the open transaction.

use std::cell::RefCell;

use redb::WriteTransaction;

use super::Writer;
use crate::bucket::cache::Buckets;
use crate::bucket::key::RegisterKey;
use crate::error::StorageError;
use crate::id::{BucketId, EntryId};
use crate::limit::BUCKET_COUNT;
use crate::register::{
    Attributes, ContentRecord, Packed, Placement, Register, RegisterError, Registers,
};

/// The registers in the state of one open transaction.
pub(super) struct View<'a> {
    txn: &'a WriteTransaction,
    /// Reading loads buckets; the rules see a shared reference.
    buckets: RefCell<&'a mut Buckets>,
}

impl Writer {
    pub(super) fn registers<'a>(&'a mut self, txn: &'a WriteTransaction) -> View<'a> {
        View::new(txn, &mut self.buckets)
    }
}

impl<'a> View<'a> {
    pub(super) fn new(txn: &'a WriteTransaction, buckets: &'a mut Buckets) -> Self {
        Self {
            txn,
            buckets: RefCell::new(buckets),
        }
    }

    fn values<T: Packed>(&self, id: &EntryId, register: Register) -> Result<Vec<T>, RegisterError> {
        let mut buckets = self.buckets.borrow_mut();
        let bucket = buckets.get(self.txn, id.bucket()).map_err(Box::new)?;
        bucket
            .values(RegisterKey { id: *id, register })
            .iter()
            .map(|value| T::decode(value))
            .collect::<Result<_, _>>()
            .map_err(|source| RegisterError::Value { id: *id, source })
    }
}

impl Registers for View<'_> {
    fn placements(&self, id: &EntryId) -> Result<Vec<Placement>, RegisterError> {
        self.values(id, Register::Placement)
    }

    fn contents(&self, id: &EntryId) -> Result<Vec<ContentRecord>, RegisterError> {
        self.values(id, Register::Content)
    }

    fn attributes(&self, id: &EntryId) -> Result<Vec<Attributes>, RegisterError> {
        self.values(id, Register::Attributes)
    }

    fn ids(&self) -> Result<Vec<EntryId>, RegisterError> {
        let mut ids = Vec::new();
        for bucket in (0..BUCKET_COUNT).filter_map(BucketId::new) {
            let mut buckets = self.buckets.borrow_mut();
            if !Buckets::is_stored(self.txn, bucket).map_err(Box::new)? {
                continue;
            }
            let bucket = buckets
                .get(self.txn, bucket)
                .map_err(Box::<StorageError>::new)?;
            let keys = bucket.keys().into_iter();
            ids.extend(
                keys.filter(|k| k.register == Register::Placement)
                    .map(|k| k.id),
            );
        }
        Ok(ids)
    }
}
