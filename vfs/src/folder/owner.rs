//! Whose a file is that came from elsewhere: what the mesh does not know of it, the disk keeps.
//!
//! A file that replaces another takes over its owner, group, access list and `user.*` attributes, as far as the system
//! permits. A new one is as if it had been written in its directory: with the group of a set-group-id directory and the
//! access list that the directory gives. Capabilities and labels (`security.*`, `trusted.*`), set-user-id, set-group-id
//! and sticky bits were given to other bytes: they are never taken over.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

/// The access list, and the one that a directory gives to what is made in it.
const ACCESS: &CStr = c"system.posix_acl_access";
const DEFAULT: &CStr = c"system.posix_acl_default";
/// The kernel's own limits of one value and of a list of names.
const MAX_VALUE: usize = 64 << 10;
const SET_GROUP_ID: u32 = 0o2000;

/// Gives a file what the old one under its name had.
pub(crate) fn take_over(made: BorrowedFd<'_>, old: BorrowedFd<'_>) -> io::Result<()> {
    let (is, was) = (rustix::fs::fstat(made)?, rustix::fs::fstat(old)?);
    let uid = (is.st_uid != was.st_uid).then(|| Uid::from_raw(was.st_uid));
    let gid = (is.st_gid != was.st_gid).then(|| Gid::from_raw(was.st_gid));
    if uid.is_some() || gid.is_some() {
        match rustix::fs::fchown(made, uid, gid) {
            // Nobody but root gives files away; a group of one's own can be given.
            Err(Errno::PERM) if uid.is_some() && gid.is_some() => {
                allowed(rustix::fs::fchown(made, None, gid))?;
            }
            other => allowed(other)?,
        }
    }
    for name in names(old)? {
        if name.as_c_str() == ACCESS || name.to_bytes().starts_with(b"user.") {
            copy(old, made, &name)?;
        }
    }
    Ok(())
}

/// Gives a new file what one gets that is written in this directory. Answers its permissions, if the directory has a say.
pub(crate) fn as_written_in(
    made: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    mode: u32,
) -> io::Result<Option<u32>> {
    let stat = rustix::fs::fstat(dir)?;
    let gives_group = stat.st_mode & SET_GROUP_ID != 0;
    if !gives_group && value(dir, DEFAULT)?.is_none() {
        return Ok(None);
    }
    // The kernel knows best what such a file is like.
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let Ok(sample) = rustix::fs::openat(dir, c".", flags, Mode::from_raw_mode(mode)) else {
        // Not every disk makes files without a name.
        if gives_group {
            allowed(rustix::fs::fchown(
                made,
                None,
                Some(Gid::from_raw(stat.st_gid)),
            ))?;
        }
        return Ok(None);
    };
    like(made, &sample).map(Some)
}

fn like(made: BorrowedFd<'_>, sample: &OwnedFd) -> io::Result<u32> {
    let (is, wanted) = (rustix::fs::fstat(made)?, rustix::fs::fstat(sample)?);
    if is.st_gid != wanted.st_gid {
        allowed(rustix::fs::fchown(
            made,
            None,
            Some(Gid::from_raw(wanted.st_gid)),
        ))?;
    }
    copy(sample.as_fd(), made, ACCESS)?;
    Ok(wanted.st_mode & 0o777)
}

fn names(file: BorrowedFd<'_>) -> io::Result<Vec<std::ffi::CString>> {
    let mut list = Vec::with_capacity(MAX_VALUE);
    match rustix::fs::flistxattr(file, spare_capacity(&mut list)) {
        Ok(_) => {}
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let names = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names
        .filter_map(|name| std::ffi::CString::new(name).ok())
        .collect())
}

/// `None` where there is none, or none can be.
fn value(file: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(MAX_VALUE);
    match rustix::fs::fgetxattr(file, name, spare_capacity(&mut value)) {
        Ok(_) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS | Errno::ACCESS | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let Some(value) = value(from, name)? else {
        return Ok(());
    };
    allowed(rustix::fs::fsetxattr(to, name, &value, XattrFlags::empty())).inspect_err(|error| {
        tracing::warn!(?name, %error, "cannot take over an attribute of a file");
    })
}

/// What the system does not permit is left as it is.
fn allowed(done: rustix::io::Result<()>) -> io::Result<()> {
    match done {
        Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
