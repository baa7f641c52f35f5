//! What a synced folder is told when it starts. The conductor fills it from the user's configuration.

use std::path::PathBuf;

use wormhole_crdt::EntryId;
use wormhole_store::RootId;

pub use super::settle::Quiet;

/// Everything a [`super::Folder`] needs to know about where it is and what it may do.
#[derive(Clone, Debug)]
pub struct FolderConfig {
    /// The binding's identity; also written into the folder's marker file.
    pub id: RootId,
    /// The directory on this device. It must exist; it may hold files already.
    pub dir: PathBuf,
    /// Which directory of the mesh's tree appears here; [`EntryId::ROOT`] for all of it.
    pub base: EntryId,
    /// The database that remembers what was last synced. In the node's home, never inside `dir`.
    pub state: PathBuf,
    /// Whether this device's role lets it change the mesh.
    pub writing: Writing,
    /// When deletions seen on disk wait for a person.
    pub deletion_guard: DeletionGuard,
    /// Whether what was synced last is still known in the store too.
    pub memory: Memory,
    /// How long files that are being written are left alone.
    pub quiet: Quiet,
    /// What is kept of what others remove or replace.
    pub trash: TrashLimit,
}

impl FolderConfig {
    /// A folder for the whole tree, writable, with the default guard.
    pub fn new(id: RootId, dir: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self {
            id,
            dir: dir.into(),
            base: EntryId::ROOT,
            state: state.into(),
            writing: Writing::Allowed,
            deletion_guard: DeletionGuard::default(),
            memory: Memory::Kept,
            quiet: Quiet::default(),
            trash: TrashLimit::default(),
        }
    }
}

/// How a folder begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// With what it remembers of the last sync: files with the same stamps are not read again.
    Kept,
    /// Without: the store lost its references, so every file is read and compared afresh. Nothing counts as deleted.
    Afresh,
}

/// Whether local changes are recorded into the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// Admin and writer devices: local changes are recorded.
    Allowed,
    /// Reader devices: local changes stay on this device and are reported; where a change from the mesh meets one,
    /// the local version is kept aside as `name (local).ext`, which is never synced.
    ReadOnly,
}

/// How many entries may vanish from the folder within a minute before their deletion waits for a person.
///
/// Deletions are held when they are at least `min_entries` **and** at least `percent` of what the folder holds, or
/// when they would leave nothing of a folder that held `emptied_entries` or more. Deletions that follow one another
/// closely are judged together, so nothing of a sudden `rm -rf` is passed on; while some are held, later ones join them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletionGuard {
    /// Fewer deletions than this never wait, unless the folder would be left empty.
    pub min_entries: u64,
    /// Share of the folder's entries, 0 to 100.
    pub percent: u64,
    /// A folder of at least this many entries that is suddenly empty always waits.
    pub emptied_entries: u64,
}

impl Default for DeletionGuard {
    /// 100 entries and a quarter of the folder; emptied from 10 entries on. An ordinary clean-up passes, `rm -rf *`
    /// and a vanished disk do not.
    fn default() -> Self {
        Self {
            min_entries: 100,
            percent: 25,
            emptied_entries: 10,
        }
    }
}

/// How much of what changes from elsewhere removed or replaced is kept in the folder's trash, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrashLimit {
    /// Days that something stays; 0 keeps nothing.
    pub days: u64,
    /// Bytes of everything together; `None` for 10 GiB, or a tenth of a disk that is smaller than 100 GiB.
    pub bytes: Option<u64>,
}

impl Default for TrashLimit {
    /// 30 days and the ordinary budget.
    fn default() -> Self {
        Self {
            days: 30,
            bytes: None,
        }
    }
}

impl TrashLimit {
    /// Bytes that may be kept on a disk of this size.
    pub(crate) fn budget(&self, disk: u64) -> u64 {
        self.bytes.unwrap_or((disk / 10).min(10 << 30))
    }
}
