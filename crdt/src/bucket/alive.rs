//! Which writes are still shown: what a snapshot is made from.
//!
//! An envelope is alive while one of its values is still in its register. Of a long history few are; whoever
//! holds those, and how far every author had come ([`Numbers`]), holds what the whole history leads to.

use std::collections::BTreeMap;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};
use serde::{Deserialize, Serialize};

use super::change::Incoming;
use super::past::Past;
use super::row::{self, Last, State};
use super::{Actor, REGISTERS, STATES, damaged};
use crate::error::{Damage, StorageError};
use crate::id::{Author, BucketId};

/// What one author's log leads to beside values: it cannot be read from the values that are left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    /// How far the author has numbered its changes and operations in each bucket.
    pub(crate) lasts: BTreeMap<BucketId, Last>,
    /// What the author had seen of others: see [`Past`].
    pub(crate) seen: BTreeMap<Actor, u64>,
}

impl Numbers {
    /// Notes one more envelope of the author.
    pub(crate) fn learn(&mut self, author: &Author, deps: &[(Author, u64)], changes: &[Incoming]) {
        let mut past = Past::of(author);
        past.learn_stated(&std::mem::take(&mut self.seen));
        past.learn(deps);
        self.seen = past.into_seen();
        for change in changes {
            if let Some(first) = change.writes.first() {
                self.lasts.insert(first.key.id.bucket(), change.last());
            }
        }
    }

    /// Where the author stands in a bucket.
    pub(crate) fn last(&self, bucket: BucketId) -> Last {
        self.lasts.get(&bucket).copied().unwrap_or_default()
    }
}

/// How many operations were ever written, and how many registers there are. Takes milliseconds.
pub(crate) fn weigh(txn: &ReadTransaction) -> Result<(u64, u64), StorageError> {
    let mut written = 0_u64;
    visit_states(txn, |_, state| {
        written = written.saturating_add(state.written());
    })?;
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
            visit(sibling.op.actor, sibling.envelope);
        }
    }
    Ok(())
}

/// The numbers of all actors, without what they had seen.
pub(crate) fn lasts(
    txn: &ReadTransaction,
) -> Result<BTreeMap<Actor, BTreeMap<BucketId, Last>>, StorageError> {
    let mut lasts: BTreeMap<Actor, BTreeMap<BucketId, Last>> = BTreeMap::new();
    visit_states(txn, |bucket, state| {
        for (actor, last) in state.actors() {
            lasts.entry(*actor).or_default().insert(bucket, *last);
        }
    })?;
    Ok(lasts)
}

fn visit_states(
    txn: &ReadTransaction,
    mut visit: impl FnMut(BucketId, &State),
) -> Result<(), StorageError> {
    for row in txn.open_table(STATES)?.iter()? {
        let (number, parts) = row?;
        if let Some(bucket) = BucketId::new(number.value()) {
            visit(
                bucket,
                &State::from_parts(parts.value()).ok_or_else(|| damaged(bucket))?,
            );
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
        alive: &mut Vec<bool>,
    ) -> Result<(), StorageError> {
        for (counter, write) in (change.start_op..).zip(&change.writes) {
            let row = self.0.get(&write.key.to_bytes())?;
            let shown = match &row {
                None => false,
                Some(row) => row::unpack(row.value())
                    .ok_or_else(|| damaged(bucket))?
                    .iter()
                    .any(|one| one.op.actor == change.actor && one.op.counter == counter),
            };
            alive.push(shown);
        }
        Ok(())
    }
}
