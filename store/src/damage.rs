//! Damage that a reader ran into, until somebody who can tell people of it, or heal it, has taken it.
//!
//! A copy that is not what its id says is forgotten when it is read, so that it is fetched again. No scrub can find
//! it after that: what was found on the way stands here.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::id::ChunkId;

/// Damaged chunks, and damaged files, that are named; more are only counted.
pub(crate) const MAX_NAMED: usize = 10_000;

/// What was found damaged when it was read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Damage {
    /// Chunks of which a copy, in a pack or a file, was damaged; 10,000 at most.
    pub chunks: BTreeSet<ChunkId>,
    /// Files whose bytes have changed although the file system notes no change; 10,000 at most.
    pub files: BTreeSet<PathBuf>,
}

impl Damage {
    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.files.is_empty()
    }
}

/// Gathers damage of all readers.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<Damage>);

impl Findings {
    pub(crate) fn add(&self, chunk: ChunkId, file: Option<PathBuf>) {
        let mut damage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if damage.chunks.len() < MAX_NAMED {
            damage.chunks.insert(chunk);
        }
        if damage.files.len() < MAX_NAMED {
            damage.files.extend(file);
        }
    }

    pub(crate) fn take(&self) -> Damage {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
