//! Taking envelopes that came from elsewhere.
//!
//! An envelope is first held against every rule (signature, membership, order, causes, and each change
//! against its bucket) and only then applied, with all envelopes of one message in one transaction.
//! Whatever breaks a rule is refused with the reason; what came before it is kept.

use std::collections::BTreeSet;

use redb::{Durability, WriteTransaction};

use super::{Change, Entries, Replica, Writer};
use crate::bucket::change::Incoming;
use crate::envelope::Envelope;
use crate::error::{EnvelopeFault, Misbehaviour, SessionError, StorageError};
use crate::id::{Author, EntryId, Hash, MeshId};
use crate::index;
use crate::limit::MAX_CLOCK_LEAP;
use crate::log::{self, LogEnd};
use crate::member::Verdict;
use crate::vector::VersionVector;

/// Stamps beyond this are never honest: there must always be room above every stamp.
const CLOCK_END: u64 = u64::MAX / 4;

/// More changed registers than this are told to observers as one "everything changed".
const MAX_LISTED: usize = 50_000;

/// What became of a message full of envelopes.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Authors of the envelopes, with the last number that is here now.
    pub(crate) have: Vec<(Author, u64)>,
    /// The same authors, with the last number that was sent.
    pub(crate) sent: Vec<(Author, u64)>,
    /// Whether some were left because what they build on is not here.
    pub(crate) causes_missing: bool,
}

/// Why taking stopped.
#[derive(Debug)]
enum Stop {
    Storage(StorageError),
    /// Envelope `at` of the message broke a rule while it was being applied.
    Fault {
        at: usize,
        fault: Misbehaviour,
    },
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// What one envelope led to, short of being refused.
enum Step {
    Taken,
    Known,
    /// Its causes, or the membership that it names, are not here.
    Early,
    /// By a removed member, beyond what was accepted of it, and nothing builds on it.
    Beyond,
}

impl Replica {
    /// Takes the envelopes of one message, in order, in one transaction that is not yet durable.
    pub(crate) fn apply(&self, envelopes: &[&[u8]]) -> Result<Applied, SessionError> {
        let mut writer = self.inner.writer()?;
        let outcome = match self.apply_prefix(&mut writer, envelopes) {
            // A rule was broken after Automerge had been touched, so everything was undone. Take
            // what came before it again.
            Err(Stop::Fault { at, fault }) => {
                let before = envelopes.get(..at).unwrap_or_default();
                match self.apply_prefix(&mut writer, before) {
                    Ok((applied, _)) => Ok((applied, Some(fault))),
                    Err(stop) => Err(stop),
                }
            }
            other => other,
        };
        drop(writer);
        self.inner.observers.deliver();
        match outcome {
            Ok((applied, None)) => Ok(applied),
            Ok((_, Some(fault))) | Err(Stop::Fault { fault, .. }) => Err(fault.into()),
            Err(Stop::Storage(error)) => Err(error.into()),
        }
    }

    /// Takes envelopes until one breaks a rule. A fault that was found before anything of that
    /// envelope was applied comes back beside what was taken.
    fn apply_prefix(
        &self,
        writer: &mut Writer,
        envelopes: &[&[u8]],
    ) -> Result<(Applied, Option<Misbehaviour>), Stop> {
        let mesh = self.inner.mesh;
        let (applied, fault, changes) =
            self.inner
                .transact(writer, Durability::None, |txn, writer| {
                    let mut applied = Applied::default();
                    let mut authors = VersionVector::default();
                    let mut touched = BTreeSet::new();
                    let mut fault = None;
                    for (at, bytes) in envelopes.iter().enumerate() {
                        match take(txn, writer, mesh, at, bytes, &mut authors, &mut touched)? {
                            Ok(Step::Taken | Step::Known | Step::Beyond) => {}
                            Ok(Step::Early) => applied.causes_missing = true,
                            Err(found) => {
                                fault = Some(found);
                                break;
                            }
                        }
                    }
                    let touched: Vec<EntryId> = touched.into_iter().collect();
                    let changes = index::apply(txn, &writer.registers(txn), &touched)
                        .map_err(StorageError::from)?;
                    let end = |author| writer.position.ends.get(author).map_or(0, |end| end.seq);
                    applied.have = authors
                        .iter()
                        .map(|(author, _)| (*author, end(author)))
                        .collect();
                    applied.sent = authors.iter().map(|(author, seq)| (*author, seq)).collect();
                    Ok::<_, Stop>((applied, fault, changes))
                })?;
        if !changes.is_empty() {
            let entries = if changes.len() > MAX_LISTED {
                Entries::Everything
            } else {
                Entries::Listed(changes)
            };
            self.inner.observers.push(Change {
                entries,
                local: false,
                members: false,
            });
        }
        Ok((applied, fault))
    }
}

/// Takes one envelope. The outer error ends the transaction, the inner one only the message.
fn take(
    txn: &WriteTransaction,
    writer: &mut Writer,
    mesh: MeshId,
    at: usize,
    bytes: &[u8],
    authors: &mut VersionVector,
    touched: &mut BTreeSet<EntryId>,
) -> Result<Result<Step, Misbehaviour>, Stop> {
    let label = match Envelope::label(bytes) {
        Ok(label) => label,
        Err(fault) => return Ok(Err(Misbehaviour::Undecodable(fault))),
    };
    authors.advance(label.author, label.seq);
    let blame = |fault| Misbehaviour::Envelope {
        author: label.author,
        seq: label.seq,
        fault,
    };
    let end = writer.position.ends.get(&label.author).copied();
    let last = end.map_or(0, |end| end.seq);
    if label.seq <= last {
        return Ok(Ok(Step::Known));
    }
    if label.seq > last + 1 {
        return Ok(Ok(Step::Early));
    }
    let envelope = match Envelope::decode(bytes) {
        Ok(envelope) => envelope,
        Err(fault) => return Ok(Err(blame(fault))),
    };
    match judge(writer, mesh, &envelope, end) {
        Ok(Step::Taken) => {}
        Ok(other) => return Ok(Ok(other)),
        Err(fault) => return Ok(Err(blame(fault))),
    }
    let incoming = match parse(&envelope) {
        Ok(incoming) => incoming,
        Err(fault) => return Ok(Err(blame(fault))),
    };
    for change in &incoming {
        let bucket = writer.buckets.get(txn, change.bucket)?;
        if let Err(fault) = change.check(bucket) {
            return Ok(Err(blame(EnvelopeFault::Change {
                bucket: change.bucket,
                fault,
            })));
        }
    }
    commit(txn, writer, &envelope, &incoming).map_err(|stop| match stop {
        Refused::Storage(error) => Stop::Storage(error),
        Refused::Fault(fault) => Stop::Fault {
            at,
            fault: blame(fault),
        },
    })?;
    touched.extend(
        incoming
            .iter()
            .flat_map(|change| change.writes.iter().map(|w| w.key.id)),
    );
    Ok(Ok(Step::Taken))
}

/// Holds an envelope against the mesh, its author's log, the membership and its causes.
fn judge(
    writer: &Writer,
    mesh: MeshId,
    envelope: &Envelope<'_>,
    end: Option<LogEnd>,
) -> Result<Step, EnvelopeFault> {
    let body = &envelope.body;
    if body.mesh != mesh {
        return Err(EnvelopeFault::OtherMesh);
    }
    if body.prev != end.map_or(Hash::from_bytes([0; 32]), |end| end.hash) {
        return Err(EnvelopeFault::Forked);
    }
    let seen = |author: &Author| writer.position.ends.get(author).map_or(0, |end| end.seq);
    if body.deps.iter().any(|(author, seq)| seen(author) < *seq) {
        return Ok(Step::Early);
    }
    match writer.members.judge(body.author, body.seq, &body.members) {
        Verdict::Admit => {}
        Verdict::NotWriter => return Err(EnvelopeFault::NotWriter),
        Verdict::UnknownHeads => return Ok(Step::Early),
        Verdict::BeyondCut => return Ok(Step::Beyond),
    }
    let reach = writer
        .position
        .clock
        .saturating_add(MAX_CLOCK_LEAP)
        .min(CLOCK_END);
    if body.clock > reach {
        return Err(EnvelopeFault::ClockLeap { stamp: body.clock });
    }
    Ok(Step::Taken)
}

fn parse(envelope: &Envelope<'_>) -> Result<Vec<Incoming>, EnvelopeFault> {
    let body = &envelope.body;
    let mut incoming = Vec::with_capacity(body.changes.len());
    for (bucket, bytes) in &body.changes {
        let change = Incoming::parse(*bucket, bytes, &body.author).map_err(|fault| {
            EnvelopeFault::Change {
                bucket: *bucket,
                fault,
            }
        })?;
        if change.clock > body.clock {
            return Err(EnvelopeFault::ClockLeap {
                stamp: change.clock,
            });
        }
        incoming.push(change);
    }
    Ok(incoming)
}

enum Refused {
    Storage(StorageError),
    Fault(EnvelopeFault),
}

impl From<StorageError> for Refused {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Applies a checked envelope to buckets and log.
fn commit(
    txn: &WriteTransaction,
    writer: &mut Writer,
    envelope: &Envelope<'_>,
    incoming: &[Incoming],
) -> Result<(), Refused> {
    let body = &envelope.body;
    let arrival = writer.position.next_arrival;
    for (change, (_, bytes)) in incoming.iter().zip(&body.changes) {
        let bucket = change.bucket;
        writer.buckets.touch(bucket);
        writer
            .buckets
            .get(txn, bucket)?
            .apply(change)
            .map_err(|fault| Refused::Fault(EnvelopeFault::Change { bucket, fault }))?;
        writer.buckets.store(txn, bucket, arrival, bytes)?;
    }
    writer.append(txn, body.author, body.seq, envelope.hash, envelope.bytes)?;
    writer.position.clock = writer.position.clock.max(body.clock);
    Ok(())
}

impl Writer {
    /// Adds an envelope to its author's log.
    pub(super) fn append(
        &mut self,
        txn: &WriteTransaction,
        author: Author,
        seq: u64,
        hash: Hash,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        let pruned = self.position.ends.get(&author).map_or(0, |end| end.pruned);
        let end = LogEnd { seq, hash, pruned };
        log::append(txn, author, end, self.position.next_arrival, bytes)?;
        self.position.ends.insert(author, end);
        self.position.next_arrival += 1;
        Ok(())
    }
}
