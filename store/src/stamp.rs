//! What the file system says of a file without reading it, by which references and rows of the index notice that it
//! changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// What tells that a file has changed, without reading it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FileStamp {
    /// Device of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time, in nanoseconds since 1970; saturates in the year 2262.
    pub mtime_ns: i64,
    /// Time of the last change of the inode, in nanoseconds since 1970.
    pub ctime_ns: i64,
}

impl FileStamp {
    /// Takes the stamp out of a file's metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let join = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime_ns: join(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: join(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the bytes are likely to be the same, to be confirmed by hash.
    ///
    /// A rename or chmod moves ctime, and some file systems get another device number at each
    /// mount; neither is a reason to hash half a terabyte again.
    pub(crate) fn may_match(&self, seen: &Self) -> bool {
        (self.ino, self.size, self.mtime_ns) == (seen.ino, seen.size, seen.mtime_ns)
    }
}
