//! The tree as it is shown, kept in redb beside the registers that it is derived from.
//!
//! [`apply`] brings it up to date after registers changed, in the same transaction, so that registers
//! and tree can never disagree; it re-derives only the names that the changed entries claimed or
//! claim. [`View`] reads it. Nothing is stored by path: children hang on their parent's id, so that a
//! renamed directory costs the same whatever is in it.
//!
//! `record` is what is kept for each entry, `table` where it is kept; an [`Index`] in `update` and
//! `group` does the work in three steps: merge the changed registers, move claims of names, name the
//! affected groups.

use std::collections::BTreeSet;

use redb::WriteTransaction;

use crate::entry::EntryChange;
use crate::id::EntryId;
use crate::register::{Node, RegisterError, Registers};

mod group;
mod record;
mod table;
mod update;
mod view;

pub(crate) use update::Index;
pub(crate) use view::View;

/// An index that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database failed.
    #[error("the metadata database failed")]
    Storage(#[from] redb::StorageError),
    /// A table of the index cannot be opened.
    #[error("a table of the tree's index cannot be opened")]
    Table(#[from] redb::TableError),
    /// The registers that it is derived from cannot be read.
    #[error(transparent)]
    Registers(#[from] RegisterError),
    /// A row does not decode, or rows contradict one another. The index is made anew when the replica is
    /// opened next.
    #[error("the tree's index is damaged: restart to have it made anew")]
    Damaged,
}

impl IndexError {
    /// Whether making the index anew helps.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged => true,
            Self::Table(error) => !matches!(error, redb::TableError::Storage(_)),
            Self::Storage(_) | Self::Registers(_) => false,
        }
    }
}

/// The layout of the index's tables that this program writes and reads.
pub(crate) const LAYOUT: u32 = 2;

/// Re-derives what the registers of `touched` affect; gives what is shown differently.
///
/// # Errors
/// The database or the registers failed: the transaction must be aborted.
pub(crate) fn apply(
    txn: &WriteTransaction,
    registers: &dyn Registers,
    touched: &[EntryId],
) -> Result<Vec<EntryChange>, IndexError> {
    Index::open(txn)?.apply(registers, touched.iter().copied())
}

/// Derives everything anew. Also creates the tables of an empty database.
///
/// Directories come first: an entry whose parent is not there yet would be shown at the top, among
/// many of the same name.
///
/// # Errors
/// The database or the registers failed: the transaction must be aborted.
pub(crate) fn rebuild(txn: &WriteTransaction, registers: &dyn Registers) -> Result<(), IndexError> {
    table::clear(txn)?;
    let mut index = Index::open(txn)?;
    let mut directories = BTreeSet::new();
    let mut leaves = Vec::new();
    for id in registers.ids()? {
        let placements = registers.placements(&id)?;
        match crate::rule::winner(&placements).map(|placement| placement.node) {
            Some(Node::Directory) => {
                directories.insert(id);
            }
            Some(Node::Leaf) => leaves.push(id),
            None => {}
        }
    }
    index.apply(registers, directories)?;
    for some in leaves.chunks(REBUILD_BATCH) {
        index.apply(registers, some.iter().copied())?;
    }
    Ok(())
}

/// Files derived at once in a rebuild: bounds its memory to some megabytes.
const REBUILD_BATCH: usize = 8192;
