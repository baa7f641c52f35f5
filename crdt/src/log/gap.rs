//! What is missing in the logs of a replica that began with a snapshot, and what came of it since.
//!
//! A snapshot brings of every author's log only the envelopes that are alive, the last one among them. The
//! rest lies in the author's *hole* and is fetched afterwards, from the first envelope on, in an order
//! that respects causes, so that arrival numbers keep that order: those below [`Gap::next`] are as in any
//! other replica, those from [`Gap::next`] up to the end of the snapshot hold only what is alive.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::LogEnd;
use crate::bucket::alive::Seen;
use crate::error::{Damage, StorageError};
use crate::id::{Hash, Line};
use crate::vector::VersionVector;

/// line → the packed [`Hole`] and [`Ledger`].
const HOLES: TableDefinition<'_, &[u8; 48], (&[u8], &[u8])> = TableDefinition::new("hole");
/// () → [`Gap::next`]. There only while there are holes.
const NEXT: TableDefinition<'_, (), u64> = TableDefinition::new("hole_next");

/// All that is missing. Nothing is, when there is none of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) holes: BTreeMap<Line, Hole>,
    /// The arrival number that the next fetched envelope gets. What is before it is complete in itself.
    pub(crate) next: u64,
}

/// What is missing of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hole {
    /// The envelopes up to this are here; 0 and zeros at first.
    pub(crate) have: Tip,
    /// The snapshot's last envelope of the author. What comes after it is here, too.
    pub(crate) upto: Tip,
}

/// One envelope's number, hash and clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tip {
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
    pub(crate) clock: u64,
}

/// What an author had seen of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// At the end of the hole, as the sender of the snapshot said.
    pub(crate) stated: Seen,
    /// At its beginning, as the fetched envelopes show.
    pub(crate) found: Seen,
}

impl Tip {
    /// The end of a log that has not begun.
    pub(crate) const NOTHING: Self = Self {
        seq: 0,
        hash: Hash::ZERO,
        clock: 0,
    };
}

impl Gap {
    /// Whether less is here of some log than there was before.
    pub(crate) fn fell_behind(&self, before: &Self) -> bool {
        let mut holes = self.holes.iter();
        holes.any(|(line, hole)| {
            let before = before.holes.get(line);
            before.is_some_and(|before| hole.have.seq < before.have.seq)
        })
    }

    /// Whether somebody who has `theirs` misses nothing of what is missing here.
    pub(crate) fn is_covered_by(&self, theirs: &VersionVector, sent: &VersionVector) -> bool {
        let holes = self.holes.iter();
        holes
            .into_iter()
            .all(|(line, hole)| theirs.get(line).max(sent.get(line)) >= hole.upto.seq)
    }
}

impl From<Tip> for LogEnd {
    fn from(Tip { seq, hash, clock }: Tip) -> Self {
        Self { seq, hash, clock }
    }
}

/// Loads the gap.
pub(crate) fn read(txn: &ReadTransaction) -> Result<Option<Gap>, StorageError> {
    let next = match txn.open_table(NEXT) {
        Ok(table) => table.get(())?.map(|next| next.value()),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let Some(next) = next else { return Ok(None) };
    let mut holes = BTreeMap::new();
    for row in txn.open_table(HOLES)?.iter()? {
        let (key, row) = row?;
        let line = Line::from_key(*key.value());
        holes.insert(line, unpack(line, row.value().0)?);
    }
    Ok(Some(Gap { holes, next }))
}

/// Stores where fetched envelopes go.
pub(crate) fn set_next(txn: &WriteTransaction, next: u64) -> Result<(), StorageError> {
    txn.open_table(NEXT)?.insert((), next)?;
    Ok(())
}

/// Stores an author's hole.
pub(crate) fn set(
    txn: &WriteTransaction,
    line: Line,
    hole: &Hole,
    ledger: &Ledger,
) -> Result<(), StorageError> {
    let row = (pack(hole), pack(ledger));
    txn.open_table(HOLES)?
        .insert(&line.to_key(), (row.0.as_slice(), row.1.as_slice()))?;
    Ok(())
}

/// Reads what an author had seen.
pub(crate) fn ledger(txn: &WriteTransaction, line: Line) -> Result<Ledger, StorageError> {
    let table = txn.open_table(HOLES)?;
    let row = table.get(&line.to_key())?;
    let row = row.ok_or(StorageError::Damaged(Damage::Log(line.author)))?;
    unpack(line, row.value().1)
}

/// An author's log is complete.
pub(crate) fn close(txn: &WriteTransaction, line: Line) -> Result<(), StorageError> {
    txn.open_table(HOLES)?.remove(&line.to_key())?;
    Ok(())
}

/// All logs are complete.
pub(crate) fn close_all(txn: &WriteTransaction) -> Result<(), StorageError> {
    txn.delete_table(HOLES)?;
    txn.delete_table(NEXT)?;
    Ok(())
}

fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("memory takes any value")
}

fn unpack<'a, T: Deserialize<'a>>(line: Line, row: &'a [u8]) -> Result<T, StorageError> {
    postcard::from_bytes(row).map_err(|_| StorageError::Damaged(Damage::Log(line.author)))
}
