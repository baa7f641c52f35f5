//! Room on a disk: whether databases that are kept there can be opened and written.
//!
//! A database that cannot write fails as a whole. It is opened again only where it has a fair chance,
//! so that it does not fail at the next change. Asked by `node/reopen`.

use std::io;
use std::path::Path;

use rustix::fs::statvfs;

/// Free space that a database should find, and the part of a small disk that will do. Less than what
/// packs of chunks leave free, so that these alone never keep a database closed.
const WANTED: u64 = 16 << 20;
const WANTED_PART: u64 = 32;

/// How many bytes must be freed on the disk of `dir` before its databases can go on; 0 if none.
///
/// # Errors
/// The disk could not be asked.
pub(crate) fn shortage(dir: &Path) -> io::Result<u64> {
    let disk = statvfs(dir)?;
    let wanted = (disk.f_blocks.saturating_mul(disk.f_frsize) / WANTED_PART).min(WANTED);
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    Ok(wanted.saturating_sub(free))
}
