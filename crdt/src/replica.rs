//! The handle: one device's copy of a mesh's metadata.
//!
//! Everything that changes a replica goes through one writer and one database transaction that
//! holds log, registers, tree index and vector together, so they can never disagree. Readers use
//! snapshots of the database and of [`Shared`] and do not wait for the writer.
//!
//! `replica/edit` makes local changes, `replica/apply` takes foreign ones, `replica/admin` is about members,
//! `replica/read` answers questions about the tree. Sending is the [`crate::Session`]'s business.

mod admin;
mod apply;
mod authorship;
mod backfill;
mod edit;
mod header;
mod held;
mod install;
mod intake;
mod life;
mod observe;
mod place;
mod read;
mod retract;
mod rotate;
mod sealed;
mod snapshot;
mod stage;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rand::Rng;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::bucket;
use crate::epoch::{EpochSecret, Epochs};
use crate::error::{BlamesIndex, OpenError, StorageError};
use crate::id::{Author, DeviceId, DeviceKey, Hash, Incarnation, Line, MeshId, Timestamp};
use crate::index;
use crate::limit::MAX_VOLATILE_COMMITS;
use crate::log::fork::{self, Forks};
use crate::log::gap::{self, Gap};
use crate::log::{self, LogEnd};
use crate::member::{MemberLog, Welcome, label_fits};
use crate::vector::VersionVector;
use header::Header;
pub use life::Problem;
use life::renew;

pub(crate) use backfill::Fetching;
pub use edit::EditOutcome;
pub use observe::{Change, Entries, Observer, Subscription};
pub(crate) use snapshot::{Outgoing, Worth};
pub(crate) use stage::{Piece, Stage, Unfit};

/// A mesh to be founded.
#[derive(Debug, Clone)]
pub struct NewMesh {
    /// What people call the mesh.
    pub name: String,
    /// What people call this device.
    pub device_name: String,
    /// This device's key. It becomes the first admin.
    pub key: DeviceKey,
}

/// One device's copy of a mesh's metadata. Clones are handles to the same replica.
#[derive(Clone)]
pub struct Replica {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    db: Database,
    key: DeviceKey,
    mesh: MeshId,
    writer: Mutex<Writer>,
    shared: RwLock<Arc<Shared>>,
    observers: observe::Observers,
    place: Mutex<place::LastPlace>,
    /// A snapshot is on its way in.
    staging: AtomicBool,
    /// Some session asks for what is missing in the logs.
    fetching: AtomicBool,
}

/// What readers may know without waiting for the writer; replaced after each commit.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) members: Arc<MemberLog>,
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) author: Author,
    pub(crate) ends: BTreeMap<Line, LogEnd>,
    /// Authors that wrote two envelopes under one number.
    pub(crate) forks: Forks,
    pub(crate) vector: VersionVector,
    /// Envelopes with smaller arrival numbers survive a crash.
    pub(crate) durable: u64,
    /// The arrival number that the next envelope gets.
    pub(crate) next_arrival: u64,
    /// What is missing in the logs since this replica began with a snapshot.
    pub(crate) gap: Option<Arc<Gap>>,
    /// How often logs were made shorter since the replica was opened.
    pub(crate) cuts: u64,
    /// How many envelopes were held since then, because this program cannot read them.
    pub(crate) held: u64,
}

/// The state that only the one who writes sees.
struct Writer {
    members: Arc<MemberLog>,
    epochs: Arc<Epochs>,
    position: Position,
    /// Envelopes with smaller arrival numbers survive a crash.
    durable: u64,
    /// Commits so far that would not survive a crash.
    volatile: u32,
    /// Whether the last commit that survives was no [`Commit::Checkpoint`].
    unchecked: bool,
    /// A commit failed: see [`StorageError::Poisoned`].
    failed: bool,
}

/// What a crash leaves of a commit, and of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commit {
    /// Nothing, unless one of the others follows.
    Deferred,
    /// Everything, with one fsync. Opened after a crash, the database is read as a whole to find its free
    /// pages: seconds per gigabyte.
    Durable,
    /// Everything, and the list of free pages with it: several times as slow, but opening is quick.
    Checkpoint,
}

/// What a transaction moves; put back when it fails.
#[derive(Debug, Clone)]
struct Position {
    author: Author,
    ends: BTreeMap<Line, LogEnd>,
    forks: Forks,
    /// The greatest stamp seen or given.
    clock: u64,
    next_arrival: u64,
    gap: Option<Arc<Gap>>,
    /// How often logs were made shorter.
    cuts: u64,
    /// How many envelopes were held.
    held: u64,
}

impl Replica {
    /// Founds a mesh in an empty database; this device becomes its first admin.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the database is then unchanged.
    pub fn create(
        db: Database,
        mesh: &NewMesh,
        now: Timestamp,
        rng: &mut dyn Rng,
    ) -> Result<Self, OpenError> {
        if !label_fits(&mesh.name) || !label_fits(&mesh.device_name) {
            return Err(OpenError::BadLabel);
        }
        let members = MemberLog::found(&mesh.key, &mesh.name, &mesh.device_name, now, rng);
        let epochs = Epochs::from_iter([EpochSecret::random(rng)]);
        Self::start(db, mesh.key.clone(), &members, &epochs, rng)
    }

    /// Starts a replica of a mesh that has admitted this device.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the database is then unchanged.
    pub fn join(
        db: Database,
        welcome: &Welcome,
        key: DeviceKey,
        rng: &mut dyn Rng,
    ) -> Result<Self, OpenError> {
        let records = welcome.records.iter().map(Vec::as_slice);
        let members = MemberLog::from_records(records).map_err(OpenError::BadWelcome)?;
        let admitted = members.state().role_of(&key.device_id()).is_some();
        if !admitted || members.mesh() != welcome.mesh {
            return Err(OpenError::NotAdmitted);
        }
        let epochs = welcome.epochs.iter().cloned().collect();
        Self::start(db, key, &members, &epochs, rng)
    }

    fn start(
        db: Database,
        key: DeviceKey,
        members: &MemberLog,
        epochs: &Epochs,
        rng: &mut dyn Rng,
    ) -> Result<Self, OpenError> {
        let read = db.begin_read().map_err(StorageError::from)?;
        if header::read(&read)?.is_some() {
            return Err(OpenError::Occupied {
                mesh: header::members(&read)?.mesh(),
            });
        }
        drop(read);
        let device = key.device_id();
        let header = Header {
            device,
            incarnation: Incarnation::random(rng),
            clock: 0,
        };
        let mut txn = db.begin_write().map_err(StorageError::from)?;
        txn.set_quick_repair(true);
        header::create(&txn, header)?;
        header::set_members(&txn, members)?;
        header::set_epochs(&txn, epochs)?;
        log::create(&txn)?;
        bucket::create(&txn)?;
        retract::create(&txn)?;
        held::create(&txn)?;
        rebuild_index(&txn)?;
        txn.commit().map_err(StorageError::from)?;
        Self::open(db, key)
    }

    /// Opens a replica. Nothing but the logs' ends is loaded, so this takes milliseconds, unless the tree's
    /// index was found damaged, is missing, or was made by another program: then it is made anew.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(db: Database, key: DeviceKey) -> Result<Self, OpenError> {
        let read = db.begin_read().map_err(StorageError::from)?;
        let header = header::read(&read)?.ok_or(OpenError::Empty)?;
        if header.device != key.device_id() {
            return Err(OpenError::OtherDevice {
                owner: header.device,
            });
        }
        let members = Arc::new(header::members(&read)?);
        let mut epochs = header::epochs(&read)?;
        epochs.choose(members.epochs());
        let epochs = Arc::new(epochs);
        let ends = log::ends(&read)?;
        let gap = gap::read(&read)?.map(Arc::new);
        let forks = fork::read(&read)?;
        let littered = stage::is_littered(&read)?;
        let usable =
            header::index(&read)? == Some(index::LAYOUT) && index::View::open(&read).is_ok();
        drop(read);
        if !usable || littered {
            let mut txn = db.begin_write().map_err(StorageError::from)?;
            txn.set_quick_repair(true);
            if littered {
                stage::clear(&txn)?;
            }
            if !usable {
                tracing::warn!("the tree's index is made anew");
                rebuild_index(&txn)?;
            }
            txn.commit().map_err(StorageError::from)?;
        }
        let mesh = members.mesh();
        let position = Position {
            author: header.author(),
            ends: ends.ends,
            forks,
            clock: header.clock,
            next_arrival: ends.next_arrival,
            gap,
            cuts: 0,
            held: 0,
        };
        let writer = Writer {
            members,
            epochs,
            // What an opened database holds has survived already.
            durable: position.next_arrival,
            position,
            volatile: 0,
            unchecked: false,
            failed: false,
        };
        let shared = RwLock::new(Arc::new(writer.share()));
        let writer = Mutex::new(writer);
        let observers = observe::Observers::default();
        let place = Mutex::default();
        let replica = Self {
            inner: Arc::new(Inner {
                db,
                key,
                mesh,
                writer,
                shared,
                observers,
                place,
                staging: AtomicBool::new(false),
                fetching: AtomicBool::new(false),
            }),
        };
        replica.retry_held()?;
        Ok(replica)
    }

    /// Opens a replica whose database may be a copy: a restored backup, a cloned disk.
    ///
    /// `place` is anything that changes when the file is copied (its device and inode number). When it
    /// is not what it was, this device starts a new incarnation, so that numbers which the lost end of its
    /// log may have used are never used again.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open_at(
        db: Database,
        key: DeviceKey,
        place: &[u8],
        rng: &mut dyn Rng,
    ) -> Result<Self, OpenError> {
        let replica = Self::open(db, key)?;
        let before = header::place(&replica.inner.read()?)?;
        if before.as_deref() != Some(place) {
            let mut writer = replica.inner.writer()?;
            let copied = before.is_some();
            replica
                .inner
                .transact(&mut writer, Commit::Durable, |txn, writer| {
                    header::set_place(txn, place)?;
                    if copied {
                        renew(txn, writer, rng)
                    } else {
                        Ok(())
                    }
                })?;
        }
        Ok(replica)
    }

    /// The mesh.
    #[must_use]
    pub fn mesh_id(&self) -> MeshId {
        self.inner.mesh
    }

    /// What people call the mesh.
    #[must_use]
    pub fn name(&self) -> String {
        self.shared().members.state().mesh_name.clone()
    }

    /// This device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.inner.key.device_id()
    }

    /// How much of every author's log is here.
    #[must_use]
    pub fn vector(&self) -> VersionVector {
        self.shared().vector.clone()
    }

    /// A hash of everything that the tree is made from: equal on two devices exactly if they hold the
    /// same registers. Takes about a millisecond.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn digest(&self) -> Result<Hash, StorageError> {
        bucket::digest(&self.read()?)
    }

    /// Makes everything that was committed so far survive a crash, and the database quick to open after one.
    ///
    /// To be called 20 to 50 ms after every change, and after a series of [`Replica::edit_deferred`].
    /// Costs nothing when there is nothing to do.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the replica then refuses to write until it is opened again.
    pub fn flush(&self) -> Result<(), StorageError> {
        let mut writer = self.inner.writer()?;
        if writer.volatile == 0 && !writer.unchecked {
            return Ok(());
        }
        let deferred = writer.volatile > 0;
        self.inner
            .transact(&mut writer, Commit::Checkpoint, |_, _| {
                Ok::<_, StorageError>(())
            })?;
        if !deferred {
            return Ok(());
        }
        // Deferred envelopes may be sent now: that is news for those who wait to send.
        let entries = Entries::Listed(Vec::new());
        self.inner.observers.push(Change {
            entries,
            local: true,
            members: false,
        });
        drop(writer);
        self.inner.observers.deliver();
        Ok(())
    }

    /// Whether [`Replica::flush`] has something to do.
    ///
    /// # Errors
    ///
    /// [`StorageError::Poisoned`].
    pub fn is_dirty(&self) -> Result<bool, StorageError> {
        let writer = self.inner.writer()?;
        Ok(writer.volatile > 0 || writer.unchecked)
    }

    /// Has `observer` called after every commit until the subscription is dropped.
    #[must_use]
    pub fn subscribe(&self, observer: Arc<dyn Observer>) -> Subscription {
        self.inner.observers.subscribe(&self.inner, observer)
    }

    /// The digest that belongs to `shared`; `None` when a commit came in between.
    pub(crate) fn digest_of(&self, shared: &Arc<Shared>) -> Result<Option<Hash>, StorageError> {
        let digest = self.digest()?;
        Ok(Arc::ptr_eq(shared, &self.shared()).then_some(digest))
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(
            &self
                .inner
                .shared
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    pub(crate) fn read(&self) -> Result<ReadTransaction, StorageError> {
        self.inner.read()
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("mesh", &self.inner.mesh)
            .field("device", &self.device())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn read(&self) -> Result<ReadTransaction, StorageError> {
        Ok(self.db.begin_read()?)
    }

    /// The right to write. A thread that panicked while it wrote leaves the replica poisoned, as a
    /// failed commit does.
    fn writer(&self) -> Result<MutexGuard<'_, Writer>, StorageError> {
        let writer = self.writer.lock().map_err(|_| StorageError::Poisoned)?;
        if writer.failed {
            Err(StorageError::Poisoned)
        } else {
            Ok(writer)
        }
    }

    /// Runs `change` in one transaction. When it fails, nothing has happened.
    fn transact<T, E: From<StorageError> + BlamesIndex>(
        &self,
        writer: &mut Writer,
        commit: Commit,
        change: impl FnOnce(&WriteTransaction, &mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let position = writer.position.clone();
        let members = Arc::clone(&writer.members);
        let epochs = Arc::clone(&writer.epochs);
        let mut txn = self.db.begin_write().map_err(StorageError::from)?;
        let full = writer.volatile >= MAX_VOLATILE_COMMITS;
        let durability = match commit {
            Commit::Deferred if !full => Durability::None,
            Commit::Deferred | Commit::Durable | Commit::Checkpoint => Durability::Immediate,
        };
        let immediate = matches!(durability, Durability::Immediate);
        txn.set_durability(durability).map_err(StorageError::from)?;
        txn.set_quick_repair(commit == Commit::Checkpoint);
        let outcome = change(&txn, writer).and_then(|value| {
            if writer.position.clock != position.clock {
                header::set_clock(&txn, writer.position.clock)?;
            }
            Ok(value)
        });
        let outcome = match outcome {
            Ok(value) => txn.commit().map(|()| value).map_err(|error| {
                writer.failed = true;
                E::from(StorageError::from(error))
            }),
            Err(error) => {
                // Dropping the transaction undoes it.
                drop(txn);
                if error.blames_index() {
                    self.distrust_index()?;
                }
                Err(error)
            }
        };
        if outcome.is_err() {
            writer.position = position;
            writer.members = members;
            writer.epochs = epochs;
            return outcome;
        }
        if immediate {
            writer.volatile = 0;
            writer.unchecked = commit != Commit::Checkpoint;
            writer.durable = writer.position.next_arrival;
        } else {
            writer.volatile += 1;
        }
        let shared = Arc::new(writer.share());
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = shared;
        outcome
    }

    /// Remembers that the tree's index is damaged. To be called by the one who may write.
    fn distrust_index(&self) -> Result<(), StorageError> {
        let txn = self.db.begin_write()?;
        header::forget_index(&txn)?;
        txn.commit()?;
        Ok(())
    }
}

impl Writer {
    fn share(&self) -> Shared {
        let ends = self.position.ends.clone();
        Shared {
            members: Arc::clone(&self.members),
            epochs: Arc::clone(&self.epochs),
            author: self.position.author,
            vector: ends.iter().map(|(line, end)| (*line, end.seq)).collect(),
            ends,
            forks: self.position.forks.clone(),
            durable: self.durable,
            next_arrival: self.position.next_arrival,
            gap: self.position.gap.clone(),
            cuts: self.position.cuts,
            held: self.position.held,
        }
    }
}

fn rebuild_index(txn: &WriteTransaction) -> Result<(), StorageError> {
    index::rebuild(txn, &view::View::open(txn)?)?;
    header::set_index(txn, index::LAYOUT)
}
