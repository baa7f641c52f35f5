//! Version vectors: how much of every author's log somebody has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::Author;

/// The number of the last envelope seen of each author. Logs have no gaps, so this says it all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionVector(BTreeMap<Author, u64>);

impl VersionVector {
    /// The number of the author's last seen envelope; 0 if none.
    #[must_use]
    pub fn get(&self, author: &Author) -> u64 {
        self.0.get(author).copied().unwrap_or(0)
    }

    /// Notes that envelopes up to `seq` were seen.
    pub fn advance(&mut self, author: Author, seq: u64) {
        if seq > 0 {
            let last = self.0.entry(author).or_insert(0);
            *last = (*last).max(seq);
        }
    }

    /// Whether everything in `other` was seen.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(author, seq)| self.get(author) >= *seq)
    }

    /// The authors with their last numbers, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&Author, u64)> {
        self.0.iter().map(|(author, seq)| (author, *seq))
    }

    /// How many authors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Author, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (Author, u64)>>(entries: I) -> Self {
        let mut vector = Self::default();
        for (author, seq) in entries {
            vector.advance(author, seq);
        }
        vector
    }
}
