//! What a user can do to the tree, as values, and how it becomes register writes.
//!
//! [`perform`] is the only door. It checks an [`Edit`] against the tree that this device shows, writes
//! down what the user relies on (`settle`), and gives the register writes for one envelope, with the
//! derived index already brought up to date in the same transaction.

use serde::Serialize;
use wormhole_store::Content;

use crate::entry::{EntryChange, EntryKey, LinkTarget, Version};
use crate::id::{Branch, DeviceTag, EntryId, Timestamp};
use crate::index::IndexError;
use crate::name::{EntryName, MAX_DEPTH};
use crate::register::{Put, Registers};
use crate::settle::Draft;

mod operation;

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
        /// Whether a file may be executed; ignored for others.
        executable: bool,
    },
    /// New bytes for a file.
    Write {
        /// The file.
        key: EntryKey,
        /// The bytes.
        content: FileInput,
        /// The version that the writer had in hand, `None` for the one shown now. If another is shown
        /// by now, it is kept as a conflict copy.
        base: Option<Version>,
    },
    /// Another target for a symlink.
    Retarget {
        /// The symlink.
        key: EntryKey,
        /// The target.
        target: LinkTarget,
    },
    /// A rename or move to a free name. It replaces nothing.
    Move {
        /// What moves.
        key: EntryKey,
        /// The directory it goes to.
        parent: EntryId,
        /// Its name there.
        name: EntryName,
    },
    /// A rename over something: `over` takes the content of `key`, which disappears. An empty directory
    /// can be replaced by a directory.
    Replace {
        /// What moves.
        key: EntryKey,
        /// What it replaces.
        over: EntryKey,
    },
    /// Removes a file, a symlink, or a directory with everything that is shown below it.
    Remove {
        /// What goes.
        key: EntryKey,
    },
    /// Sets or clears a file's executable bit.
    SetExecutable {
        /// The file.
        key: EntryKey,
        /// Whether it may be executed.
        executable: bool,
    },
}

/// Why the tree refuses an edit. Nothing of the batch was done.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The tree shows no such entry (any more).
    #[error("there is no entry {} in the tree", key.id)]
    NotFound {
        /// What was named.
        key: EntryKey,
    },
    /// The name is taken, perhaps in another spelling of case or accents.
    #[error("the name {} is taken in its directory", name.display())]
    NameTaken {
        /// The directory.
        parent: EntryId,
        /// The name that was asked for.
        name: EntryName,
        /// What has it.
        by: EntryKey,
    },
    /// The id of a new entry is in use.
    #[error("the id {id} of the new entry is in use")]
    IdTaken {
        /// The id.
        id: EntryId,
    },
    /// A directory is needed here.
    #[error("entry {} is not a directory", key.id)]
    NotDirectory {
        /// What is not one.
        key: EntryKey,
    },
    /// A file or symlink is needed here.
    #[error("entry {} is a directory", key.id)]
    IsDirectory {
        /// The directory.
        key: EntryKey,
    },
    /// A symlink is needed here, or a file.
    #[error("entry {} is not of the kind that this operation needs", key.id)]
    WrongKind {
        /// What was named.
        key: EntryKey,
    },
    /// A directory that is to be replaced holds something.
    #[error("directory {} is not empty", key.id)]
    NotEmpty {
        /// The directory.
        key: EntryKey,
    },
    /// A directory cannot move into itself.
    #[error("directory {} cannot move into itself", key.id)]
    IntoItself {
        /// The directory.
        key: EntryKey,
    },
    /// The root cannot be moved, replaced or removed.
    #[error("the root directory cannot be moved or removed")]
    Root,
    /// The place is too deep.
    #[error("the place is deeper than {MAX_DEPTH} directories")]
    TooDeep,
    /// The derived index failed or is damaged.
    #[error("the tree's index cannot be used")]
    Index(#[from] IndexError),
}

/// What a batch of edits comes to.
#[derive(Debug)]
pub(crate) struct Performed {
    /// For the envelope: at most one per register.
    pub(crate) puts: Vec<Put>,
    /// What the tree shows differently.
    pub(crate) changes: Vec<EntryChange>,
    /// The greatest logical time used.
    pub(crate) lamport: u64,
}

/// Whose operation it is: what its versions say beside their number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hand {
    pub(crate) device: DeviceTag,
    pub(crate) branch: Branch,
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
