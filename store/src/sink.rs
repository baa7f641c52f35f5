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
use crate::manifest::Slot;
use crate::store::Store;

/// Takes the chunks of contents that are being fetched.
pub trait ChunkSink: Send + Sync + 'static {
    /// Makes ready for a content whose manifest is in the store: takes what is here already, for
    /// resuming and deduplication, and returns the slots that must be fetched. Blocks.
    ///
    /// # Errors
    /// Nothing needs to be fetched then; the content stays incomplete.
    fn prepare(&self, content: &Content) -> Result<Vec<Slot>, WriteError>;

    /// Takes the verified bytes of a slot. Called in any order and concurrently. Blocks briefly.
    ///
    /// # Errors
    /// The slot stays missing.
    fn put(&self, slot: Slot, bytes: &[u8]) -> Result<(), WriteError>;
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

/// Keeps what is fetched in packs. Each missing chunk is asked for once, however often it occurs.
impl ChunkSink for Store {
    fn prepare(&self, content: &Content) -> Result<Vec<Slot>, WriteError> {
        let mut asked = HashSet::new();
        let mut missing = Vec::new();
        for slot in self.slots(content)? {
            let slot = slot?;
            if !self.has(&slot.chunk.id) && asked.insert(slot.chunk.id) {
                missing.push(slot);
            }
        }
        Ok(missing)
    }

    fn put(&self, slot: Slot, bytes: &[u8]) -> Result<(), WriteError> {
        if bytes.len() != slot.chunk.len as usize {
            return Err(WriteError::Mismatch { id: slot.chunk.id });
        }
        self.append(slot.chunk.id, bytes)
    }
}
