//! Which writes are still shown: what a snapshot is made from.
//!
//! An envelope is alive while one of its values is still in its register. Of a long history few are; whoever
//! holds those, and what every author had seen ([`Seen`]), holds what the whole history leads to.

use std::collections::BTreeMap;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};

use super::change::Incoming;
use super::row::{self, Mark, OpRef, State};
use super::{Actor, REGISTERS, STATES, damaged};
use crate::error::{Damage, StorageError};
use crate::id::BucketId;

/// What an author had seen of others: see [`Past`](super::past::Past). It cannot be read from the values that are
/// left.
pub(crate) type Seen = BTreeMap<Actor, u64>;

/// How many operations were ever written, and how many registers there are. Takes milliseconds.
pub(crate) fn weigh(txn: &ReadTransaction) -> Result<(u64, u64), StorageError> {
    let mut written = 0_u64;
    for row in txn.open_table(STATES)?.iter()? {
        let state = State::from_parts(row?.1.value());
        written = written.saturating_add(state.written());
    }
    Ok((written, txn.open_table(REGISTERS)?.len()?))
}

/// Visits the writer and the envelope of every value that is shown; of some envelopes often.
pub(crate) fn visit(
    txn: &ReadTransaction,
    mut visit: impl FnMut(Actor, u64),
) -> Result<(), StorageError> {
    for row in txn.open_table(REGISTERS)?.iter()? {
        let (key, row) = row?;
        let [high, low, ..] = *key.value();
        let siblings = row::unpack(row.value()).ok_or_else(|| {
            let bucket = BucketId::new(u16::from_be_bytes([high, low]) >> 4);
            bucket.map_or(StorageError::Damaged(Damage::Header("register")), damaged)
        })?;
        for sibling in siblings {
            visit(sibling.op.actor, sibling.op.envelope);
        }
    }
    Ok(())
}

/// Tells which writes of a change are still shown.
pub(crate) struct Shown(ReadOnlyTable<&'static [u8; 17], &'static [u8]>);

impl Shown {
    pub(crate) fn open(txn: &ReadTransaction) -> Result<Self, StorageError> {
        Ok(Self(txn.open_table(REGISTERS)?))
    }

    /// One answer for each write of the change, added to `alive`.
    pub(crate) fn of(
        &self,
        bucket: BucketId,
        change: &Incoming,
        (envelope, mark): (u64, Mark),
        alive: &mut Vec<bool>,
    ) -> Result<(), StorageError> {
        let op = OpRef {
            actor: change.actor,
            envelope,
        };
        for write in &change.writes {
            let row = self.0.get(&write.key.to_bytes())?;
            let shown = match &row {
                None => false,
                Some(row) => row::unpack(row.value())
                    .ok_or_else(|| damaged(bucket))?
                    .iter()
                    .any(|one| one.op == op && one.mark == mark),
            };
            alive.push(shown);
        }
        Ok(())
    }
}
