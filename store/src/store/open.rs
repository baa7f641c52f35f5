//! Opening a store: the lock, the index or its reconstruction, torn tails.
//!
//! Whatever a crash left is put right here, before anybody reads: records behind the accounted
//! length of a pack are adopted if they are whole, a lost or unreadable index is rebuilt from all
//! packs. Nothing on disk is deleted or truncated; an unreadable index is only moved aside.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{InFlight, Inner, Store, StoreOptions, Zero};
use crate::cache::ChunkCache;
use crate::chunker::{MAX_CHUNK, cut};
use crate::damage::Findings;
use crate::error::{IndexError, OpenError};
use crate::id::ContentKey;
use crate::index::{FORMAT, Guard, Index, Meta, NodeId, PackId, PackPlace, Place};
use crate::manifest::ChunkRef;
use crate::pack::{Found, PACK_HEADER, PackOnDisk, Packs, scan, sync_directory};

pub(super) const INDEX: &str = "index.redb";
const DAMAGED_INDEX: &str = "index.redb.damaged";
const LOCK: &str = "lock";
const PACKS: &str = "packs";
/// Record offsets are 32 bits; a pack may exceed its limit by one record.
const MAX_PACK_BYTES: u64 = 2 << 30;

/// What had to be put right when a store was opened. All zero after a clean stop.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recovery {
    /// The index was lost or unreadable. Chunks in packs were found again; references into files
    /// were not, so files must be imported again.
    pub index_rebuilt: bool,
    /// Chunks that were in packs, but not in the index.
    pub adopted_chunks: u64,
    /// Bytes in packs that belong to no whole record: torn writes.
    pub torn_bytes: u64,
    /// Packs that are shorter than they were when they were made durable, or gone. Their chunks
    /// turn out damaged when they are read, or at the next scrub.
    pub short_packs: u64,
}

impl Store {
    /// Opens the store in `directory`, or makes one.
    ///
    /// A clean open takes about a millisecond; after a crash the tail of the last pack is scanned.
    ///
    /// # Errors
    /// See [`OpenError`]; a second process gets [`OpenError::InUse`].
    pub fn open(
        directory: &Path,
        key: ContentKey,
        options: StoreOptions,
    ) -> Result<Self, OpenError> {
        let packs = directory.join(PACKS);
        fs::create_dir_all(&packs).map_err(|source| OpenError::io(&packs, source))?;
        let (lock, existed) = lock(directory)?;
        let fingerprint = key.fingerprint();
        let packs = Packs::open(packs, options.pack_bytes.min(MAX_PACK_BYTES), fingerprint);
        let listed = packs.list();
        let on_disk = listed.map_err(|error| OpenError::io(error.path, error.source))?;
        let opened = open_index(directory, &key, &packs, &on_disk, existed);
        let (index, recovery, resume) = match opened {
            // Damage that showed only now has left its mark: the second try rebuilds.
            Err(OpenError::Index { source, .. }) if source.is_damage() => {
                open_index(directory, &key, &packs, &on_disk, existed)?
            }
            other => other?,
        };
        if let Some((pack, length)) = resume {
            packs.resume(pack, length)?;
        }
        let store = Self {
            inner: Arc::new(Inner {
                zero: Zero::new(&key),
                cache: ChunkCache::new(options.cache_bytes),
                directory: directory.to_owned(),
                key,
                options,
                committed: Mutex::new(index.updates()),
                index,
                packs,
                in_flight: InFlight::default(),
                found: Findings::default(),
                upkeep: Mutex::new(()),
                uncommitted: AtomicU64::new(0),
                poisoned: AtomicBool::new(false),
                recovery,
                _lock: lock,
            }),
        };
        if recovery != Recovery::default() {
            tracing::warn!(directory = %directory.display(), ?recovery, "store recovered");
        }
        Ok(store)
    }
}

impl Zero {
    /// Cuts a megabyte of zeros as any other bytes, whatever FastCDC makes of them.
    fn new(key: &ContentKey) -> Self {
        let mut zeros = vec![0; MAX_CHUNK];
        let len = cut(&zeros);
        zeros.truncate(len);
        let id = key.chunk_id(&zeros);
        let len = u32::try_from(len).expect("a chunk is at most 1 MiB");
        Self {
            chunk: ChunkRef { id, len },
            bytes: Bytes::from(zeros),
        }
    }
}

/// Whether the directory has been a store before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Existed {
    Yes,
    No,
}

fn lock(directory: &Path) -> Result<(File, Existed), OpenError> {
    let path = directory.join(LOCK);
    let failed = |source| OpenError::io(&path, source);
    let existed = if path.try_exists().map_err(failed)? {
        Existed::Yes
    } else {
        Existed::No
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok((file, existed)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: directory.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The pack that can be appended to, and its length.
type Resume = Option<(PackId, u64)>;

/// Opens the index, or begins a new one if there is none that can be read, and makes it agree
/// with the packs.
fn open_index(
    directory: &Path,
    key: &ContentKey,
    packs: &Packs,
    on_disk: &[PackOnDisk],
    existed: Existed,
) -> Result<(Index, Recovery, Resume), OpenError> {
    let path = directory.join(INDEX);
    let failed = |source: IndexError| index_error(directory, source);
    let meta = Meta {
        format: FORMAT,
        fingerprint: u64::from_le_bytes(key.fingerprint()),
    };
    let mut lost = !path
        .try_exists()
        .map_err(|source| OpenError::io(&path, source))?;
    // Without an index only the packs can tell whose they are. One that is damaged proves nothing.
    let ours = on_disk.iter().any(|pack| pack.recognised);
    let wrong_key = || OpenError::WrongKey {
        path: directory.to_owned(),
    };
    if lost && !ours && on_disk.iter().any(|pack| pack.length > PACK_HEADER) {
        return Err(wrong_key());
    }
    let guard = Guard::new(&path);
    let opened = if guard.is_marked() {
        None
    } else {
        usable(&path, meta, ours).map_err(failed)?
    };
    let index = match opened {
        Some(index) => index,
        None => {
            set_aside(directory, &guard)?;
            lost = true;
            Index::open(&path, meta).map_err(failed)?
        }
    };
    sync_directory(directory).map_err(|source| OpenError::io(directory, source))?;
    let found = index.meta().map_err(failed)?;
    if found.format > FORMAT {
        let path = directory.to_owned();
        return Err(OpenError::Newer {
            path,
            found: found.format,
            known: FORMAT,
        });
    }
    if found.fingerprint != meta.fingerprint {
        return Err(wrong_key());
    }
    let index_rebuilt = lost && existed == Existed::Yes;
    let mut recovery = Recovery {
        index_rebuilt,
        ..Recovery::default()
    };
    let resume = adopt(directory, key, &index, packs, on_disk, &mut recovery)?;
    Ok((index, recovery, resume))
}

/// Opens an index; `None` if it is damaged. The key it names is damaged if the packs know ours.
fn usable(path: &Path, meta: Meta, ours: bool) -> Result<Option<Index>, IndexError> {
    let opened = Index::open(path, meta).and_then(|index| Ok((index.meta()?, index)));
    match opened {
        Ok((found, _)) if ours && found.fingerprint != meta.fingerprint => Ok(None),
        Ok((_, index)) => Ok(Some(index)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Moves an index that cannot be used out of the way.
fn set_aside(directory: &Path, guard: &Guard) -> Result<(), OpenError> {
    let path = directory.join(INDEX);
    tracing::warn!(path = %path.display(), "the chunk index is damaged, rebuilding it");
    match fs::rename(&path, directory.join(DAMAGED_INDEX)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(OpenError::io(path, error));
        }
        Ok(()) | Err(_) => {}
    }
    guard.clear().map_err(|source| OpenError::io(path, source))
}

fn index_error(directory: &Path, source: IndexError) -> OpenError {
    let path = directory.join(INDEX);
    if source.no_space() {
        return OpenError::NoSpace {
            path,
            source: io::ErrorKind::StorageFull.into(),
        };
    }
    OpenError::Index { path, source }
}

/// Adopts what the index does not account for, and says which pack can be appended to.
fn adopt(
    directory: &Path,
    key: &ContentKey,
    index: &Index,
    packs: &Packs,
    on_disk: &[PackOnDisk],
    recovery: &mut Recovery,
) -> Result<Option<(PackId, u64)>, OpenError> {
    let failed = |source| index_error(directory, source);
    let accounted = index.read().packs().map_err(failed)?;
    drop_missing(index, on_disk, &accounted, recovery);
    let mut resume = None;
    for pack in on_disk {
        let known = accounted.get(&pack.id).copied();
        if known == Some(pack.length) {
            resume = pack.recognised.then_some((pack.id, pack.length));
            continue;
        }
        let short = known.is_some_and(|known| known > pack.length);
        recovery.short_packs += u64::from(short);
        let from = known
            .unwrap_or(0)
            .clamp(PACK_HEADER, pack.length.max(PACK_HEADER));
        let path = packs.path(pack.id);
        let file = packs
            .file(pack.id)
            .map_err(|source| OpenError::io(&path, source))?;
        let visit = |found: Found| adopt_record(key, index, pack.id, &found, recovery);
        let torn = match scan(&file, from, visit) {
            Ok(torn) => torn,
            Err(AdoptError::Io(source)) => return Err(OpenError::io(path, source)),
            Err(AdoptError::Index(source)) => return Err(failed(source)),
        };
        recovery.torn_bytes += torn;
        // Old rows may point behind a short end, and a scan would trip over a torn one.
        let appendable = !short && torn == 0 && pack.recognised && pack.length >= PACK_HEADER;
        resume = appendable.then_some((pack.id, pack.length));
        // What was just adopted may never have reached the disk: read, but not flushed.
        file.sync_data()
            .map_err(|source| OpenError::io(&path, source))?;
        index.update().set_pack(pack.id, Some(pack.length));
        // Pack by pack, so that rebuilding a terabyte's index takes no more RAM than one pack's.
        let (rows, _) = index.freeze(std::iter::empty());
        index.commit(&rows).map_err(failed)?;
    }
    Ok(resume)
}

fn drop_missing(
    index: &Index,
    on_disk: &[PackOnDisk],
    accounted: &HashMap<PackId, u64>,
    recovery: &mut Recovery,
) {
    for &id in accounted.keys() {
        if on_disk.binary_search_by_key(&id, |pack| pack.id).is_err() {
            recovery.short_packs += 1;
            index.update().set_pack(id, None);
        }
    }
}

fn adopt_record(
    key: &ContentKey,
    index: &Index,
    pack: PackId,
    found: &Found,
    recovery: &mut Recovery,
) -> Result<(), AdoptError> {
    let whole = found
        .encoded
        .plain()
        .is_some_and(|plain| key.chunk_id(&plain) == found.record.id);
    if !whole {
        recovery.torn_bytes += u64::from(found.record.stored);
        return Ok(());
    }
    let Ok(offset) = u32::try_from(found.offset) else {
        return Ok(());
    };
    let id = found.record.id;
    let generation = index.generation();
    let mut layers = index.update();
    if layers.pack_place(&id)?.is_none() {
        let place = PackPlace {
            pack,
            offset,
            stored: found.record.stored,
            len: found.record.len,
            generation,
            codec: found.record.codec,
        };
        layers.set_place(id, NodeId::NONE, Some(Place::Pack(place)));
        recovery.adopted_chunks += 1;
    }
    Ok(())
}

/// Why adopting stopped; told apart because the two name different files.
enum AdoptError {
    Io(io::Error),
    Index(IndexError),
}

impl From<io::Error> for AdoptError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<IndexError> for AdoptError {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}
