//! Files: what the operating system sees of a mesh.
//!
//! A [`folder::Folder`] keeps a real directory and a replica's tree the same, in both directions. It records what
//! programs save (file → store → replica) and shows what other devices said (replica → store → file). It asks for
//! bytes that are not here through one port, [`source::Source`]; it knows no peers, no sockets and no command line.
//!
//! What is deliberately absent: nothing here decides who may write (the replica's roles do) or how bytes travel (the
//! source does). Names and contents arrive already parsed and verified.

pub mod error;
pub mod folder;
pub mod source;

pub use error::{FolderError, OpenError, StateError};
pub use folder::config::{DeletionGuard, FolderConfig, Memory, Quiet, TrashLimit, Writing};
pub use folder::restore::{RestoreError, Restored};
pub use folder::status::{
    Counts, Explanation, FolderStatus, HeldDeletions, Phase, Problem, Reason, StopReason, Waiting,
    WaitingFor,
};
pub use folder::trash::{TrashSize, Trashed};
pub use folder::{Folder, FolderTask};
pub use source::{FetchFailure, Source};
