//! The index: where each chunk is, which files are referred to, how far each pack is durable.
//!
//! Rows live in redb. Between commits they wait in RAM layers that every read sees first, so
//! recording a file costs no transaction: a lookup asks the active layer, then the layer being
//! committed, then a snapshot of the database. Row formats are in [`row`], the file tree that
//! references hang from is in [`reference`](crate::reference). No bytes of files pass here.

mod guard;
mod layer;
mod lookup;
mod row;
mod snapshot;

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::{Database, Durability, ReadableDatabase, TableDefinition};

pub(crate) use self::guard::Guard;
use self::guard::Guarded;
pub(crate) use self::layer::Layer;
pub(crate) use self::lookup::Layers;
pub(crate) use self::row::{FilePlace, Node, NodeId, PackId, PackPlace, Place, Root, place_key};
pub(crate) use self::snapshot::Snapshot;
use crate::error::IndexError;

const PLACES: TableDefinition<'_, &[u8; 40], &[u8]> = TableDefinition::new("places");
const NODES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("nodes");
const NAMES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("names");
const ROOTS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("roots");
const PACKS: TableDefinition<'_, u32, u64> = TableDefinition::new("packs");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Version of the tables; also that of the packs they describe.
pub(crate) const FORMAT: u32 = 1;
/// redb's page cache: lookups touch one leaf of a 4M-row table in 2-4 µs with this much.
const CACHE_BYTES: usize = 32 << 20;

/// What the index says about itself: see [`Index::meta`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Meta {
    /// Format version, [`FORMAT`] when written by this program.
    pub(crate) format: u32,
    /// Fingerprint of the content key.
    pub(crate) fingerprint: u64,
}

/// The open index. All methods may be called from any thread.
pub(crate) struct Index {
    guard: Arc<Guard>,
    database: Guarded,
    layers: RwLock<Layers>,
    next_node: AtomicU64,
    generation: AtomicU32,
    squeezed_below: AtomicU32,
}

impl Index {
    /// Opens or creates the database file. `meta` is written when it is new.
    pub(crate) fn open(path: &Path, meta: Meta) -> Result<Self, IndexError> {
        let guard = Arc::new(Guard::new(path));
        guard.run(|| {
            let mut builder = Database::builder();
            let database = builder.set_cache_size(CACHE_BYTES).create(path)?;
            let database = Guarded::new(database, Arc::clone(&guard));
            Self::prepare(&database, meta)?;
            let snapshot = Snapshot::take(&database, &guard)?;
            let next_node = number(&database, "next_node")?.max(1);
            let generation = number(&database, "generation")?.max(1);
            let squeezed_below = number(&database, "squeezed_below")?;
            Ok(Self {
                squeezed_below: AtomicU32::new(u32::try_from(squeezed_below).unwrap_or(0)),
                guard: Arc::clone(&guard),
                database,
                layers: RwLock::new(Layers::over(snapshot)),
                next_node: AtomicU64::new(next_node),
                generation: AtomicU32::new(u32::try_from(generation).unwrap_or(u32::MAX)),
            })
        })
    }

    /// Creates the tables, so that later readers never meet a missing one.
    fn prepare(database: &Database, meta: Meta) -> Result<(), IndexError> {
        let read = database.begin_read()?;
        if read.open_table(META).is_ok() {
            return Ok(());
        }
        let mut write = database.begin_write()?;
        write.set_quick_repair(true);
        write.open_table(PLACES)?;
        write.open_table(NODES)?;
        write.open_table(NAMES)?;
        write.open_table(ROOTS)?;
        write.open_table(PACKS)?;
        {
            let mut table = write.open_table(META)?;
            table.insert("format", u64::from(meta.format))?;
            table.insert("fingerprint", meta.fingerprint)?;
        }
        write.commit()?;
        Ok(())
    }

    /// What the database was created with.
    pub(crate) fn meta(&self) -> Result<Meta, IndexError> {
        self.guard.run(|| {
            let format = u32::try_from(number(&self.database, "format")?).unwrap_or(u32::MAX);
            Ok(Meta {
                format,
                fingerprint: number(&self.database, "fingerprint")?,
            })
        })
    }

    /// Looks at all rows, pending ones included. Keep it short: writers wait.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Layers> {
        // Every update leaves the layers consistent at each step, so a panicking thread cannot
        // have left them half-changed.
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes rows; visible at once, durable after the next commit. Keep it short.
    pub(crate) fn update(&self) -> RwLockWriteGuard<'_, Layers> {
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        layers.updates += 1;
        layers
    }

    /// A number for a new file or directory; never used twice.
    pub(crate) fn new_node(&self) -> NodeId {
        NodeId(self.next_node.fetch_add(1, Ordering::Relaxed))
    }

    /// The first number that no file or directory has yet.
    pub(crate) fn node_horizon(&self) -> NodeId {
        NodeId(self.next_node.load(Ordering::Relaxed))
    }

    /// The generation that rows written now belong to.
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Begins the next generation and returns it.
    pub(crate) fn next_generation(&self) -> u32 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The packs below were looked at for compression.
    pub(crate) fn squeezed_below(&self) -> PackId {
        PackId(self.squeezed_below.load(Ordering::Relaxed))
    }

    /// Remembers up to where packs were looked at for compression; durable with the next commit. To
    /// forget it costs time only.
    pub(crate) fn set_squeezed_below(&self, pack: PackId) {
        self.squeezed_below.store(pack.0, Ordering::Relaxed);
    }

    /// How many updates there were, for [`crate::store`]'s group commit.
    pub(crate) fn updates(&self) -> u64 {
        self.read().updates
    }

    /// Sets the pending rows aside for [`commit`](Self::commit) and returns what they cover.
    pub(crate) fn freeze(&self, packs: impl Iterator<Item = (PackId, u64)>) -> (Arc<Layer>, u64) {
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        let mut layer = std::mem::take(&mut layers.active);
        // The lengths belong to the same moment: a crash must neither lose nor adopt rows twice.
        for (pack, length) in packs {
            layer.packs.entry(pack).or_insert(Some(length));
        }
        let layer = Arc::new(layer);
        layers.frozen = Some(Arc::clone(&layer));
        (layer, layers.updates)
    }

    /// Writes a frozen layer in one durable transaction.
    pub(crate) fn commit(&self, layer: &Layer) -> Result<(), IndexError> {
        let snapshot = self.guard.run(|| {
            let mut write = self.database.begin_write()?;
            write.set_durability(Durability::Immediate)?;
            // Without it, opening after a crash walks the whole file; with it, about 1 ms.
            write.set_quick_repair(true);
            layer.write(&write)?;
            {
                let mut meta = write.open_table(META)?;
                meta.insert("next_node", self.node_horizon().0)?;
                meta.insert("generation", u64::from(self.generation()))?;
                meta.insert("squeezed_below", u64::from(self.squeezed_below().0))?;
            }
            write.commit()?;
            Snapshot::take(&self.database, &self.guard)
        })?;
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        layers.snapshot = Arc::new(snapshot);
        layers.frozen = None;
        Ok(())
    }
}

/// A number that the index keeps about itself; 0 if it was never written.
fn number(database: &Database, name: &str) -> Result<u64, IndexError> {
    let table = database.begin_read()?.open_table(META)?;
    let row = table.get(name)?;
    Ok(row.map_or(0, |row| row.value()))
}
