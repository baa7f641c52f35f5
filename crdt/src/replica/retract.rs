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
use super::{Entries, Position, Replica, Writer, rebuild_index, stage};
use crate::bucket::change::Incoming;
use crate::bucket::past::Past;
use crate::bucket::{Buckets, Carrier};
use crate::envelope::{Envelope, Frame};
use crate::error::{Damage, StorageError};
use crate::id::{Author, BucketId, DeviceId, EntryId, Hash, Line};
use crate::index;
use crate::limit::{BUCKET_COUNT, MAX_QUARANTINED};
use crate::log::fork::Lines;
use crate::log::gap::{self, Hole};
use crate::log::{self, Link, LogEnd};
use crate::member::Verdict;

/// (author, number, the beginning of the hash) → envelope that does not count.
const QUARANTINE: TableDefinition<'_, Aside<'_>, &[u8]> = TableDefinition::new("quarantine");

type Aside<'a> = (&'a [u8; 40], u64, &'a [u8; 8]);

/// An envelope of some author: its number and the beginning of its hash.
pub(crate) type Step = (u64, [u8; 8]);

/// Creates the table.
pub(super) fn create(txn: &WriteTransaction) -> Result<(), StorageError> {
    txn.open_table(QUARANTINE)?;
    Ok(())
}

/// Keeps an envelope aside, if there is room: its author can always send it again.
pub(super) fn keep(
    txn: &WriteTransaction,
    frame: &Frame,
    bytes: &[u8],
) -> Result<(), StorageError> {
    let mut table = txn.open_table(QUARANTINE)?;
    if table.len()? < MAX_QUARANTINED {
        let (author, mark) = (frame.author.to_key(), frame.hash.mark());
        table.insert((&author, frame.seq, &mark), bytes)?;
    }
    Ok(())
}

/// Whether an envelope is kept aside.
pub(super) fn holds(
    txn: &WriteTransaction,
    author: Author,
    seq: u64,
    hash: &Hash,
) -> Result<bool, StorageError> {
    let (author, mark) = (author.to_key(), hash.mark());
    let row = txn
        .open_table(QUARANTINE)?
        .get((&author, seq, &mark))?
        .is_some();
    Ok(row)
}

/// An envelope that is kept aside.
pub(super) fn kept(
    txn: &WriteTransaction,
    author: Author,
    seq: u64,
    hash: &Hash,
) -> Result<Option<Vec<u8>>, StorageError> {
    let table = txn.open_table(QUARANTINE)?;
    let (author, mark) = (author.to_key(), hash.mark());
    let row = table.get((&author, seq, &mark))?;
    Ok(row.map(|row| row.value().to_vec()))
}

/// Takes an envelope out of quarantine.
pub(super) fn forget(txn: &WriteTransaction, frame: &Frame) -> Result<(), StorageError> {
    let (author, mark) = (frame.author.to_key(), frame.hash.mark());
    txn.open_table(QUARANTINE)?
        .remove((&author, frame.seq, &mark))?;
    Ok(())
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

    /// The envelopes kept aside that lead to one, in order, and the one before them.
    pub(crate) fn aside_to(
        &self,
        author: Author,
        (mut seq, mut mark): Step,
    ) -> Result<(Vec<Step>, Step), StorageError> {
        let txn = self.read()?;
        let table = txn.open_table(QUARANTINE)?;
        let key = author.to_key();
        let mut chain = Vec::new();
        while seq > 0
            && let Some(row) = table.get((&key, seq, &mark))?
        {
            let damaged = |_| StorageError::Damaged(Damage::Log(author));
            let frame = Frame::read(row.value()).map_err(damaged)?;
            chain.push((seq, mark));
            (seq, mark) = (seq - 1, frame.prev.mark());
        }
        chain.reverse();
        Ok((chain, (seq, mark)))
    }

    /// Some of these envelopes, if they are kept aside: about `room` bytes.
    pub(crate) fn kept_aside(
        &self,
        wanted: &[(Author, Step)],
        room: usize,
    ) -> Result<Vec<Vec<u8>>, StorageError> {
        let txn = self.read()?;
        let table = txn.open_table(QUARANTINE)?;
        let (mut kept, mut size) = (Vec::new(), 0);
        for (author, (seq, mark)) in wanted {
            let Some(row) = table.get((&author.to_key(), *seq, mark))? else {
                continue;
            };
            size += row.value().len();
            if size > room && !kept.is_empty() {
                break;
            }
            kept.push(row.value().to_vec());
        }
        Ok(kept)
    }
}

/// What one envelope says that it builds on.
struct Causes {
    line: Line,
    seq: u64,
    deps: Vec<(Line, u64)>,
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
        let touched = self.take_back(txn, &limits)?;
        for line in limits.keys() {
            self.close_hole(txn, *line)?;
        }
        self.close_gap(txn)?;
        Ok(match self.relieve_doubt(txn)? {
            Derived::Anew => Entries::Everything,
            Derived::Before => Entries::Listed(index::apply(txn, &View::open(txn)?, &touched)?),
        })
    }

    /// Ends logs earlier, keeps aside what comes after, and derives anew what the rest of them wrote to: no log
    /// may have a hole but those that end before it now. The tree's index is not told: gives the entries.
    fn take_back(
        &mut self,
        txn: &WriteTransaction,
        limits: &BTreeMap<Line, u64>,
    ) -> Result<Vec<EntryId>, StorageError> {
        let (mut buckets, mut touched) = (BTreeSet::new(), BTreeSet::new());
        for (line, limit) in limits {
            let (line, limit) = (*line, *limit);
            let damaged = || StorageError::Damaged(Damage::Log(line.author));
            let Some(end) = self.position.ends.get(&line).copied() else {
                continue;
            };
            for bytes in log::remove(txn, line, limit + 1, end.seq)? {
                let envelope = Envelope::decode_trusted(&bytes).map_err(|_| damaged())?;
                for change in stage::parse(&envelope).map_err(|_| damaged())? {
                    for write in &change.writes {
                        buckets.insert(write.key.id.bucket());
                        touched.insert(write.key.id);
                    }
                }
                keep(txn, &envelope.frame, &bytes)?;
            }
            self.end_at(txn, line, limit)?;
        }
        if !limits.is_empty() {
            self.position.cuts += 1;
            rebuild(txn, &self.position, &buckets, limits.keys())?;
            // What does not count any more must not move the clock, either: the next envelope of this device
            // could not name it as a cause.
            let clocks = self.position.ends.values().map(|end| end.clock);
            self.position.clock = clocks.max().unwrap_or(0);
        }
        Ok(touched.into_iter().collect())
    }

    /// Where the logs have to end that end too late. `None` when that cannot be told yet: an envelope that is
    /// missing may count, or make another one count.
    fn limits(
        &self,
        txn: &WriteTransaction,
        own: DeviceId,
    ) -> Result<Option<BTreeMap<Line, u64>>, StorageError> {
        let mut limits: BTreeMap<Line, u64> = BTreeMap::new();
        let suspect = |line: &Line| {
            let (device, state) = (&line.author.device, self.members.state());
            *device != own
                && (state.role_of(device).is_none()
                    || state
                        .removals
                        .iter()
                        .any(|removal| removal.device == *device))
        };
        if !self.position.ends.keys().any(suspect) {
            return Ok(Some(limits));
        }
        for (line, hole) in self.holes() {
            if !suspect(line) || !self.is_beyond(txn, *line, hole)? {
                return Ok(None);
            }
            limits.insert(*line, hole.have.seq);
        }
        let mut named = Vec::new();
        log::visit(txn, |line, bytes| {
            let damaged = |_| StorageError::Damaged(Damage::Log(line.author));
            let envelope = Envelope::decode_trusted(bytes).map_err(damaged)?;
            let seq = envelope.frame.seq;
            if suspect(&line)
                && limits.get(&line).is_none_or(|limit| seq <= *limit)
                && self.members.judge(line.author, seq, &envelope.head.members)
                    == Verdict::BeyondCut
            {
                limits.insert(line, seq - 1);
            }
            named.push((line, seq, envelope.head.causes));
            Ok(())
        })?;
        let mut causes = Vec::with_capacity(named.len());
        for (line, seq, named) in named {
            let mut deps = self.position.forks.place(txn, &named)?;
            deps.extend(
                self.position
                    .forks
                    .root(&line)
                    .map(|root| (root.parent, root.seq)),
            );
            causes.push(Causes { line, seq, deps });
        }
        // What something counting builds on counts too, and so on until nothing is added.
        let mut growing = !limits.is_empty();
        while growing {
            growing = false;
            for cause in &causes {
                if limits
                    .get(&cause.line)
                    .is_some_and(|limit| cause.seq > *limit)
                {
                    continue;
                }
                for (line, seq) in &cause.deps {
                    if let Some(limit) = limits.get_mut(line).filter(|limit| **limit < *seq) {
                        *limit = *seq;
                        growing = true;
                    }
                }
            }
        }
        let mut holes = self.holes();
        let known = holes.all(|(line, hole)| limits.get(line) <= Some(&hole.have.seq));
        Ok(known.then_some(limits))
    }

    fn holes(&self) -> impl Iterator<Item = (&Line, &Hole)> {
        self.position.gap.iter().flat_map(|gap| &gap.holes)
    }

    /// Whether the first missing envelope of a removed member does not count by itself. What the author knew of
    /// the membership only grew: what it did not know when it wrote the last, it did not know before.
    fn is_beyond(
        &self,
        txn: &WriteTransaction,
        line: Line,
        hole: &Hole,
    ) -> Result<bool, StorageError> {
        let damaged = || StorageError::Damaged(Damage::Log(line.author));
        let bytes = log::stored(txn, line, hole.upto.seq)?.ok_or_else(damaged)?;
        let envelope = Envelope::decode_trusted(&bytes).map_err(|_| damaged())?;
        let first = hole.have.seq + 1;
        let members = &envelope.head.members;
        let verdict = self.members.judge(line.author, first, members);
        Ok(verdict == Verdict::BeyondCut)
    }

    /// What is missing of a log that was cut will not come, so nobody can tell any more whether what a snapshot
    /// said of it was right.
    fn close_hole(&mut self, txn: &WriteTransaction, line: Line) -> Result<(), StorageError> {
        if let Some(gap) = &mut self.position.gap
            && Arc::make_mut(gap).holes.remove(&line).is_some()
        {
            gap::close(txn, line)?;
            header::set_origin(txn, Origin::Doubtful)?;
        }
        Ok(())
    }

    fn end_at(&mut self, txn: &WriteTransaction, line: Line, seq: u64) -> Result<(), StorageError> {
        let root = self.position.forks.root(&line);
        if seq <= root.map_or(0, |root| root.seq) {
            self.position.ends.remove(&line);
            self.position.forks.end(txn, &line)?;
            return log::remove_end(txn, line);
        }
        let link = log::link(txn, &line, seq)?;
        let damaged = StorageError::Damaged(Damage::Log(line.author));
        let Link { hash, clock } = link.ok_or(damaged)?;
        let end = LogEnd { seq, hash, clock };
        self.position.ends.insert(line, end);
        log::set_end(txn, line, end)
    }
}

/// Derives everything anew from logs that are complete.
pub(super) fn rebuild_all(txn: &WriteTransaction, position: &Position) -> Result<(), StorageError> {
    let buckets = (0..BUCKET_COUNT).filter_map(BucketId::new).collect();
    rebuild(txn, position, &buckets, position.ends.keys())?;
    rebuild_index(txn)
}

/// Derives buckets anew from the envelopes that are left, and what the authors that were `cut` had seen.
fn rebuild<'a>(
    txn: &WriteTransaction,
    position: &Position,
    buckets: &BTreeSet<BucketId>,
    cut: impl Iterator<Item = &'a Line>,
) -> Result<(), StorageError> {
    let forks = &position.forks;
    let mut pasts: BTreeMap<Line, Past> = BTreeMap::new();
    for (line, root) in forks.iter() {
        pasts.insert(*line, forks.past_at(txn, *root)?.onto(line));
    }
    let mut registers = Buckets::open(txn)?;
    for bucket in buckets {
        registers.clear(*bucket)?;
    }
    log::visit(txn, |line, bytes| {
        let damaged = || StorageError::Damaged(Damage::Log(line.author));
        let envelope = Envelope::decode_trusted(bytes).map_err(|_| damaged())?;
        let past = pasts.entry(line).or_insert_with(|| Past::of(&line));
        past.learn(&forks.place(txn, &envelope.head.causes)?);
        let carrier = Carrier {
            seq: envelope.frame.seq,
            mark: envelope.frame.hash.mark(),
            past,
            writers: &Lines { txn, forks },
        };
        for (bucket, change) in &envelope.changes {
            if buckets.contains(bucket) {
                let change = Incoming::parse(*bucket, change, &line.author, carrier.seq)
                    .map_err(|_| damaged())?;
                registers.apply(*bucket, &change, &carrier)?;
            }
        }
        Ok(())
    })?;
    for line in cut {
        match pasts.get(line) {
            Some(past) if position.ends.contains_key(line) => log::set_past(txn, line, past)?,
            Some(_) | None => log::remove_past(txn, line)?,
        }
    }
    Ok(())
}
