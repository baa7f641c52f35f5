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
use crate::bucket::alive::Seen;
use crate::bucket::change::Incoming;
use crate::bucket::{Buckets, Carrier};
use crate::envelope::Envelope;
use crate::error::{Damage, Misbehaviour, SnapshotFault, StorageError};
use crate::id::{Author, DeviceId, Line};
use crate::limit::MAX_VECTOR_AUTHORS;
use crate::log::fork::Lines;
use crate::log::gap::{self, Gap, Hole, Ledger, Tip};
use crate::log::{self, Link, LogEnd};
use crate::member::Verdict;

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
}

impl Install<'_> {
    fn run(mut self) -> Result<(), Unfit> {
        let foreign = |line: &Line| line.author.device != self.own;
        let position = &self.writer.position;
        let occupied = position.ends.keys().any(foreign)
            || position.gap.is_some()
            || !position.forks.is_empty();
        // Of a life of this device that it goes on with it must know more than others.
        let current = Line::from(position.author);
        let forgotten = self.stage.tips.contains_key(&current) && self.knows(&current).is_none();
        if occupied || forgotten || self.stage.tips.is_empty() {
            return Err(Unfit::Unusable);
        }
        let total = self.stage.check().map_err(fault)?;
        let next = self.writer.position.next_arrival;
        Buckets::open(self.txn)?.clear_all()?;
        let after = self.install_pieces(next.saturating_add(total))?;
        self.install_seen(next)?;
        self.replay_own()?;
        self.writer.position.next_arrival = after;
        self.writer.position.clock = self.writer.position.clock.max(self.stage.clock);
        rebuild_index(self.txn)?;
        stage::clear(self.txn)?;
        header::set_origin(self.txn, Origin::Snapshot)?;
        Ok(())
    }

    fn knows(&self, line: &Line) -> Option<LogEnd> {
        self.writer.position.ends.get(line).copied()
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
            let line = Line::from(author);
            if let Some(end) = self.knows(&line) {
                self.check_own(line, end, &envelope)?;
                self.install_changes(&envelope, &changes, marks)?;
                return Ok(());
            }
            self.install_changes(&envelope, &changes, marks)?;
            let mut past = log::past(txn, &line)?;
            past.learn(&self.writer.position.forks.place(txn, &head.causes)?);
            log::set_past(txn, &line, &past)?;
            let link = Link {
                hash: frame.hash,
                clock: head.clock,
            };
            log::insert(txn, line, seq, arrival, link, bytes)?;
            arrival += 1;
            Ok(())
        })?;
        Ok(arrival)
    }

    /// An envelope of this device that came back must be the one that it sent.
    fn check_own(&self, line: Line, end: LogEnd, envelope: &Envelope<'_>) -> Result<(), Unfit> {
        let seq = envelope.frame.seq;
        let ours = if seq <= end.seq {
            log::link(self.txn, &line, seq)?
        } else {
            None
        };
        match ours {
            Some(link) if link.hash == envelope.frame.hash => Ok(()),
            // The hello that follows finds out what has happened to the log.
            Some(_) | None => Err(Unfit::Unusable),
        }
    }

    fn install_changes(
        &self,
        envelope: &Envelope<'_>,
        changes: &[Incoming],
        marks: &[u8],
    ) -> Result<(), Unfit> {
        let name = (envelope.frame.seq, envelope.frame.hash.mark());
        let mut alive = stage::marked(marks);
        let mut buckets = Buckets::open(self.txn)?;
        for change in changes {
            let alive = alive.by_ref().take(change.writes.len());
            if let Some(first) = change.writes.first()
                && !buckets.install(first.key.id.bucket(), change, name, alive)?
            {
                return Err(Unfit::Unusable);
            }
        }
        Ok(())
    }

    /// Takes over what the sender said of every author, and notes what is missing of its log.
    fn install_seen(&mut self, next: u64) -> Result<(), Unfit> {
        let mut holes = BTreeMap::new();
        for (line, upto) in &self.stage.tips {
            let (line, upto) = (*line, *upto);
            if self.knows(&line).is_some() {
                continue;
            }
            let stated = self.stated(line.author)?;
            let mut past = log::past(self.txn, &line)?;
            past.learn_stated(&stated);
            log::set_past(self.txn, &line, &past)?;
            let end = LogEnd::from(upto);
            log::set_end(self.txn, line, end)?;
            let have = Tip::NOTHING;
            let hole = Hole { have, upto };
            let found = Seen::new();
            gap::set(self.txn, line, &hole, &Ledger { stated, found })?;
            holes.insert(line, hole);
        }
        for (line, hole) in &holes {
            let end = LogEnd::from(hole.upto);
            self.writer.position.ends.insert(*line, end);
        }
        if !holes.is_empty() {
            gap::set_next(self.txn, next)?;
            self.writer.position.gap = Some(Arc::new(Gap { holes, next }));
        }
        Ok(())
    }

    /// What the sender said of an author, if it does not contradict the snapshot.
    fn stated(&self, author: Author) -> Result<Seen, Unfit> {
        let wrong = || fault(SnapshotFault::Seen(author));
        let stated = stage::seen(self.txn, author)?.ok_or_else(wrong)?;
        let seen_too_much = self.stage.tips.iter().any(|(other, tip)| {
            let seen = stated.get(&other.actor());
            seen.is_some_and(|seen| *seen > tip.seq)
        });
        if seen_too_much || stated.len() > MAX_VECTOR_AUTHORS {
            return Err(wrong());
        }
        Ok(stated)
    }

    /// Applies this device's own envelopes that the sender of the snapshot had not seen.
    fn replay_own(&self) -> Result<(), Unfit> {
        let mut buckets = Buckets::open(self.txn)?;
        let mut pasts = BTreeMap::new();
        for line in self.writer.position.ends.keys() {
            if line.author.device == self.own && !self.is_hole(line) {
                pasts.insert(*line, log::past(self.txn, line)?);
            }
        }
        log::visit(self.txn, |line, bytes| {
            let Some(past) = pasts.get(&line) else {
                return Ok(());
            };
            let damaged = || StorageError::Damaged(Damage::Log(line.author));
            let envelope = Envelope::decode_trusted(bytes).map_err(|_| damaged())?;
            let seq = envelope.frame.seq;
            if self.stage.tips.get(&line).is_some_and(|tip| seq <= tip.seq) {
                return Ok(());
            }
            let carrier = Carrier {
                seq,
                mark: envelope.frame.hash.mark(),
                past,
                writers: &Lines {
                    txn: self.txn,
                    forks: &self.writer.position.forks,
                },
            };
            for change in stage::parse(&envelope).map_err(|_| damaged())? {
                if let Some(first) = change.writes.first() {
                    buckets.apply(first.key.id.bucket(), &change, &carrier)?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    fn is_hole(&self, line: &Line) -> bool {
        let gap = self.writer.position.gap.as_ref();
        gap.is_some_and(|gap| gap.holes.contains_key(line))
    }
}
