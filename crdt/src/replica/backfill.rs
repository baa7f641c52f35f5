//! After a snapshot: the rest of the logs, so that this device, too, can serve everyone.
//!
//! Any member gives what lies below, in the order in which it came to it; each envelope is held against its
//! author's chain from the first one on, and the chain must meet the snapshot's end. With the last
//! envelope the logs tell all that the snapshot's sender said; where that was wrong, the registers are
//! derived anew.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::WriteTransaction;

use super::header::{self, Origin};
use super::intake::CLOCK_END;
use super::{Change, Commit, Entries, Replica, Shared, Writer, retract, stage};
use crate::bucket::Buckets;
use crate::bucket::alive::Seen;
use crate::bucket::past::Past;
use crate::envelope::{Cause, Envelope, Frame};
use crate::error::{EnvelopeFault, Misbehaviour, SessionError, StorageError};
use crate::id::{DeviceId, Line, MeshId};
use crate::log::gap::{self, Gap, Hole, Ledger, Tip};
use crate::log::{self, Link};
use crate::member::Verdict;

/// The right to ask for what is missing, which one session at a time has.
#[derive(Debug)]
pub(crate) struct Fetching(Replica);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.inner.fetching.store(false, Ordering::Release);
        // Other sessions may know somebody who has more.
        self.0.note(Entries::Listed(Vec::new()));
        self.0.inner.observers.deliver();
    }
}

impl Shared {
    pub(crate) fn gap(&self) -> Option<&Gap> {
        self.gap.as_deref()
    }
}

impl Replica {
    /// Begins to ask for what is missing in the logs; `None` while another session does.
    pub(crate) fn fetch_below(&self) -> Option<Fetching> {
        let busy = self.inner.fetching.swap(true, Ordering::AcqRel);
        (!busy).then(|| Fetching(self.clone()))
    }

    /// Takes envelopes that were missing in the logs. Gives whether that led to something: more may.
    pub(crate) fn take_below(&self, envelopes: &[&[u8]]) -> Result<bool, SessionError> {
        let mut writer = self.inner.writer()?;
        let Some(gap) = writer.position.gap.clone() else {
            return Ok(false);
        };
        let (mesh, own) = (self.inner.mesh, self.device());
        let outcome = self
            .inner
            .transact(&mut writer, Commit::Deferred, |txn, writer| {
                let mut backfill = Backfill {
                    txn,
                    writer,
                    mesh,
                    gap: Gap::clone(&gap),
                    ledgers: BTreeMap::new(),
                    doubt: false,
                    moved: false,
                };
                let fault = backfill.offer_all(envelopes)?;
                backfill.promote()?;
                let taken = backfill.moved;
                let entries = backfill.finish(own)?;
                Ok::<_, StorageError>((taken, fault, entries))
            });
        let (taken, fault, entries) = outcome?;
        if writer.position.gap.is_none() {
            // Even when nothing is shown differently: what was held back may be sent now.
            self.note(entries);
        }
        drop(writer);
        self.inner.observers.deliver();
        match fault {
            None => Ok(taken),
            Some(fault) => Err(fault.into()),
        }
    }

    /// Takes back what does not count any more, which has to wait while envelopes are missing that may
    /// count: those of removed members beyond what was accepted of them never come.
    pub(crate) fn settle_gap(&self) -> Result<(), StorageError> {
        let mut writer = self.inner.writer()?;
        if writer.position.gap.is_none() {
            return Ok(());
        }
        let own = self.device();
        let entries = self
            .inner
            .transact(&mut writer, Commit::Deferred, |txn, writer| {
                writer.retract(txn, own)
            })?;
        if writer.position.gap.is_none() {
            self.note(entries);
        }
        drop(writer);
        self.inner.observers.deliver();
        Ok(())
    }

    /// Notes that a peer with the same logs has other registers. If those of this replica began with a snapshot, they
    /// are derived anew as soon as the logs are complete.
    pub(crate) fn doubt(&self) -> Result<(), StorageError> {
        let mut writer = self.inner.writer()?;
        let derived = self
            .inner
            .transact(&mut writer, Commit::Durable, |txn, writer| {
                if header::origin(txn)? == Origin::Logs {
                    return Ok::<_, StorageError>(Derived::Before);
                }
                header::set_origin(txn, Origin::Doubtful)?;
                writer.relieve_doubt(txn)
            })?;
        if derived == Derived::Anew {
            self.note(Entries::Everything);
        }
        drop(writer);
        self.inner.observers.deliver();
        Ok(())
    }

    fn note(&self, entries: Entries) {
        self.inner.observers.push(Change {
            entries,
            local: false,
            members: false,
        });
    }
}

/// Where the registers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Derived {
    /// They are what they were.
    Before,
    /// From the logs, just now.
    Anew,
}

/// Why an envelope is not taken.
enum Obstacle {
    Storage(StorageError),
    Fault(Misbehaviour),
}

impl From<StorageError> for Obstacle {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// The envelopes of one message on their way into the logs.
struct Backfill<'a> {
    txn: &'a WriteTransaction,
    writer: &'a mut Writer,
    mesh: MeshId,
    gap: Gap,
    /// Of the authors of this message.
    ledgers: BTreeMap<Line, Ledger>,
    doubt: bool,
    /// Something came of the message.
    moved: bool,
}

impl Backfill<'_> {
    /// Takes the envelopes of a message, until one breaks a rule: that comes back.
    fn offer_all(&mut self, envelopes: &[&[u8]]) -> Result<Option<Misbehaviour>, StorageError> {
        for bytes in envelopes {
            match self.offer(bytes) {
                Ok(true) => {}
                Ok(false) => break,
                Err(Obstacle::Storage(error)) => return Err(error),
                Err(Obstacle::Fault(found)) => return Ok(Some(found)),
            }
        }
        Ok(None)
    }

    /// Takes what is next in its log and here already, because it is alive: the newest envelopes often are, and
    /// nobody else need have them.
    fn promote(&mut self) -> Result<(), StorageError> {
        let lines: Vec<Line> = self.gap.holes.keys().copied().collect();
        loop {
            let before = self.gap.next;
            for line in &lines {
                while let Some(bytes) = self.next_here(*line)? {
                    let next = self.gap.next;
                    // Whatever is wrong with it is not the fault of the one who sent this message.
                    let _stays = self.offer_all(&[&bytes])?;
                    if self.gap.next == next {
                        break;
                    }
                }
            }
            if self.gap.next == before {
                return Ok(());
            }
        }
    }

    /// The first envelope of an author's hole, if it is alive.
    fn next_here(&self, line: Line) -> Result<Option<Vec<u8>>, StorageError> {
        let hole = self.gap.holes.get(&line);
        let Some(hole) = hole.filter(|hole| hole.have.seq < hole.upto.seq) else {
            return Ok(None);
        };
        let seq = hole.have.seq + 1;
        match self.is_alive(line, seq)? {
            true => log::stored(self.txn, line, seq),
            // What was taken before the log had to be begun anew is perhaps wrong.
            false => Ok(None),
        }
    }

    /// Whether an envelope is here because the snapshot brought it, and was not taken since.
    fn is_alive(&self, line: Line, seq: u64) -> Result<bool, StorageError> {
        let arrival = log::arrival(self.txn, line, seq)?;
        Ok(arrival.is_some_and(|arrival| arrival >= self.gap.next))
    }

    /// Takes one envelope, or passes over one that is not wanted; `false` when the rest is of no use here.
    fn offer(&mut self, bytes: &[u8]) -> Result<bool, Obstacle> {
        let label = Frame::read(bytes)
            .map_err(|fault| Obstacle::Fault(Misbehaviour::Undecodable(fault)))?;
        let line = Line::from(label.author);
        let Some(hole) = self.gap.holes.get(&line).copied() else {
            return Ok(true);
        };
        if label.seq <= hole.have.seq || label.seq > hole.upto.seq {
            return Ok(true);
        }
        if label.seq != hole.have.seq + 1 {
            return Ok(false);
        }
        let epochs = &self.writer.epochs;
        let envelope = match Envelope::decode(bytes, epochs) {
            Ok(envelope) => envelope,
            Err(EnvelopeFault::UnknownEpoch { .. }) => return Ok(false),
            Err(fault) if fault.is_newer() => return Ok(false),
            Err(fault) => return Err(blame(label, fault)),
        };
        let tip = Tip {
            seq: label.seq,
            hash: label.hash,
            clock: envelope.head.clock,
        };
        if !self.fits(&envelope, &hole, tip)? {
            return Ok(false);
        }
        self.take(label, &envelope)?;
        self.store(label, tip, bytes)?;
        Ok(true)
    }

    /// Whether an envelope is the next one here. One that is not may be of a log that its author forked: the
    /// one who sends it need not know.
    fn fits(&mut self, envelope: &Envelope<'_>, hole: &Hole, tip: Tip) -> Result<bool, Obstacle> {
        let (label, head) = (envelope.frame, &envelope.head);
        if label.mesh != self.mesh {
            return Err(blame(label, EnvelopeFault::OtherMesh));
        }
        if head.clock > CLOCK_END {
            let stamp = head.clock;
            return Err(blame(label, EnvelopeFault::ClockLeap { stamp }));
        }
        let members = &self.writer.members;
        match members.judge(label.author, label.seq, &head.members) {
            // Beyond the cut it may count, because others build on it; if not, it is taken back in the end.
            Verdict::Admit | Verdict::BeyondCut => {}
            Verdict::NotWriter => return Err(blame(label, EnvelopeFault::NotWriter)),
            Verdict::UnknownHeads => return Ok(false),
        }
        if label.prev != hole.have.hash {
            self.begin_anew(Line::from(label.author))?;
            return Ok(false);
        }
        let meets = tip.seq != hole.upto.seq || tip == hole.upto;
        let line = Line::from(label.author);
        let here = log::link(self.txn, &line, tip.seq)?;
        if here.is_some_and(|here| here.hash != tip.hash) && self.is_alive(line, tip.seq)? {
            return Ok(false);
        }
        Ok(meets && self.has_causes(&head.causes)?)
    }

    /// What was taken of a log does not lead to the snapshot's end: its author forked it, and somebody gave the
    /// other history. What is here of it is passed over when it comes again, and replaced where it is wrong.
    fn begin_anew(&mut self, line: Line) -> Result<(), StorageError> {
        if let Some(hole) = self
            .gap
            .holes
            .get_mut(&line)
            .filter(|hole| hole.have.seq > 0)
        {
            hole.have = Tip::NOTHING;
            self.moved = true;
            self.ledger(line)?.found = Seen::new();
        }
        Ok(())
    }

    /// What the author of a log had seen.
    fn ledger(&mut self, line: Line) -> Result<&mut Ledger, StorageError> {
        Ok(match self.ledgers.entry(line) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(gap::ledger(self.txn, line)?),
        })
    }

    /// Whether an envelope's causes are before it in the order of arrival.
    fn has_causes(&self, causes: &[Cause]) -> Result<bool, StorageError> {
        for Cause { author, seq, hash } in causes {
            let missing = match self.gap.holes.get(&Line::from(author)) {
                Some(hole) => *seq <= hole.upto.seq && *seq > hole.have.seq,
                None => false,
            };
            let forks = &self.writer.position.forks;
            if missing || forks.find(self.txn, *author, *seq, hash)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Checks the changes, and learns what the author had seen.
    fn take(&mut self, label: Frame, envelope: &Envelope<'_>) -> Result<(), Obstacle> {
        let changes = stage::parse(envelope).map_err(|fault| blame(label, fault))?;
        let line = Line::from(label.author);
        if log::link(self.txn, &line, label.seq)?.is_none() {
            // What is alive was counted when it was installed.
            let mut buckets = Buckets::open(self.txn)?;
            for change in &changes {
                if let Some(first) = change.writes.first() {
                    buckets.count(first.key.id.bucket(), change.writes.len())?;
                }
            }
        }
        let forks = &self.writer.position.forks;
        let causes = forks.place(self.txn, &envelope.head.causes)?;
        let ledger = self.ledger(line)?;
        let mut past = Past::of(&line);
        past.learn_stated(&std::mem::take(&mut ledger.found));
        past.learn(&causes);
        ledger.found = past.into_seen();
        Ok(())
    }

    fn store(&mut self, label: Frame, tip: Tip, bytes: &[u8]) -> Result<(), StorageError> {
        let Tip { hash, clock, .. } = tip;
        let (line, link) = (Line::from(label.author), Link { hash, clock });
        let known = log::link(self.txn, &line, label.seq)? == Some(link);
        if !known || self.is_alive(line, label.seq)? {
            log::insert(self.txn, line, label.seq, self.gap.next, link, bytes)?;
            self.gap.next += 1;
        }
        if let Some(hole) = self.gap.holes.get_mut(&line) {
            hole.have = tip;
        }
        self.moved = true;
        Ok(())
    }

    /// Stores how far the logs are complete, and ends the matter when they are.
    fn finish(mut self, own: DeviceId) -> Result<Entries, StorageError> {
        for (line, ledger) in &self.ledgers {
            let Some(hole) = self.gap.holes.get(line) else {
                continue;
            };
            if hole.have.seq < hole.upto.seq {
                gap::set(self.txn, *line, hole, ledger)?;
            } else {
                self.doubt |= ledger.found != ledger.stated;
                self.gap.holes.remove(line);
                gap::close(self.txn, *line)?;
            }
        }
        gap::set_next(self.txn, self.gap.next)?;
        if self.doubt {
            header::set_origin(self.txn, Origin::Doubtful)?;
        }
        self.writer.position.gap = Some(Arc::new(self.gap));
        self.writer.close_gap(self.txn)?;
        if self.writer.position.gap.is_some() {
            return Ok(Entries::Listed(Vec::new()));
        }
        let derived = self.writer.relieve_doubt(self.txn)?;
        // What had to wait for complete logs.
        let entries = self.writer.retract(self.txn, own)?;
        Ok(match derived {
            Derived::Anew => Entries::Everything,
            Derived::Before => entries,
        })
    }
}

impl Writer {
    /// Forgets the gap when nothing is missing.
    pub(super) fn close_gap(&mut self, txn: &WriteTransaction) -> Result<(), StorageError> {
        if self
            .position
            .gap
            .as_ref()
            .is_some_and(|gap| gap.holes.is_empty())
        {
            gap::close_all(txn)?;
            self.position.gap = None;
        }
        Ok(())
    }

    /// Derives doubtful registers from the logs, once these are complete.
    pub(super) fn relieve_doubt(&self, txn: &WriteTransaction) -> Result<Derived, StorageError> {
        if self.position.gap.is_some() || header::origin(txn)? != Origin::Doubtful {
            return Ok(Derived::Before);
        }
        retract::rebuild_all(txn, &self.position)?;
        header::set_origin(txn, Origin::Logs)?;
        Ok(Derived::Anew)
    }
}

fn blame(label: Frame, fault: EnvelopeFault) -> Obstacle {
    Obstacle::Fault(Misbehaviour::Envelope {
        author: label.author,
        seq: label.seq,
        fault,
    })
}

#[cfg(test)]
mod tests;
