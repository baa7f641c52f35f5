//! The folder's blocking half: everything that reads or writes disk, state, replica and store.
//!
//! One engine, one thread at a time: the actor lends it to the blocking pool for one short step after another, so there
//! are no races inside the folder, only with the user's programs and with the mesh. A step begins with [`Engine::begin`],
//! does its work in `record` (disk → mesh), `apply` (mesh → disk), `scan` or `audit`, and ends with [`Step::end`], which
//! makes things durable in the order that a crash can bear: bytes, then the mesh's word, then the memory of the sync.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use wormhole_crdt::{
    Entry, EntryId, EntryKey, Kind, Replica, Role, Timestamp, Version, VersionVector,
};
use wormhole_store::{ContentId, FilePath, Store};

use super::base;
use super::beneath::{self, Root, Seen};
use super::config::{FolderConfig, Writing};
use super::ground::Ground;
use super::guard::Guard;
use super::held::Held;
use super::ignore::{Rules, Shape};
use super::marker::Owner;
use super::name::{self, Place};
use super::partial::{PartialFile, Want};
use super::plan::Node;
use super::problem::Problems;
use super::record::Draft;
use super::renewal::Renewal;
use super::state::{Batch, Keep, Row, State};
use super::status::{Counts, Reason, StopReason};
use super::temporary::Temporary;
use super::trash::Trash;
use super::watch::Watcher;
use crate::error::{FolderError, StateError};

/// Open directories kept while a step goes through files of the same few.
const OPEN_DIRS: usize = 64;
/// From this many changed directories on, one `syncfs` is cheaper than an fsync each.
const SYNC_TOGETHER: usize = 4;
/// How long a file is left alone that changed while it was read.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// Everything a step needs.
pub(crate) struct Engine {
    pub(crate) config: FolderConfig,
    pub(crate) root: Arc<Root>,
    pub(crate) ground: Arc<Ground>,
    pub(crate) owner: Owner,
    /// The directory is a copy that was made earlier: it was joined without its memory.
    pub(crate) afresh: bool,
    /// Everything was compared once: what is not remembered from now on is new.
    pub(crate) at_home: bool,
    /// Where the mesh shows the directory that this folder shows, when that is not its root.
    pub(crate) base: Option<base::Noted>,
    /// When the marker is to be renewed.
    pub(crate) renewal: Renewal,
    pub(crate) dev: u64,
    pub(crate) tmp: Arc<Temporary>,
    /// Whether the file system keeps permissions. Where it does not, nothing is said or believed of them.
    pub(crate) keeps_modes: bool,
    pub(crate) state: State,
    pub(crate) replica: Replica,
    pub(crate) store: Store,
    pub(crate) rules: Rules,
    pub(crate) guard: Guard,
    pub(crate) problems: Problems,
    pub(crate) trash: Trash,
    /// How often the system refused something so far.
    pub(crate) refusals: u64,
    pub(crate) watcher: Option<Watcher>,
    /// How many directories were not watched when that was last looked at.
    pub(crate) unwatched: u64,
    pub(crate) counts: Counts,
    /// Contents asked for and not here yet: a file that holds one of them is not let go without keeping its bytes.
    pub(crate) wanted: HashSet<ContentId>,
    /// Up to where all changes of the mesh were looked at, when they were. Otherwise one of them may want any content.
    pub(crate) caught_up: Option<VersionVector>,
    /// Deletions that wait for a person.
    pub(crate) held: Held,
    /// Directories whose names changed, to be synced before rows that speak of them are made durable.
    pub(crate) touched: Touched,
    #[cfg(test)]
    pub(crate) fault: super::tests::fault::Fault,
}

/// What a step asks of the actor.
#[derive(Debug, Default)]
pub(crate) struct Todo {
    /// Contents to bring.
    pub(crate) wants: Vec<Want>,
    /// Entries whose content is not wanted any more.
    pub(crate) unwanted: Vec<EntryKey>,
    /// Big files to hash beside the steps.
    pub(crate) imports: Vec<Look>,
    /// Paths to look at next.
    pub(crate) paths: Vec<PathBuf>,
    /// Paths to look at after a pause.
    pub(crate) later: Vec<(PathBuf, Duration)>,
    /// Files that were renamed and may have been edited before: to be read again when there is time.
    pub(crate) doubted: Vec<PathBuf>,
    /// Directories to scan with all below them.
    pub(crate) scans: Vec<PathBuf>,
    /// Directories to compare, without what is below them.
    pub(crate) lists: Vec<PathBuf>,
    /// Places where something may have vanished, to be judged once all else is seen.
    pub(crate) gone: Vec<Place>,
    /// Something may have become of the deletions that wait for a person.
    pub(crate) ask_held: bool,
    /// Entries to bring to disk next.
    pub(crate) keys: Vec<EntryKey>,
    /// Entries that the mesh does not show any more, to be taken from disk when all that is new was looked at: it may want
    /// their bytes.
    pub(crate) gone_keys: Vec<EntryKey>,
    /// Entries that could not be brought to disk because something there has to be recorded first.
    pub(crate) blocked: Vec<EntryKey>,
    /// Entries that the system did not let be brought to disk, for a reason that was reported.
    pub(crate) refused: Vec<EntryKey>,
    /// Other rules leave out other entries: all of the mesh is to be compared.
    pub(crate) audit: bool,
    /// A fetched file was not used: it is removed unless it is wanted again.
    pub(crate) untidy: bool,
    /// Something was recorded, applied or put right.
    pub(crate) progress: bool,
}

/// A file whose content has to be found out.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) place: Place,
    pub(crate) path: PathBuf,
    pub(crate) seen: Seen,
    /// When it was seen, in nanoseconds since 1970.
    pub(crate) at_ns: i64,
    /// What this device had said of it last, if the memory of that was lost.
    pub(crate) said: Option<Box<Entry>>,
}

/// One step: the engine with an open batch and what it has gathered.
pub(crate) struct Step<'e> {
    pub(crate) engine: &'e mut Engine,
    pub(crate) batch: Batch,
    pub(crate) todo: Todo,
    pub(crate) drafts: Vec<Draft>,
    pub(crate) ready: HashMap<EntryKey, Arc<PartialFile>>,
    /// Entries on the way to the one being applied, to notice names that wait for one another.
    pub(crate) busy: HashSet<EntryKey>,
    /// Files are met without a word of the kernel: one that is still growing is left for later.
    pub(crate) comparing: bool,
    /// A directory is being emptied, its deepest entries first.
    pub(crate) emptying: bool,
    dirs: HashMap<EntryId, Arc<Dir>>,
    /// What the mesh shows in the directory that was last asked for, until something is said.
    pub(crate) siblings: Option<Siblings>,
    /// Whether the mesh's word may wait for a later flush: bulk imports.
    pub(crate) keep: Keep,
    /// The last that was submitted is durable, and all that was known to the mesh before.
    pub(crate) said: bool,
}

/// The entries in a directory of the mesh, with the versions of each.
#[derive(Debug)]
pub(crate) struct Siblings {
    pub(crate) parent: EntryId,
    pub(crate) by_id: HashMap<EntryId, Vec<Entry>>,
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
}

/// Directories whose names were changed here and are not durable yet. A few are held open to be synced one by one; of
/// many, only the paths are kept.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    dirs: BTreeMap<PathBuf, Option<Arc<Dir>>>,
}

impl Touched {
    fn add(&mut self, dir: &Arc<Dir>) {
        if self.dirs.contains_key(&dir.path) {
            return;
        }
        let few = self.dirs.len() + 1 < SYNC_TOGETHER;
        self.dirs
            .insert(dir.path.clone(), few.then(|| Arc::clone(dir)));
    }
}

impl Dir {
    pub(crate) fn at<'a>(&'a self, name: &'a OsStr) -> (BorrowedFd<'a>, &'a OsStr) {
        (self.fd.as_fd(), name)
    }
}

/// A step's own result: trouble with one path is reported and passed over, only the folder's foundations can fail.
pub(crate) type Outcome<T> = Result<T, FolderError>;

impl Engine {
    /// Whether local changes stay on this device: as configured, and by its role, which may change at any time.
    pub(crate) fn is_read_only(&self) -> bool {
        let role = || self.replica.role_of(&self.replica.device());
        self.config.writing == Writing::ReadOnly || !role().is_some_and(Role::can_write)
    }

    /// Starts a step.
    pub(crate) fn begin(&mut self, keep: Keep) -> Outcome<Step<'_>> {
        let mut step = self.begin_to_look(keep)?;
        step.find_base()?;
        Ok(step)
    }

    /// Starts a step that changes nothing, and so need not end.
    pub(crate) fn begin_to_look(&mut self, keep: Keep) -> Outcome<Step<'_>> {
        let batch = self.state.begin()?;
        Ok(Step {
            engine: self,
            batch,
            todo: Todo::default(),
            drafts: Vec::new(),
            ready: HashMap::new(),
            busy: HashSet::new(),
            comparing: false,
            emptying: false,
            dirs: HashMap::new(),
            siblings: None,
            keep,
            said: false,
        })
    }

    /// Makes everything that was put off durable, in order.
    ///
    /// Answers directories to be scanned again, because their names may not be durable.
    pub(crate) fn flush(&mut self) -> Outcome<Vec<PathBuf>> {
        let doubtful = self.sync_touched();
        self.store.commit()?;
        // Read first, so that it is not more than what is made durable.
        let known = vector_bytes(&self.replica)?;
        self.replica.flush()?;
        let mut batch = self.state.begin()?;
        batch.set_note("vector", &known)?;
        self.renew_marker(&mut batch)?;
        self.counts = batch.commit(Keep::Now)?;
        Ok(doubtful)
    }

    /// Makes the names that were changed durable. Answers the directories where that failed: the rows then speak of names
    /// that may be lost with the power, so they are looked at again.
    fn sync_touched(&mut self) -> Vec<PathBuf> {
        let touched = std::mem::take(&mut self.touched);
        let synced = if touched.dirs.len() >= SYNC_TOGETHER {
            beneath::sync_file_system(self.tmp.dir().as_fd())
        } else {
            let mut dirs = touched.dirs.values().flatten();
            dirs.try_for_each(|dir| beneath::sync_dir(&dir.fd))
        };
        match synced {
            Ok(()) => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "cannot sync directories");
                touched.dirs.into_keys().collect()
            }
        }
    }

    /// Whether every change of the mesh was looked at: what is not wanted now, nobody waits for.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.caught_up
            .as_ref()
            .is_some_and(|known| *known == self.replica.vector())
    }

    /// Whether the folder is still the one that was opened.
    pub(crate) fn is_itself(&self) -> Result<(), StopReason> {
        self.ground.is_itself()
    }

    pub(crate) fn file_path(&self, path: &Path) -> FilePath {
        FilePath {
            root: self.config.id,
            path: path.to_owned(),
        }
    }

    /// The device's own clock, for the mesh's records.
    pub(crate) fn now() -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Reports trouble with a path in the words that fit the error.
    pub(crate) fn io_problem(&mut self, path: &Path, error: &io::Error) {
        self.refusals += 1;
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied => Reason::Permission,
            io::ErrorKind::ReadOnlyFilesystem => Reason::ReadOnlyDisk,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Reason::NoSpace { bytes_needed: 0 }
            }
            io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput => Reason::NameUnsupported,
            io::ErrorKind::CrossesDevices => Reason::OtherFileSystem,
            _ => Reason::Io {
                message: error.to_string(),
            },
        };
        self.problems.report(path, reason);
    }
}

/// What the replica knew when the memory of the sync was last made durable.
pub(crate) fn vector_bytes(replica: &Replica) -> Result<Vec<u8>, StateError> {
    postcard::to_stdvec(&replica.vector()).map_err(|_too_big| StateError::Damaged)
}

impl Step<'_> {
    /// Ends the step: syncs what was renamed, records what was drafted, keeps what was done.
    pub(crate) fn end(mut self) -> Outcome<Todo> {
        self.said = false;
        self.submit()?;
        let held = &self.engine.held;
        self.todo.gone.retain(|place| !held.contains(place));
        let known = vector_bytes(&self.engine.replica)?;
        self.crash_point("told to the mesh");
        if self.keep == Keep::Now {
            let doubtful = self.engine.sync_touched();
            self.todo.scans.extend(doubtful);
            // Rows speak of what the mesh was told: it must not forget what they remember.
            self.engine.store.commit()?;
            if !self.said {
                // Costs twice as much as what an edit has made durable by itself.
                self.engine.replica.flush()?;
            }
        }
        self.crash_point("not remembered yet");
        self.todo.progress |= self.keep == Keep::Later && self.batch.is_changed();
        self.engine.renewal.due |= self.batch.is_changed();
        if self.keep == Keep::Now {
            self.engine.renew_marker(&mut self.batch)?;
        }
        self.engine.note_behind(&mut self.batch)?;
        if self.batch.is_changed() {
            // A database that closes makes durable what was kept for later. If the mesh's metadata could not
            // be written then, it forgets what these rows speak of, and that must not look like a removal.
            self.batch.set_note("vector", &known)?;
        }
        let counts = self.batch.commit(self.keep)?;
        self.engine.counts = counts;
        self.todo.audit |= self.engine.rules.take_changed();
        let Engine {
            rules, problems, ..
        } = &mut *self.engine;
        rules.tell(problems);
        Ok(self.todo)
    }

    /// Opens a synced directory. `None` when it is not synced or not there (any more).
    pub(crate) fn dir(&mut self, id: EntryId) -> Outcome<Option<Arc<Dir>>> {
        if let Some(open) = self.dirs.get(&id) {
            return Ok(Some(Arc::clone(open)));
        }
        let Some(path) = self.batch.path_of_dir(self.engine.config.base, id)? else {
            return Ok(None);
        };
        match self.engine.root.open_dir(&path) {
            Ok(fd) => {
                if self.dirs.len() >= OPEN_DIRS {
                    self.dirs.clear();
                }
                let dir = Arc::new(Dir { fd, path });
                self.dirs.insert(id, Arc::clone(&dir));
                Ok(Some(dir))
            }
            Err(error) if is_replaced(&error) => {
                // Whatever became of it is found by looking at it.
                self.todo.paths.push(path);
                Ok(None)
            }
            Err(error) => {
                // It is there and cannot be looked into: nothing is known about what is in it.
                self.engine.io_problem(&path, &error);
                Ok(None)
            }
        }
    }

    /// Whether a directory is certainly not where it was synced. One that cannot be opened may be.
    pub(crate) fn is_dir_gone(&self, id: EntryId) -> Outcome<bool> {
        let path = self.batch.path_of_dir(self.engine.config.base, id)?;
        Ok(path.is_none_or(|path| {
            let opened = self.engine.root.open_dir(&path);
            let hidden = |error: &io::Error| error.kind() == io::ErrorKind::CrossesDevices;
            opened.is_err_and(|error| is_replaced(&error) && !hidden(&error))
        }))
    }

    /// A directory moved or went away: handles and paths may mean another place now.
    pub(crate) fn forget_dirs(&mut self) {
        self.dirs.clear();
    }

    /// A name in this directory was changed by us.
    pub(crate) fn touch(&mut self, dir: &Arc<Dir>) {
        self.engine.touched.add(dir);
        self.todo.progress = true;
    }

    /// Looks at a name; trouble is reported and `Err(())`.
    pub(crate) fn look(&mut self, dir: &Dir, name: &OsStr) -> Result<Option<Seen>, Passed> {
        match beneath::look(dir.fd.as_fd(), name) {
            Ok(seen) => Ok(seen),
            Err(error) => {
                self.engine.io_problem(&dir.path.join(name), &error);
                Err(Passed)
            }
        }
    }

    /// What the mesh shows for a key, if it is below the folder's base.
    pub(crate) fn shown(&mut self, key: &EntryKey) -> Outcome<Option<Entry>> {
        let Some(entry) = self.engine.replica.entry(key)? else {
            return Ok(None);
        };
        if entry.key != *key {
            // Shown as a part of another one: directories made apart with one name.
            return Ok(None);
        }
        let mut parent = entry.parent;
        // Deeper than the tree can be.
        for _depth in 0..4096 {
            if parent == self.engine.config.base {
                return Ok(Some(entry));
            }
            // A synced directory is below the base.
            if self.batch.by_key(&EntryKey::from(parent))?.is_some() {
                return Ok(Some(entry));
            }
            match self.engine.replica.entry(&EntryKey::from(parent))? {
                Some(above) => parent = above.parent,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The row with the key that its version has now. When a version written elsewhere won the name, the one that stands here
    /// became the conflict copy: the row follows it, so that its bytes are renamed and never replaced.
    pub(crate) fn following(&mut self, place: &Place, row: Row) -> Outcome<Row> {
        let (Some(version), None) = (row.version, row.key.version) else {
            return Ok(row);
        };
        let copy = EntryKey {
            id: row.key.id,
            version: Some(version),
        };
        match self.engine.replica.entry(&copy)? {
            Some(entry) if entry.key == copy => {
                let row = Row { key: copy, ..row };
                self.batch.put(place, &row)?;
                Ok(row)
            }
            Some(_) | None => Ok(row),
        }
    }

    /// The entry that the mesh shows under a name and that is not synced at another place here.
    pub(crate) fn shown_at(&mut self, place: &Place) -> Outcome<Option<Entry>> {
        let found = self
            .engine
            .replica
            .lookup(place.parent, place.name.as_str())?;
        let Some(entry) = found else { return Ok(None) };
        match self.batch.by_key(&entry.key)? {
            Some((elsewhere, _row)) if elsewhere != *place => Ok(None),
            Some(_) | None => Ok(Some(entry)),
        }
    }

    /// The file that holds this content here is about to go: if something else waits for it, or may, its bytes are kept.
    pub(crate) fn let_go(&mut self, row: &Row, path: &Path) -> Outcome<()> {
        let Node::File { content, .. } = &row.node else {
            return Ok(());
        };
        if !self.engine.wanted.contains(&content.id) && self.engine.is_caught_up() {
            return Ok(());
        }
        let (store, file) = (&self.engine.store, self.engine.file_path(path));
        if !matches!(store.refers_to(&file), Ok(true))
            && let Err(error) = store.import_reference(&file)
        {
            // If it changed meanwhile it is not replaced; if it cannot be read, nothing can keep it.
            tracing::warn!(path = %name::display(path), %error, "cannot be read before it goes");
        }
        Ok(store.preserve(content)?)
    }

    /// Whether a path is left out; then nothing is remembered of it either.
    pub(crate) fn ignored(
        &mut self,
        path: &Path,
        place: Option<&Place>,
        shape: Shape,
    ) -> Outcome<bool> {
        if name::is_control(path) {
            return Ok(true);
        }
        if self
            .engine
            .rules
            .ignored(&self.engine.root, path, shape)
            .is_none()
        {
            return Ok(false);
        }
        if let Some(place) = place
            && self.batch.get(place)?.is_some()
        {
            self.batch.remove_tree(place)?;
            self.unwatch(path);
        }
        self.engine.problems.clear_tree(path);
        Ok(true)
    }

    /// Hears of what happens in a directory from now on. To be called before it is listed.
    pub(crate) fn watch(&mut self, path: &Path, dir: &OwnedFd) {
        if let Some(watcher) = &mut self.engine.watcher {
            watcher.add(path, dir);
        }
    }

    pub(crate) fn unwatch(&mut self, path: &Path) {
        if let Some(watcher) = &mut self.engine.watcher {
            watcher.remove_tree(path);
        }
    }
}

/// Whether a directory cannot be opened because something else, or nothing, stands there or on the way.
pub(crate) fn is_replaced(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::CrossesDevices => {
            true
        }
        // A link; the kind for it is not stable.
        _ => error.raw_os_error() == Some(Errno::LOOP.raw_os_error()),
    }
}

/// Trouble that was reported; the path is passed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed;

/// What an entry of the mesh is, apart from its place. `None` for one that claims a kind without its facts.
pub(crate) fn node_of(entry: &Entry) -> Option<Node> {
    match entry.kind {
        Kind::Directory => Some(Node::Directory { mode: entry.mode }),
        Kind::Symlink => entry.target.clone().map(|target| Node::Symlink { target }),
        Kind::File => entry.file.map(|file| Node::File {
            content: file.content,
            mode: entry.mode,
            mtime: file.mtime,
        }),
    }
}

/// The version of what a file or link shows; a directory has none that counts.
pub(crate) fn version_of(entry: &Entry) -> Option<Version> {
    match entry.kind {
        Kind::Directory => None,
        Kind::File | Kind::Symlink => Some(entry.version),
    }
}
