//! What can go wrong when a folder is opened or its database is used. Trouble with single files is not an error but a
//! [`crate::Problem`]: the folder goes on with the others.

use std::io;
use std::path::PathBuf;

use crate::folder::status::StopReason;

/// Why a folder could not be started.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be opened.
    #[error("cannot open the folder {}", dir.display())]
    Dir {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder's control directory `.wormhole` cannot be made or read.
    #[error("cannot prepare {}", path.display())]
    Control {
        /// The path inside the folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database of what was last synced cannot be opened.
    #[error("cannot open this folder's database {}", path.display())]
    State {
        /// The database.
        path: PathBuf,
        /// What it said.
        source: StateError,
    },
    /// The store refused the folder as a root of references.
    #[error("the store cannot use the folder {}", dir.display())]
    Store {
        /// The folder.
        dir: PathBuf,
        /// What it said.
        source: wormhole_store::WriteError,
    },
    /// What a crash left behind could not be put right.
    #[error("cannot put right what a crash left in {}", dir.display())]
    Recover {
        /// The folder.
        dir: PathBuf,
        /// What failed.
        source: FolderError,
    },
}

/// The database of what was last synced failed. After this the folder stops: it must not act on a memory it cannot keep.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// redb could not do it.
    #[error("the folder's database failed")]
    Database(#[source] Box<redb::Error>),
    /// A row cannot be decoded.
    #[error("a row of the folder's database is damaged")]
    Damaged,
    /// It was written by a newer version.
    #[error(
        "the folder's database has format {found}, this program knows {known}; update this program"
    )]
    Newer {
        /// The format found.
        found: u32,
        /// The newest known here.
        known: u32,
    },
}

impl<E: Into<redb::Error>> From<E> for StateError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// Why a step of a folder ended the folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Its database failed.
    #[error("the folder's database failed")]
    State(#[from] StateError),
    /// The replica failed.
    #[error("the mesh's metadata failed")]
    Replica(#[from] wormhole_crdt::StorageError),
    /// It must not go on.
    #[error("{0}")]
    Stopped(StopReason),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] wormhole_store::WriteError),
}

/// What an error and its causes say, for problems that people read.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(at) = cause {
        text.push_str(": ");
        text.push_str(&at.to_string());
        cause = at.source();
    }
    text
}
