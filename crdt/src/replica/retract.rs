//! Taking back envelopes that turn out not to count, and keeping them aside.
//!
//! When a member is removed, some replicas may have applied envelopes of it that lie beyond the cut
//! of the removal, others not. What counts is the same everywhere: an envelope up to the cut, or one
//! that a counting envelope of somebody else builds on. The rest is taken out of log and registers and
//! kept in quarantine, from where it returns if something that counts turns out to build on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::backfill::Derived;
use super::header::{self, Origin};
use super::view::View;
use super::{Entries, Replica, Writer, rebuild_index};
use crate::bucket::Buckets;
use crate::bucket::change::Incoming;
use crate::bucket::past::Past;
use crate::envelope::Envelope;
use crate::error::{Damage, StorageError};
use crate::id::{Author, BucketId, DeviceId, EntryId};
use crate::index;
use crate::limit::{BUCKET_COUNT, MAX_QUARANTINED};
use crate::log::gap::{self, Hole};
use crate::log::{self, Link, LogEnd};
use crate::member::Verdict;

/// (author, number) → envelope that does not count.
const QUARANTINE: TableDefinition<'_, (&[u8; 40], u64), &[u8]> = TableDefinition::new("quarantine");

/// Creates the table.
pub(super) fn create(txn: &WriteTransaction) -> Result<(), StorageError> {
    txn.open_table(QUARANTINE)?;
    Ok(())
}

/// Keeps an envelope aside, if there is room: its author can always send it again.
pub(super) fn keep(
    txn: &WriteTransaction,
    author: Author,
    seq: u64,
    bytes: &[u8],
) -> Result<(), StorageError> {
    let mut table = txn.open_table(QUARANTINE)?;
    if table.len()? < MAX_QUARANTINED {
        table.insert((&author.to_key(), seq), bytes)?;
    }
    Ok(())
}

/// Whether an envelope is kept aside.
pub(super) fn holds(
    txn: &WriteTransaction,
    author: Author,
    seq: u64,
) -> Result<bool, StorageError> {
    Ok(txn
        .open_table(QUARANTINE)?
        .get((&author.to_key(), seq))?
        .is_some())
}

/// Takes an envelope out of quarantine.
pub(super) fn release(
    txn: &WriteTransaction,
    author: Author,
    seq: u64,
) -> Result<Option<Vec<u8>>, StorageError> {
    let mut table = txn.open_table(QUARANTINE)?;
    let row = table.remove((&author.to_key(), seq))?;
    Ok(row.map(|row| row.value().to_vec()))
}

impl Replica {
    /// How many envelopes are kept aside because they do not count: by devices that were removed or write no
    /// longer, or by one life too many of a member.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn refused(&self) -> Result<u64, StorageError> {
        Ok(self.read()?.open_table(QUARANTINE)?.len()?)
    }

    /// Envelopes of removed members that do not count here, each author's next one first, about `room` bytes.
    pub(crate) fn kept_aside(
        &self,
        ranges: &[(Author, u64, u64)],
        room: usize,
    ) -> Result<Vec<Vec<u8>>, StorageError> {
        let txn = self.read()?;
        let table = txn.open_table(QUARANTINE)?;
        let (mut kept, mut size) = (Vec::new(), 0);
        for (author, have, upto) in ranges {
            if have >= upto {
                continue;
            }
            let key = author.to_key();
            let mut next = *have;
            for row in table.range((&key, *have)..=(&key, *upto))? {
                let (place, bytes) = row?;
                let (_, seq) = place.value();
                if seq == *have {
                    continue;
                }
                size += bytes.value().len();
                if seq != next.saturating_add(1) || (size > room && !kept.is_empty()) {
                    break;
                }
                next = seq;
                kept.push(bytes.value().to_vec());
            }
        }
        Ok(kept)
    }
}

/// What becomes of envelopes that are taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// They return if something that counts builds on them.
    Quarantine,
    /// What they said was said anew.
    Forget,
}

/// What one envelope says that it builds on.
struct Causes {
    author: Author,
    seq: u64,
    deps: Vec<(Author, u64)>,
}

impl Writer {
    /// Takes back whatever does not count in the membership as it is now; gives what the tree shows differently. Own envelopes stay: a device that was
    /// removed keeps its tree for itself.
    pub(super) fn retract(
        &mut self,
        txn: &WriteTransaction,
        own: DeviceId,
    ) -> Result<Entries, StorageError> {
        let Some(limits) = self.limits(txn, own)? else {
            return Ok(Entries::Listed(Vec::new()));
        };
        let touched = self.take_back(txn, &limits, Fate::Quarantine)?;
        for author in limits.keys() {
            self.close_hole(txn, *author)?;
        }
        self.close_gap(txn)?;
        Ok(match self.relieve_doubt(txn)? {
            Derived::Anew => Entries::Everything,
            Derived::Before => Entries::Listed(index::apply(txn, &View::open(txn)?, &touched)?),
        })
    }

    /// Ends logs earlier, and derives anew what the rest of them wrote to: no log may have a hole but those
    /// that end before it now. The tree's index is not told: gives the entries.
    pub(super) fn take_back(
        &mut self,
        txn: &WriteTransaction,
        limits: &BTreeMap<Author, u64>,
        fate: Fate,
    ) -> Result<Vec<EntryId>, StorageError> {
        let (mut buckets, mut touched) = (BTreeSet::new(), BTreeSet::new());
        for (author, limit) in limits {
            let (author, limit) = (*author, *limit);
            let damaged = || StorageError::Damaged(Damage::Log(author));
            let Some(end) = self.position.ends.get(&author).copied() else {
                continue;
            };
            for bytes in log::remove(txn, author, limit + 1, end.seq)? {
                let envelope = Envelope::decode_trusted(&bytes).map_err(|_| damaged())?;
                for (bucket, change) in &envelope.changes {
                    let change =
                        Incoming::parse(*bucket, change, &author).map_err(|_| damaged())?;
                    buckets.insert(*bucket);
                    touched.extend(change.writes.iter().map(|write| write.key.id));
                }
                match fate {
                    Fate::Quarantine => keep(txn, author, envelope.frame.seq, &bytes)?,
                    Fate::Forget => {}
                }
            }
            self.end_at(txn, author, limit)?;
        }
        if !limits.is_empty() {
            self.position.cuts += 1;
            rebuild(txn, &buckets, limits.keys())?;
        }
        Ok(touched.into_iter().collect())
    }

    /// Where the logs have to end that end too late. `None` when that cannot be told yet: an envelope that is
    /// missing may count, or make another one count.
    fn limits(
        &self,
        txn: &WriteTransaction,
        own: DeviceId,
    ) -> Result<Option<BTreeMap<Author, u64>>, StorageError> {
        let mut limits: BTreeMap<Author, u64> = BTreeMap::new();
        let suspect = |author: &Author| {
            let state = self.members.state();
            author.device != own
                && (state.role_of(&author.device).is_none()
                    || state
                        .removals
                        .iter()
                        .any(|removal| removal.device == author.device))
        };
        if !self.position.ends.keys().any(suspect) {
            return Ok(Some(limits));
        }
        for (author, hole) in self.holes() {
            if !suspect(author) || !self.is_beyond(txn, *author, hole)? {
                return Ok(None);
            }
            limits.insert(*author, hole.have.seq);
        }
        let mut causes = Vec::new();
        log::visit(txn, |author, bytes| {
            let damaged = |_| StorageError::Damaged(Damage::Log(author));
            let envelope = Envelope::decode_trusted(bytes).map_err(damaged)?;
            let seq = envelope.frame.seq;
            if suspect(&author)
                && limits.get(&author).is_none_or(|limit| seq <= *limit)
                && self.members.judge(author, seq, &envelope.head.members) == Verdict::BeyondCut
            {
                limits.insert(author, seq - 1);
            }
            causes.push(Causes {
                author,
                seq,
                deps: envelope.deps(),
            });
            Ok(())
        })?;
        // What something counting builds on counts too, and so on until nothing is added.
        let mut growing = !limits.is_empty();
        while growing {
            growing = false;
            for cause in &causes {
                if limits
                    .get(&cause.author)
                    .is_some_and(|limit| cause.seq > *limit)
                {
                    continue;
                }
                for (author, seq) in &cause.deps {
                    if let Some(limit) = limits.get_mut(author).filter(|limit| **limit < *seq) {
                        *limit = *seq;
                        growing = true;
                    }
                }
            }
        }
        let mut holes = self.holes();
        let known = holes.all(|(author, hole)| limits.get(author) <= Some(&hole.have.seq));
        Ok(known.then_some(limits))
    }

    fn holes(&self) -> impl Iterator<Item = (&Author, &Hole)> {
        self.position.gap.iter().flat_map(|gap| &gap.holes)
    }

    /// Whether the first missing envelope of a removed member does not count by itself. What the author knew of
    /// the membership only grew: what it did not know when it wrote the last, it did not know before.
    fn is_beyond(
        &self,
        txn: &WriteTransaction,
        author: Author,
        hole: &Hole,
    ) -> Result<bool, StorageError> {
        let damaged = || StorageError::Damaged(Damage::Log(author));
        let bytes = log::stored(txn, author, hole.upto.seq)?.ok_or_else(damaged)?;
        let envelope = Envelope::decode_trusted(&bytes).map_err(|_| damaged())?;
        let first = hole.have.seq + 1;
        let verdict = self.members.judge(author, first, &envelope.head.members);
        Ok(verdict == Verdict::BeyondCut)
    }

    /// What is missing of a log that was cut will not come, so nobody can tell any more whether what a snapshot
    /// said of it was right.
    fn close_hole(&mut self, txn: &WriteTransaction, author: Author) -> Result<(), StorageError> {
        if let Some(gap) = &mut self.position.gap
            && Arc::make_mut(gap).holes.remove(&author).is_some()
        {
            gap::close(txn, author)?;
            header::set_origin(txn, Origin::Doubtful)?;
        }
        Ok(())
    }

    fn end_at(
        &mut self,
        txn: &WriteTransaction,
        author: Author,
        seq: u64,
    ) -> Result<(), StorageError> {
        if seq == 0 {
            self.position.ends.remove(&author);
            return log::remove_end(txn, author);
        }
        let link = log::link(txn, &author, seq)?;
        let Link { hash, clock } = link.ok_or(StorageError::Damaged(Damage::Log(author)))?;
        let end = LogEnd { seq, hash, clock };
        self.position.ends.insert(author, end);
        log::set_end(txn, author, end)
    }
}

/// Derives everything anew from logs that are complete.
pub(super) fn rebuild_all<'a>(
    txn: &WriteTransaction,
    authors: impl Iterator<Item = &'a Author>,
) -> Result<(), StorageError> {
    let buckets = (0..BUCKET_COUNT).filter_map(BucketId::new).collect();
    rebuild(txn, &buckets, authors)?;
    rebuild_index(txn)
}

/// Derives buckets anew from the envelopes that are left, and what the authors that were `cut` had seen.
fn rebuild<'a>(
    txn: &WriteTransaction,
    buckets: &BTreeSet<BucketId>,
    cut: impl Iterator<Item = &'a Author>,
) -> Result<(), StorageError> {
    let mut registers = Buckets::open(txn)?;
    for bucket in buckets {
        registers.clear(*bucket)?;
    }
    let mut pasts: BTreeMap<Author, Past> = BTreeMap::new();
    log::visit(txn, |author, bytes| {
        let damaged = || StorageError::Damaged(Damage::Log(author));
        let envelope = Envelope::decode_trusted(bytes).map_err(|_| damaged())?;
        let seq = envelope.frame.seq;
        let past = pasts.entry(author).or_insert_with(|| Past::of(&author));
        past.learn(&envelope.deps());
        for (bucket, change) in envelope.changes {
            if buckets.contains(&bucket) {
                let change = Incoming::parse(bucket, change, &author).map_err(|_| damaged())?;
                registers.apply(bucket, &change, seq, past)?;
            }
        }
        Ok(())
    })?;
    for author in cut {
        match pasts.get(author) {
            Some(past) => log::set_past(txn, author, past)?,
            None => log::remove_past(txn, author)?,
        }
    }
    Ok(())
}
