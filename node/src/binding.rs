//! Which directories may be bound, and why others may not.
//!
//! [`check`] is a pure function over what [`Surroundings::look`] saw, so that every rule is tested
//! without a disk. Binding the same files twice, or a home inside a folder, would sync a node's own
//! databases to everybody; a folder through a symbolic link would change its meaning behind the
//! node's back.

pub(crate) mod marker;
pub(crate) mod name;
mod nested;
mod system;

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags};

pub use marker::{Marker, Owner};
use wormhole_crdt::DeviceId;
use wormhole_store::RootId;

/// A directory that is bound already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundDir {
    /// The binding.
    pub id: RootId,
    /// Where it is, or was when it was last seen.
    pub dir: PathBuf,
}

/// Who asks, and what is known without looking at the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// This device.
    pub device: DeviceId,
    /// The node's home.
    pub home: PathBuf,
    /// The directory of the chunks, when it is not in the home.
    pub cache: Option<PathBuf>,
    /// The directories that are bound already.
    pub bound: Vec<BoundDir>,
}

/// What must be known about a directory before it is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// The directory, absolute, its parent without symbolic links.
    pub dir: PathBuf,
    /// What is there now.
    pub found: Found,
    /// Whose it is, by the marker of a synced folder.
    pub marker: Marker,
    /// The synced folder that it is inside of, or that is inside of it, as far as markers tell.
    pub nested: Option<Nested>,
    /// Who asks.
    pub asker: Asker,
    /// Where its marker says that it was bound, when that directory is not there any more.
    pub moved_from: Option<PathBuf>,
    /// The mounts of Wormhole, of this node or another.
    pub mounts: Vec<PathBuf>,
    /// What the directory shows when it holds no files of anybody, but something of the system.
    pub system: Option<&'static str>,
}

/// A synced folder that overlaps a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nested {
    /// The directory is inside of it.
    In(PathBuf),
    /// It is inside of the directory.
    Around(PathBuf),
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing, and its parent is a directory that can be written.
    Nothing,
    /// Nothing, and its parent is not there either.
    NoParent,
    /// An empty directory.
    Empty,
    /// A directory that holds something.
    Filled,
    /// A file or something else.
    NoDirectory,
    /// A symbolic link.
    Symlink,
    /// A directory (or parent) in which this user may not write.
    NotWritable,
}

/// Whether a directory that holds something may be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// The user named the directory: what is in it is merged.
    Welcome,
    /// The program chose the directory: it must be empty or absent.
    Unwelcome,
}

/// Why a directory cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// The path does not start at the root.
    #[error("{dir} is not an absolute path")]
    Relative {
        /// The path.
        dir: PathBuf,
    },
    /// The path is not valid UTF-8, so it could not be shown or written down.
    #[error("{dir} is not valid UTF-8: rename the directory")]
    NotUtf8 {
        /// The path.
        dir: PathBuf,
    },
    /// The root of the file system.
    #[error("{dir} is the whole file system: choose a directory in it")]
    Root {
        /// The path.
        dir: PathBuf,
    },
    /// Its parent does not exist.
    #[error("{dir} does not exist, nor does the directory it would be in")]
    NoParent {
        /// The path.
        dir: PathBuf,
    },
    /// It is not a directory.
    #[error("{dir} is not a directory")]
    NotADirectory {
        /// The path.
        dir: PathBuf,
    },
    /// It is a symbolic link.
    #[error("{dir} is a symbolic link: name the directory that it points to")]
    Symlink {
        /// The path.
        dir: PathBuf,
    },
    /// This user may not write there.
    #[error("{dir} is not writable for this user: change its permissions or choose another one")]
    NotWritable {
        /// The path.
        dir: PathBuf,
    },
    /// Inside the home, or around it.
    #[error("{dir} and the home of this node, {home}, overlap: choose another directory")]
    Home {
        /// The path.
        dir: PathBuf,
        /// The home, or the directory of the chunks.
        home: PathBuf,
    },
    /// Bound already, or inside or around one that is.
    #[error(
        "{dir} overlaps {bound}, which is synced already: choose another directory, or unbind that one first"
    )]
    Taken {
        /// The path.
        dir: PathBuf,
        /// The directory that is bound.
        bound: PathBuf,
    },
    /// On, in or over a mount of Wormhole.
    #[error("{dir} overlaps {mount}, where a mesh is mounted: choose another directory")]
    Mount {
        /// The path.
        dir: PathBuf,
        /// The mount.
        mount: PathBuf,
    },
    /// It holds no files of anybody.
    #[error("{dir} shows {kind} and holds no files to keep: choose another directory")]
    System {
        /// The path.
        dir: PathBuf,
        /// What it shows.
        kind: &'static str,
    },
    /// It has the marker of a synced folder, and this node syncs no such folder.
    #[error(
        "{dir} has the marker of a synced folder: another node of this machine syncs it, or it was left by a home that is gone; in that case remove {dir}/.wormhole/folder and try again"
    )]
    Marked {
        /// The path.
        dir: PathBuf,
    },
    /// It is in a synced folder, by the marker of that.
    #[error(
        "{dir} is inside {outer}, which has the marker of a synced folder: choose another directory; if nothing syncs that one any more, remove {outer}/.wormhole/folder and try again"
    )]
    Inside {
        /// The path.
        dir: PathBuf,
        /// The synced folder.
        outer: PathBuf,
    },
    /// A synced folder is in it, by the marker of that.
    #[error(
        "{inner}, inside {dir}, has the marker of a synced folder: choose another directory; if nothing syncs that one any more, remove {inner}/.wormhole/folder and try again"
    )]
    Surrounds {
        /// The path.
        dir: PathBuf,
        /// The synced folder.
        inner: PathBuf,
    },
    /// It is a synced folder of this node that was moved here.
    #[error("{dir} is the synced folder that was {from}: wormhole move {from} {dir}")]
    Moved {
        /// The path.
        dir: PathBuf,
        /// Where it was.
        from: PathBuf,
    },
    /// The program would choose it, by a name that others gave.
    #[error("{name:?} is not taken as the name of a directory by itself: name a directory")]
    Name {
        /// The name, safe to print.
        name: String,
    },
    /// The program chose it and there is something in it.
    #[error("{dir} exists and is not empty: name a directory to sync into")]
    NotEmpty {
        /// The path.
        dir: PathBuf,
    },
    /// The system would not tell.
    #[error("cannot look at {dir} ({kind})")]
    Unreadable {
        /// The path.
        dir: PathBuf,
        /// What the system said.
        kind: io::ErrorKind,
    },
}

/// Decides whether the directory may be bound.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(around: &Surroundings, contents: Contents) -> Result<(), BindingError> {
    let dir = around.dir.clone();
    if !dir.is_absolute() {
        return Err(BindingError::Relative { dir });
    }
    if dir.to_str().is_none() {
        return Err(BindingError::NotUtf8 { dir });
    }
    if dir.parent().is_none() {
        return Err(BindingError::Root { dir });
    }
    if let Some(kind) = around.system {
        return Err(BindingError::System { dir, kind });
    }
    let asker = &around.asker;
    let homes = std::iter::once(&asker.home).chain(&asker.cache);
    if let Some(home) = homes.into_iter().find(|home| overlap(&dir, home)) {
        return Err(BindingError::Home {
            dir,
            home: home.clone(),
        });
    }
    if let Some(bound) = asker.bound.iter().find(|bound| overlap(&dir, &bound.dir)) {
        return Err(BindingError::Taken {
            dir,
            bound: bound.dir.clone(),
        });
    }
    if let Some(mount) = around.mounts.iter().find(|mount| overlap(&dir, mount)) {
        return Err(BindingError::Mount {
            dir,
            mount: mount.clone(),
        });
    }
    if let Some(from) = around.moved_from.clone() {
        return Err(BindingError::Moved { dir, from });
    }
    match around.marker {
        Marker::Absent => {}
        // Left by a binding that is no more, or copied with everything else: files like any others.
        Marker::Of(owner) if owner.device == Some(asker.device) => {}
        Marker::Nameless | Marker::Of(_) => return Err(BindingError::Marked { dir }),
    }
    match around.nested.clone() {
        Some(Nested::In(outer)) => return Err(BindingError::Inside { dir, outer }),
        Some(Nested::Around(inner)) => return Err(BindingError::Surrounds { dir, inner }),
        None => {}
    }
    match (around.found, contents) {
        (Found::NoParent, _) => Err(BindingError::NoParent { dir }),
        (Found::NoDirectory, _) => Err(BindingError::NotADirectory { dir }),
        (Found::Symlink, _) => Err(BindingError::Symlink { dir }),
        (Found::NotWritable, _) => Err(BindingError::NotWritable { dir }),
        (Found::Filled, Contents::Unwelcome) => Err(BindingError::NotEmpty { dir }),
        (Found::Filled, Contents::Welcome) | (Found::Nothing | Found::Empty, _) => Ok(()),
    }
}

/// Whether one is the other, or inside it.
fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

impl Surroundings {
    /// Looks at the disk; binds nothing and makes nothing. Blocks for a few system calls.
    ///
    /// # Errors
    /// [`BindingError::Relative`], [`BindingError::Root`], or [`BindingError::Unreadable`] when the
    /// system will not tell what is there.
    pub fn look(dir: &Path, asker: Asker) -> Result<Self, BindingError> {
        let unreadable = |error: &io::Error| BindingError::Unreadable {
            dir: dir.to_owned(),
            kind: error.kind(),
        };
        let dir = real_place(dir)?;
        let found = find(&dir).map_err(|error| unreadable(&error))?;
        let system = system::shown_in(&dir).map_err(|error| unreadable(&error.into()))?;
        let marker = marker::read(&dir).map_err(|error| unreadable(&error.into()))?;
        let moved_from = asker.moved_from(&marker);
        Ok(Self {
            nested: nested::find(&dir, &asker),
            dir,
            found,
            marker,
            asker,
            moved_from,
            mounts: our_mounts().map_err(|error| unreadable(&error))?,
            system,
        })
    }
}

impl Asker {
    /// Whether a marker is of somebody's folder: of another device, or of a binding that this one has.
    fn is_in_use(&self, marker: &Marker) -> bool {
        match marker {
            Marker::Absent => false,
            Marker::Nameless => true,
            Marker::Of(owner) if owner.device == Some(self.device) => {
                self.bound.iter().any(|bound| bound.id == owner.id)
            }
            Marker::Of(_) => true,
        }
    }

    /// Where the binding of this marker was, if it is one of this node and its directory is gone.
    fn moved_from(&self, marker: &Marker) -> Option<PathBuf> {
        let Marker::Of(owner) = marker else {
            return None;
        };
        let bound = self.bound.iter().find(|bound| bound.id == owner.id)?;
        let is_copy = marker::is_of(&bound.dir, &bound.id);
        (!is_copy).then(|| bound.dir.clone())
    }
}

/// The path with its parent's symbolic links followed and its own last component untouched.
fn real_place(dir: &Path) -> Result<PathBuf, BindingError> {
    if !dir.is_absolute() {
        return Err(BindingError::Relative {
            dir: dir.to_owned(),
        });
    }
    let (parent, name) = match (dir.parent(), dir.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => (parent, name),
        // `..` at the end: its meaning depends on links, so let the system resolve it.
        (Some(_), Some(_)) => {
            return dir
                .canonicalize()
                .map_err(|error| BindingError::Unreadable {
                    dir: dir.to_owned(),
                    kind: error.kind(),
                });
        }
        (None, _) | (_, None) => {
            return Err(BindingError::Root {
                dir: dir.to_owned(),
            });
        }
    };
    match parent.canonicalize() {
        Ok(parent) => Ok(parent.join(name)),
        // `find` will say that there is no parent.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(dir.to_owned()),
        Err(error) => Err(BindingError::Unreadable {
            dir: dir.to_owned(),
            kind: error.kind(),
        }),
    }
}

fn find(dir: &Path) -> io::Result<Found> {
    match fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_symlink() => Ok(Found::Symlink),
        Ok(meta) if !meta.is_dir() => Ok(Found::NoDirectory),
        Ok(_) if !is_writable(dir) => Ok(Found::NotWritable),
        Ok(_) => match fs::read_dir(dir)?.next() {
            Some(_) => Ok(Found::Filled),
            None => Ok(Found::Empty),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => match dir.parent() {
            Some(parent) if !parent.is_dir() => Ok(Found::NoParent),
            Some(parent) if !is_writable(parent) => Ok(Found::NotWritable),
            Some(_) | None => Ok(Found::Nothing),
        },
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Found::NoParent),
        Err(error) => Err(error),
    }
}

/// Asks with the effective user's rights, which also sees read-only file systems.
fn is_writable(dir: &Path) -> bool {
    let wanted = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(rustix::fs::CWD, dir, wanted, AtFlags::EACCESS).is_ok()
}

/// Where file systems of ours are mounted. Linux only; elsewhere mounting does not exist yet.
fn our_mounts() -> io::Result<Vec<PathBuf>> {
    match fs::read_to_string("/proc/self/mounts") {
        Ok(table) => Ok(mounts_in(&table)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn mounts_in(table: &str) -> Vec<PathBuf> {
    let ours = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        fields.next().filter(|kind| *kind == "fuse.wormhole")?;
        Some(PathBuf::from(unescape(place)))
    });
    ours.collect()
}

/// The kernel writes blanks, tabs, line ends and backslashes in octal.
fn unescape(place: &str) -> String {
    place
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests;
