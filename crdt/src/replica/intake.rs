//! Holding one foreign envelope against every rule, then applying it.

use std::collections::{BTreeMap, BTreeSet};

use redb::WriteTransaction;

use super::authorship::Sight;
use super::view::View;
use super::{Fork, Writer, retract};
use crate::bucket::Buckets;
use crate::bucket::change::Incoming;
use crate::entry::EntryChange;
use crate::envelope::{Cause, Envelope, Frame};
use crate::error::{ChangeFault, EnvelopeFault, Misbehaviour, StorageError};
use crate::id::{Author, DeviceId, EntryId, Hash, Incarnation, MeshId};
use crate::index;
use crate::limit::{
    MAX_CLOCK_LEAP, MAX_DEVICE_LIVES, MAX_ENVELOPE_DEPS, MAX_RELEASE_DEPTH, MAX_VECTOR_AUTHORS,
};
use crate::log::{self, LogEnd};
use crate::member::Verdict;
use crate::vector::VersionVector;

/// Stamps beyond this are never honest: there must always be room above every stamp.
pub(super) const CLOCK_END: u64 = u64::MAX / 4;

/// What one envelope led to, short of being refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Taken,
    Known,
    /// Its causes, or the membership that it names, are not here.
    Early,
    /// Its numbers do not follow those that a snapshot's sender stated. One of the two is wrong; the author's
    /// complete log will tell which.
    Unsure,
    /// By this device, but not the one that is here under its number.
    Forked(Fork),
    /// By a removed member, beyond what was accepted of it, or by one life too many of a member: kept aside
    /// until something builds on it.
    Beyond,
}

/// Why an envelope goes no further.
pub(super) enum Refusal {
    Storage(StorageError),
    /// It does not count after all, but something was released from quarantine for it: the transaction must
    /// be made again without it.
    Undo,
    /// It broke a rule; nothing of it was applied.
    Fault(Misbehaviour),
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Why an envelope is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// A peer sent it.
    Offered,
    /// It waited in quarantine and something that counts builds on it. The number is how many steps
    /// of that kind led here.
    Vouched(u32),
}

/// The envelopes of one message on their way into one transaction.
pub(super) struct Intake<'a> {
    txn: &'a WriteTransaction,
    writer: &'a mut Writer,
    mesh: MeshId,
    offered: VersionVector,
    touched: BTreeSet<EntryId>,
}

type Numbers = Vec<(Author, u64)>;

impl<'a> Intake<'a> {
    pub(super) fn new(txn: &'a WriteTransaction, writer: &'a mut Writer, mesh: MeshId) -> Self {
        let (offered, touched) = (VersionVector::default(), BTreeSet::new());
        Self {
            txn,
            writer,
            mesh,
            offered,
            touched,
        }
    }

    /// Takes one envelope of the message.
    pub(super) fn offer(&mut self, bytes: &[u8]) -> Result<Step, Refusal> {
        self.take(bytes, Standing::Offered)
    }

    /// Brings the tree up to date. Gives what it shows differently, and for each author of the message the
    /// last number that is here and the last that was sent.
    pub(super) fn finish(self) -> Result<(Vec<EntryChange>, Numbers, Numbers), StorageError> {
        let touched: Vec<EntryId> = self.touched.into_iter().collect();
        let changes = index::apply(self.txn, &View::open(self.txn)?, &touched)?;
        let end = |author| {
            self.writer
                .position
                .ends
                .get(author)
                .map_or(0, |end| end.seq)
        };
        let have = self
            .offered
            .iter()
            .map(|(author, _)| (*author, end(author)))
            .collect();
        let sent = self
            .offered
            .iter()
            .map(|(author, seq)| (*author, seq))
            .collect();
        Ok((changes, have, sent))
    }

    fn take(&mut self, bytes: &[u8], standing: Standing) -> Result<Step, Refusal> {
        let label =
            Frame::read(bytes).map_err(|fault| Refusal::Fault(Misbehaviour::Undecodable(fault)))?;
        if standing == Standing::Offered {
            self.offered.advance(label.author, label.seq);
        }
        let end = self.end(&label.author);
        let last = end.map_or(0, |end| end.seq);
        if label.seq <= last {
            return self.compare_own(bytes, label);
        }
        let follows = label.seq == last + 1;
        if !follows && !retract::holds(self.txn, label.author, label.seq - 1)? {
            return Ok(Step::Early);
        }
        let envelope = match Envelope::decode(bytes, &self.writer.epochs) {
            Ok(envelope) => envelope,
            // Its secret is on its way.
            Err(EnvelopeFault::UnknownEpoch { .. }) => return Ok(Step::Early),
            Err(fault) => return Err(blame(label, fault)),
        };
        let crowded = last == 0 && self.is_crowded(&label.author, standing);
        match self.judge(&envelope, end.filter(|_| follows), follows) {
            Ok(Verdict::Admit) if follows && !crowded => {}
            Ok(Verdict::BeyondCut) if follows && !crowded && standing != Standing::Offered => {}
            verdict @ Ok(Verdict::Admit | Verdict::BeyondCut)
                if crowded || verdict == Ok(Verdict::BeyondCut) =>
            {
                retract::keep(self.txn, label.author, label.seq, bytes)?;
                return Ok(Step::Beyond);
            }
            Ok(Verdict::Admit | Verdict::BeyondCut | Verdict::UnknownHeads) => {
                return Ok(Step::Early);
            }
            Err(EnvelopeFault::Forked) if self.is_own(&label.author) => {
                return Ok(Step::Forked(Fork {
                    author: label.author,
                    at: label.seq,
                    hash: envelope.frame.hash,
                    first: false,
                }));
            }
            Ok(Verdict::NotWriter) => return Err(blame(label, EnvelopeFault::NotWriter)),
            Err(fault) => return Err(blame(label, fault)),
        }
        // First, because it depends on nothing but the author's own log: what breaks a rule releases nothing.
        let incoming = match self.check(&envelope)? {
            Ok(incoming) => incoming,
            Err(EnvelopeFault::Change {
                fault: ChangeFault::Sequence | ChangeFault::StartOp,
                ..
            }) if self.has_hole(&label.author) => return Ok(Step::Unsure),
            Err(fault) => return Err(blame(label, fault)),
        };
        if !self.has_causes(&envelope, standing)? {
            return Ok(Step::Early);
        }
        if let Err(fault) = self.check_clock(&envelope, end)? {
            return Err(blame(label, fault));
        }
        if let Err(fault) = self.check_authorship(&envelope, &incoming)? {
            return Err(blame(label, fault));
        }
        self.commit(&envelope, &incoming)?;
        Ok(Step::Taken)
    }

    fn is_own(&self, author: &Author) -> bool {
        author.device == self.writer.position.author.device
    }

    /// An envelope with a number that is here. Of others it must be the same one, for they number on; this
    /// device may have been restored from a backup.
    fn compare_own(&self, bytes: &[u8], label: Frame) -> Result<Step, Refusal> {
        let Frame {
            author, seq: at, ..
        } = label;
        if !self.is_own(&author) {
            return Ok(Step::Known);
        }
        let stored = |seq| -> Result<Option<Hash>, StorageError> {
            Ok(log::link(self.txn, &author, seq)?.map(|link| link.hash))
        };
        if stored(at)?.is_none_or(|ours| ours == label.hash) {
            return Ok(Step::Known);
        }
        let frame = Frame::verify(bytes).map_err(|fault| blame(label, fault))?;
        if frame.mesh != self.mesh {
            return Err(blame(label, EnvelopeFault::OtherMesh));
        }
        let before = match at {
            1 => Some(Hash::from_bytes([0; 32])),
            _ => stored(at - 1)?,
        };
        let first = before == Some(frame.prev);
        Ok(Step::Forked(Fork {
            author,
            at,
            hash: frame.hash,
            first,
        }))
    }

    /// Holds an envelope against the mesh, its author's log, the clock and the membership.
    fn judge(
        &self,
        envelope: &Envelope<'_>,
        end: Option<LogEnd>,
        follows: bool,
    ) -> Result<Verdict, EnvelopeFault> {
        let (frame, head) = (&envelope.frame, &envelope.head);
        if frame.mesh != self.mesh {
            return Err(EnvelopeFault::OtherMesh);
        }
        if follows && frame.prev != end.map_or(Hash::from_bytes([0; 32]), |end| end.hash) {
            return Err(EnvelopeFault::Forked);
        }
        if head.clock > CLOCK_END {
            return Err(EnvelopeFault::ClockLeap { stamp: head.clock });
        }
        Ok(self
            .writer
            .members
            .judge(frame.author, frame.seq, &head.members))
    }

    /// Holds an envelope's clock against those of its causes, which all who can judge it have.
    fn check_clock(
        &self,
        envelope: &Envelope<'_>,
        end: Option<LogEnd>,
    ) -> Result<Result<(), EnvelopeFault>, StorageError> {
        let stamp = envelope.head.clock;
        let mut before = end.map_or(0, |end| end.clock);
        for cause in &envelope.head.causes {
            if stamp <= before.saturating_add(MAX_CLOCK_LEAP) {
                break;
            }
            let link = log::link(self.txn, &cause.author, cause.seq)?;
            before = before.max(link.map_or(0, |link| link.clock));
        }
        if stamp <= before.saturating_add(MAX_CLOCK_LEAP) || self.writer.position.gap.is_some() {
            return Ok(Ok(()));
        }
        Ok(Err(EnvelopeFault::ClockLeap { stamp }))
    }

    /// Holds the versions in an envelope against what its author had seen, which all who have whole logs know.
    /// One who could not name all that it had seen is believed.
    fn check_authorship(
        &self,
        envelope: &Envelope<'_>,
        incoming: &[Incoming],
    ) -> Result<Result<(), EnvelopeFault>, StorageError> {
        let named = envelope.head.causes.len();
        if self.writer.position.gap.is_some() || named >= MAX_ENVELOPE_DEPS {
            return Ok(Ok(()));
        }
        let mut sight = Sight::of(self.txn, &self.writer.position.ends, envelope)?;
        for (change, (bucket, _)) in incoming.iter().zip(&envelope.changes) {
            if let Err(fault) = sight.check(*bucket, change)? {
                let bucket = *bucket;
                return Ok(Err(EnvelopeFault::Change { bucket, fault }));
            }
        }
        Ok(Ok(()))
    }

    /// Whether an author that is new here is one life too many of its device, or of all devices. What such
    /// a life writes counts if somebody builds on it, as long as there is room at all.
    fn is_crowded(&self, author: &Author, standing: Standing) -> bool {
        let ends = &self.writer.position.ends;
        ends.len() >= MAX_VECTOR_AUTHORS
            || (standing == Standing::Offered && lives(ends, &author.device) >= MAX_DEVICE_LIVES)
    }

    /// Whether all that an envelope builds on is here; what waits in quarantine for exactly this is taken.
    fn has_causes(&mut self, envelope: &Envelope<'_>, standing: Standing) -> Result<bool, Refusal> {
        let depth = match standing {
            Standing::Offered => 0,
            Standing::Vouched(depth) => depth,
        };
        let mut released = false;
        for Cause { author, seq, hash } in &envelope.head.causes {
            let first = self.end(author).map_or(0, |end| end.seq) + 1;
            for missing in first..=*seq {
                let taken = if depth < MAX_RELEASE_DEPTH {
                    self.release(*author, missing, depth + 1)?
                } else {
                    false
                };
                if !taken {
                    return if released {
                        Err(Refusal::Undo)
                    } else {
                        Ok(false)
                    };
                }
                released = true;
            }
            let link = log::link(self.txn, author, *seq)?;
            if link.is_none_or(|link| link.hash != *hash) && !self.has_hole(author) {
                // Another branch than the one that is here.
                return if released {
                    Err(Refusal::Undo)
                } else {
                    Ok(false)
                };
            }
        }
        Ok(true)
    }

    /// Takes an envelope out of quarantine, if it is there and counts now.
    fn release(&mut self, author: Author, seq: u64, depth: u32) -> Result<bool, Refusal> {
        let Some(bytes) = retract::release(self.txn, author, seq)? else {
            return Ok(false);
        };
        match self.take(&bytes, Standing::Vouched(depth)) {
            Ok(Step::Taken) => Ok(true),
            // Who built on what breaks a rule is no honest member, but who brought it may be.
            Ok(Step::Known | Step::Early | Step::Unsure | Step::Beyond | Step::Forked(_))
            | Err(Refusal::Fault(_)) => {
                retract::keep(self.txn, author, seq, &bytes)?;
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }

    /// Holds every change of an envelope against its bucket. The outer error is ours.
    fn check(
        &self,
        envelope: &Envelope<'_>,
    ) -> Result<Result<Vec<Incoming>, EnvelopeFault>, StorageError> {
        let author = envelope.frame.author;
        let mut incoming = Vec::with_capacity(envelope.changes.len());
        let buckets = Buckets::open(self.txn)?;
        for (bucket, bytes) in &envelope.changes {
            let bucket = *bucket;
            let change = match Incoming::parse(bucket, bytes, &author) {
                Ok(change) => change,
                Err(fault) => return Ok(Err(EnvelopeFault::Change { bucket, fault })),
            };
            if change.clock > envelope.head.clock {
                return Ok(Err(EnvelopeFault::ClockLeap {
                    stamp: change.clock,
                }));
            }
            if let Err(fault) = buckets.check(bucket, &change)? {
                return Ok(Err(EnvelopeFault::Change { bucket, fault }));
            }
            incoming.push(change);
        }
        Ok(Ok(incoming))
    }

    /// Applies a checked envelope to buckets and log.
    fn commit(
        &mut self,
        envelope: &Envelope<'_>,
        incoming: &[Incoming],
    ) -> Result<(), StorageError> {
        let (frame, clock) = (&envelope.frame, envelope.head.clock);
        let mut past = log::past(self.txn, &frame.author)?;
        let deps = envelope.deps();
        if !deps.is_empty() {
            past.learn(&deps);
            log::set_past(self.txn, &frame.author, &past)?;
        }
        let mut buckets = Buckets::open(self.txn)?;
        for (change, (bucket, _)) in incoming.iter().zip(&envelope.changes) {
            buckets.apply(*bucket, change, frame.seq, &past)?;
            self.touched
                .extend(change.writes.iter().map(|write| write.key.id));
        }
        let end = LogEnd {
            seq: frame.seq,
            hash: frame.hash,
            clock,
        };
        self.writer
            .append(self.txn, frame.author, end, envelope.bytes)?;
        self.writer.position.clock = self.writer.position.clock.max(clock);
        Ok(())
    }

    fn has_hole(&self, author: &Author) -> bool {
        let gap = self.writer.position.gap.as_ref();
        gap.is_some_and(|gap| gap.holes.contains_key(author))
    }

    fn end(&self, author: &Author) -> Option<LogEnd> {
        self.writer.position.ends.get(author).copied()
    }
}

/// How many lives of a device there are among authors.
pub(super) fn lives<T>(authors: &BTreeMap<Author, T>, device: &DeviceId) -> usize {
    let life = |number| Author {
        device: *device,
        incarnation: Incarnation(number),
    };
    authors.range(life(0)..=life(u64::MAX)).count()
}

fn blame(label: Frame, fault: EnvelopeFault) -> Refusal {
    Refusal::Fault(Misbehaviour::Envelope {
        author: label.author,
        seq: label.seq,
        fault,
    })
}

impl Writer {
    /// Adds an envelope to its author's log.
    pub(super) fn append(
        &mut self,
        txn: &WriteTransaction,
        author: Author,
        end: LogEnd,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        log::append(txn, author, end, self.position.next_arrival, bytes)?;
        self.position.ends.insert(author, end);
        self.position.next_arrival += 1;
        Ok(())
    }
}
