//! The marker `.wormhole/folder` tells a mounted, intact folder from an empty mount point. Without it the folder stops:
//! everything would look deleted. Beside it a `.gitignore` keeps all of `.wormhole` out of a repository around it.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use wormhole_store::RootId;

use super::beneath::{self, Root};
use super::name;
use super::status::StopReason;

/// Longer than any marker; more is not read.
const MAX_MARKER_BYTES: u64 = 256;

/// Makes the control directory and, for a new binding, the marker.
pub(crate) fn create(root: &Root, id: &RootId) -> io::Result<()> {
    let top = root.open_dir(Path::new(""))?;
    beneath::make_dir(top.as_fd(), OsStr::new(name::CONTROL))?;
    let control = root.open_dir(Path::new(name::CONTROL))?;
    let mut file = beneath::open_partial(control.as_fd(), OsStr::new(name::MARKER))?;
    file.write_all(text(id).as_bytes())?;
    file.sync_all()?;
    let mut unlisted = beneath::open_partial(control.as_fd(), OsStr::new(name::UNLISTED))?;
    unlisted.set_len(0)?;
    unlisted.write_all(b"*\n")?;
    beneath::sync_dir(&control)
}

/// Whether this is the folder it was.
pub(crate) fn check(root: &Root, id: &RootId) -> io::Result<Result<(), StopReason>> {
    let read = || -> io::Result<String> {
        let control = root.open_dir(Path::new(name::CONTROL))?;
        let file = beneath::open_file(control.as_fd(), OsStr::new(name::MARKER))?;
        let mut found = String::new();
        file.take(MAX_MARKER_BYTES).read_to_string(&mut found)?;
        Ok(found)
    };
    match read() {
        Ok(found) if found == text(id) => Ok(Ok(())),
        Ok(_other) => Ok(Err(StopReason::MarkerForeign)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Err(StopReason::MarkerGone)),
        Err(error) => Err(error),
    }
}

fn text(id: &RootId) -> String {
    format!("wormhole folder {id}\nDo not delete: without this file the folder stops syncing.\n")
}
