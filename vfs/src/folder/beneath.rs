//! Every touch of the user's files, by directory handles beneath the folder.
//!
//! Directories are opened with `openat2(RESOLVE_BENEATH | NO_SYMLINKS | NO_XDEV)`, so the kernel itself refuses to leave
//! the folder, to follow a link or to cross into another file system, even while a local attacker swaps directories
//! for links. Everything else is one name relative to such a handle. Nothing here decides; it only does.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    Advice, AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, StatxFlags, Timespec, Timestamps,
    UTIME_OMIT,
};
use rustix::io::Errno;
use wormhole_crdt::Timestamp;
use wormhole_store::FileStamp;

/// The folder's directory, held open: a path that is moved away or mounted over cannot redirect it.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens the folder. Links in `dir` itself are the user's own choice and are followed.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self {
            fd: rustix::fs::open(dir, flags, Mode::empty())?,
        })
    }

    /// Opens a directory beneath the folder; the empty path is the folder itself.
    pub(crate) fn open_dir(&self, relative: &Path) -> io::Result<OwnedFd> {
        let path = if relative.as_os_str().is_empty() {
            Path::new(".")
        } else {
            relative
        };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        loop {
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                // RESOLVE_BENEATH answers EAGAIN when a rename raced with the walk.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(fd) => return Ok(fd),
            }
        }
    }
}

/// What stands at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: SeenKind,
    pub(crate) stamp: FileStamp,
    /// Birth time in nanoseconds, 0 where the file system has none. With device and inode it names a file for life.
    pub(crate) born_ns: i64,
    /// Permission bits without suid, sgid and sticky.
    pub(crate) mode: u32,
}

impl Seen {
    /// The same with these permissions.
    pub(crate) fn with_mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Modification time as the mesh stores it.
    pub(crate) fn mtime(&self) -> Timestamp {
        Timestamp(self.stamp.mtime_ns)
    }
}

/// Its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeenKind {
    File,
    Directory,
    Symlink,
    /// Socket, pipe or device: never synced.
    Special,
}

/// Looks at one name without following a link. `None` when nothing is there.
pub(crate) fn look(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Seen>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    match rustix::fs::statx(dir, name, flags, mask) {
        Ok(stat) => Ok(Some(seen(&stat))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Looks at an open file or directory.
pub(crate) fn look_at(fd: BorrowedFd<'_>) -> io::Result<Seen> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    Ok(seen(&rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, mask)?))
}

fn seen(stat: &rustix::fs::Statx) -> Seen {
    let nanos = |time: rustix::fs::StatxTimestamp| {
        time.tv_sec
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(time.tv_nsec))
    };
    let mode = u32::from(stat.stx_mode);
    let kind = match rustix::fs::FileType::from_raw_mode(mode) {
        rustix::fs::FileType::RegularFile => SeenKind::File,
        rustix::fs::FileType::Directory => SeenKind::Directory,
        rustix::fs::FileType::Symlink => SeenKind::Symlink,
        _ => SeenKind::Special,
    };
    Seen {
        kind,
        stamp: FileStamp {
            dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            size: stat.stx_size,
            mtime_ns: nanos(stat.stx_mtime),
            ctime_ns: nanos(stat.stx_ctime),
        },
        born_ns: if stat.stx_mask & StatxFlags::BTIME.bits() == 0 {
            0
        } else {
            nanos(stat.stx_btime)
        },
        mode: mode & 0o777,
    }
}

/// How many names an open file has.
pub(crate) fn links(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(u64::from(
        rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::NLINK)?.stx_nlink,
    ))
}

/// Whether an open directory was removed.
pub(crate) fn is_unlinked(dir: BorrowedFd<'_>) -> bool {
    links(dir).is_ok_and(|links| links == 0)
}

/// Calls `visit` with every name in the directory, in the order of the disk. `false` stops.
pub(crate) fn list(dir: BorrowedFd<'_>, visit: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            visit(OsStr::from_bytes(name));
        }
    }
    Ok(())
}

/// Reads a link's target, as bytes.
pub(crate) fn read_link(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// Opens a file for reading, not through a link.
pub(crate) fn open_file(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?.into())
}

/// Opens a file for reading and writing, making it if it is not there. Private until it is finished.
pub(crate) fn open_partial(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?.into())
}

/// Opens an open file once more, for writing past the page cache. Not every file system can.
pub(crate) fn reopen_direct(file: BorrowedFd<'_>) -> io::Result<File> {
    // By its number and not by its name: nobody can put another file there meanwhile.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Makes a directory; it is fine if it is there already.
pub(crate) fn make_dir(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    make_dir_with(dir, name, 0o777)
}

/// Who may look into a new directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Whoever the umask lets.
    Umask,
    /// Its owner.
    Owner,
}

fn make_dir_for(dir: BorrowedFd<'_>, name: &OsStr, audience: Audience) -> io::Result<()> {
    let mode = match audience {
        Audience::Umask => 0o777,
        Audience::Owner => 0o700,
    };
    make_dir_with(dir, name, mode)
}

/// Makes a directory with these permissions, less the umask; it is fine if it is there already.
pub(crate) fn make_dir_with(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode & 0o777)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory beneath the folder, making it and those above it where they are not there.
pub(crate) fn make_dirs(root: &Root, path: &Path, audience: Audience) -> io::Result<OwnedFd> {
    match root.open_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let mut dir = root.open_dir(Path::new(""))?;
    let mut upto = PathBuf::new();
    for name in path {
        make_dir_for(dir.as_fd(), name, audience)?;
        upto.push(name);
        dir = root.open_dir(&upto)?;
    }
    Ok(dir)
}

/// Room on a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

impl Space {
    /// So little is free that nothing must be kept that is not wanted.
    pub(crate) fn is_short(self) -> bool {
        self.free < (self.total / 10).min(2 << 30)
    }
}

/// How much room the folder's disk has.
pub(crate) fn space(root: &Root) -> io::Result<Space> {
    let stat = rustix::fs::fstatvfs(&root.fd)?;
    Ok(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// Makes a link.
pub(crate) fn make_link(dir: BorrowedFd<'_>, name: &OsStr, target: &str) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(target, dir, name)?)
}

/// Moves `from` to `to`, which must be free: [`io::ErrorKind::AlreadyExists`] if it is not.
pub(crate) fn rename_new(
    from: (BorrowedFd<'_>, &OsStr),
    to: (BorrowedFd<'_>, &OsStr),
) -> io::Result<()> {
    match rustix::fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        // Some file systems (NFS, some FUSE) know no flags: look, then rename. The gap is theirs.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if look(to.0, to.1)?.is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok(rustix::fs::renameat(from.0, from.1, to.0, to.1)?)
        }
        other => Ok(other?),
    }
}

/// What [`exchange`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchanged {
    /// The two names changed places in one step.
    Swapped,
    /// The file system cannot swap; nothing was done.
    Unsupported,
}

/// Swaps two names in one step, so that what was replaced can be looked at afterwards.
pub(crate) fn exchange(
    one: (BorrowedFd<'_>, &OsStr),
    other: (BorrowedFd<'_>, &OsStr),
) -> io::Result<Exchanged> {
    match rustix::fs::renameat_with(one.0, one.1, other.0, other.1, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(Exchanged::Swapped),
        Err(Errno::INVAL | Errno::NOSYS) => Ok(Exchanged::Unsupported),
        Err(error) => Err(error.into()),
    }
}

/// Moves `from` over `to`, whatever is there.
pub(crate) fn rename_over(
    from: (BorrowedFd<'_>, &OsStr),
    to: (BorrowedFd<'_>, &OsStr),
) -> io::Result<()> {
    Ok(rustix::fs::renameat(from.0, from.1, to.0, to.1)?)
}

/// Removes a file or link; it is fine if it is gone.
pub(crate) fn remove_file(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes an empty directory.
pub(crate) fn remove_dir(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Sets the modification time, leaving the access time alone.
pub(crate) fn set_mtime(file: BorrowedFd<'_>, mtime: Timestamp) -> io::Result<()> {
    let nanos = mtime.0.rem_euclid(1_000_000_000);
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.0.div_euclid(1_000_000_000),
            tv_nsec: nanos,
        },
    };
    Ok(rustix::fs::futimens(file, &times)?)
}

/// Sets the permission bits. Never suid, sgid or sticky: `mode` is cut to the nine ordinary bits.
pub(crate) fn set_mode(file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o777))?)
}

/// Sets the permission bits of a file that this program has made. It may have what others have: a refusal tells that
/// the file system keeps none.
pub(crate) fn set_own_mode(file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    match rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o777)) {
        Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the file system of this directory keeps permissions, as FAT and some others do not: found out by trying.
pub(crate) fn keeps_modes(tmp: BorrowedFd<'_>) -> bool {
    let name = OsStr::new("permissions");
    let tried = || -> io::Result<bool> {
        let file = open_partial(tmp, name)?;
        let mut kept = true;
        for mode in [0o600, 0o640] {
            set_own_mode(file.as_fd(), mode)?;
            kept &= look_at(file.as_fd())?.mode == mode;
        }
        remove_file(tmp, name)?;
        Ok(kept)
    };
    // What cannot be tried is not changed either.
    tried().unwrap_or(true)
}

/// Sets the permission bits of a directory. What gives what is made in it its group stays.
pub(crate) fn set_dir_mode(dir: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    let special = rustix::fs::fstat(dir)?.st_mode & 0o7000;
    let mode = Mode::from_raw_mode(special | (mode & 0o777));
    Ok(rustix::fs::fchmod(dir, mode)?)
}

/// Lets the disk begin to write what is in memory of this range, without waiting for it. It is only a matter of speed.
pub(crate) fn start_write_back(file: BorrowedFd<'_>, range: Range<u64>) {
    // Linux starts writing dirty pages that it is told not to keep. Those already written leave the memory.
    let len = NonZeroU64::new(range.end.saturating_sub(range.start));
    if let Err(error) = rustix::fs::fadvise(file, range.start, len, Advice::DontNeed) {
        tracing::trace!(%error, "the file system takes no advice");
    }
}

/// Makes everything written to this file system so far durable.
pub(crate) fn sync_file_system(dir: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::syncfs(dir)?)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(dir.as_fd())?)
}

/// The bits that a file gets whose permissions in the mesh are these: what the user lets nobody do here, nobody may do.
/// Its owner can always read it, or this program could not.
pub(crate) fn file_mode(mode: wormhole_crdt::Mode) -> u32 {
    (mode.bits() & !process_umask()) | 0o400
}

/// The same of a directory, which its owner can always list, enter and change.
pub(crate) fn dir_mode(mode: wormhole_crdt::Mode) -> u32 {
    (mode.bits() & !process_umask()) | 0o700
}

/// The umask, read once from the kernel's own account of this process: `umask(2)` could only set it.
fn process_umask() -> u32 {
    static UMASK: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok())
            .unwrap_or(0o022)
    })
}
