//! Version vectors: how much of every author's log somebody has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Author, Line};

/// The number of the last envelope seen of each log. Logs have no gaps, so this says it all. Of authors that
/// forked the branches are named as the replica at hand names them: two replicas' vectors say nothing beside one another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionVector(BTreeMap<Line, u64>);

impl VersionVector {
    /// The number of the log's last seen envelope; 0 if none.
    #[must_use]
    pub fn get(&self, line: impl Into<Line>) -> u64 {
        self.0.get(&line.into()).copied().unwrap_or(0)
    }

    /// Notes that envelopes up to `seq` were seen.
    pub fn advance(&mut self, line: impl Into<Line>, seq: u64) {
        if seq > 0 {
            let last = self.0.entry(line.into()).or_insert(0);
            *last = (*last).max(seq);
        }
    }

    /// Whether everything in `other` was seen.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(line, seq)| self.get(line) >= *seq)
    }

    /// Forgets what was seen of an author.
    pub(crate) fn forget(&mut self, author: &Author) {
        self.0.retain(|line, _| line.author != *author);
    }

    /// The logs with their last numbers, in the order of their authors.
    pub fn iter(&self) -> impl Iterator<Item = (&Line, u64)> {
        self.0.iter().map(|(line, seq)| (line, *seq))
    }

    /// How many logs there are.
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

impl<L: Into<Line>> FromIterator<(L, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (L, u64)>>(entries: I) -> Self {
        let mut vector = Self::default();
        for (line, seq) in entries {
            vector.advance(line, seq);
        }
        vector
    }
}
