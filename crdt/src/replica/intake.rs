//! Holding one foreign envelope against every rule, then applying it.

use std::collections::{BTreeMap, BTreeSet};

use redb::WriteTransaction;

use super::authorship::Sight;
use super::view::View;
use super::{Position, Writer, held, retract, stage};
use crate::bucket::change::Incoming;
use crate::bucket::{Buckets, Carrier};
use crate::entry::EntryChange;
use crate::envelope::{Cause, Envelope, FORMAT, Frame};
use crate::error::{Damage, EnvelopeFault, Misbehaviour, StorageError};
use crate::id::{Author, DeviceId, EntryId, Hash, Incarnation, Line, MeshId};
use crate::index;
use crate::limit::{
    MAX_BRANCHES, MAX_CLOCK_LEAP, MAX_DEVICE_LIVES, MAX_ENVELOPE_DEPS, MAX_RELEASE_DEPTH,
    MAX_VECTOR_AUTHORS,
};
use crate::log::fork::{Lines, Root};
use crate::log::{self, LogEnd};
use crate::member::{Role, Verdict};

/// Stamps beyond this are never honest: there must always be room above every stamp.
pub(super) const CLOCK_END: u64 = u64::MAX / 4;

/// What one envelope led to, short of being refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Taken,
    Known,
    /// What it builds on, or the membership or the secret that it names, is not here.
    Early,
    /// It does not continue any branch of its author's log that is here: there is one that is not.
    Astray,
    /// This program is too old to read it, or something that it builds on: kept as it is.
    Held,
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
    /// It waited in quarantine and something that counts builds on it: all of it by that device, or by several when
    /// there is none. The number is how many steps of that kind led here.
    Vouched(u32, Option<DeviceId>),
}

/// Where an envelope belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    /// It is here, on that line.
    Here(Line),
    /// It is the next one of a line.
    Next(Line),
    /// It begins a branch.
    Parts(Root),
    /// Where the log has a hole. Whether it is the one that is missing cannot be told yet.
    Hole,
    /// Something before it is missing.
    Later,
    /// What comes before it is not what is here.
    Elsewhere,
}

/// The envelopes of one message on their way into one transaction.
pub(super) struct Intake<'a> {
    txn: &'a WriteTransaction,
    writer: &'a mut Writer,
    mesh: MeshId,
    /// The last number of each line that was sent.
    sent: BTreeMap<Line, u64>,
    touched: BTreeSet<EntryId>,
    /// Whether the envelope at hand may release others from quarantine.
    releases: bool,
}

type Numbers = Vec<(Line, u64)>;

impl<'a> Intake<'a> {
    pub(super) fn new(txn: &'a WriteTransaction, writer: &'a mut Writer, mesh: MeshId) -> Self {
        Self {
            txn,
            writer,
            mesh,
            sent: BTreeMap::new(),
            touched: BTreeSet::new(),
            releases: true,
        }
    }

    /// Takes one envelope of the message. One that released others for nothing before does not do so again.
    pub(super) fn offer(&mut self, bytes: &[u8], releases: bool) -> Result<Step, Refusal> {
        self.releases = releases;
        self.take(bytes, Standing::Offered)
    }

    /// Brings the tree up to date. Gives what it shows differently, and the last number that was sent of each
    /// line of the message.
    pub(super) fn finish(self) -> Result<(Vec<EntryChange>, Numbers), StorageError> {
        let touched: Vec<EntryId> = self.touched.into_iter().collect();
        let changes = index::apply(self.txn, &View::open(self.txn)?, &touched)?;
        Ok((changes, self.sent.into_iter().collect()))
    }

    fn take(&mut self, bytes: &[u8], standing: Standing) -> Result<Step, Refusal> {
        let frame =
            Frame::read(bytes).map_err(|fault| Refusal::Fault(Misbehaviour::Undecodable(fault)))?;
        let spot = self.spot(&frame)?;
        if let Spot::Here(line) = spot {
            self.note(line, frame.seq);
            return Ok(Step::Known);
        }
        if frame.format != FORMAT {
            return self.hold(&frame, bytes);
        }
        let lost = match spot {
            Spot::Later => Some(Step::Early),
            Spot::Elsewhere => Some(Step::Astray),
            // When the log is complete a hello says how it ends.
            Spot::Hole => return Ok(Step::Known),
            Spot::Here(_) | Spot::Next(_) | Spot::Parts(_) => None,
        };
        if lost.is_some() && held::holds(self.txn, frame.author, frame.seq - 1, &frame.prev)? {
            return self.hold(&frame, bytes);
        }
        if let Some(step) = lost
            && !retract::holds(self.txn, frame.author, frame.seq - 1, &frame.prev)?
        {
            return Ok(step);
        }
        let envelope = match Envelope::decode(bytes, &self.writer.epochs) {
            Ok(envelope) => envelope,
            // Its secret is on its way.
            Err(EnvelopeFault::UnknownEpoch { .. }) => return Ok(Step::Early),
            Err(fault) => return Err(blame(frame, fault)),
        };
        let crowded = self.is_crowded(&frame.author, spot, standing);
        let verdict = self.judge(&envelope);
        match verdict {
            Ok(Verdict::Admit) if lost.is_none() && !crowded => {}
            Ok(Verdict::BeyondCut)
                if lost.is_none() && !crowded && standing != Standing::Offered => {}
            Ok(Verdict::Admit | Verdict::BeyondCut) => {
                retract::keep(self.txn, &frame, bytes)?;
                // What comes before one that would count by itself may count by now, and come again.
                let alone = verdict == Ok(Verdict::Admit) && !crowded;
                return Ok(lost.filter(|_| alone).unwrap_or(Step::Beyond));
            }
            Ok(Verdict::UnknownHeads) => return Ok(Step::Early),
            Ok(Verdict::NotWriter) => return Err(blame(frame, EnvelopeFault::NotWriter)),
            Err(fault) => return Err(blame(frame, fault)),
        }
        // First, because it depends on nothing but the envelope: what breaks a rule releases nothing.
        let changes = match stage::parse(&envelope) {
            Ok(changes) => changes,
            Err(fault) if fault.is_newer() => return self.hold(&frame, bytes),
            Err(fault) => return Err(blame(frame, fault)),
        };
        if !self.has_causes(&envelope, standing)? {
            return self.leave(&envelope);
        }
        if let Err(fault) = self.check_clock(&envelope, spot)? {
            return Err(blame(frame, fault));
        }
        if let Err(fault) = self.check_authorship(&envelope, &changes, spot)? {
            return Err(blame(frame, fault));
        }
        let line = self.commit(&envelope, &changes, spot)?;
        self.note(line, frame.seq);
        Ok(Step::Taken)
    }

    /// Leaves an envelope whose causes are not here: it waits where they do, or comes again.
    fn leave(&mut self, envelope: &Envelope<'_>) -> Result<Step, Refusal> {
        let (frame, bytes) = (&envelope.frame, envelope.bytes);
        for Cause { author, seq, hash } in &envelope.head.causes {
            if held::holds(self.txn, *author, *seq, hash)? {
                return self.hold(frame, bytes);
            }
        }
        if self.waits_aside(envelope)? {
            retract::keep(self.txn, frame, bytes)?;
            return Ok(Step::Beyond);
        }
        Ok(Step::Early)
    }

    /// Keeps what a writer of the mesh signed and this program cannot read.
    fn hold(&mut self, frame: &Frame, bytes: &[u8]) -> Result<Step, Refusal> {
        Frame::verify(bytes).map_err(|fault| blame(*frame, fault))?;
        if frame.mesh != self.mesh {
            return Err(blame(*frame, EnvelopeFault::OtherMesh));
        }
        let role = self.writer.members.state().role_of(&frame.author.device);
        if role.is_some_and(Role::can_write) && held::keep(self.txn, frame, bytes)? {
            self.writer.position.held += 1;
        }
        Ok(Step::Held)
    }

    fn note(&mut self, line: Line, seq: u64) {
        let last = self.sent.entry(line).or_insert(0);
        *last = (*last).max(seq);
    }

    fn is_own(&self, author: &Author) -> bool {
        author.device == self.writer.position.author.device
    }

    /// Finds where an envelope belongs among the branches of its author's log.
    fn spot(&self, frame: &Frame) -> Result<Spot, StorageError> {
        let Frame { author, seq, .. } = *frame;
        let Position { ends, forks, .. } = &self.writer.position;
        let first = Line::from(author);
        if let Some(line) = forks.find(self.txn, author, seq, &frame.hash)? {
            return Ok(Spot::Here(line));
        }
        let hole = self.hole(&first);
        if hole.is_some_and(|upto| seq <= upto) {
            return Ok(Spot::Hole);
        }
        if seq == 1 {
            return Ok(match ends.get(&first) {
                None => Spot::Next(first),
                Some(_) => Spot::Parts(Root {
                    parent: first,
                    seq: 0,
                }),
            });
        }
        let mut reaches = false;
        for line in forks.lines(author) {
            let Some(end) = ends.get(&line) else { continue };
            reaches |= seq - 1 <= end.seq;
            if seq - 1 == end.seq && frame.prev == end.hash {
                return Ok(Spot::Next(line));
            }
        }
        if let Some(parent) = forks.find(self.txn, author, seq - 1, &frame.prev)? {
            if hole.is_some() {
                // What its author had seen until then cannot be told yet.
                return Ok(Spot::Hole);
            }
            let seq = seq - 1;
            return Ok(Spot::Parts(Root { parent, seq }));
        }
        Ok(if reaches {
            Spot::Elsewhere
        } else {
            Spot::Later
        })
    }

    /// Holds an envelope against the mesh and the membership.
    fn judge(&self, envelope: &Envelope<'_>) -> Result<Verdict, EnvelopeFault> {
        let (frame, head) = (&envelope.frame, &envelope.head);
        if frame.mesh != self.mesh {
            return Err(EnvelopeFault::OtherMesh);
        }
        if frame.seq == 1 && frame.prev != Hash::ZERO {
            return Err(EnvelopeFault::Malformed);
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
        spot: Spot,
    ) -> Result<Result<(), EnvelopeFault>, StorageError> {
        let stamp = envelope.head.clock;
        let forks = &self.writer.position.forks;
        let before = match spot {
            Spot::Next(line) => self.writer.position.ends.get(&line).map(|end| end.clock),
            Spot::Parts(Root { parent, seq }) => {
                let link = forks.link(self.txn, parent, seq)?;
                link.map(|link| link.clock)
            }
            Spot::Here(_) | Spot::Hole | Spot::Later | Spot::Elsewhere => None,
        };
        let mut before = before.unwrap_or(0);
        for Cause { author, seq, hash } in &envelope.head.causes {
            if stamp <= before.saturating_add(MAX_CLOCK_LEAP) {
                break;
            }
            if let Some(line) = forks.find(self.txn, *author, *seq, hash)?
                && let Some(link) = forks.link(self.txn, line, *seq)?
            {
                before = before.max(link.clock);
            }
        }
        if stamp <= before.saturating_add(MAX_CLOCK_LEAP) {
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
        spot: Spot,
    ) -> Result<Result<(), EnvelopeFault>, StorageError> {
        let named = envelope.head.causes.len();
        if self.writer.position.gap.is_some() || named >= MAX_ENVELOPE_DEPS {
            return Ok(Ok(()));
        }
        let Position { ends, forks, .. } = &self.writer.position;
        let (own, mut past) = match spot {
            Spot::Next(line) => (Some(line), log::past(self.txn, &line)?),
            Spot::Parts(root) => (None, forks.past_at(self.txn, root)?),
            Spot::Here(_) | Spot::Hole | Spot::Later | Spot::Elsewhere => return Ok(Ok(())),
        };
        past.learn(&forks.place(self.txn, &envelope.head.causes)?);
        let mut sight = Sight::of(self.txn, (ends, forks), own, past, envelope);
        for (change, (bucket, _)) in incoming.iter().zip(&envelope.changes) {
            if let Err(fault) = sight.check(*bucket, change)? {
                let bucket = *bucket;
                return Ok(Err(EnvelopeFault::Change { bucket, fault }));
            }
        }
        Ok(Ok(()))
    }

    /// Whether an envelope begins one life too many of its device, or one branch too many of a life. What such a one
    /// says counts if somebody else builds on it, as long as there is room at all.
    fn is_crowded(&self, author: &Author, spot: Spot, standing: Standing) -> bool {
        let Position { ends, forks, .. } = &self.writer.position;
        let forked_before = match spot {
            Spot::Parts(_) | Spot::Hole | Spot::Later | Spot::Elsewhere => {
                forks.branches(*author).count() >= MAX_BRANCHES
            }
            Spot::Next(line) if !ends.contains_key(&line) => false,
            Spot::Here(_) | Spot::Next(_) => return false,
        };
        let vouched = match standing {
            Standing::Offered => self.is_own(author),
            Standing::Vouched(_, by) => by != Some(author.device) || self.is_own(author),
        };
        let many = forked_before || lives(ends, &author.device) >= MAX_DEVICE_LIVES;
        many && (!vouched || ends.len() >= MAX_VECTOR_AUTHORS)
    }

    /// Whether all that an envelope builds on is here; what waits in quarantine for exactly this is taken.
    fn has_causes(&mut self, envelope: &Envelope<'_>, standing: Standing) -> Result<bool, Refusal> {
        let device = envelope.frame.author.device;
        // Who builds on this builds on its causes, too.
        let (depth, by) = match standing {
            Standing::Offered => (0, Some(device)),
            Standing::Vouched(depth, by) => (depth, by.filter(|by| *by == device)),
        };
        let mut released = false;
        for cause in &envelope.head.causes {
            if self.has(cause)? {
                continue;
            }
            let taken = self.releases && depth < MAX_RELEASE_DEPTH && {
                let waiting = self.waiting(cause)?;
                !waiting.is_empty() && self.release(waiting, depth + 1, by, &mut released)?
            };
            if !taken {
                return if released {
                    Err(Refusal::Undo)
                } else {
                    Ok(false)
                };
            }
        }
        Ok(true)
    }

    /// Whether an envelope lacks nothing but what waits in quarantine, some of it by its own device: then it waits
    /// there with it, so that it can be released with it.
    fn waits_aside(&self, envelope: &Envelope<'_>) -> Result<bool, StorageError> {
        let mut own = false;
        for cause in &envelope.head.causes {
            if self.has(cause)? {
                continue;
            }
            if !retract::holds(self.txn, cause.author, cause.seq, &cause.hash)? {
                return Ok(false);
            }
            own |= cause.author.device == envelope.frame.author.device;
        }
        Ok(own)
    }

    fn has(&self, cause: &Cause) -> Result<bool, StorageError> {
        let first = Line::from(cause.author);
        let Position { ends, forks, .. } = &self.writer.position;
        let end = ends.get(&first);
        if end.is_some_and(|end| end.seq == cause.seq && end.hash == cause.hash) {
            return Ok(true);
        }
        // One that lies in a hole must wait: it may be on a branch that is not here.
        let found = forks.find(self.txn, cause.author, cause.seq, &cause.hash)?;
        Ok(found.is_some())
    }

    /// The envelopes in quarantine that lead from what is here to a cause, in order; none when some are missing.
    fn waiting(&self, cause: &Cause) -> Result<Vec<Vec<u8>>, StorageError> {
        let forks = &self.writer.position.forks;
        let Cause { author, seq, hash } = *cause;
        let (mut seq, mut hash) = (seq, hash);
        let mut chain = Vec::new();
        while seq > 0 && forks.find(self.txn, author, seq, &hash)?.is_none() {
            let Some(bytes) = retract::kept(self.txn, author, seq, &hash)? else {
                return Ok(Vec::new());
            };
            let frame =
                Frame::read(&bytes).map_err(|_| StorageError::Damaged(Damage::Log(author)))?;
            (seq, hash) = (seq - 1, frame.prev);
            chain.push(bytes);
        }
        chain.reverse();
        Ok(chain)
    }

    /// Takes envelopes out of quarantine that count now.
    fn release(
        &mut self,
        waiting: Vec<Vec<u8>>,
        depth: u32,
        by: Option<DeviceId>,
        released: &mut bool,
    ) -> Result<bool, Refusal> {
        for bytes in waiting {
            let frame = Frame::read(&bytes)
                .map_err(|fault| Refusal::Fault(Misbehaviour::Undecodable(fault)))?;
            retract::forget(self.txn, &frame)?;
            match self.take(&bytes, Standing::Vouched(depth, by)) {
                Ok(Step::Taken) => *released = true,
                // Who built on what breaks a rule is no honest member, but who brought it may be.
                Ok(Step::Known | Step::Early | Step::Astray | Step::Held | Step::Beyond)
                | Err(Refusal::Fault(_)) => {
                    retract::keep(self.txn, &frame, &bytes)?;
                    return Ok(false);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(true)
    }

    /// Applies a checked envelope to buckets and log. Gives the line that it is on.
    fn commit(
        &mut self,
        envelope: &Envelope<'_>,
        incoming: &[Incoming],
        spot: Spot,
    ) -> Result<Line, StorageError> {
        let (frame, head) = (&envelope.frame, &envelope.head);
        let position = &mut self.writer.position;
        let (line, mut past) = match spot {
            Spot::Parts(root) => {
                let past = position.forks.past_at(self.txn, root)?;
                let line = position.forks.begin(self.txn, root, &frame.hash)?;
                (line, past.onto(&line))
            }
            Spot::Here(line) | Spot::Next(line) => (line, log::past(self.txn, &line)?),
            Spot::Hole | Spot::Later | Spot::Elsewhere => {
                let first = Line::from(frame.author);
                (first, log::past(self.txn, &first)?)
            }
        };
        if !head.causes.is_empty() || matches!(spot, Spot::Parts(_)) {
            past.learn(&position.forks.place(self.txn, &head.causes)?);
            log::set_past(self.txn, &line, &past)?;
        }
        let carrier = Carrier {
            seq: frame.seq,
            mark: frame.hash.mark(),
            past: &past,
            writers: &Lines {
                txn: self.txn,
                forks: &position.forks,
            },
        };
        let mut buckets = Buckets::open(self.txn)?;
        for (change, (bucket, _)) in incoming.iter().zip(&envelope.changes) {
            buckets.apply(*bucket, change, &carrier)?;
            self.touched
                .extend(change.writes.iter().map(|write| write.key.id));
        }
        drop(buckets);
        let (seq, hash, clock) = (frame.seq, frame.hash, head.clock);
        let end = LogEnd { seq, hash, clock };
        self.writer.append(self.txn, line, end, envelope.bytes)?;
        self.writer.position.clock = self.writer.position.clock.max(clock);
        if frame.author == self.writer.position.author {
            // Somebody knew more of this life than this device does.
            self.writer.close_life(self.txn, &hash)?;
        }
        Ok(line)
    }

    /// Up to which number envelopes of a line may be missing.
    fn hole(&self, line: &Line) -> Option<u64> {
        let gap = self.writer.position.gap.as_ref()?;
        gap.holes.get(line).map(|hole| hole.upto.seq)
    }
}

/// How many lives of a device there are among lines, further branches included.
pub(super) fn lives<T>(lines: &BTreeMap<Line, T>, device: &DeviceId) -> usize {
    let line = |number| Line {
        author: Author {
            device: *device,
            incarnation: Incarnation(number),
        },
        branch: number,
    };
    lines.range(line(0)..=line(u64::MAX)).count()
}

fn blame(frame: Frame, fault: EnvelopeFault) -> Refusal {
    Refusal::Fault(Misbehaviour::Envelope {
        author: frame.author,
        seq: frame.seq,
        fault,
    })
}

impl Writer {
    /// Adds an envelope to a log.
    pub(super) fn append(
        &mut self,
        txn: &WriteTransaction,
        line: Line,
        end: LogEnd,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        log::append(txn, line, end, self.position.next_arrival, bytes)?;
        self.position.ends.insert(line, end);
        self.position.next_arrival += 1;
        Ok(())
    }
}
