//! Packs: append-only files of up to 256 MiB that hold chunks as self-describing records.
//!
//! A pack is never changed in place; it is appended to, and unlinked when nothing in it is needed.
//! Because every record carries its id and a checksum, the index can be rebuilt by scanning
//! (`scan`). One thread appends at a time: the copy into the page cache is a quarter of the cost of
//! hashing, which happens before. This module knows no index; `store` and `evict` combine the two.
//!
//! ```text
//! pack    "WHPACK\0\1"  key fingerprint 8 | record*
//! ```

mod record;
mod scan;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache;
use rustix::fs::statvfs;

pub(crate) use self::record::{HEADER_BYTES, Record};
pub(crate) use self::scan::{Found, scan};
use crate::codec::{Codec, Encoded};
use crate::error::{OpenError, WriteError};
use crate::id::ChunkId;
use crate::index::{PackId, PackPlace};

const MAGIC: [u8; 8] = *b"WHPACK\0\x01";
/// Length of what stands before the first record.
pub(crate) const PACK_HEADER: u64 = 16;

/// Open pack files kept for reading. A terabyte has 4,000 packs; reads are mostly local to a few.
const OPEN_FILES: usize = 64;

/// Room that packs leave on their disk, and the part of a small disk that they leave.
const RESERVE: u64 = 64 << 20;
const RESERVE_PART: u64 = 8;
/// Bytes appended before the room is measured again; small beside the reserve of any useful disk.
const MEASURE_EVERY: u64 = 1 << 20;

/// The directory of packs.
pub(crate) struct Packs {
    directory: PathBuf,
    limit: u64,
    fingerprint: [u8; 8],
    tail: Mutex<Tail>,
    files: Cache<PackId, Arc<File>>,
}

/// The pack that is appended to.
#[derive(Debug)]
struct Tail {
    open: Option<OpenPack>,
    next: u32,
    /// Packs with bytes that no fsync covered yet, and their lengths.
    dirty: BTreeMap<PackId, (Arc<File>, u64)>,
    /// Bytes that may be appended before the room is measured again.
    allowance: u64,
}

#[derive(Debug)]
struct OpenPack {
    id: PackId,
    file: Arc<File>,
    length: u64,
}

/// The right to append. While it is held nobody else appends, so that "is it here already?" and
/// the append that answers it cannot be separated.
pub(crate) struct Appender<'a> {
    packs: &'a Packs,
    tail: MutexGuard<'a, Tail>,
}

/// A pack found on disk when the store is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PackOnDisk {
    pub(crate) id: PackId,
    pub(crate) length: u64,
    /// Whether its header is intact and made with this store's key.
    pub(crate) recognised: bool,
}

/// A pack, or their directory, could not be looked at.
#[derive(Debug)]
pub(crate) struct ListError {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl Packs {
    /// Takes hold of the directory, which must exist. Nothing is open for appending yet.
    pub(crate) fn open(directory: PathBuf, limit: u64, fingerprint: [u8; 8]) -> Self {
        let tail = Tail {
            open: None,
            next: 1,
            dirty: BTreeMap::new(),
            allowance: 0,
        };
        let files = Cache::new(OPEN_FILES);
        Self {
            directory,
            limit,
            fingerprint,
            tail: Mutex::new(tail),
            files,
        }
    }

    /// Refuses what the disk has no room for, before any of it is fetched.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), WriteError> {
        let room = room_beyond_reserve(&self.directory)
            .map_err(|source| WriteError::io(&self.directory, source))?;
        if room < bytes {
            return Err(WriteError::io(
                &self.directory,
                io::ErrorKind::StorageFull.into(),
            ));
        }
        Ok(())
    }

    /// Lists the packs on disk by number. Files with other names are not ours and stay alone.
    pub(crate) fn list(&self) -> Result<Vec<PackOnDisk>, ListError> {
        let failed = |source| ListError {
            path: self.directory.clone(),
            source,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(id) = name.to_str().and_then(parse_name) else {
                continue;
            };
            let path = self.path(id);
            let failed = |source| ListError {
                path: path.clone(),
                source,
            };
            let file = File::open(&path).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            let mut header = [0; PACK_HEADER as usize];
            let whole = length >= PACK_HEADER;
            if whole {
                file.read_exact_at(&mut header, 0).map_err(failed)?;
            }
            let recognised = whole && header == self.header();
            found.push(PackOnDisk {
                id,
                length,
                recognised,
            });
        }
        found.sort_by_key(|pack| pack.id);
        let mut tail = self.lock();
        tail.next = found.last().map_or(1, |pack| pack.id.0 + 1).max(tail.next);
        Ok(found)
    }

    /// Goes on appending to a pack that ends with a whole record.
    pub(crate) fn resume(&self, id: PackId, length: u64) -> Result<(), OpenError> {
        if length >= self.limit {
            return Ok(());
        }
        let path = self.path(id);
        let file = File::options().read(true).write(true).open(&path);
        let file = Arc::new(file.map_err(|source| OpenError::io(&path, source))?);
        self.lock().open = Some(OpenPack { id, file, length });
        Ok(())
    }

    /// Waits for the right to append.
    pub(crate) fn appender(&self) -> Appender<'_> {
        Appender {
            packs: self,
            tail: self.lock(),
        }
    }

    /// Reads the stored bytes of a record, not yet verified.
    pub(crate) fn read(&self, place: &PackPlace) -> io::Result<Encoded> {
        let file = self.file(place.pack)?;
        let mut bytes = vec![0; place.stored as usize];
        file.read_exact_at(&mut bytes, u64::from(place.offset) + HEADER_BYTES)?;
        Ok(Encoded {
            codec: place.codec,
            len: place.len,
            bytes: bytes.into(),
        })
    }

    /// Opens a pack for reading, or takes one of the files that are open.
    pub(crate) fn file(&self, id: PackId) -> io::Result<Arc<File>> {
        if let Some(file) = self.files.get(&id) {
            return Ok(file);
        }
        let file = Arc::new(File::open(self.path(id))?);
        self.files.insert(id, Arc::clone(&file));
        Ok(file)
    }

    /// Unlinks a pack that no durable row points into.
    pub(crate) fn remove(&self, id: PackId) -> Result<(), WriteError> {
        self.files.remove(&id);
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(WriteError::io(path, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Where a pack's file is.
    pub(crate) fn path(&self, id: PackId) -> PathBuf {
        self.directory.join(format!("{:08x}.pack", id.0))
    }

    /// Makes the next fsync fail: `/dev/full` cannot be flushed.
    #[cfg(test)]
    pub(crate) fn break_fsync(&self) {
        let full = File::options()
            .write(true)
            .open("/dev/full")
            .expect("every Linux has it");
        for (file, _) in self.lock().dirty.values_mut() {
            *file = Arc::new(full.try_clone().expect("a descriptor can be cloned"));
        }
    }

    fn header(&self) -> [u8; PACK_HEADER as usize] {
        let mut header = [0; PACK_HEADER as usize];
        let (magic, fingerprint) = header.split_at_mut(MAGIC.len());
        magic.copy_from_slice(&MAGIC);
        fingerprint.copy_from_slice(&self.fingerprint);
        header
    }

    fn lock(&self) -> MutexGuard<'_, Tail> {
        // A panic while appending leaves bytes that no row points to: garbage, not damage.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Appender<'_> {
    /// Appends a record and returns its place. It is in the page cache, not durable.
    ///
    /// # Errors
    /// The pack is then as long as it was before, or no longer appended to.
    pub(crate) fn append(
        &mut self,
        id: ChunkId,
        codec: Codec,
        len: u32,
        payload: &[u8],
        generation: u32,
    ) -> Result<PackPlace, WriteError> {
        let stored =
            u32::try_from(payload.len()).map_err(|_| WriteError::Size { len: payload.len() })?;
        let record = Record {
            id,
            codec,
            stored,
            len,
        };
        self.take_room(HEADER_BYTES + u64::from(stored))?;
        let open = match self.tail.open.take() {
            Some(open) if open.length < self.packs.limit => open,
            Some(_) | None => self.create()?,
        };
        let offset = open.length;
        let written = open
            .file
            .write_all_at(&record.encode(), offset)
            .and_then(|()| open.file.write_all_at(payload, offset + HEADER_BYTES));
        if let Err(source) = written {
            let path = self.packs.path(open.id);
            // Whole records only: if the torn one cannot be cut off, the pack is left as it is and
            // the next append begins another one. A scan skips what is torn.
            if open.file.set_len(offset).is_ok() {
                self.tail.open = Some(open);
            }
            return Err(WriteError::io(path, source));
        }
        let length = offset + HEADER_BYTES + u64::from(stored);
        let pack = open.id;
        self.tail
            .dirty
            .insert(pack, (Arc::clone(&open.file), length));
        self.tail.open = Some(OpenPack { length, ..open });
        let offset = u32::try_from(offset).expect("packs are limited to less than 4 GiB");
        Ok(PackPlace {
            pack,
            offset,
            stored,
            len,
            generation,
            codec,
        })
    }

    /// Takes room for so many bytes, or refuses when only the reserve is left.
    fn take_room(&mut self, bytes: u64) -> Result<(), WriteError> {
        if self.tail.allowance < bytes {
            self.tail.allowance = 0;
            let directory = &self.packs.directory;
            let room = room_beyond_reserve(directory)
                .map_err(|source| WriteError::io(directory, source))?;
            if room < bytes {
                return Err(WriteError::io(directory, io::ErrorKind::StorageFull.into()));
            }
            self.tail.allowance = room.min(MEASURE_EVERY.max(bytes));
        }
        self.tail.allowance -= bytes;
        Ok(())
    }

    /// Packs with lower numbers are never appended to again.
    pub(crate) fn sealed_below(&self) -> PackId {
        self.tail
            .open
            .as_ref()
            .map_or(PackId(self.tail.next), |open| open.id)
    }

    /// Ends a pack, if it is the one that is appended to.
    pub(crate) fn seal(&mut self, id: PackId) {
        self.tail.open.take_if(|open| open.id == id);
    }

    /// Hands over the packs that need an fsync, with the lengths that it will cover.
    pub(crate) fn take_dirty(&mut self) -> BTreeMap<PackId, (Arc<File>, u64)> {
        std::mem::take(&mut self.tail.dirty)
    }

    fn create(&mut self) -> Result<OpenPack, WriteError> {
        let id = PackId(self.tail.next);
        let path = self.packs.path(id);
        let failed = |source| WriteError::io(&path, source);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = Arc::new(file.map_err(failed)?);
        self.tail.next += 1;
        // The name must be as durable as the bytes will be.
        let made = file
            .write_all_at(&self.packs.header(), 0)
            .and_then(|()| sync_directory(&self.packs.directory));
        if let Err(source) = made {
            // Or every retry on a full disk would leave an empty pack; if this fails too, one does.
            drop(fs::remove_file(&path));
            return Err(failed(source));
        }
        Ok(OpenPack {
            id,
            file,
            length: PACK_HEADER,
        })
    }
}

/// How much of a disk packs may still take.
fn room_beyond_reserve(directory: &Path) -> io::Result<u64> {
    let disk = statvfs(directory)?;
    let reserve = (disk.f_blocks.saturating_mul(disk.f_frsize) / RESERVE_PART).min(RESERVE);
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    Ok(free.saturating_sub(reserve))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn parse_name(name: &str) -> Option<PackId> {
    let digits = name.strip_suffix(".pack")?;
    let canonical = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let id = u32::from_str_radix(digits, 16)
        .ok()
        .filter(|&id| canonical && id < u32::MAX)?;
    Some(PackId(id))
}

#[cfg(test)]
mod tests;
