//! A file on its way: fetched chunks are written into the folder's temporary directory, beside their target's file
//! system, and moved into place when complete.
//!
//! What an interrupted transfer left is verified chunk by chunk and kept; chunks that this device has elsewhere are
//! copied (`copy`, big files past the page cache by `direct`); chunks of zeros stay holes. Moving into place is not done
//! here but by `apply`, which knows the target.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use wormhole_crdt::{EntryKey, Timestamp};
use wormhole_store::{ChunkSink, Content, Slot, Store, WriteError};

use super::{beneath, name};

mod copy;
mod direct;

/// The disk is set to work whenever this much was written, so that little is left to wait for at the end.
const WRITE_BACK: u64 = 16 << 20;

/// What is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) key: EntryKey,
    pub(crate) content: Content,
    pub(crate) executable: bool,
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

/// The unfinished file.
pub(crate) struct PartialFile {
    want: Want,
    dir: Arc<OwnedFd>,
    name: OsString,
    store: Store,
    /// Open while a content of many chunks is written; small ones are opened and closed in one go.
    open: Mutex<Option<Arc<Opened>>>,
    fault: Mutex<Option<Fault>>,
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
    pub(crate) fn new(want: Want, dir: Arc<OwnedFd>, store: Store) -> Self {
        Self {
            name: want.partial_name(),
            want,
            dir,
            store,
            open: Mutex::default(),
            fault: Mutex::default(),
        }
    }

    pub(crate) fn want(&self) -> &Want {
        &self.want
    }

    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// What stopped it.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Gives it its mode and time and closes it. Its bytes are durable after `sync`, or after the caller's own
    /// `sync_file_system`.
    pub(crate) fn seal(&self, durable: Durable) -> io::Result<()> {
        let opened = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let opened = match opened {
            Some(opened) => opened,
            None if self.want.content.is_single() && !self.want.content.is_empty() => {
                // Written, timed and closed by `put`; opened again only to be synced.
                if durable == Durable::Later {
                    return Ok(());
                }
                self.opened()?
            }
            None => self.opened()?,
        };
        self.attributes(&opened.file)?;
        if durable == Durable::Now {
            opened.file.sync_all()?;
        }
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Ok(())
    }

    /// Removes it.
    pub(crate) fn discard(&self) {
        if let Err(error) = beneath::remove_file(self.dir.as_fd(), &self.name) {
            tracing::debug!(label = %self.want.label, %error, "an unfinished file stays until the next start");
        }
    }

    fn attributes(&self, file: &File) -> io::Result<()> {
        beneath::set_mode(file.as_fd(), beneath::new_file_mode(self.want.executable))?;
        beneath::set_mtime(file.as_fd(), self.want.mtime)
    }

    fn opened(&self) -> io::Result<Arc<Opened>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*open {
            return Ok(Arc::clone(opened));
        }
        let file = beneath::open_partial(self.dir.as_fd(), &self.name)?;
        let fresh = file.metadata()?.len() == 0;
        file.set_len(self.want.content.size)?;
        let opened = Arc::new(Opened {
            file,
            fresh,
            dirty: Mutex::default(),
        });
        *open = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Writes a content of one chunk in one go, so that thousands of them never hold thousands of files open.
    fn write_whole(&self, bytes: &[u8]) -> io::Result<()> {
        let file = beneath::open_partial(self.dir.as_fd(), &self.name)?;
        file.set_len(bytes.len() as u64)?;
        file.write_all_at(bytes, 0)?;
        self.attributes(&file)
    }

    fn noted<T>(&self, result: io::Result<T>) -> Result<T, WriteError> {
        result.map_err(|source| {
            let fault = Fault::of(&source);
            let full = fault == Fault::NoSpace;
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            let path = PathBuf::from(name::TMP).join(Path::new(&self.name));
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
    fn prepare(&self, content: &Content) -> Result<Vec<Slot>, WriteError> {
        if content.is_empty() {
            self.noted(self.opened())?;
            return Ok(Vec::new());
        }
        self.noted(self.copy_from_here(content))
    }

    fn put(&self, slot: Slot, bytes: &[u8]) -> Result<(), WriteError> {
        if self.want.content.is_single() {
            return self.noted(self.write_whole(bytes));
        }
        let opened = self.noted(self.opened())?;
        self.noted(opened.write(slot.offset, bytes))
    }
}

impl std::fmt::Debug for PartialFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartialFile")
            .field("want", &self.want)
            .finish_non_exhaustive()
    }
}
