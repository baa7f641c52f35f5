//! What a user can do to the tree, as values, and how it becomes register writes.
//!
//! [`perform`] is the only door. It checks an [`Edit`] against the tree that this device shows, writes
//! down what the user relies on (`settle`), and gives the register writes for one envelope, with the
//! derived index already brought up to date in the same transaction.

use serde::Serialize;
use wormhole_store::Content;

use crate::entry::{EntryKey, LinkTarget, Mode, Version};
use crate::id::{EntryId, Timestamp};
use crate::name::EntryName;
use crate::register::Registers;
use crate::settle::Draft;

mod operation;
mod outcome;
mod resolution;

pub(crate) use outcome::{Hand, Performed};
pub use outcome::{NewAttributes, TreeError};
pub(crate) use resolution::draw_up;
pub use resolution::{Kept, ResolveError};

/// A new version of a file's bytes.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FileInput {
    /// The bytes, by name. They should be in the store before the edit is made.
    pub content: Content,
    /// When they were last modified.
    pub mtime: Timestamp,
}

/// What a new entry is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum NewNode {
    /// An empty directory.
    Directory,
    /// A file with its first bytes.
    File(FileInput),
    /// A symlink.
    Symlink(LinkTarget),
}

/// One user operation. Keys and parents name what this device shows at this moment.
///
/// What is done to something that exists carries the version that its user had in hand (`base`), `None`
/// for the one shown now. If another is shown by now, that one was not seen, and is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum Edit {
    /// A new entry at a free name.
    Create {
        /// A fresh id.
        id: EntryId,
        /// The directory it goes into.
        parent: EntryId,
        /// Its name.
        name: EntryName,
        /// What it is.
        node: NewNode,
        /// Its permissions, `None` for the usual ones; ignored for symlinks.
        mode: Option<Mode>,
    },
    /// A new file or symlink under a name that is taken: whoever has the name keeps it, and this is a conflict
    /// copy beside it, as if both had been made apart. What a device holds without knowing where it comes from
    /// must not take the place of what everybody knows.
    CreateBeside {
        /// A fresh id.
        id: EntryId,
        /// The directory it goes into.
        parent: EntryId,
        /// The name that it claims; where it is free by now, it has it.
        name: EntryName,
        /// What it is: no directory, which would keep the name.
        node: NewNode,
        /// Its permissions, `None` for the usual ones.
        mode: Option<Mode>,
    },
    /// New bytes for a file.
    Write {
        /// The file.
        key: EntryKey,
        /// The bytes.
        content: FileInput,
        /// The version in hand. If another is shown by now, it is kept as a conflict copy.
        base: Option<Version>,
    },
    /// Another target for a symlink.
    Retarget {
        /// The symlink.
        key: EntryKey,
        /// The target.
        target: LinkTarget,
        /// The version in hand, as in [`Edit::Write`].
        base: Option<Version>,
    },
    /// A rename or move to a free name. It replaces nothing.
    Move {
        /// What moves.
        key: EntryKey,
        /// The directory it goes to.
        parent: EntryId,
        /// Its name there.
        name: EntryName,
        /// The version in hand. It lives on where others remove it apart, what is shown by now may not: its user
        /// knows nothing of that. Of no account for directories.
        base: Option<Version>,
    },
    /// A rename over something: `over` takes the content of `key`, which disappears. An empty directory
    /// can be replaced by a directory.
    Replace {
        /// What moves.
        key: EntryKey,
        /// What it replaces.
        over: EntryKey,
        /// The version of `over` that was seen, as in [`Edit::Write`]; of no account for directories.
        base: Option<Version>,
    },
    /// Removes a file, a symlink, or a directory.
    Remove {
        /// What goes.
        key: EntryKey,
        /// The version in hand. If another is shown by now, only what became of that version goes, if
        /// it is still there. Of a directory: `None` takes everything that is shown below it along; with a
        /// version it goes alone, and stays for what is still in it.
        base: Option<Version>,
    },
    /// Sets permissions and time.
    SetAttributes {
        /// The file or directory.
        key: EntryKey,
        /// What is set.
        attributes: NewAttributes,
        /// The version in hand. If another is shown by now, the time is that of bytes that are elsewhere.
        base: Option<Version>,
    },
}

/// Performs `edits` in order, as one operation, by `hand`.
///
/// `lamport` is the greatest logical time that this device has seen or used. The index in `txn` shows
/// the result afterwards; the registers must be written in the same transaction.
///
/// # Errors
/// The first edit that the tree refuses. The transaction must then be aborted.
pub(crate) fn perform(
    txn: &redb::WriteTransaction,
    registers: &dyn Registers,
    edits: &[Edit],
    hand: Hand,
    lamport: u64,
) -> Result<Performed, TreeError> {
    let mut draft = Draft::new(txn, registers, hand, lamport)?;
    for edit in edits {
        draft.perform(edit)?;
    }
    Ok(draft.finish())
}
