//! Reads a content at any offset, for mounts, `cat` and writing files.
//!
//! Holds the manifest's root and one page, never the whole list: a terabyte costs 20 KiB a reader
//! plus 40 bytes for each 150 MiB.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::ReadError;
use crate::id::Content;
use crate::manifest::{ChunkRef, Manifest, PAGE_CHUNKS, Slot};
use crate::store::Store;

/// Random access to the bytes of one content. Shared by reference between threads.
pub struct ContentReader {
    store: Store,
    content: Content,
    layout: Layout,
}

enum Layout {
    Empty,
    Single(ChunkRef),
    Paged {
        manifest: Manifest,
        ends: Vec<u64>,
        page: Mutex<Option<Page>>,
    },
}

/// A decoded page: chunks with the offsets where they begin.
#[derive(Clone)]
struct Page {
    number: usize,
    slots: Arc<[Slot]>,
}

impl Store {
    /// Opens a content for reading at any offset. Its manifest root must be here, its chunks need
    /// not be: a read that meets a missing one says which.
    ///
    /// # Errors
    /// The manifest's root is absent or invalid.
    pub fn reader(&self, content: Content) -> Result<ContentReader, ReadError> {
        let layout = if content.is_empty() {
            Layout::Empty
        } else if content.is_single() {
            let len = u32::try_from(content.size).expect("a single content is at most 64 KiB");
            Layout::Single(ChunkRef {
                id: content.id.first_blob(),
                len,
            })
        } else {
            let manifest = self.manifest(&content)?;
            let ends = manifest.pages().iter().scan(0, |end, page| {
                *end += page.bytes;
                Some(*end)
            });
            Layout::Paged {
                ends: ends.collect(),
                manifest,
                page: Mutex::new(None),
            }
        };
        Ok(ContentReader {
            store: self.clone(),
            content,
            layout,
        })
    }
}

impl ContentReader {
    /// What is being read.
    pub const fn content(&self) -> Content {
        self.content
    }

    /// Fills `buffer` from `offset` on, with verified bytes. Returns how many there were: fewer
    /// than asked for only at the end of the content.
    ///
    /// # Errors
    /// A chunk or page in the range is not readable; nothing is said about `buffer` then.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let Some(slot) = self.slot_at(offset + filled as u64)? else {
                break;
            };
            let bytes = self.store.read(&slot.chunk.id)?;
            let skip = usize::try_from(offset + filled as u64 - slot.offset).unwrap_or(usize::MAX);
            let from = bytes.get(skip..).unwrap_or_default();
            let length = from.len().min(rest.len());
            if length == 0 || bytes.len() != slot.chunk.len as usize {
                // The manifest says another length than the chunk has: whoever made it lied.
                return Err(ReadError::Damaged { id: slot.chunk.id });
            }
            if let (Some(to), Some(from)) = (rest.get_mut(..length), from.get(..length)) {
                to.copy_from_slice(from);
            }
            filled += length;
        }
        Ok(filled)
    }

    /// The chunk that holds the byte at `offset`; `None` at or behind the end.
    ///
    /// # Errors
    /// The manifest's page is absent or invalid.
    pub fn slot_at(&self, offset: u64) -> Result<Option<Slot>, ReadError> {
        if offset >= self.content.size {
            return Ok(None);
        }
        match &self.layout {
            Layout::Empty => Ok(None),
            Layout::Single(chunk) => Ok(Some(Slot {
                index: 0,
                offset: 0,
                chunk: *chunk,
            })),
            Layout::Paged {
                manifest,
                ends,
                page,
            } => {
                let number = ends.partition_point(|&end| end <= offset);
                let page = self.page(manifest, ends, page, number)?;
                let after = page.slots.partition_point(|slot| slot.offset <= offset);
                Ok(page.slots.get(after.wrapping_sub(1)).copied())
            }
        }
    }

    fn page(
        &self,
        manifest: &Manifest,
        ends: &[u64],
        kept: &Mutex<Option<Page>>,
        number: usize,
    ) -> Result<Page, ReadError> {
        let lock = || kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = lock().as_ref().filter(|page| page.number == number) {
            return Ok(page.clone());
        }
        let mut offset = match number.checked_sub(1) {
            Some(before) => ends.get(before).copied().unwrap_or_default(),
            None => 0,
        };
        let chunks = self.store.page(&self.content, manifest, number)?;
        let slots = chunks.into_iter().enumerate().map(|(at, chunk)| {
            let slot = Slot {
                index: (number * PAGE_CHUNKS + at) as u64,
                offset,
                chunk,
            };
            offset += u64::from(chunk.len);
            slot
        });
        let page = Page {
            number,
            slots: slots.collect(),
        };
        *lock() = Some(page.clone());
        Ok(page)
    }
}

impl fmt::Debug for ContentReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentReader")
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}
