//! Where fetched chunks go.
//!
//! The fetcher knows contents and slots; a sink decides what becomes of the bytes. [`Store`] is one
//! itself: that is what a seed does, and what pins do. A synced folder has another, which writes a
//! partial file beside its target.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::error::WriteError;
use crate::id::Content;
use crate::manifest::{PAGE_CHUNKS, Slot};
use crate::store::Store;

/// Takes the chunks of contents that are being fetched.
pub trait ChunkSink: Send + Sync + 'static {
    /// Makes ready for a part of a content whose manifest is in the store: takes what is here already,
    /// for resuming and deduplication, and returns the slots that must be fetched. Blocks.
    ///
    /// The first part is at 0, the others where [`Lack::next`] says. A manifest is small and can claim
    /// an enormous content, so what is kept in mind of one at a time has a bound, and whether the disk
    /// has room for it is looked at first.
    ///
    /// # Errors
    /// Nothing needs to be fetched then; the content stays incomplete.
    fn prepare(&self, content: &Content, part: u64) -> Result<Lack, WriteError>;

    /// Takes the verified bytes of a slot. Called in any order and concurrently. Blocks briefly.
    ///
    /// # Errors
    /// The slot stays missing.
    fn put(&self, slot: Slot, bytes: &[u8]) -> Result<(), WriteError>;
}

/// What a sink lacks of a part of a content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// The slots that must be fetched, at most [`Lack::MAX_SLOTS`].
    pub slots: Vec<Slot>,
    /// Bytes of the part that are here.
    pub here: u64,
    /// The next part, to be prepared when these slots are filled.
    pub next: Option<u64>,
}

impl Lack {
    /// Pages of a manifest in one part: some gigabytes of most files.
    pub const PAGES: usize = 16;

    /// Slots in one part.
    pub const MAX_SLOTS: usize = Self::PAGES * PAGE_CHUNKS;

    /// Whether nothing has to be fetched.
    pub const fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.next.is_none()
    }
}

/// One content to be fetched, and where to.
#[derive(Clone)]
pub struct FetchJob {
    /// What to fetch.
    pub content: Content,
    /// The path to show to people.
    pub label: Arc<str>,
    /// Who takes the chunks.
    pub sink: Arc<dyn ChunkSink>,
}

impl fmt::Debug for FetchJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchJob")
            .field("content", &self.content)
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Whether the disk has room for what is missing of a content, each chunk once.
    fn check_room(&self, content: &Content) -> Result<(), WriteError> {
        let mut needed = 0_u64;
        let mut counted = HashSet::new();
        self.each_page_once(content, |chunks, _times| {
            for chunk in chunks {
                if counted.insert(chunk.id) && !self.has(&chunk.id) {
                    needed = needed.saturating_add(u64::from(chunk.len));
                }
            }
        })?;
        self.inner.packs.check_room(needed)
    }
}

/// Keeps what is fetched in packs. Each missing chunk is asked for once, however often it occurs.
impl ChunkSink for Store {
    fn prepare(&self, content: &Content, part: u64) -> Result<Lack, WriteError> {
        if part == 0 {
            self.renew_manifest(content)?;
            self.check_room(content)?;
        }
        let mut asked = HashSet::new();
        let mut lack = Lack::default();
        let mut parts = self.parts(content, part)?;
        for slot in parts.by_ref() {
            let slot = slot?;
            if asked.contains(&slot.chunk.id) {
                continue;
            }
            if self.renew(&slot.chunk.id)? {
                lack.here += u64::from(slot.chunk.len);
            } else {
                asked.insert(slot.chunk.id);
                lack.slots.push(slot);
            }
        }
        lack.next = parts.next_part();
        self.commit_if_large()?;
        Ok(lack)
    }

    fn put(&self, slot: Slot, bytes: &[u8]) -> Result<(), WriteError> {
        if bytes.len() != slot.chunk.len as usize {
            return Err(WriteError::Mismatch { id: slot.chunk.id });
        }
        self.append(slot.chunk.id, bytes)
    }
}
