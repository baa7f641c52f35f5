//! Names for what was taken out of the tree and is about to be removed: they say what it is believed to be, so that also
//! after a crash nothing is removed that somebody has changed or put there at the last moment.
//!
//! `apply` makes them, in the folder's temporary directory; `start` reads them.

use std::ffi::OsString;

use wormhole_crdt::EntryId;

use super::beneath::Seen;

const PREFIX: &str = "gone-";

/// What a taken file is believed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// What was synced: inode, size and modification time.
    old: (u64, u64, i64),
    /// The inode of our own file that takes its place, or 0. Until the swap it has this name.
    new: u64,
    /// The entry.
    pub(crate) id: EntryId,
}

impl Taken {
    /// `new` is what takes its place.
    pub(crate) fn new(old: &Seen, new: Option<&Seen>, id: EntryId) -> Self {
        Self {
            old: facts(old),
            new: new.map_or(0, |new| new.stamp.ino),
            id,
        }
    }

    pub(crate) fn is_one(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    pub(crate) fn name(&self) -> OsString {
        let ((ino, size, mtime), new, id) = (self.old, self.new, self.id);
        format!("{PREFIX}{id}-{ino}-{size}-{new}-{mtime}").into()
    }

    /// `None` for a name that is none of these.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.splitn(5, '-');
        let id = parts.next()?.parse().ok()?;
        let ino = parts.next()?.parse().ok()?;
        let size = parts.next()?.parse().ok()?;
        let new = parts.next()?.parse().ok()?;
        // Last, because it may be negative.
        let mtime = parts.next()?.parse().ok()?;
        Some(Self {
            old: (ino, size, mtime),
            new,
            id,
        })
    }

    /// What it turned out to be.
    pub(crate) fn judge(&self, found: &Seen) -> Judgement {
        if found.stamp.ino == self.new {
            Judgement::Ours
        } else if facts(found) == self.old {
            Judgement::AsSynced
        } else {
            Judgement::Changed
        }
    }
}

/// What a taken file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Our own file that should have taken its place.
    Ours,
    /// What was synced, unchanged.
    AsSynced,
    /// Somebody changed it, or put another there at the last moment.
    Changed,
}

fn facts(seen: &Seen) -> (u64, u64, i64) {
    (seen.stamp.ino, seen.stamp.size, seen.stamp.mtime_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_be_read_back() {
        for mtime in [-1, 0, i64::MAX, i64::MIN] {
            let taken = Taken {
                old: (u64::MAX, 7, mtime),
                new: 3,
                id: EntryId::from_bytes([0xab; 16]),
            };
            assert_eq!(Taken::parse(taken.name().to_str().unwrap()), Some(taken));
        }
        assert_eq!(Taken::parse("gone-12-x"), None);
    }
}
