//! The handle: one store for each mesh, in a directory of its own.
//!
//! Here: options, appending, group commit, closing. What can be done with a store is spread over
//! the modules by topic (`import`, `reader`, `holding`, `reference`, `evict`, `verify`), each with
//! its own `impl Store`. Recovery at the start is in [`open`].
//!
//! ```text
//! <directory>/lock          held while open
//! <directory>/index.redb    where everything is; rebuilt from the packs when lost
//! <directory>/packs/        00000001.pack ...
//! ```

mod flight;
mod open;

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

pub(crate) use self::flight::{InFlight, Ticket};
pub use self::open::Recovery;
use crate::cache::ChunkCache;
use crate::chunker::MAX_CHUNK;
use crate::codec::Codec;
use crate::damage::Findings;
use crate::error::{IndexError, WriteError};
use crate::id::{ChunkId, ContentKey};
use crate::index::{Index, NodeId, PackPlace, Place};
use crate::manifest::ChunkRef;
use crate::pack::Packs;

/// What can be chosen about a store. `Default` is right for a node that serves people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreOptions {
    /// RAM for verified chunks. Default 64 MiB.
    pub cache_bytes: u64,
    /// A pack is sealed at this size, at most 2 GiB. Default 256 MiB: one unlink frees about a
    /// thousand chunks, and compacting one stays short.
    pub pack_bytes: u64,
    /// Appended bytes after which a commit is made even if nobody asks. Default 64 MiB, where one
    /// more fsync no longer costs throughput.
    pub commit_bytes: u64,
    /// Pending rows after which a commit is made even if nobody asks. Default 65,536, about
    /// 10 MiB of RAM.
    pub commit_rows: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            pack_bytes: 256 << 20,
            commit_bytes: 64 << 20,
            commit_rows: 65_536,
        }
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Bytes of all packs on disk.
    pub pack_bytes: u64,
    /// Number of packs.
    pub packs: u64,
    /// Places of chunks that the last commit covered; a chunk in a pack and in a file has two.
    pub places: u64,
    /// Bytes of verified chunks in RAM.
    pub cache_bytes: u64,
    /// Rows that wait for a commit.
    pub pending_rows: u64,
}

/// An open store. Cheap to clone; every method may be called from any thread, and blocks.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) key: ContentKey,
    pub(crate) options: StoreOptions,
    directory: PathBuf,
    pub(crate) index: Index,
    pub(crate) packs: Packs,
    pub(crate) cache: ChunkCache,
    pub(crate) zero: Zero,
    pub(crate) in_flight: InFlight,
    /// What readers found damaged.
    pub(crate) found: Findings,
    /// Only one sweep or scrub at a time.
    pub(crate) upkeep: Mutex<()>,
    /// Updates of the index that are durable; the lock is what concurrent committers queue on.
    committed: Mutex<u64>,
    /// Bytes appended since the last commit.
    uncommitted: AtomicU64,
    poisoned: AtomicBool,
    recovery: Recovery,
    /// Keeps other processes out until the store is dropped.
    _lock: File,
}

/// The chunk that a hole is cut into. It is never stored: everybody has it.
#[derive(Debug)]
pub(crate) struct Zero {
    pub(crate) chunk: ChunkRef,
    pub(crate) bytes: Bytes,
}

impl Store {
    /// The secret that ids are made with.
    pub fn key(&self) -> &ContentKey {
        &self.inner.key
    }

    /// What had to be put right when the store was opened.
    pub fn recovery(&self) -> &Recovery {
        &self.inner.recovery
    }

    /// The chunk of zeros that holes of sparse files consist of. It is always present and takes
    /// no space; a writer that meets it may leave a hole instead.
    pub fn zero_chunk(&self) -> ChunkRef {
        self.inner.zero.chunk
    }

    /// Keeps bytes, 1 byte to 1 MiB. Readable at once, durable after [`commit`](Self::commit).
    /// Bytes that are in a pack already are not written again.
    ///
    /// Packs never take the last of a disk: an eighth of it, at most 64 MiB, is left to databases,
    /// the index among them, which fail as a whole where a pack only refuses one chunk.
    ///
    /// # Errors
    /// Nothing was kept; see [`WriteError`].
    pub fn put(&self, bytes: &[u8]) -> Result<ChunkId, WriteError> {
        check_size(bytes)?;
        let id = self.inner.key.chunk_id(bytes);
        self.append(id, bytes)?;
        Ok(id)
    }

    /// Keeps bytes that another device sent as chunk `id`, after checking that they are.
    ///
    /// # Errors
    /// [`WriteError::Mismatch`] if they are not; otherwise as [`put`](Self::put).
    pub fn put_verified(&self, id: ChunkId, bytes: &[u8]) -> Result<(), WriteError> {
        check_size(bytes)?;
        if self.inner.key.chunk_id(bytes) != id {
            return Err(WriteError::Mismatch { id });
        }
        self.append(id, bytes)
    }

    /// Keeps bytes whose id is known to be right.
    pub(crate) fn append(&self, id: ChunkId, bytes: &[u8]) -> Result<(), WriteError> {
        self.check_writable()?;
        if id == self.inner.zero.chunk.id {
            return Ok(());
        }
        let index = &self.inner.index;
        let generation = index.generation();
        let known = index.read().pack_place(&id)?;
        if known.is_some_and(|place| place.generation == generation) {
            return Ok(());
        }
        let mut appender = self.inner.packs.appender();
        let mut layers = index.update();
        // Asked again under the appender's lock: nobody can append the same chunk in between.
        let place = match layers.pack_place(&id)? {
            Some(place) => PackPlace {
                generation,
                ..place
            },
            None => {
                drop(layers);
                let len = u32::try_from(bytes.len()).expect("sizes are checked on the way in");
                let place = appender.append(id, Codec::Raw, len, bytes, generation)?;
                self.count_appended(place.stored);
                layers = index.update();
                place
            }
        };
        layers.set_place(id, NodeId::NONE, Some(Place::Pack(place)));
        drop((layers, appender));
        self.commit_if_large()
    }

    /// Whether a chunk is here, for somebody who goes on to rely on it. One in a pack is then as good as put again: it
    /// outlives the sweep that is under way, and the next one.
    ///
    /// # Errors
    /// The index could not be read.
    pub(crate) fn renew(&self, id: &ChunkId) -> Result<bool, IndexError> {
        let index = &self.inner.index;
        let generation = index.generation();
        let is_old = |place: &PackPlace| place.generation != generation;
        if index
            .read()
            .pack_place(id)?
            .is_some_and(|place| is_old(&place))
        {
            // Nobody may move the record in between.
            let _appender = self.inner.packs.appender();
            let mut layers = index.update();
            if let Some(place) = layers.pack_place(id)?.filter(is_old) {
                let place = PackPlace {
                    generation,
                    ..place
                };
                layers.set_place(*id, NodeId::NONE, Some(Place::Pack(place)));
            }
        }
        self.locate_chunk(id)
    }

    /// Makes everything that was put, referenced, moved or forgotten before this call durable.
    ///
    /// Concurrent callers share one fsync. Costs one fdatasync and one database transaction, some
    /// milliseconds; nothing if nothing is pending.
    ///
    /// # Errors
    /// Durability is then unknown, so the store refuses further writes
    /// ([`WriteError::Poisoned`]) until it is opened again. Reads go on.
    pub fn commit(&self) -> Result<(), WriteError> {
        let wanted = self.inner.index.updates();
        let mut committed = self
            .inner
            .committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *committed >= wanted {
            return Ok(()); // who held the lock before has covered our rows
        }
        self.check_writable()?;
        let outcome = self.write_pending();
        match outcome {
            Ok(covered) => *committed = covered,
            Err(_) => self.inner.poisoned.store(true, Ordering::Release),
        }
        outcome.map(drop)
    }

    fn write_pending(&self) -> Result<u64, WriteError> {
        let inner = &self.inner;
        let mut appender = inner.packs.appender();
        let dirty = appender.take_dirty();
        let lengths = dirty.iter().map(|(pack, (_, length))| (*pack, *length));
        let (layer, covered) = inner.index.freeze(lengths);
        inner.uncommitted.store(0, Ordering::Relaxed);
        drop(appender);
        for (pack, (file, _)) in &dirty {
            file.sync_data()
                .map_err(|source| WriteError::io(inner.packs.path(*pack), source))?;
        }
        inner
            .index
            .commit(&layer)
            .map_err(|source| self.index_error(source))?;
        Ok(covered)
    }

    /// Counts bytes that the next commit has to flush.
    pub(crate) fn count_appended(&self, stored: u32) {
        self.inner
            .uncommitted
            .fetch_add(u64::from(stored), Ordering::Relaxed);
    }

    /// Commits when more is pending than should be kept in RAM or lost with the power.
    pub(crate) fn commit_if_large(&self) -> Result<(), WriteError> {
        let bytes = self.inner.uncommitted.load(Ordering::Relaxed);
        let options = &self.inner.options;
        if bytes >= options.commit_bytes || self.inner.index.read().pending() >= options.commit_rows
        {
            self.commit()?;
        }
        Ok(())
    }

    /// How much there is. Reads the directory of packs.
    ///
    /// # Errors
    /// The directory or the index could not be read.
    pub fn usage(&self) -> Result<Usage, WriteError> {
        let mut usage = Usage::default();
        let listed = self.inner.packs.list();
        for pack in listed.map_err(|error| WriteError::io(error.path, error.source))? {
            usage.packs += 1;
            usage.pack_bytes += pack.length;
        }
        let (snapshot, pending) = {
            let layers = self.inner.index.read();
            (layers.snapshot(), layers.pending())
        };
        usage.places = snapshot.place_count()?;
        usage.pending_rows = pending as u64;
        usage.cache_bytes = self.inner.cache.weight();
        Ok(usage)
    }

    /// Commits, then gives this handle up. The directory is free when the last clone is dropped.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn close(self) -> Result<(), WriteError> {
        self.commit()
    }

    /// Whether the store refuses to write until it is opened again: an earlier commit failed.
    pub fn has_failed(&self) -> bool {
        self.inner.poisoned.load(Ordering::Acquire)
    }

    pub(crate) fn check_writable(&self) -> Result<(), WriteError> {
        if self.has_failed() {
            return Err(WriteError::Poisoned);
        }
        Ok(())
    }

    fn index_error(&self, error: IndexError) -> WriteError {
        if error.no_space() {
            let source = std::io::ErrorKind::StorageFull.into();
            return WriteError::NoSpace {
                path: self.inner.directory.join(open::INDEX),
                source,
            };
        }
        error.into()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("directory", &self.inner.directory)
            .finish_non_exhaustive()
    }
}

fn check_size(bytes: &[u8]) -> Result<(), WriteError> {
    if bytes.is_empty() || bytes.len() > MAX_CHUNK {
        return Err(WriteError::Size { len: bytes.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
