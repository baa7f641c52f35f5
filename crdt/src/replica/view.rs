//! The registers as the tree's rules read them, inside the open transaction.

use redb::WriteTransaction;

use crate::bucket::Buckets;
use crate::bucket::key::RegisterKey;
use crate::error::StorageError;
use crate::id::EntryId;
use crate::register::{
    Attributes, ContentRecord, Packed, Placement, Register, RegisterError, Registers,
};

/// The registers in the state of one open transaction.
pub(super) struct View<'t>(Buckets<'t>);

impl<'t> View<'t> {
    pub(super) fn open(txn: &'t WriteTransaction) -> Result<Self, StorageError> {
        Ok(Self(Buckets::open(txn)?))
    }

    fn values<T: Packed>(&self, id: &EntryId, register: Register) -> Result<Vec<T>, RegisterError> {
        self.0
            .values(RegisterKey { id: *id, register })
            .map_err(|error| RegisterError::Keeper(Box::new(error)))?
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
        let placed = self.0.placed();
        placed.map_err(|error| RegisterError::Keeper(Box::new(error)))
    }
}
