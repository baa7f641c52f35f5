//! What the tree shows: entries, the versions of their contents, and how they change.
//!
//! These are the values that leave this crate. How they are derived from the replicated
//! registers is in `rule`; what may be asked of them is in `edit`.

use serde::{Deserialize, Serialize};
use wormhole_store::Content;

use crate::id::{Branch, DeviceTag, EntryId, Timestamp};
use crate::name::EntryName;

/// When something was written, in the mesh's logical time: later writes that knew of earlier ones
/// have a greater version. Writes made apart are ordered by chance, but the same everywhere.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Version {
    /// One more than the greatest that its writer had seen.
    pub lamport: u64,
    /// Its writer; breaks ties.
    pub device: DeviceTag,
    /// Which of its writer's branches: breaks ties between two writes of a device that was set back.
    pub branch: Branch,
}

/// Names one thing that the tree shows.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct EntryKey {
    /// The entry.
    pub id: EntryId,
    /// Which of its contents, when changes made apart left more than one: `None` is the one that
    /// kept the name, `Some` is a conflict copy beside it.
    pub version: Option<Version>,
}

impl EntryKey {
    /// The key of the root directory.
    pub const ROOT: Self = Self {
        id: EntryId::ROOT,
        version: None,
    };
}

impl From<EntryId> for EntryKey {
    fn from(id: EntryId) -> Self {
        Self { id, version: None }
    }
}

/// What an entry is.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// Bytes.
    File,
    /// A place for entries.
    Directory,
    /// A name for another path; never followed by the mesh.
    Symlink,
}

/// One version of a file.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct FileState {
    /// Its bytes, by name.
    pub content: Content,
    /// When they were last modified, as the writer's system said, or as somebody set it since.
    pub mtime: Timestamp,
    /// The write that brought them.
    pub version: Version,
}

/// The nine permission bits of a file or directory. Set-id bits and the sticky bit do not travel.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Mode(u16);

/// More than nine permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0:#o} are not permissions: nine bits are the limit")]
pub struct ModeError(u16);

impl Mode {
    /// A file of which nothing else was said.
    pub const FILE: Self = Self(0o644);
    /// A directory of which nothing else was said.
    pub const DIRECTORY: Self = Self(0o755);
    /// Every symlink.
    pub const SYMLINK: Self = Self(0o777);

    /// The permissions among these bits.
    #[must_use]
    pub const fn new(bits: u32) -> Self {
        Self((bits & 0o777) as u16)
    }

    /// As the system has them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// Whether the owner may execute a file.
    #[must_use]
    pub const fn is_executable(self) -> bool {
        self.0 & 0o100 != 0
    }

    /// Of an entry of which nothing was said.
    #[must_use]
    pub const fn of_kind(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::FILE,
            Kind::Directory => Self::DIRECTORY,
            Kind::Symlink => Self::SYMLINK,
        }
    }
}

impl TryFrom<u16> for Mode {
    type Error = ModeError;

    fn try_from(bits: u16) -> Result<Self, ModeError> {
        if bits > 0o777 {
            return Err(ModeError(bits));
        }
        Ok(Self(bits))
    }
}

impl From<Mode> for u16 {
    fn from(mode: Mode) -> Self {
        mode.0
    }
}

impl std::fmt::Debug for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mode({:#o})", self.0)
    }
}

/// Where a symlink points: 1 to [`LinkTarget::MAX_BYTES`] bytes of UTF-8 without NUL. Only text: it
/// may point nowhere or outside, and nothing in the mesh follows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkTarget(Box<str>);

/// Why a text is not a [`LinkTarget`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkTargetError {
    /// There is no text.
    #[error("a symlink's target cannot be empty")]
    Empty,
    /// Longer than [`LinkTarget::MAX_BYTES`].
    #[error(
        "a symlink's target of {bytes} bytes is too long: {} bytes is the limit",
        LinkTarget::MAX_BYTES
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It holds a NUL.
    #[error("a symlink's target cannot hold a NUL")]
    Nul,
}

impl LinkTarget {
    /// `PATH_MAX` of Linux without its terminator.
    pub const MAX_BYTES: usize = 4095;

    /// Checks `text`.
    ///
    /// # Errors
    /// The reason why it is not a target.
    pub fn parse(text: &str) -> Result<Self, LinkTargetError> {
        if text.is_empty() {
            return Err(LinkTargetError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(LinkTargetError::TooLong { bytes: text.len() });
        }
        if text.contains('\0') {
            return Err(LinkTargetError::Nul);
        }
        Ok(Self(text.into()))
    }

    /// The target as its creator wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LinkTarget {
    type Error = LinkTargetError;

    fn try_from(text: String) -> Result<Self, LinkTargetError> {
        Self::parse(&text)
    }
}

impl From<LinkTarget> for String {
    fn from(target: LinkTarget) -> Self {
        target.0.into()
    }
}

/// One thing that the tree shows, at its place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// What operations on it must name.
    pub key: EntryKey,
    /// The directory it is shown in ([`EntryId::ROOT`] for the top). Of directories that were created
    /// apart with one name and are shown as one, this is the one that stands for all.
    pub parent: EntryId,
    /// As shown: the conflict suffix is part of it.
    pub name: EntryName,
    /// What it is.
    pub kind: Kind,
    /// A file's version; `None` for others.
    pub file: Option<FileState>,
    /// A symlink's target; `None` for others.
    pub target: Option<LinkTarget>,
    /// Its permissions.
    pub mode: Mode,
    /// Whether it is a copy beside the one that kept the name. An operation on it (or a rename of
    /// the other) makes it an ordinary entry with the name that was shown.
    pub conflict: bool,
    /// The write that it shows: its content's, or for a directory its last move's.
    pub version: Version,
}

impl Entry {
    /// The device that wrote what is shown, in short form.
    #[must_use]
    pub fn modified_by(&self) -> DeviceTag {
        self.version.device
    }

    /// Whether it can have entries below it.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Whether it is a file that may be executed.
    #[must_use]
    pub fn is_executable(&self) -> bool {
        self.kind == Kind::File && self.mode.is_executable()
    }

    /// A file's size in bytes, 0 for others.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.file.map_or(0, |file| file.content.size)
    }
}

/// A conflict copy and what it stands beside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rival {
    /// The copy.
    pub copy: Entry,
    /// The name that it is a copy of.
    pub name: EntryName,
    /// What kept the name, if that is still there.
    pub original: Option<Entry>,
}

/// What the tree showed before a change and what it shows after it. A moved directory is one change;
/// what is inside it is not listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryChange {
    /// The thing that changed.
    pub key: EntryKey,
    /// As it was shown, or `None` if it was not.
    pub before: Option<Entry>,
    /// As it is shown, or `None` if it is not any more.
    pub after: Option<Entry>,
}

/// How much the tree shows.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Files, conflict copies included.
    pub files: u64,
    /// Directories, without the root.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// The sum of the files' sizes.
    pub bytes: u64,
}
