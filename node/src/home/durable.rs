//! Small private files that are either the old or the new version, never a mixture.
//!
//! Used for keys, records and settings of the home. Big or frequent writes do not belong here:
//! every call waits for the disk twice.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file that only this user can read: a new file, synced, then renamed over the old one.
///
/// # Errors
/// What the system says; the old version is then still there, whole.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = unfinished(path.as_os_str());
    let new = Path::new(&new);
    // One of a crash is of no use: only a whole one is ever renamed.
    match fs::remove_file(new) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(new, path)?;
    match path.parent() {
        Some(dir) => sync_dir(dir),
        None => Ok(()),
    }
}

/// Whether `name` is what [`write_private`] leaves of the file `of` when it is killed half way.
pub(super) fn is_unfinished(name: &OsStr, of: &str) -> bool {
    name == unfinished(OsStr::new(of))
}

fn unfinished(name: &OsStr) -> OsString {
    let mut name = name.to_owned();
    name.push(".new");
    name
}

/// Makes the names in a directory durable.
///
/// # Errors
/// What the system says.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
