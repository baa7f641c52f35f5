//! Opens a referenced file without ever leaving its root.
//!
//! No component below the root may be a symbolic link: a folder's files can be replaced by anyone
//! who may write there, and what we serve must be inside. `openat2` does it in one call; where the
//! kernel has none, each component is opened by itself. Called by `import` and `reader`.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open, openat};

/// `NONBLOCK`: a pipe in place of a file must not hang us; it has no effect on files.
const FILE_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);
const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Why a file below a root did not open.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The root itself cannot be opened, or is empty as a mount point without its disk is: what
    /// is said to be below may well come back.
    Root(io::Error),
    /// The file is not there, or the way to it leads over a link or a file.
    Gone(io::Error),
    /// It is there, but the system does not open it.
    Io(io::Error),
}

impl Refused {
    /// The system's words.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Root(error) | Self::Gone(error) | Self::Io(error) => error,
        }
    }
}

/// Opens `path` (plain components only) below `root` for reading.
pub(crate) fn open_below(root: &Path, path: &Path) -> Result<File, Refused> {
    use rustix::io::Errno;
    let directory = open(
        root,
        OFlags::DIRECTORY | OFlags::CLOEXEC | ROOT_ACCESS,
        Mode::empty(),
    )
    .map_err(|error| Refused::Root(error.into()))?;
    match open_plain(&directory, path) {
        Ok(file) => Ok(file.into()),
        Err(error @ Errno::NOENT) if is_bare(root) => Err(Refused::Root(error.into())),
        Err(error @ (Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV)) => {
            Err(Refused::Gone(error.into()))
        }
        Err(error) => Err(Refused::Io(error.into())),
    }
}

fn is_bare(root: &Path) -> bool {
    std::fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_none())
}

/// The root is only a place to start from: on Linux no right to list it is needed.
#[cfg(target_os = "linux")]
const ROOT_ACCESS: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const ROOT_ACCESS: OFlags = OFlags::RDONLY;

#[cfg(target_os = "linux")]
fn open_plain(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{ResolveFlags, openat2};
    use rustix::io::Errno;

    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, FILE_FLAGS, Mode::empty(), resolve) {
        // Old kernels and some sandboxes have no openat2; AGAIN means that somebody renamed on the
        // way, which opening step by step does not mind.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => open_stepwise(root, path),
        outcome => outcome,
    }
}

#[cfg(not(target_os = "linux"))]
use self::open_stepwise as open_plain;

fn open_stepwise(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let mut components = path.components();
    let Some(last) = components.next_back() else {
        return Err(rustix::io::Errno::INVAL);
    };
    let mut at = openat(root, ".", DIRECTORY_FLAGS, Mode::empty())?;
    for component in components {
        let flags = DIRECTORY_FLAGS | OFlags::NOFOLLOW;
        at = openat(&at, component.as_os_str(), flags, Mode::empty())?;
    }
    openat(&at, last.as_os_str(), FILE_FLAGS, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn stepwise(root: &Path, path: &str) -> rustix::io::Result<OwnedFd> {
        let root = open(root, DIRECTORY_FLAGS, Mode::empty())?;
        open_stepwise(&root, Path::new(path))
    }

    #[test]
    fn links_on_the_way_and_at_the_end_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "inside").unwrap();
        fs::write(home.path().join("secret"), "outside").unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("a", root.join("way")).unwrap();
        symlink(home.path(), root.join("up")).unwrap();

        assert!(open_below(&root, Path::new("a/b/file")).is_ok());
        assert!(stepwise(&root, "a/b/file").is_ok());
        for path in ["out", "way/b/file", "up/secret"] {
            assert!(
                matches!(open_below(&root, Path::new(path)), Err(Refused::Gone(_))),
                "{path}"
            );
            assert!(stepwise(&root, path).is_err(), "{path}");
        }
        assert!(open_below(&root, Path::new("../secret")).is_err());
    }

    #[test]
    fn a_missing_file_is_gone_but_a_missing_root_may_come_back() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        let open = || open_below(&root, Path::new("file"));
        assert!(matches!(open(), Err(Refused::Root(_))), "no root");
        fs::create_dir(&root).unwrap();
        assert!(
            matches!(open(), Err(Refused::Root(_))),
            "a mount point without its disk"
        );
        fs::write(root.join("other"), "").unwrap();
        assert!(matches!(open(), Err(Refused::Gone(_))));
    }

    #[test]
    fn a_pipe_in_place_of_a_file_does_not_hang() {
        let home = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(home.path().join("pipe"))
            .status();
        assert!(made.unwrap().success());
        assert!(open_below(home.path(), Path::new("pipe")).is_ok());
    }
}
