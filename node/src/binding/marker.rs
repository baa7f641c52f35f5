//! Reads whose a directory is, and takes away what a folder keeps in it when it is bound no longer.
//!
//! `vfs` makes `.wormhole` with a marker and a place for unfinished files; it does not know when a
//! binding ends, the node does. Several nodes may run on one machine, so a marker is removed only
//! by the node whose binding it names. Links are never followed on the way.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;
use wormhole_crdt::DeviceId;
use wormhole_store::RootId;

pub(super) const CONTROL: &str = ".wormhole";
const MARKER: &str = "folder";
const UNLISTED: &str = ".gitignore";
const NEXT: &str = "folder.new";
const UNFINISHED: &str = "tmp";

/// How the first line of a marker begins; the id of the binding follows.
const TITLE: &str = "wormhole folder ";

/// How the line begins that tells the device.
const DEVICE: &str = "device ";

/// Longer than any marker; more is not read.
const LONGEST_MARKER_BYTES: u64 = 1024;

/// What a directory says about who syncs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// It has no marker.
    Absent,
    /// It has one that names no binding, as a crash can leave it.
    Nameless,
    /// The binding with this id does, of this node or another.
    Of(Owner),
}

/// Whose a marker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The binding.
    pub id: RootId,
    /// The device that bound it, if the marker says so.
    pub device: Option<DeviceId>,
}

/// Whether the directory has the marker of this binding.
pub(crate) fn is_of(dir: &Path, id: &RootId) -> bool {
    matches!(read(dir), Ok(Marker::Of(owner)) if owner.id == *id)
}

/// Reads the marker of a directory. Where there is no directory there is no marker.
///
/// # Errors
/// When the system will not tell.
pub(crate) fn read(dir: &Path) -> Result<Marker, Errno> {
    match open_control(dir) {
        Ok((_, control)) => read_in(&control),
        // A link or a file in the place of the directory: `vfs` will refuse it.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Marker::Absent),
        Err(error) => Err(error),
    }
}

fn read_in(control: &OwnedFd) -> Result<Marker, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(control, MARKER, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(Marker::Absent),
        Err(Errno::LOOP) => return Ok(Marker::Nameless),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    if let Err(error) = file.take(LONGEST_MARKER_BYTES).read_to_end(&mut text) {
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    let text = String::from_utf8_lossy(&text);
    let id = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix(TITLE));
    let device = text.lines().find_map(|line| line.strip_prefix(DEVICE));
    let device = device.and_then(|device| device.parse().ok());
    Ok(match id.map(str::parse) {
        Some(Ok(id)) => Marker::Of(Owner { id, device }),
        Some(Err(_)) | None => Marker::Nameless,
    })
}

/// Removes the marker and unfinished files of the binding `id`, and `.wormhole` itself unless
/// something else is in it. The marker of another binding stays, and all that is beside it.
///
/// What cannot be removed stays, and is logged: the directory is the user's again either way.
pub(crate) fn remove(dir: &Path, id: &RootId) {
    match try_remove(dir, id) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "part of .wormhole stays in an unbound directory");
        }
    }
}

fn try_remove(dir: &Path, id: &RootId) -> Result<(), Errno> {
    let (top, control) = open_control(dir)?;
    match read_in(&control)? {
        Marker::Of(found) if found.id == *id => clear(&control)?,
        Marker::Nameless => clear(&control)?,
        Marker::Of(_) => {
            tracing::info!(dir = %dir.display(), "the directory belongs to another binding by now");
            return Ok(());
        }
        // Whose the rest is cannot be told: only an empty directory goes.
        Marker::Absent => {}
    }
    match rustix::fs::unlinkat(&top, CONTROL, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY) => Ok(()),
        other => other,
    }
}

/// Removes what `vfs` made in the control directory; the marker goes last, so that an attempt that
/// failed half way can be made again.
fn clear(control: &OwnedFd) -> Result<(), Errno> {
    match rustix::fs::openat(control, UNFINISHED, directory(), Mode::empty()) {
        Ok(unfinished) => {
            for file in Dir::read_from(&unfinished)? {
                let file = file?;
                if !matches!(file.file_name().to_bytes(), b"." | b"..") {
                    rustix::fs::unlinkat(&unfinished, file.file_name(), AtFlags::empty())?;
                }
            }
            rustix::fs::unlinkat(control, UNFINISHED, AtFlags::REMOVEDIR)?;
        }
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    for ours in [UNLISTED, NEXT, MARKER] {
        match rustix::fs::unlinkat(control, ours, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The directory and the control directory in it.
fn open_control(dir: &Path) -> Result<(OwnedFd, OwnedFd), Errno> {
    let top = rustix::fs::openat(CWD, dir, directory(), Mode::empty())?;
    let control = rustix::fs::openat(&top, CONTROL, directory(), Mode::empty())?;
    Ok((top, control))
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn id(byte: u8) -> RootId {
        RootId::from_bytes([byte; 16])
    }

    fn of(byte: u8) -> Result<Marker, Errno> {
        let (id, device) = (id(byte), Some(DeviceId::from_bytes([9; 32])));
        Ok(Marker::Of(Owner { id, device }))
    }

    fn marked(by: u8) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".wormhole/tmp")).unwrap();
        let device = DeviceId::from_bytes([9; 32]);
        let text = format!("{TITLE}{}\n{DEVICE}{device}\ntoken 0\n", id(by));
        fs::write(dir.path().join(".wormhole/folder"), text).unwrap();
        fs::write(dir.path().join(".wormhole/.gitignore"), "*\n").unwrap();
        fs::write(dir.path().join(".wormhole/tmp/half"), "").unwrap();
        fs::write(dir.path().join("mine"), "").unwrap();
        dir
    }

    #[test]
    fn nothing_of_ours_stays_and_nothing_else_goes() {
        let dir = marked(1);
        assert_eq!(read(dir.path()), of(1));
        remove(dir.path(), &id(1));
        assert!(!dir.path().join(".wormhole").exists());
        assert!(dir.path().join("mine").exists());
        assert_eq!(read(dir.path()), Ok(Marker::Absent));
        remove(dir.path(), &id(1));
    }

    #[test]
    fn what_another_node_keeps_in_a_directory_stays() {
        let dir = marked(1);
        remove(dir.path(), &id(2));
        assert_eq!(read(dir.path()), of(1));
        assert!(dir.path().join(".wormhole/tmp/half").exists());
        assert!(dir.path().join(".wormhole/.gitignore").exists());
    }

    #[test]
    fn without_a_marker_only_an_empty_control_directory_goes() {
        let dir = marked(1);
        fs::remove_file(dir.path().join(".wormhole/folder")).unwrap();
        remove(dir.path(), &id(1));
        assert!(dir.path().join(".wormhole/tmp/half").exists());
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".wormhole")).unwrap();
        remove(dir.path(), &id(1));
        assert!(!dir.path().join(".wormhole").exists());
    }

    #[test]
    fn a_marker_that_a_crash_left_empty_is_nobodys() {
        let dir = marked(1);
        fs::write(dir.path().join(".wormhole/folder"), "").unwrap();
        assert_eq!(read(dir.path()), Ok(Marker::Nameless));
        remove(dir.path(), &id(2));
        assert!(!dir.path().join(".wormhole").exists());
    }

    #[test]
    fn a_link_in_the_place_of_the_directory_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let other = marked(1);
        std::os::unix::fs::symlink(other.path().join(".wormhole"), dir.path().join(".wormhole"))
            .unwrap();
        assert_eq!(read(dir.path()), Ok(Marker::Absent));
        remove(dir.path(), &id(1));
        assert_eq!(read(other.path()), of(1));
    }
}
