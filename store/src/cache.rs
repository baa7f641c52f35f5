//! Chunks in memory, so that what is read again soon is not read from disk and hashed again.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::id::ChunkId;

/// Verified chunks in RAM, bounded by their bytes.
pub(crate) struct ChunkCache(Cache<ChunkId, Bytes, ByLength>);

#[derive(Clone)]
struct ByLength;

impl Weighter<ChunkId, Bytes> for ByLength {
    fn weight(&self, _: &ChunkId, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + 128 // the entry itself
    }
}

impl ChunkCache {
    /// A cache of about `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        let chunks = usize::try_from(capacity / (128 * 1024))
            .unwrap_or(usize::MAX)
            .max(16);
        Self(Cache::with_weighter(chunks, capacity, ByLength))
    }

    /// A chunk that was verified before, shared and not copied.
    pub(crate) fn get(&self, id: &ChunkId) -> Option<Bytes> {
        self.0.get(id)
    }

    /// Keeps a chunk that was just verified.
    pub(crate) fn insert(&self, id: ChunkId, verified: Bytes) {
        self.0.insert(id, verified);
    }

    /// Bytes held.
    pub(crate) fn weight(&self) -> u64 {
        self.0.weight()
    }

    /// Drops a chunk, so that the next read goes to the disk.
    pub(crate) fn remove(&self, id: &ChunkId) {
        self.0.remove(id);
    }
}
