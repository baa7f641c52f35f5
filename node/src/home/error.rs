//! Why a home cannot be used, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::FORMAT;

/// Why a home cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The platform tells no home directory for this user.
    #[error("this user has no home directory: name one with --home or WORMHOLE_HOME")]
    NoUserDirectory,
    /// The path is something else than a directory.
    #[error("{path} is not a directory: choose another home")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory holds other things and was never a home.
    #[error("{path} holds other files (for instance {found:?}): choose an empty directory as home")]
    NotAHome {
        /// The directory.
        path: PathBuf,
        /// One of the files that do not belong there.
        found: std::ffi::OsString,
    },
    /// The directory belongs to another user.
    #[error("{path} belongs to another user (uid {owner}): choose another home")]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Another node runs in this home.
    #[error("{path} is in use by a running node{}", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Its process, when the lock file tells.
        pid: Option<u32>,
    },
    /// The home was written by a newer version.
    #[error(
        "{path} was written by a newer wormhole (format {found}, this one knows {FORMAT}): update wormhole"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
    /// The home was written by an earlier version, whose formats are not read any more.
    #[error(
        "{path} was written by an earlier wormhole (format {found}), whose metadata this one does not read. Your files stay where they are: leave the old meshes by moving {path} away, remove the directory .wormhole from each synced folder, and join again with new codes"
    )]
    Older {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
    /// The version marker makes no sense.
    #[error("{path} is damaged: it should hold the number of the home's format, such as {FORMAT}")]
    BadFormat {
        /// The marker file.
        path: PathBuf,
    },
    /// The key file has not the length of a key.
    #[error(
        "{path} is damaged ({len} bytes instead of 32): restore it from a backup, or remove it to become a new device"
    )]
    BadKey {
        /// The key file.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// The socket would not fit where this system wants it.
    #[error(
        "no place for the socket of {path}: {directory} is not a private directory of this user, and the home's own path is too long"
    )]
    NoSocketPlace {
        /// The home.
        path: PathBuf,
        /// The fallback directory.
        directory: PathBuf,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// The disk or its permissions refuse.
    #[error("cannot use {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl HomeError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}
