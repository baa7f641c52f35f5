//! Takes away what a folder keeps in its directory, when the directory is bound no longer.
//!
//! `vfs` makes `.wormhole` with a marker and a place for unfinished files; it does not know when a
//! binding ends, the node does. Links are never followed on the way.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

const CONTROL: &str = ".wormhole";
const MARKER: &str = "folder";
const UNLISTED: &str = ".gitignore";
const UNFINISHED: &str = "tmp";

/// Removes the marker and unfinished files, and `.wormhole` itself unless something else is in it.
/// What cannot be removed stays, and is logged: the directory is the user's again either way.
pub(crate) fn remove(dir: &Path) {
    match try_remove(dir) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "part of .wormhole stays in an unbound directory");
        }
    }
}

fn try_remove(dir: &Path) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, dir, flags, Mode::empty())?;
    let control = rustix::fs::openat(&top, CONTROL, flags, Mode::empty())?;
    for ours in [MARKER, UNLISTED] {
        absent_is_fine(rustix::fs::unlinkat(&control, ours, AtFlags::empty()))?;
    }
    match rustix::fs::openat(&control, UNFINISHED, flags, Mode::empty()) {
        Ok(unfinished) => {
            for file in Dir::read_from(&unfinished)? {
                let file = file?;
                if !matches!(file.file_name().to_bytes(), b"." | b"..") {
                    rustix::fs::unlinkat(&unfinished, file.file_name(), AtFlags::empty())?;
                }
            }
            rustix::fs::unlinkat(&control, UNFINISHED, AtFlags::REMOVEDIR)?;
        }
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    match rustix::fs::unlinkat(&top, CONTROL, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY) => Ok(()),
        other => other,
    }
}

fn absent_is_fine(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn nothing_of_ours_stays_and_nothing_else_goes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".wormhole/tmp")).unwrap();
        fs::write(dir.path().join(".wormhole/folder"), "").unwrap();
        fs::write(dir.path().join(".wormhole/.gitignore"), "").unwrap();
        fs::write(dir.path().join(".wormhole/tmp/half"), "").unwrap();
        fs::write(dir.path().join("mine"), "").unwrap();
        remove(dir.path());
        assert!(!dir.path().join(".wormhole").exists());
        assert!(dir.path().join("mine").exists());
        remove(dir.path());
    }

    #[test]
    fn a_link_in_the_place_of_the_directory_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("folder"), "precious").unwrap();
        std::os::unix::fs::symlink(other.path(), dir.path().join(".wormhole")).unwrap();
        remove(dir.path());
        assert!(other.path().join("folder").exists());
    }
}
