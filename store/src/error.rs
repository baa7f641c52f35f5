//! What can go wrong with bytes, one enum for each family of operations.
//!
//! A variant is a reason and names its object; messages say what to do where a person can act.
//! Losing nothing is the rule behind them: a write that fails leaves the store as it was, and a
//! failed fsync poisons it, because the kernel may have dropped the bytes it had accepted.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::id::{ChunkId, ContentId, RootId};
use crate::manifest::ManifestError;

/// Why a store could not be opened. Nothing was changed on disk beyond empty directories.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the directory open.
    #[error(
        "{} is in use by another Wormhole node; stop that one or choose another home",
        path.display()
    )]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// The packs were written with another content key.
    #[error("{} belongs to another mesh: its content key differs", path.display())]
    WrongKey {
        /// The store's directory.
        path: PathBuf,
    },
    /// The format is newer than this program.
    #[error(
        "{} has store format {found}, this program knows {known}; update Wormhole",
        path.display()
    )]
    Newer {
        /// The store's directory.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// The disk is full; opening needs a little room.
    #[error("no space left for {}; free some space and try again", path.display())]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or directory could not be made, opened or read.
    #[error("cannot open {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The index failed while it was being opened or rebuilt.
    #[error("cannot open the chunk index {}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What the database said.
        source: IndexError,
    },
}

/// Why bytes could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The store does not have the chunk.
    #[error("chunk {id} is not here")]
    Absent {
        /// The chunk.
        id: ChunkId,
    },
    /// The files the chunk was referred to in have changed; they no longer count as holding it.
    #[error("chunk {id} was in a file that has changed since")]
    Stale {
        /// The chunk.
        id: ChunkId,
    },
    /// The stored bytes do not match their id. The damaged copy is forgotten, so that the chunk
    /// is fetched again.
    #[error("chunk {id} is damaged on disk; it will be fetched again from another device")]
    Damaged {
        /// The chunk.
        id: ChunkId,
    },
    /// The blob that should be a manifest is not one (or not this content's).
    #[error("content {id} has an invalid manifest")]
    Manifest {
        /// The content.
        id: ContentId,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The system could not read; the bytes may be there at the next try.
    #[error("cannot read {}", path.display())]
    Io {
        /// The pack or the referenced file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The index could not be read.
    #[error("cannot read the chunk index; restart Wormhole to have it repaired")]
    Index(#[from] IndexError),
}

/// Why bytes could not be kept. What was durable before stays so.
#[derive(Debug, Error)]
pub enum WriteError {
    /// An earlier write could not be made durable; the store refuses more until it is reopened.
    #[error("the store stopped writing after a disk error; check the disk, then restart Wormhole")]
    Poisoned,
    /// The disk is full.
    #[error("no space left for {}; free some space, nothing was lost", path.display())]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system could not write.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A blob is empty or over the limit of 1 MiB.
    #[error("a chunk has 1 byte to 1 MiB, not {len} bytes")]
    Size {
        /// Its length.
        len: usize,
    },
    /// Bytes that claimed to be a chunk are not it. Blame who sent them.
    #[error("these bytes are not chunk {id}")]
    Mismatch {
        /// The chunk they should have been.
        id: ChunkId,
    },
    /// A path cannot be below a root.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Bytes that were to be copied could not be read.
    #[error("cannot read what was to be kept")]
    Read(#[from] Box<ReadError>),
    /// The index could not be read or written.
    #[error("cannot update the chunk index; restart Wormhole to have it repaired")]
    Index(#[from] IndexError),
}

/// Why a file could not be taken in. Nothing refers to it then.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The file changed while it was read; try again when it is quiet.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Something is there, but it is no regular file.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// What was found.
        path: PathBuf,
    },
    /// The file has more chunks than a manifest can list (beyond about 4 TB).
    #[error("{} is too large for one manifest", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be opened or read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path cannot be below a root, or its root is not registered.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The manifest of the content that was written is not here.
    #[error("cannot read the manifest of the written content")]
    Read(#[from] ReadError),
    /// The manifest or the rows could not be written.
    #[error("cannot record the file's chunks")]
    Write(#[from] WriteError),
}

/// Why a path cannot be used for a reference.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
pub enum PathError {
    /// The path is empty, absolute, or has `.` or `..` in it.
    #[error("{} is not a plain path below its root", path.display())]
    NotBelow {
        /// The path.
        path: PathBuf,
    },
    /// The path has more than 1,024 components.
    #[error("{} is nested too deeply", path.display())]
    TooDeep {
        /// The path.
        path: PathBuf,
    },
    /// A directory cannot move into itself.
    #[error("{} cannot move into itself", path.display())]
    IntoItself {
        /// The directory.
        path: PathBuf,
    },
    /// Nobody registered this root.
    #[error("no directory is registered for binding {root}")]
    UnknownRoot {
        /// The root.
        root: RootId,
    },
}

/// The index database failed. Its reason is the source.
#[derive(Debug, Error)]
#[error("index database")]
pub struct IndexError {
    #[source]
    pub(crate) reason: IndexReason,
}

/// What the index ran into; private, because the database's types stay in this crate.
#[derive(Debug, Error)]
pub(crate) enum IndexReason {
    /// The database itself reports it.
    #[error(transparent)]
    Database(Box<redb::Error>),
    /// The database panicked over its own pages.
    #[error("the file is damaged")]
    Damaged,
    /// A row does not decode.
    #[error("a row of table {table} is malformed")]
    Row {
        /// The table's name.
        table: &'static str,
    },
}

impl IndexError {
    pub(crate) fn row(table: &'static str) -> Self {
        Self {
            reason: IndexReason::Row { table },
        }
    }

    /// Whether the disk was full.
    pub(crate) fn no_space(&self) -> bool {
        match &self.reason {
            IndexReason::Database(error) => match error.as_ref() {
                redb::Error::Io(error) => is_full(error),
                _ => false,
            },
            IndexReason::Damaged | IndexReason::Row { .. } => false,
        }
    }

    /// Whether the file is beyond use, rather than out of reach for now.
    pub(crate) fn is_damage(&self) -> bool {
        match &self.reason {
            IndexReason::Damaged | IndexReason::Row { .. } => true,
            IndexReason::Database(error) => match error.as_ref() {
                redb::Error::Corrupted(_)
                | redb::Error::RepairAborted
                | redb::Error::UpgradeRequired(_)
                | redb::Error::TableTypeMismatch { .. }
                | redb::Error::TypeDefinitionChanged { .. }
                | redb::Error::TableDoesNotExist(_) => true,
                redb::Error::Io(error) => matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ),
                _ => false,
            },
        }
    }
}

impl<E: Into<redb::Error>> From<E> for IndexError {
    fn from(error: E) -> Self {
        Self {
            reason: IndexReason::Database(Box::new(error.into())),
        }
    }
}

/// Whether an I/O error means that the disk, or the user's quota, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl OpenError {
    /// Sorts an I/O error on `path`.
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if is_full(&source) {
            Self::NoSpace { path, source }
        } else {
            Self::Io { path, source }
        }
    }
}

impl WriteError {
    /// Sorts an I/O error on `path`.
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if is_full(&source) {
            Self::NoSpace { path, source }
        } else {
            Self::Io { path, source }
        }
    }
}

impl From<ReadError> for WriteError {
    fn from(error: ReadError) -> Self {
        Self::Read(Box::new(error))
    }
}
