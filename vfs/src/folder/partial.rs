//! A file on its way: fetched chunks are written into the folder's temporary directory, beside their target's file
//! system, and moved into place when complete.
//!
//! What an interrupted transfer left is verified chunk by chunk and kept; chunks that this device has elsewhere are
//! copied (`copy`, big files past the page cache by `direct`); chunks of zeros stay holes. Moving into place is not done
//! here but by `apply`, which knows the target.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use wormhole_crdt::{EntryKey, Mode, Timestamp};
use wormhole_store::{ChunkSink, Content, Lack, Slot, Store, WriteError};

use super::beneath::{self, Seen};
use super::name;
use super::stamp::same_data;
use super::temporary::{Claim, Temporary};

mod copy;
mod direct;

/// The disk is set to work whenever this much was written, so that little is left to wait for at the end.
const WRITE_BACK: u64 = 16 << 20;
/// Up to here a finished file is read once more: it is in memory still. Of a larger one every chunk was verified on its
/// way, into a file that nobody else knew, and its stamp tells whether that was true.
const READ_BACK: u64 = 1 << 20;

/// What is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) key: EntryKey,
    pub(crate) content: Content,
    pub(crate) mode: Mode,
    pub(crate) mtime: Timestamp,
    /// Its path, for people.
    pub(crate) label: Arc<str>,
}

impl Want {
    /// The unfinished file's name. Two entries with one content are written separately; a restart finds the same name again.
    pub(crate) fn partial_name(&self) -> OsString {
        let mut name = format!("{}-{}", self.content.id, self.key.id);
        if let Some(version) = &self.key.version {
            name.push_str(&format!(
                "-{}-{}-{}",
                version.lamport, version.device, version.branch
            ));
        }
        name.into()
    }
}

/// Stands among the offsets that were not written yet, until the next part of the content is prepared.
const NEXT_PART: u64 = u64::MAX;

/// The unfinished file. Its name is this transfer's own until this is dropped.
pub(crate) struct PartialFile {
    want: Want,
    claim: Claim,
    store: Store,
    /// Written under a shared lock; who ends it waits until nobody writes.
    stage: RwLock<Stage>,
    /// Offsets that were not written yet, of the part that was prepared last. None before anybody asked what is missing.
    missing: Mutex<Option<HashSet<u64>>>,
    fault: Mutex<Option<Fault>>,
}

/// How far it is.
enum Stage {
    /// Not open: nothing was done yet, or it is a content of one chunk, which is opened and closed in one go.
    Closed,
    Open(Arc<Opened>),
    /// Complete, as it was seen then. Nothing is written any more.
    Sealed(Seen),
    /// Removed. Nothing is written any more.
    Discarded,
}

struct Opened {
    file: File,
    /// Nothing was in it: what is not written reads as zeros.
    fresh: bool,
    /// Where was written since the disk was last set to work, and how much.
    dirty: Mutex<Dirty>,
}

#[derive(Default)]
struct Dirty {
    bytes: u64,
    range: Option<Range<u64>>,
}

/// Why it could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The disk is full.
    NoSpace,
    /// The disk is mounted read-only.
    ReadOnly,
    /// Anything else.
    Io(String),
}

impl Fault {
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Io(error.to_string()),
        }
    }
}

impl PartialFile {
    /// `None` while another transfer has the file.
    pub(crate) fn claim(want: Want, temporary: &Arc<Temporary>, store: Store) -> Option<Self> {
        let claim = temporary.claim(want.partial_name())?;
        Some(Self {
            want,
            claim,
            store,
            stage: RwLock::new(Stage::Closed),
            missing: Mutex::default(),
            fault: Mutex::default(),
        })
    }

    pub(crate) fn want(&self) -> &Want {
        &self.want
    }

    pub(crate) fn name(&self) -> &OsStr {
        self.claim.name()
    }

    /// What stopped it.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether what has its name in the temporary directory is what was sealed, untouched.
    pub(crate) fn is_intact(&self) -> io::Result<bool> {
        let found = beneath::look(self.claim.dir().as_fd(), self.name())?;
        let stage = self.stage.read().unwrap_or_else(PoisonError::into_inner);
        Ok(match (&*stage, found) {
            (Stage::Sealed(sealed), Some(found)) => {
                same_data(sealed, &found) && sealed.mode == found.mode
            }
            _ => false,
        })
    }

    /// Gives it its mode and time, looks whether it is what was wanted, as it lies there, and closes it. Its bytes are
    /// durable after `Durable::Now`, or after the caller's own `sync_file_system`.
    ///
    /// Nothing is made here: a file that is gone, or has other bytes than were written, is an error, and is removed.
    pub(crate) fn seal(&self, durable: Durable) -> io::Result<()> {
        let mut stage = self.stage.write().unwrap_or_else(PoisonError::into_inner);
        let sealed = match &*stage {
            Stage::Sealed(_) => return Ok(()),
            Stage::Discarded => Err(io::ErrorKind::NotFound.into()),
            Stage::Open(opened) => self.checked(&opened.file, durable),
            Stage::Closed => {
                let found = beneath::open_file(self.claim.dir().as_fd(), self.name());
                found.and_then(|file| self.checked(&file, durable))
            }
        };
        match sealed {
            Ok(seen) => {
                *stage = Stage::Sealed(seen);
                Ok(())
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    self.remove();
                    *stage = Stage::Discarded;
                }
                Err(error)
            }
        }
    }

    fn checked(&self, file: &File, durable: Durable) -> io::Result<Seen> {
        let whole = self
            .missing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .is_some_and(HashSet::is_empty);
        if !whole || file.metadata()?.len() != self.want.content.size {
            return Err(damaged("not all of it was written"));
        }
        if self.want.content.size <= READ_BACK {
            self.read_back(file)?;
        }
        self.attributes(file)?;
        if durable == Durable::Now {
            file.sync_all()?;
        }
        let seen = beneath::look_at(file.as_fd())?;
        let named = beneath::look(self.claim.dir().as_fd(), self.name())?;
        if named != Some(seen) || beneath::links(file.as_fd())? != 1 {
            return Err(damaged("another file took its name"));
        }
        Ok(seen)
    }

    fn read_back(&self, file: &File) -> io::Result<()> {
        let mut bytes = Vec::new();
        for slot in self
            .store
            .slots(&self.want.content)
            .map_err(io::Error::other)?
        {
            let slot = slot.map_err(io::Error::other)?;
            bytes.resize(slot.chunk.len as usize, 0);
            file.read_exact_at(&mut bytes, slot.offset)?;
            if self.store.key().chunk_id(&bytes) != slot.chunk.id {
                return Err(damaged("it has other bytes than were written"));
            }
        }
        Ok(())
    }

    /// Removes it.
    pub(crate) fn discard(&self) {
        let mut stage = self.stage.write().unwrap_or_else(PoisonError::into_inner);
        self.remove();
        *stage = Stage::Discarded;
    }

    fn remove(&self) {
        if let Err(error) = beneath::remove_file(self.claim.dir().as_fd(), self.name()) {
            tracing::debug!(label = %self.want.label, %error, "an unfinished file stays until the next start");
        }
    }

    fn attributes(&self, file: &File) -> io::Result<()> {
        beneath::set_own_mode(file.as_fd(), beneath::file_mode(self.want.mode))?;
        beneath::set_mtime(file.as_fd(), self.want.mtime)
    }

    fn opened(&self) -> io::Result<Arc<Opened>> {
        if let Some(opened) = self.open()? {
            return Ok(opened);
        }
        let mut stage = self.stage.write().unwrap_or_else(PoisonError::into_inner);
        if let Stage::Open(opened) = &*stage {
            return Ok(Arc::clone(opened));
        }
        let file = self.own_file()?;
        let fresh = file.metadata()?.len() == 0;
        file.set_len(self.want.content.size)?;
        let opened = Arc::new(Opened {
            file,
            fresh,
            dirty: Mutex::default(),
        });
        *stage = Stage::Open(Arc::clone(&opened));
        Ok(opened)
    }

    fn open(&self) -> io::Result<Option<Arc<Opened>>> {
        match &*self.stage.read().unwrap_or_else(PoisonError::into_inner) {
            Stage::Open(opened) => Ok(Some(Arc::clone(opened))),
            Stage::Closed => Ok(None),
            Stage::Sealed(_) | Stage::Discarded => Err(over()),
        }
    }

    /// Opens the file under our name. One that has other names as well was not made by a transfer: it is left to those.
    fn own_file(&self) -> io::Result<File> {
        let dir = self.claim.dir();
        let file = beneath::open_partial(dir.as_fd(), self.name())?;
        if beneath::links(file.as_fd())? == 1 {
            return Ok(file);
        }
        beneath::remove_file(dir.as_fd(), self.name())?;
        beneath::open_partial(dir.as_fd(), self.name())
    }

    /// Writes a content of one chunk in one go, so that thousands of them never hold thousands of files open.
    fn write_whole(&self, bytes: &[u8]) -> io::Result<()> {
        let stage = self.stage.read().unwrap_or_else(PoisonError::into_inner);
        if matches!(*stage, Stage::Sealed(_) | Stage::Discarded) {
            return Err(over());
        }
        let file = self.own_file()?;
        file.set_len(bytes.len() as u64)?;
        file.write_all_at(bytes, 0)
    }

    fn write_slot(&self, slot: &Slot, bytes: &[u8]) -> io::Result<()> {
        if self.want.content.is_single() {
            self.write_whole(bytes)?;
        } else {
            let opened = self.opened()?;
            // Held while it is written: what is sealed meanwhile waits.
            let stage = self.stage.read().unwrap_or_else(PoisonError::into_inner);
            if !matches!(*stage, Stage::Open(_)) {
                return Err(over());
            }
            opened.write(slot.offset, bytes)?;
        }
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(missing) = missing.as_mut() {
            missing.remove(&slot.offset);
        }
        Ok(())
    }

    fn noted<T>(&self, result: io::Result<T>) -> Result<T, WriteError> {
        result.map_err(|source| {
            let fault = Fault::of(&source);
            let full = fault == Fault::NoSpace;
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            let path = PathBuf::from(name::TMP).join(Path::new(self.name()));
            if full {
                WriteError::NoSpace { path, source }
            } else {
                WriteError::Io { path, source }
            }
        })
    }
}

/// Whether a sealed file has to be on disk when `seal` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    /// Yes.
    Now,
    /// The caller syncs the whole file system for many of them.
    Later,
}

impl Opened {
    /// Whether these bytes are there already, because nothing is.
    fn is_hole(&self, bytes: &[u8]) -> bool {
        self.fresh && bytes.iter().all(|byte| *byte == 0)
    }

    /// Writes a chunk; of zeros only where something else may be.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.is_hole(bytes) {
            return Ok(());
        }
        self.file.write_all_at(bytes, offset)?;
        let end = offset + bytes.len() as u64;
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.bytes += bytes.len() as u64;
        let range = dirty.range.get_or_insert(offset..end);
        *range = range.start.min(offset)..range.end.max(end);
        if dirty.bytes >= WRITE_BACK {
            let Dirty { range, .. } = std::mem::take(&mut *dirty);
            drop(dirty);
            if let Some(range) = range {
                beneath::start_write_back(self.file.as_fd(), range);
            }
        }
        Ok(())
    }
}

impl ChunkSink for PartialFile {
    fn prepare(&self, content: &Content, part: u64) -> Result<Lack, WriteError> {
        let lack = if content.is_empty() {
            self.noted(self.opened()).map(|_opened| Lack::default())?
        } else {
            self.noted(self.copy_from_here(content, part))?
        };
        let slots = lack.slots.iter().map(|slot| slot.offset);
        let missing = slots.chain(lack.next.map(|_| NEXT_PART)).collect();
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = Some(missing);
        Ok(lack)
    }

    fn put(&self, slot: Slot, bytes: &[u8]) -> Result<(), WriteError> {
        self.noted(self.write_slot(&slot, bytes))
    }
}

/// Somebody writes into a file that was given up or finished.
fn over() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the transfer is over")
}

/// It is not what was fetched.
fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl std::fmt::Debug for PartialFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartialFile")
            .field("want", &self.want)
            .finish_non_exhaustive()
    }
}
