//! Why the node could not do what it was asked, one enum for each family of operations.
//!
//! Reasons of single steps stay where they arise (`HomeError`, `ConfigError`, `BindingError`, the
//! errors of the other rooms) and are kept here as sources. What a client of the local API sees of
//! all this is decided in `error/fault`, and only there.

mod fault;
mod leave;

use std::io;
use std::path::PathBuf;

use wormhole_crdt::{MeshId, StorageError};
use wormhole_mesh::{
    AddrError, BindError, DialError, FetchError, InviteError, JoinError, TicketError,
};
use wormhole_store::{ReadError, WriteError};
use wormhole_vfs::StopReason;

use crate::binding::BindingError;
use crate::home::HomeError;
use crate::tasks::Closed;

pub(crate) use fault::sentence;
pub use leave::{KeptBack, LeaveError};

/// Why a node could not be started. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The network cannot be used.
    #[error("the network cannot be started")]
    Network(#[from] BindError),
    /// The socket of the local API cannot be made.
    #[error("cannot listen on {path}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The saved limits cannot be read.
    #[error("{path} is damaged: remove it and set the limits again")]
    Limits {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It was stopped before it was up.
    #[error(transparent)]
    Stopping(#[from] Closed),
}

/// Why the mesh that a person named is not clear.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No mesh has that name or id.
    #[error("this device is in no mesh called {wanted:?}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// The names of the meshes that there are.
        known: Vec<String>,
    },
    /// The mesh is not open.
    #[error("mesh {name:?} cannot be used now: {problem}")]
    Closed {
        /// The name of the mesh.
        name: String,
        /// Why not, and what to do.
        problem: String,
    },
    /// Several meshes have that name, or an id that begins so.
    #[error("{wanted:?} could be any of {} meshes", candidates.len())]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// The ids of those meshes.
        candidates: Vec<MeshId>,
    },
}

/// Why a mesh could not be opened or made on this device.
#[derive(Debug, thiserror::Error)]
pub enum OpenMeshError {
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The file of the metadata cannot be opened.
    #[error("cannot open the database {path}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What redb said.
        source: Box<redb::DatabaseError>,
    },
    /// The metadata cannot be read.
    #[error("cannot open the metadata in {path}")]
    Replica {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<wormhole_crdt::OpenError>,
    },
    /// The chunks cannot be read.
    #[error("cannot open the chunks in {path}")]
    Store {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: Box<wormhole_store::OpenError>,
    },
    /// The directory cannot be synced.
    #[error("cannot sync {dir}")]
    Folder {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: Box<wormhole_vfs::OpenError>,
    },
    /// A database of the mesh makes no sense at all.
    #[error(
        "{path} is damaged; this mesh stays closed and the others go on; stop the node and restore it \
         from a backup, or move {dir} away and join the mesh again: the files in its folders stay"
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// Where the home keeps the mesh.
        dir: PathBuf,
    },
    /// What a folder remembers makes no sense at all.
    #[error(
        "cannot sync {dir}: {memory} is damaged; stop the node, remove that file and start again: the folder is then looked through afresh"
    )]
    DamagedFolder {
        /// The directory.
        dir: PathBuf,
        /// Where the folder's memory is.
        memory: PathBuf,
    },
    /// The directory cannot be made.
    #[error("cannot make the directory {dir}")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node is stopping.
    #[error(transparent)]
    Stopping(#[from] Closed),
}

impl OpenMeshError {
    /// Whether the metadata of a mesh is beyond use.
    pub(crate) fn is_damage(&self) -> bool {
        use wormhole_crdt::OpenError;
        match self {
            Self::Damaged { .. } => true,
            Self::Database { source, .. } => match source.as_ref() {
                redb::DatabaseError::Storage(redb::StorageError::Io(error)) => is_garbled(error),
                redb::DatabaseError::Storage(redb::StorageError::Corrupted(_))
                | redb::DatabaseError::RepairAborted
                | redb::DatabaseError::UpgradeRequired(_) => true,
                _ => false,
            },
            Self::Replica { source, .. } => match source.as_ref() {
                OpenError::Storage(StorageError::Database(error)) => is_damaged(error),
                OpenError::Storage(StorageError::Damaged(_)) | OpenError::Empty => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether a folder's memory of the last sync is damaged: it can begin without.
    pub(crate) fn is_lost_memory(&self) -> bool {
        use wormhole_vfs::{FolderError, OpenError, StateError};
        let of_state = |error: &StateError| match error {
            StateError::Damaged => true,
            StateError::Database(error) => is_damaged(error),
            StateError::Newer { .. } => false,
        };
        match self {
            Self::Folder { source, .. } => match source.as_ref() {
                OpenError::State { source, .. } => of_state(source),
                OpenError::Recover {
                    source: FolderError::State(source),
                    ..
                } => of_state(source),
                _ => false,
            },
            _ => false,
        }
    }
}

fn is_garbled(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

/// Whether a database is beyond use, rather than out of reach for now.
fn is_damaged(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_)
        | redb::Error::RepairAborted
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. } => true,
        redb::Error::Io(error) => is_garbled(error),
        // The rest is about transactions, locks and the disk.
        _ => false,
    }
}

/// Why a directory could not be shared. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The name has nothing to read, or too much.
    #[error(
        "a mesh needs a name of 1 to 128 bytes with something to read in it and no control characters, not {name:?}"
    )]
    Name {
        /// What was asked for.
        name: String,
    },
    /// The directory cannot be bound.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// The mesh could not be made.
    #[error(transparent)]
    Open(#[from] OpenMeshError),
    /// The folder stopped while it was looked through.
    #[error("{dir} could not be looked through: {reason}")]
    Folder {
        /// The directory.
        dir: PathBuf,
        /// Why it stopped.
        reason: StopReason,
    },
    /// The first invite could not be made.
    #[error(transparent)]
    Invite(#[from] MakeInviteError),
}

/// Why an invite could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeInviteError {
    /// The mesh is not clear.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It would be good for too short or too long.
    #[error("an invite can be good for 10 seconds to 7 days, not for {seconds} seconds")]
    Ttl {
        /// What was asked for.
        seconds: u64,
    },
    /// The network refuses.
    #[error(transparent)]
    Network(#[from] InviteError),
}

/// Why a device was neither admitted nor refused.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// No device of that name or id waits.
    #[error("no device {device:?} waits to be admitted")]
    NotWaiting {
        /// What was asked for.
        device: String,
    },
    /// More than one does.
    #[error("more than one device {device:?} waits to be admitted")]
    Ambiguous {
        /// What was asked for.
        device: String,
    },
}

/// Why this device did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinMeshError {
    /// The code or link is not well formed.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// An address to try is not an address.
    #[error(transparent)]
    Address(#[from] AddrError),
    /// The device that invited was not found, or did not let this one in.
    #[error(transparent)]
    Network(#[from] JoinError),
    /// What was agreed to is no proposal that a node made.
    #[error("the mesh, role and device that were agreed to are not what `propose` answers")]
    Agreement,
    /// The directory cannot be bound.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// This device is in the mesh already.
    #[error("this device is in mesh {name:?} already")]
    AlreadyMember {
        /// The name of the mesh.
        name: String,
    },
    /// This device is a member now, but the directory that would be used by itself cannot be.
    #[error("this device is now in mesh {name:?}, but there is no directory for it yet")]
    NoPlace {
        /// The name of the mesh, safe to print.
        name: String,
        /// The directory, when there would be one.
        dir: Option<PathBuf>,
        /// Why it cannot be used.
        source: Option<BindingError>,
    },
    /// This device is a member now, but the directory cannot be synced.
    #[error("this device is now in mesh {name:?}, but is not syncing it yet")]
    NotSynced {
        /// The name of the mesh, safe to print.
        name: String,
        /// Why.
        source: OpenMeshError,
    },
    /// The mesh could not be opened here.
    #[error(transparent)]
    Open(#[from] OpenMeshError),
}

/// Why a member was not changed.
#[derive(Debug, thiserror::Error)]
pub enum MemberChangeError {
    /// The mesh is not clear.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// No member is called so.
    #[error("no device is called {wanted:?}")]
    UnknownDevice {
        /// What was asked for.
        wanted: String,
        /// The names that there are, safe to print.
        known: Vec<String>,
    },
    /// Several are.
    #[error("more than one device is called {wanted:?}")]
    AmbiguousDevice {
        /// What was asked for.
        wanted: String,
        /// Which they are.
        candidates: Vec<wormhole_crdt::DeviceId>,
    },
    /// One is, but in several meshes.
    #[error("device {wanted:?} is in more than one mesh")]
    AmbiguousMesh {
        /// What was asked for.
        wanted: String,
        /// The names of the meshes.
        meshes: Vec<String>,
    },
    /// The key of a recovery phrase is none.
    #[error("that is not the key of a recovery phrase")]
    BadKey,
    /// The recovery phrase is mistyped.
    #[error(transparent)]
    BadPhrase(#[from] crate::recovery::PhraseError),
    /// A device does not remove itself: it leaves.
    #[error("that is this device")]
    ThisDevice,
    /// The membership log refuses it.
    #[error(transparent)]
    Refused(wormhole_crdt::MemberError),
}

/// Why a folder could not be bound, unbound or acted on.
#[derive(Debug, thiserror::Error)]
pub enum FolderOperationError {
    /// The mesh is not clear.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The directory cannot be bound.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// What should be synced is not in the mesh, or no directory.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The directory is not a synced folder.
    #[error("{dir} is not a synced folder")]
    NotBound {
        /// The directory.
        dir: PathBuf,
    },
    /// The folder could not be started.
    #[error(transparent)]
    Open(#[from] OpenMeshError),
    /// What is said to be the folder now has not its marker.
    #[error(
        "{to} is not the synced folder that was {from}: it has not its marker; to sync into it anew: wormhole unbind {from}, then wormhole sync"
    )]
    NotItself {
        /// Where the folder was.
        from: PathBuf,
        /// Where it should be now.
        to: PathBuf,
    },
    /// The system refused to move the directory.
    #[error(
        "cannot move {from} to {to} in one step ({kind}): copy it there yourself with everything in it, .wormhole too, and say this again"
    )]
    Rename {
        /// The folder.
        from: PathBuf,
        /// Where it should be.
        to: PathBuf,
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// The record of the mesh could not be saved.
    #[error(transparent)]
    Record(#[from] HomeError),
    /// What waits is not what it was a moment ago.
    #[error(
        "nothing was done in {dir}: what waits there has changed, or the folder stands still; look at `wormhole status` and say it again"
    )]
    OtherDeletions {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory is bound, but its folder could not be opened.
    #[error("{dir} is not being synced: `wormhole status` says why")]
    NotOpen {
        /// The directory.
        dir: PathBuf,
    },
    /// Something could not be shown of the trash, or be brought back from it.
    #[error(transparent)]
    Restore(#[from] wormhole_vfs::RestoreError),
}

/// Why something in the tree of a mesh could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The mesh is not clear.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The path is not one.
    #[error("{path:?} is not a path in a mesh")]
    Path {
        /// What was asked for.
        path: String,
        /// Why.
        source: wormhole_crdt::NameError,
    },
    /// Nothing is there.
    #[error("there is no {path:?} in the mesh")]
    Absent {
        /// What was asked for.
        path: String,
    },
    /// It is not a file.
    #[error("{path:?} is not a file")]
    NotAFile {
        /// What was asked for.
        path: String,
    },
    /// It is not a directory.
    #[error("{path:?} is not a directory")]
    NotADirectory {
        /// What was asked for.
        path: String,
    },
    /// The metadata cannot be read.
    #[error(transparent)]
    Replica(#[from] StorageError),
    /// The content cannot be read.
    #[error("the content of {path:?} cannot be read")]
    Read {
        /// What was asked for.
        path: String,
        /// Why.
        source: ReadError,
    },
    /// The content is not here and cannot be fetched.
    #[error("the content of {path:?} is not on this device")]
    Fetch {
        /// What was asked for.
        path: String,
        /// Why it cannot be fetched.
        source: FetchError,
    },
}

/// Why a conflict could not be ended. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ResolveConflictError {
    /// The file is in no synced folder.
    #[error(transparent)]
    Folder(#[from] FolderOperationError),
    /// The mesh has no such file.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The whole mesh was named.
    #[error("name a file that has a conflict copy, or a conflict copy")]
    Root,
    /// It is no conflict, or cannot end so.
    #[error(transparent)]
    Conflict(#[from] wormhole_crdt::ResolveError),
    /// The mesh does not take it.
    #[error("the conflict cannot be ended")]
    Edit(#[from] wormhole_crdt::EditError),
}

/// Why a setting could not be changed while the node runs.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The mesh is not clear.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The setting could not be saved.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The limit is too small to keep a connection alive.
    #[error("a limit needs at least 1,024 bytes a second, not {bytes_per_second}")]
    Limit {
        /// What was asked for.
        bytes_per_second: u64,
    },
    /// The store could not be checked.
    #[error("the store of mesh {name:?} cannot be checked")]
    Check {
        /// The name of the mesh.
        name: String,
        /// Why not.
        source: WriteError,
    },
    /// The node is stopping.
    #[error(transparent)]
    Stopping(#[from] Closed),
    /// The text is not an address.
    #[error(transparent)]
    Address(#[from] AddrError),
    /// The device could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// Why the last bytes might not be on disk.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The metadata.
    #[error("the metadata of mesh {name:?} may not be on disk")]
    Replica {
        /// The name of the mesh.
        name: String,
        /// Why.
        source: StorageError,
    },
    /// The chunks.
    #[error("the chunks of mesh {name:?} may not be on disk")]
    Store {
        /// The name of the mesh.
        name: String,
        /// Why.
        source: WriteError,
    },
}
