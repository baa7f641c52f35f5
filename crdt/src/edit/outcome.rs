//! What an operation and its parts share: whose it is, the attributes that it sets, what it comes to, and why the tree
//! refuses it. `settle` needs them, and none of the edits.

use serde::Serialize;

use crate::entry::{EntryChange, EntryKey, Mode};
use crate::id::{Branch, DeviceTag, EntryId, Timestamp};
use crate::index::IndexError;
use crate::name::{EntryName, MAX_DEPTH};
use crate::register::Put;

/// Attributes to be set; what is `None` stays as it is.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct NewAttributes {
    /// Permissions.
    pub mode: Option<Mode>,
    /// When a file was last modified; ignored for symlinks.
    pub mtime: Option<Timestamp>,
}

impl NewAttributes {
    /// Permissions alone.
    #[must_use]
    pub fn of_mode(mode: Mode) -> Self {
        Self {
            mode: Some(mode),
            mtime: None,
        }
    }
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
