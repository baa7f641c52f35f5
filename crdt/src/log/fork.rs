//! Authors that wrote two envelopes under one number: where the branches of their logs part.
//!
//! A device that was set back as a whole numbers on from where it was then, and does not know what it wrote
//! since. Both histories are signed, and both count. A branch is a [`Line`] of its own that begins after the
//! last envelope that it shares with another line of its author. Which of them a replica calls the first
//! depends on what came first; the envelopes' hashes, by which others name them, do not.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::Link;
use crate::bucket::past::Past;
use crate::bucket::row::{Mark, OpRef};
use crate::bucket::{Actor, Writers};
use crate::envelope::{Cause, Envelope};
use crate::error::{Damage, StorageError};
use crate::id::{Author, Hash, Line};

/// line → (the line that it parts from, the number of the last envelope that both have).
const FORKS: TableDefinition<'_, &[u8; 48], (&[u8; 48], u64)> = TableDefinition::new("fork");

/// Where a branch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) parent: Line,
    /// The number of the last envelope that both have; 0 when they share none.
    pub(crate) seq: u64,
}

/// All branches but each author's first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Forks {
    roots: BTreeMap<Line, Root>,
    /// Who forked, by actor.
    actors: BTreeMap<Actor, Author>,
}

impl Forks {
    pub(crate) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    pub(crate) fn root(&self, line: &Line) -> Option<Root> {
        self.roots.get(line).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Line, &Root)> {
        self.roots.iter()
    }

    /// The branches of an author beside its first.
    pub(crate) fn branches(&self, author: Author) -> impl Iterator<Item = Line> {
        let from = Line::from(author);
        let to = Line {
            branch: u64::MAX,
            ..from
        };
        self.roots.range(from..=to).map(|(line, _)| *line)
    }

    /// All lines that an author may have.
    pub(crate) fn lines(&self, author: Author) -> impl Iterator<Item = Line> {
        std::iter::once(Line::from(author)).chain(self.branches(author))
    }

    /// The line whose rows hold a number of this one: itself, or the one that it parts from.
    pub(crate) fn holder(&self, mut line: Line, seq: u64) -> Line {
        while let Some(root) = self.root(&line)
            && seq <= root.seq
        {
            line = root.parent;
        }
        line
    }

    /// Whoever has a line up to a number has these lines up to those.
    pub(crate) fn implied(&self, line: Line, seq: u64) -> Vec<(Line, u64)> {
        let line = self.holder(line, seq);
        let mut all = vec![(line, seq)];
        let mut at = line;
        while let Some(root) = self.root(&at) {
            all.push((root.parent, root.seq));
            at = root.parent;
        }
        all
    }

    /// Begins a branch with the envelope of that name.
    pub(crate) fn begin(
        &mut self,
        txn: &WriteTransaction,
        root: Root,
        first: &Hash,
    ) -> Result<Line, StorageError> {
        let mut line = Line {
            author: root.parent.author,
            branch: u64::from_be_bytes(first.mark()),
        };
        while line.branch == 0 || self.roots.contains_key(&line) {
            line.branch = line.branch.wrapping_add(1);
        }
        self.note(line, root);
        let row = (root.parent.to_key(), root.seq);
        txn.open_table(FORKS)?
            .insert(&line.to_key(), (&row.0, row.1))?;
        Ok(line)
    }

    fn note(&mut self, line: Line, root: Root) {
        self.roots.insert(line, root);
        self.actors.insert(line.author.actor(), line.author);
    }

    /// Forgets a branch of which nothing is left.
    pub(crate) fn end(&mut self, txn: &WriteTransaction, line: &Line) -> Result<(), StorageError> {
        if self.roots.remove(line).is_some() {
            txn.open_table(FORKS)?.remove(&line.to_key())?;
        }
        Ok(())
    }

    /// The name and clock of an envelope of a line.
    pub(crate) fn link(
        &self,
        txn: &WriteTransaction,
        line: Line,
        seq: u64,
    ) -> Result<Option<Link>, StorageError> {
        super::link(txn, &self.holder(line, seq), seq)
    }

    /// The line on which an envelope is, if it is here.
    pub(crate) fn find(
        &self,
        txn: &WriteTransaction,
        author: Author,
        seq: u64,
        hash: &Hash,
    ) -> Result<Option<Line>, StorageError> {
        for line in self.lines(author) {
            let begins = self.root(&line).map_or(0, |root| root.seq);
            if begins < seq && super::link(txn, &line, seq)?.is_some_and(|link| link.hash == *hash)
            {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// Causes, by the lines on which they are. Those of authors whose logs have holes are on their first.
    pub(crate) fn place(
        &self,
        txn: &WriteTransaction,
        causes: &[Cause],
    ) -> Result<Vec<(Line, u64)>, StorageError> {
        let mut placed = Vec::with_capacity(causes.len());
        for cause in causes {
            let Cause { author, seq, hash } = cause;
            if self.branches(*author).next().is_none() {
                placed.push((Line::from(author), *seq));
                continue;
            }
            let line = self.find(txn, *author, *seq, hash)?;
            placed.extend(self.implied(line.unwrap_or(Line::from(author)), *seq));
        }
        Ok(placed)
    }

    /// What the author had seen when it wrote an envelope of a line: what a branch that begins there starts from.
    pub(crate) fn past_at(&self, txn: &WriteTransaction, root: Root) -> Result<Past, StorageError> {
        let mut past = Past::of(&root.parent);
        for seq in 1..=root.seq {
            let line = self.holder(root.parent, seq);
            let damaged = || StorageError::Damaged(Damage::Log(line.author));
            let bytes = super::stored(txn, line, seq)?.ok_or_else(damaged)?;
            let envelope = Envelope::decode_trusted(&bytes).map_err(|_| damaged())?;
            past.learn(&self.place(txn, &envelope.head.causes)?);
        }
        past.learn(&self.implied(root.parent, root.seq));
        Ok(past)
    }
}

/// The branches in one open transaction.
pub(crate) struct Lines<'a> {
    pub(crate) txn: &'a WriteTransaction,
    pub(crate) forks: &'a Forks,
}

impl Writers for Lines<'_> {
    fn writer_of(&self, op: &OpRef, mark: &Mark) -> Result<Actor, StorageError> {
        let Self { txn, forks } = self;
        let Some(author) = forks.actors.get(&op.actor) else {
            return Ok(op.actor);
        };
        for line in forks.branches(*author) {
            let begins = forks.root(&line).map_or(0, |root| root.seq);
            let link = super::link(txn, &line, op.envelope)?;
            if begins < op.envelope && link.is_some_and(|link| link.hash.mark() == *mark) {
                return Ok(line.actor());
            }
        }
        Ok(op.actor)
    }
}

pub(super) fn create(txn: &WriteTransaction) -> Result<(), StorageError> {
    txn.open_table(FORKS)?;
    Ok(())
}

/// Loads all branches.
pub(crate) fn read(txn: &ReadTransaction) -> Result<Forks, StorageError> {
    let mut forks = Forks::default();
    for row in txn.open_table(FORKS)?.iter()? {
        let (line, row) = row?;
        let (parent, seq) = row.value();
        let parent = Line::from_key(*parent);
        forks.note(Line::from_key(*line.value()), Root { parent, seq });
    }
    Ok(forks)
}
