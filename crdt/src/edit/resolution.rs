//! How a conflict ends: the edits that say which of two versions is kept.
//!
//! They are drawn up from what the tree shows and carry the versions that were seen, so that whatever
//! comes meanwhile is kept beside.

use crate::edit::Edit;
use crate::entry::{Entry, EntryKey, Kind, Rival};
use crate::name::EntryName;

/// What is kept of a conflict, seen from the entry that was named.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kept {
    /// The one that was named. It has the plain name afterwards.
    This,
    /// The other one, under the plain name.
    Other,
    /// Both, as files of their own under the names that they have now.
    Both,
}

/// Why a conflict cannot be ended so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is none.
    #[error("{} is no conflict copy and has none beside it", name.display())]
    NoConflict {
        /// What was named.
        name: EntryName,
    },
    /// Another version is to be kept, but there are several.
    #[error("{} has {copies} conflict copies: name the one to keep", name.display())]
    Several {
        /// What was named.
        name: EntryName,
        /// How many.
        copies: usize,
    },
    /// Another version is to be kept, but it is gone.
    #[error("what {} was a copy of is gone: keep this or both", name.display())]
    Gone {
        /// What was named.
        name: EntryName,
    },
    /// A directory has the plain name.
    #[error("a directory has the name {}: keep both, or rename one", name.display())]
    Directory {
        /// The name.
        name: EntryName,
    },
}

/// The edits that end the conflict of `entry`: it is one of `rivals`' copies, or what they stand beside.
pub(crate) fn draw_up(
    entry: &Entry,
    rivals: &[Rival],
    keep: Kept,
) -> Result<Vec<Edit>, ResolveError> {
    let name = entry.name.clone();
    if let Some(rival) = rivals.iter().find(|rival| rival.copy.key == entry.key) {
        let Rival { copy, .. } = rival;
        return match (keep, &rival.original) {
            (Kept::This, _) => Ok(vec![in_place(rival)?]),
            (Kept::Other, Some(_)) => Ok(vec![removed(copy)]),
            (Kept::Other, None) => Err(ResolveError::Gone { name }),
            (Kept::Both, _) => Ok(vec![kept(copy)]),
        };
    }
    match (keep, rivals) {
        (_, []) => Err(ResolveError::NoConflict { name }),
        (Kept::This, rivals) => Ok(rivals.iter().map(|rival| removed(&rival.copy)).collect()),
        (Kept::Other, [rival]) => Ok(vec![in_place(rival)?]),
        (Kept::Other, rivals) => Err(ResolveError::Several {
            name,
            copies: rivals.len(),
        }),
        (Kept::Both, rivals) => Ok(rivals.iter().map(|rival| kept(&rival.copy)).collect()),
    }
}

/// The copy takes the place of what it stands beside.
fn in_place(rival: &Rival) -> Result<Edit, ResolveError> {
    let Rival {
        copy,
        name,
        original,
    } = rival;
    Ok(match original {
        Some(original) if original.kind == Kind::Directory => {
            return Err(ResolveError::Directory { name: name.clone() });
        }
        Some(original) => Edit::Replace {
            key: copy.key,
            over: original.key,
            base: seen(original),
        },
        None => Edit::Move {
            key: copy.key,
            parent: copy.parent,
            name: name.clone(),
            base: seen(copy),
        },
    })
}

fn removed(copy: &Entry) -> Edit {
    Edit::Remove {
        key: copy.key,
        base: seen(copy),
    }
}

/// Moved to where it is: a user has chosen its name.
fn kept(copy: &Entry) -> Edit {
    Edit::Move {
        key: copy.key,
        parent: copy.parent,
        name: copy.name.clone(),
        base: seen(copy),
    }
}

fn seen(entry: &Entry) -> Option<crate::entry::Version> {
    let EntryKey { version, .. } = entry.key;
    version.is_none().then_some(entry.version)
}
