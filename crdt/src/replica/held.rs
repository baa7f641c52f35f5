//! Envelopes that this program cannot read: of a later format, or with values of one.
//!
//! They are nobody's fault. What a writer of the mesh signed is kept as it came, passed on untouched, and tried again
//! when the replica is opened, by then perhaps by a later program. So is what builds on it. Each author has a quota.

use std::collections::BTreeSet;

use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};

use super::Replica;
use crate::envelope::Frame;
use crate::error::{Damage, SessionError, StorageError};
use crate::id::{Author, DeviceId, Hash};
use crate::limit::MAX_HELD;

/// (author, number, the beginning of the hash) → (its place in the order in which they came, envelope).
const HELD: TableDefinition<'_, Aside<'_>, (u64, &[u8])> = TableDefinition::new("held");

type Aside<'a> = (&'a [u8; 40], u64, &'a [u8; 8]);

/// Creates the table.
pub(super) fn create(txn: &WriteTransaction) -> Result<(), StorageError> {
    txn.open_table(HELD)?;
    Ok(())
}

/// Keeps an envelope whose signature was checked. `false` when it was here, or its author has too many.
pub(super) fn keep(
    txn: &WriteTransaction,
    frame: &Frame,
    bytes: &[u8],
) -> Result<bool, StorageError> {
    let mut table = txn.open_table(HELD)?;
    let (author, mark) = (frame.author.to_key(), frame.hash.mark());
    if table.get((&author, frame.seq, &mark))?.is_some() {
        return Ok(false);
    }
    let (first, last) = ((&author, 0, &[0_u8; 8]), (&author, u64::MAX, &[0xff_u8; 8]));
    if table.range(first..=last)?.count() >= MAX_HELD {
        return Ok(false);
    }
    let order = table.len()?;
    table.insert((&author, frame.seq, &mark), (order, bytes))?;
    Ok(true)
}

/// Whether an envelope is held.
pub(super) fn holds(
    txn: &WriteTransaction,
    author: Author,
    seq: u64,
    hash: &Hash,
) -> Result<bool, StorageError> {
    let (author, mark) = (author.to_key(), hash.mark());
    let held = txn.open_table(HELD)?.get((&author, seq, &mark))?.is_some();
    Ok(held)
}

/// All that is held, in the order in which it came, so that nothing is before what it builds on.
pub(super) fn all(txn: &ReadTransaction) -> Result<Vec<Vec<u8>>, StorageError> {
    let mut held = Vec::new();
    for row in txn.open_table(HELD)?.iter()? {
        let (_, row) = row?;
        let (order, bytes) = row.value();
        held.push((order, bytes.to_vec()));
    }
    held.sort_unstable_by_key(|(order, _)| *order);
    Ok(held.into_iter().map(|(_, bytes)| bytes).collect())
}

/// Whose envelopes are held.
pub(super) fn devices(txn: &ReadTransaction) -> Result<BTreeSet<DeviceId>, StorageError> {
    let mut devices = BTreeSet::new();
    for row in txn.open_table(HELD)?.iter()? {
        let (place, _) = row?;
        devices.insert(Author::from_key(*place.value().0).device);
    }
    Ok(devices)
}

impl Replica {
    /// Tries again what another program held. What this one cannot read either is held again.
    pub(super) fn retry_held(&self) -> Result<(), StorageError> {
        let held = all(&self.read()?)?;
        if held.is_empty() {
            return Ok(());
        }
        let mut writer = self.inner.writer()?;
        self.inner
            .transact(&mut writer, super::Commit::Deferred, |txn, _| {
                txn.open_table(HELD)?.retain(|_, _| false)?;
                Ok::<_, StorageError>(())
            })?;
        drop(writer);
        for bytes in held {
            match self.apply(&[&bytes]) {
                Ok(_) | Err(SessionError::Misbehaved(_)) => {}
                Err(SessionError::Storage(error)) => return Err(error),
                Err(SessionError::Version { .. } | SessionError::NotMember { .. }) => {}
            }
        }
        Ok(())
    }

    /// Envelopes that are held, except those that are known to be elsewhere.
    pub(crate) fn held_beside(
        &self,
        told: &BTreeSet<Hash>,
    ) -> Result<Vec<(Hash, Vec<u8>)>, StorageError> {
        let mut rest = Vec::new();
        for bytes in all(&self.read()?)? {
            let frame = Frame::read(&bytes);
            let frame = frame.map_err(|_| StorageError::Damaged(Damage::Header("held")))?;
            if !told.contains(&frame.hash) {
                rest.push((frame.hash, bytes));
            }
        }
        Ok(rest)
    }
}
