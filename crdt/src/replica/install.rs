//! The end of a snapshot: from what was put aside to registers, logs and tree, in one transaction.
//!
//! The replica becomes what it would be had it taken every envelope up to the snapshot's vector, except that
//! the logs have holes, and then its own envelopes that the sender had not seen. This device may write
//! while a snapshot comes in: the tree changes once, at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::WriteTransaction;

use super::header::{self, Origin};
use super::stage::{self, Stage, Unfit, fault};
use super::{Change, Commit, Entries, Writer, rebuild_index};
use crate::bucket::Buckets;
use crate::bucket::alive::Numbers;
use crate::bucket::change::Incoming;
use crate::bucket::row::Last;
use crate::envelope::Envelope;
use crate::error::{Damage, EnvelopeFault, Misbehaviour, SnapshotFault, StorageError};
use crate::id::{Author, BucketId, DeviceId, Hash};
use crate::log::gap::{self, Gap, Hole, Ledger, Tip};
use crate::log::{self, Link, LogEnd};
use crate::member::Verdict;

/// An author's place in each bucket, as its living envelopes show it.
type Lasts = BTreeMap<Author, BTreeMap<BucketId, Last>>;

impl Stage {
    /// Makes the snapshot this replica's state. Durable on return.
    ///
    /// When it fails, nothing has changed.
    pub(crate) fn install(self) -> Result<(), Unfit> {
        let replica = self.replica();
        let mut writer = replica.inner.writer()?;
        let own = replica.device();
        replica
            .inner
            .transact(&mut writer, Commit::Checkpoint, |txn, writer| {
                Install {
                    txn,
                    writer,
                    stage: &self,
                    own,
                    lasts: Lasts::new(),
                }
                .run()
            })?;
        replica.inner.observers.push(Change {
            entries: Entries::Everything,
            local: false,
            members: false,
        });
        drop(writer);
        // Dropping the stage tells the observers, and that others may go on.
        Ok(())
    }
}

struct Install<'a> {
    txn: &'a WriteTransaction,
    writer: &'a mut Writer,
    stage: &'a Stage,
    own: DeviceId,
    lasts: Lasts,
}

impl Install<'_> {
    fn run(mut self) -> Result<(), Unfit> {
        let foreign = |author: &Author| author.device != self.own;
        let position = &self.writer.position;
        let occupied = position.ends.keys().any(foreign) || position.gap.is_some();
        // Of a life of this device that it goes on with it must know more than others.
        let current = &position.author;
        let forgotten = self.stage.tips.contains_key(current) && self.knows(current).is_none();
        if occupied || forgotten || self.stage.tips.is_empty() {
            return Err(Unfit::Unusable);
        }
        let total = self.stage.check().map_err(fault)?;
        let next = self.writer.position.next_arrival;
        self.empty_buckets()?;
        let after = self.install_pieces(next.saturating_add(total))?;
        self.install_numbers(next)?;
        self.replay_own()?;
        self.writer.position.next_arrival = after;
        self.writer.position.clock = self.writer.position.clock.max(self.stage.clock);
        rebuild_index(self.txn)?;
        stage::clear(self.txn)?;
        header::set_origin(self.txn, Origin::Snapshot)?;
        Ok(())
    }

    fn knows(&self, author: &Author) -> Option<LogEnd> {
        self.writer.position.ends.get(author).copied()
    }

    /// Leaves nothing in them but how far this device has numbered its own operations.
    fn empty_buckets(&self) -> Result<(), StorageError> {
        let mut buckets = Buckets::open(self.txn)?;
        let own: Vec<_> = self
            .writer
            .position
            .ends
            .keys()
            .map(Author::actor)
            .collect();
        let lasts = buckets.lasts(&own)?;
        buckets.clear_all()?;
        for (bucket, actor, last) in lasts {
            buckets.set_last(bucket, actor, last)?;
        }
        Ok(())
    }

    /// Puts what is alive into registers and logs, from this arrival number on. Gives the one after.
    fn install_pieces(&mut self, mut arrival: u64) -> Result<u64, Unfit> {
        let txn = self.txn;
        let moved = self.writer.members.heads() != self.stage.members;
        stage::visit(txn, |marks, bytes| {
            let envelope = Envelope::decode_trusted(bytes);
            let envelope = envelope.map_err(|_| StorageError::Damaged(Damage::Header("stage")))?;
            let (frame, head) = (&envelope.frame, &envelope.head);
            let (author, seq) = (frame.author, frame.seq);
            let verdict = || self.writer.members.judge(author, seq, &head.members);
            if moved && verdict() != Verdict::Admit {
                return Err(Unfit::Unusable);
            }
            let blame = |fault| Misbehaviour::Envelope { author, seq, fault };
            let changes = stage::parse(&envelope).map_err(blame)?;
            if let Some(end) = self.knows(&author) {
                self.check_own(author, end, &envelope)?;
                self.install_changes(seq, &changes, marks)?;
                return Ok(());
            }
            self.install_changes(seq, &changes, marks)?;
            let lasts = self.lasts.entry(author).or_default();
            for ((bucket, _), change) in envelope.changes.iter().zip(&changes) {
                let bucket = *bucket;
                let last = lasts.get(&bucket).copied().unwrap_or_default();
                let follows = change.comes_after(last);
                follows.map_err(|fault| blame(EnvelopeFault::Change { bucket, fault }))?;
                lasts.insert(bucket, change.last());
            }
            let mut past = log::past(txn, &author)?;
            past.learn(&envelope.deps());
            log::set_past(txn, &author, &past)?;
            let link = Link {
                hash: frame.hash,
                clock: head.clock,
            };
            log::insert(txn, author, seq, arrival, link, bytes)?;
            arrival += 1;
            Ok(())
        })?;
        Ok(arrival)
    }

    /// An envelope of this device that came back must be the one that it sent.
    fn check_own(&self, author: Author, end: LogEnd, envelope: &Envelope<'_>) -> Result<(), Unfit> {
        let seq = envelope.frame.seq;
        let ours = if seq <= end.seq {
            log::link(self.txn, &author, seq)?
        } else {
            None
        };
        match ours {
            Some(link) if link.hash == envelope.frame.hash => Ok(()),
            // The hello that follows finds out what has happened to the log.
            Some(_) | None => Err(Unfit::Unusable),
        }
    }

    fn install_changes(&self, seq: u64, changes: &[Incoming], marks: &[u8]) -> Result<(), Unfit> {
        let mut alive = stage::marked(marks);
        let mut buckets = Buckets::open(self.txn)?;
        for change in changes {
            let alive = alive.by_ref().take(change.writes.len());
            if let Some(first) = change.writes.first()
                && !buckets.install(first.key.id.bucket(), change, seq, alive)?
            {
                return Err(Unfit::Unusable);
            }
        }
        Ok(())
    }

    /// Takes over what the sender said of every author, and notes what is missing of its log.
    fn install_numbers(&mut self, next: u64) -> Result<(), Unfit> {
        let mut holes = BTreeMap::new();
        for (author, upto) in &self.stage.tips {
            let (author, upto) = (*author, *upto);
            if self.knows(&author).is_some() {
                continue;
            }
            let stated = self.stated(author)?;
            let actor = author.actor();
            let mut buckets = Buckets::open(self.txn)?;
            for (bucket, last) in &stated.lasts {
                buckets.set_last(*bucket, actor, *last)?;
            }
            let mut past = log::past(self.txn, &author)?;
            past.learn_stated(&stated.seen);
            log::set_past(self.txn, &author, &past)?;
            let end = LogEnd::from(upto);
            log::set_end(self.txn, author, end)?;
            let nothing = Tip {
                seq: 0,
                hash: Hash::from_bytes([0; 32]),
                clock: 0,
            };
            let hole = Hole {
                have: nothing,
                upto,
            };
            let found = Numbers::default();
            gap::set(self.txn, author, &hole, &Ledger { stated, found })?;
            holes.insert(author, hole);
        }
        for (author, hole) in &holes {
            let end = LogEnd::from(hole.upto);
            self.writer.position.ends.insert(*author, end);
        }
        if !holes.is_empty() {
            gap::set_next(self.txn, next)?;
            self.writer.position.gap = Some(Arc::new(Gap { holes, next }));
        }
        Ok(())
    }

    /// What the sender said of an author, if it does not contradict the author's envelopes.
    fn stated(&self, author: Author) -> Result<Numbers, Unfit> {
        let wrong = || fault(SnapshotFault::Numbers(author));
        let stated = stage::numbers(self.txn, author)?.ok_or_else(wrong)?;
        let mut shown = self.lasts.get(&author).into_iter().flatten();
        let falls_short = shown.any(|(bucket, shown)| {
            let said = stated.last(*bucket);
            said.seq < shown.seq
                || said.op < shown.op
                || (said.seq == shown.seq) != (said.op == shown.op)
        });
        let seen_too_much = self.stage.tips.iter().any(|(other, tip)| {
            let seen = stated.seen.get(&other.actor());
            seen.is_some_and(|seen| *seen > tip.seq)
        });
        // The codec of changes has room for operation numbers of 32 bits.
        let possible =
            |last: &Last| 0 < last.seq && last.seq <= last.op && last.op <= u64::from(u32::MAX);
        let impossible = !stated.lasts.values().all(possible);
        if falls_short || seen_too_much || impossible {
            return Err(wrong());
        }
        Ok(stated)
    }

    /// Applies this device's own envelopes that the sender of the snapshot had not seen.
    fn replay_own(&self) -> Result<(), Unfit> {
        let mut buckets = Buckets::open(self.txn)?;
        let mut pasts = BTreeMap::new();
        for author in self.writer.position.ends.keys() {
            if author.device == self.own && !self.is_hole(author) {
                pasts.insert(*author, log::past(self.txn, author)?);
            }
        }
        log::visit(self.txn, |author, bytes| {
            let Some(past) = pasts.get(&author) else {
                return Ok(());
            };
            let damaged = || StorageError::Damaged(Damage::Log(author));
            let envelope = Envelope::decode_trusted(bytes).map_err(|_| damaged())?;
            let seq = envelope.frame.seq;
            if self
                .stage
                .tips
                .get(&author)
                .is_some_and(|tip| seq <= tip.seq)
            {
                return Ok(());
            }
            for (bucket, change) in envelope.changes {
                let change = Incoming::parse(bucket, change, &author).map_err(|_| damaged())?;
                buckets.apply(bucket, &change, seq, past)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn is_hole(&self, author: &Author) -> bool {
        let gap = self.writer.position.gap.as_ref();
        gap.is_some_and(|gap| gap.holes.contains_key(author))
    }
}
