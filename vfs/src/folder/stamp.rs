//! When may a stamp be believed? Reading every file again is too dear, so size, times and inode stand for its bytes. Here
//! is the whole of the rule:
//!
//! 1. An equal stamp means equal bytes, unless the stamp is *racy*: made so shortly before the bytes were read that a write
//!    right after them could have left the same one. How shortly depends on the disk: its clock may tick once in two
//!    seconds ([`is_racy`]).
//! 2. A stamp is believed only where the kernel did not say otherwise: who closes a file after writing may have written
//!    through a mapping, which moves no time. A file that was closed is read again, whatever its stamp says, and so is one
//!    whose bytes the store found to be others than recorded.
//! 3. A rename moves the time of the inode, so after it only size and modification time are left, and whoever edits in place
//!    can put those back. The rename is believed and told at once ([`same_inode`]); the bytes are read again when there is
//!    time, and until then the row counts as racy.
//! 4. Whatever is not believed is read before anything from elsewhere replaces or removes it ([`unchanged`]).
//!
//! Pure: what was seen goes in.

use std::ops::RangeInclusive;

use wormhole_store::FileStamp;

use super::beneath::{Seen, SeenKind};
use super::state::Row;

/// A stamp this close to the moment of reading may hide a later write: clocks of file systems tick this slowly.
const FINE_NS: i64 = 20_000_000;
/// The same where stamps have whole seconds only: FAT has even ones.
const COARSE_NS: i64 = 2_000_000_000 + FINE_NS;
const SECOND_NS: i64 = 1_000_000_000;

/// Whether what is seen is certainly what the row remembers.
pub(crate) fn unchanged(row: &Row, seen: &Seen) -> bool {
    match seen.kind {
        // A directory's own times move with every name in it.
        SeenKind::Directory => {
            row.node.is_directory() && same_inode(&row.seen, seen) && row.seen.mode == seen.mode
        }
        SeenKind::File | SeenKind::Symlink => !row.racy && same_stamp(&row.seen, seen),
        SeenKind::Special => false,
    }
}

/// Whether a file was not touched at all. The device's number is the kernel's own affair: some disks get another at each
/// start.
pub(crate) fn same_stamp(one: &Seen, other: &Seen) -> bool {
    let dev = one.stamp.dev;
    let stamp = FileStamp { dev, ..other.stamp };
    *one == Seen { stamp, ..*other }
}

/// Whether two sights are of one file or directory, wherever its name is. Inode numbers are used again after a deletion;
/// the birth time tells, or for files on a disk without one, size and modification time.
pub(crate) fn same_inode(one: &Seen, other: &Seen) -> bool {
    let numbers = |seen: &Seen| (seen.kind, seen.stamp.ino, seen.born_ns);
    numbers(one) == numbers(other)
        && (one.born_ns != 0 || one.kind == SeenKind::Directory || same_data(one, other))
}

/// Whether a file that was only renamed (which moves its ctime) has the same content, as far as stamps tell.
pub(crate) fn same_data(one: &Seen, other: &Seen) -> bool {
    let data = |seen: &Seen| (seen.stamp.ino, seen.stamp.size, seen.stamp.mtime_ns);
    data(one) == data(other)
}

/// Whether a write right after the file was looked at could leave it with the same stamp. A stamp of a time to come, as after
/// a clock that was put back, tells as well as one of the past: the next write has another.
pub(crate) fn is_racy(stamp: &FileStamp, at_ns: i64) -> bool {
    let near = near(stamp, at_ns);
    near.contains(&stamp.mtime_ns) || near.contains(&stamp.ctime_ns)
}

/// The same for a file whose modification time was set to what it is: a later write leaves a later one, unless that is
/// within the same tick.
pub(crate) fn is_racy_when_set(stamp: &FileStamp, at_ns: i64) -> bool {
    near(stamp, at_ns).contains(&stamp.mtime_ns)
}

fn near(stamp: &FileStamp, at_ns: i64) -> RangeInclusive<i64> {
    // The kernel alone sets the ctime, so it shows how finely the disk keeps time.
    let coarse = stamp.ctime_ns % SECOND_NS == 0;
    let tick = if coarse { COARSE_NS } else { FINE_NS };
    at_ns.saturating_sub(tick)..=at_ns.saturating_add(tick)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_000_000 * SECOND_NS;

    fn stamp(mtime_ns: i64, ctime_ns: i64) -> FileStamp {
        FileStamp {
            dev: 1,
            ino: 2,
            size: 3,
            mtime_ns,
            ctime_ns,
        }
    }

    #[test]
    fn a_stamp_is_doubted_for_as_long_as_the_disks_clock_may_stand_still() {
        let after = |ms: i64| NOON + 7 + ms * 1_000_000;
        let fine = stamp(NOON + 7, NOON + 7);
        assert!(is_racy(&fine, after(19)));
        assert!(!is_racy(&fine, after(21)));
        let coarse = stamp(NOON, NOON);
        assert!(is_racy(&coarse, after(1_999)));
        assert!(!is_racy(&coarse, after(2_021)));
    }

    #[test]
    fn a_whole_second_that_a_program_chose_says_nothing_about_the_disk() {
        let copied = stamp(NOON, NOON + 500_000_003);
        assert!(!is_racy(&copied, NOON + 600_000_000));
    }
}
