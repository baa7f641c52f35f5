//! A snapshot on its way in: each envelope is held against every rule that needs no earlier one, then put
//! aside on disk until all are here (`replica/install`). Nothing of it shows before that.
//!
//! Values are taken from signed envelopes only. What the sender says beside them are marks and numbers: a
//! wrong one can leave something out or keep something old, as being behind does, and is found when the
//! logs are complete (`replica/backfill`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::{ReadableTable, TableDefinition, TableError, WriteTransaction};

use super::intake::{self, CLOCK_END};
use super::{Change, Commit, Entries, Replica};
use crate::bucket::alive::Seen;
use crate::bucket::change::Incoming;
use crate::envelope::Envelope;
use crate::error::{
    BlamesIndex, EnvelopeFault, Misbehaviour, SessionError, SnapshotFault, StorageError,
};
use crate::id::{Author, Hash, Line};
use crate::limit::{MAX_DEVICE_LIVES, MAX_SNAPSHOT_ENVELOPES, MAX_VECTOR_AUTHORS};
use crate::log::gap::Tip;
use crate::member::Verdict;
use crate::vector::VersionVector;

/// Position in the snapshot → the marks, the envelope.
const PIECES: TableDefinition<'_, u64, (&[u8], &[u8])> = TableDefinition::new("stage");
/// author → what it had seen, packed.
const SEEN: TableDefinition<'_, &[u8; 40], &[u8]> = TableDefinition::new("stage_seen");

/// An envelope of a snapshot, and a bit for each of its writes: whether it is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) marks: &'a [u8],
    pub(crate) envelope: &'a [u8],
}

/// Why a snapshot is not taken.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// Our database failed, or the sender is at fault.
    Session(SessionError),
    /// Nobody is to blame, but the logs must do: the membership moved meanwhile, or the history is an unusual one.
    Unusable,
}

impl BlamesIndex for Unfit {
    fn blames_index(&self) -> bool {
        match self {
            Self::Session(SessionError::Storage(error)) => error.blames_index(),
            Self::Session(_) | Self::Unusable => false,
        }
    }
}

impl From<StorageError> for Unfit {
    fn from(error: StorageError) -> Self {
        Self::Session(error.into())
    }
}

impl From<Misbehaviour> for Unfit {
    fn from(fault: Misbehaviour) -> Self {
        Self::Session(fault.into())
    }
}

/// The right to take a snapshot, which one session at a time has, and what came so far.
#[derive(Debug)]
pub(crate) struct Stage {
    replica: Replica,
    pub(super) tips: BTreeMap<Line, Tip>,
    /// The membership heads that the envelopes were judged by.
    pub(super) members: Vec<Hash>,
    pub(super) clock: u64,
    causes: VersionVector,
    pieces: u64,
}

impl Replica {
    /// Whether this device has nothing of anybody else.
    pub(crate) fn is_new(&self) -> bool {
        let own = self.device();
        let shared = self.shared();
        shared.ends.keys().all(|line| line.author.device == own)
    }

    /// Whether a snapshot is on its way in, by whichever session.
    pub(crate) fn is_staging(&self) -> bool {
        self.inner.staging.load(Ordering::Acquire)
    }

    /// Begins to take a snapshot; `None` while another one is on its way.
    pub(crate) fn stage(&self) -> Result<Option<Stage>, StorageError> {
        if self.inner.staging.swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        let shared = self.shared();
        let stage = Stage {
            replica: self.clone(),
            tips: BTreeMap::new(),
            members: shared.members.heads(),
            clock: 0,
            causes: VersionVector::default(),
            pieces: 0,
        };
        // From here on dropping the stage gives the right back.
        let mut writer = self.inner.writer()?;
        self.inner
            .transact(&mut writer, Commit::Deferred, |txn, _| {
                clear(txn)?;
                txn.open_table(PIECES)?;
                txn.open_table(SEEN)?;
                Ok::<_, StorageError>(())
            })?;
        Ok(Some(stage))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.replica.inner.staging.store(false, Ordering::Release);
        // Other sessions may have waited for this.
        self.replica.inner.observers.push(Change {
            entries: Entries::Listed(Vec::new()),
            local: false,
            members: false,
        });
        self.replica.inner.observers.deliver();
    }
}

impl Stage {
    pub(super) fn replica(&self) -> Replica {
        self.replica.clone()
    }

    /// Takes the next envelopes.
    pub(crate) fn take(&mut self, pieces: &[Piece<'_>]) -> Result<(), Unfit> {
        let replica = self.replica();
        let epochs = Arc::clone(&replica.shared().epochs);
        for piece in pieces {
            let envelope = match Envelope::decode(piece.envelope, &epochs) {
                Ok(envelope) => envelope,
                Err(EnvelopeFault::UnknownEpoch { .. }) => return Err(Unfit::Unusable),
                Err(fault) if fault.is_newer() => return Err(Unfit::Unusable),
                Err(fault) => return Err(Misbehaviour::Undecodable(fault).into()),
            };
            self.hold(&replica, &envelope, piece.marks)?;
        }
        let mut writer = replica.inner.writer()?;
        let first = self.pieces;
        replica
            .inner
            .transact(&mut writer, Commit::Deferred, |txn, _| {
                let mut table = txn.open_table(PIECES)?;
                for (position, piece) in (first..).zip(pieces) {
                    table.insert(position, (piece.marks, piece.envelope))?;
                }
                Ok::<_, StorageError>(())
            })?;
        self.pieces += pieces.len() as u64;
        Ok(())
    }

    /// Takes what the sender says of some authors.
    pub(crate) fn take_seen(&mut self, all: &[(Author, Seen)]) -> Result<(), Unfit> {
        let replica = self.replica();
        let mut writer = replica.inner.writer()?;
        replica
            .inner
            .transact(&mut writer, Commit::Deferred, |txn, _| {
                for (author, seen) in all {
                    let known = set_seen(txn, author, seen)?;
                    if known || !self.tips.contains_key(&Line::from(author)) {
                        return Err(fault(SnapshotFault::Seen(*author)));
                    }
                }
                Ok(())
            })
    }

    /// Holds one envelope against every rule that needs no earlier one.
    fn hold(
        &mut self,
        replica: &Replica,
        envelope: &Envelope<'_>,
        marks: &[u8],
    ) -> Result<(), Unfit> {
        let (frame, head) = (&envelope.frame, &envelope.head);
        let author = frame.author;
        let blame = |fault| {
            let seq = frame.seq;
            Unfit::from(Misbehaviour::Envelope { author, seq, fault })
        };
        if frame.mesh != replica.inner.mesh {
            return Err(blame(EnvelopeFault::OtherMesh));
        }
        let before = self.tips.get(&Line::from(author)).copied();
        let last = before.map_or(0, |tip| tip.seq);
        if frame.seq <= last {
            return Err(fault(SnapshotFault::Order(author)));
        }
        if before.is_none() && self.is_crowded(&author) {
            return Err(Unfit::Unusable);
        }
        let follows = before.map_or(Hash::ZERO, |tip| tip.hash);
        if frame.seq == last + 1 && frame.prev != follows {
            return Err(blame(EnvelopeFault::Forked));
        }
        match replica
            .shared()
            .members
            .judge(author, frame.seq, &head.members)
        {
            Verdict::Admit => {}
            Verdict::NotWriter => return Err(blame(EnvelopeFault::NotWriter)),
            // Whether it counts all the same is not to be seen without the logs.
            Verdict::BeyondCut | Verdict::UnknownHeads => return Err(Unfit::Unusable),
        }
        if head.clock > CLOCK_END {
            return Err(blame(EnvelopeFault::ClockLeap { stamp: head.clock }));
        }
        let changes = match parse(envelope) {
            Ok(changes) => changes,
            Err(fault) if fault.is_newer() => return Err(Unfit::Unusable),
            Err(fault) => return Err(blame(fault)),
        };
        if !fits(marks, &changes) {
            return Err(fault(SnapshotFault::Marks(author)));
        }
        self.clock = self.clock.max(head.clock);
        for cause in &head.causes {
            self.causes.advance(cause.author, cause.seq);
        }
        let tip = Tip {
            seq: frame.seq,
            hash: frame.hash,
            clock: head.clock,
        };
        self.tips.insert(Line::from(author), tip);
        // More causes than there may be authors are not in the snapshot.
        if self.causes.len() > MAX_VECTOR_AUTHORS {
            return Err(fault(SnapshotFault::TooLarge));
        }
        Ok(())
    }

    /// Whether an author is one life too many of its device, or of all devices. Such a life counts when
    /// somebody builds on it, which is not to be seen without the logs.
    fn is_crowded(&self, author: &Author) -> bool {
        self.tips.len() >= MAX_VECTOR_AUTHORS
            || intake::lives(&self.tips, &author.device) >= MAX_DEVICE_LIVES
    }

    /// Checks what can only be checked when all is here; gives how many envelopes the logs have.
    pub(super) fn check(&self) -> Result<u64, SnapshotFault> {
        for (line, seq) in self.causes.iter() {
            if self.tips.get(line).is_none_or(|tip| tip.seq < seq) {
                return Err(SnapshotFault::Causes(line.author));
            }
        }
        let all = self.tips.values().map(|tip| tip.seq);
        let all = all.fold(0, u64::saturating_add);
        if all > MAX_SNAPSHOT_ENVELOPES {
            return Err(SnapshotFault::TooLarge);
        }
        Ok(all)
    }
}

/// An envelope's changes, checked.
pub(super) fn parse(envelope: &Envelope<'_>) -> Result<Vec<Incoming>, EnvelopeFault> {
    let author = envelope.frame.author;
    let mut changes = Vec::with_capacity(envelope.changes.len());
    for (bucket, bytes) in &envelope.changes {
        let bucket = *bucket;
        let change = Incoming::parse(bucket, bytes, &author, envelope.frame.seq)
            .map_err(|fault| EnvelopeFault::Change { bucket, fault })?;
        if change.clock > envelope.head.clock {
            return Err(EnvelopeFault::ClockLeap {
                stamp: change.clock,
            });
        }
        changes.push(change);
    }
    Ok(changes)
}

/// Packs one bit for each write.
pub(super) fn mark(alive: &[bool]) -> Vec<u8> {
    let bits = |some: &[bool]| {
        let bits = some.iter().zip(0..8_u8);
        bits.fold(0, |byte, (alive, bit)| byte | (u8::from(*alive) << bit))
    };
    alive.chunks(8).map(bits).collect()
}

/// The inverse of [`mark`]; zeros may follow.
pub(super) fn marked(marks: &[u8]) -> impl Iterator<Item = bool> {
    let bits = |byte: &u8| {
        let byte = *byte;
        (0..8_u8).map(move |bit| byte >> bit & 1 == 1)
    };
    marks.iter().flat_map(bits)
}

fn fits(marks: &[u8], changes: &[Incoming]) -> bool {
    let writes: usize = changes.iter().map(|change| change.writes.len()).sum();
    marks.len() == writes.div_ceil(8) && !marked(marks).skip(writes).any(|alive| alive)
}

pub(super) fn fault(fault: SnapshotFault) -> Unfit {
    Misbehaviour::Snapshot(fault).into()
}

/// Visits what was put aside, in order.
pub(super) fn visit(
    txn: &WriteTransaction,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Unfit>,
) -> Result<(), Unfit> {
    let table = txn.open_table(PIECES).map_err(StorageError::from)?;
    for row in table.iter().map_err(StorageError::from)? {
        let (_, piece) = row.map_err(StorageError::from)?;
        let (marks, envelope) = piece.value();
        visit(marks, envelope)?;
    }
    Ok(())
}

/// Puts aside what the sender says of an author. Gives whether it has said that before.
fn set_seen(txn: &WriteTransaction, author: &Author, seen: &Seen) -> Result<bool, StorageError> {
    let packed = postcard::to_stdvec(seen).expect("memory takes any value");
    let mut table = txn.open_table(SEEN)?;
    Ok(table.insert(&author.to_key(), packed.as_slice())?.is_some())
}

/// What the sender said of an author.
pub(super) fn seen(txn: &WriteTransaction, author: Author) -> Result<Option<Seen>, StorageError> {
    let table = txn.open_table(SEEN)?;
    let row = table.get(&author.to_key())?;
    Ok(row.and_then(|row| postcard::from_bytes(row.value()).ok()))
}

/// Forgets what was put aside. Gives whether there was something.
pub(super) fn clear(txn: &WriteTransaction) -> Result<bool, StorageError> {
    let pieces = txn.delete_table(PIECES)?;
    Ok(txn.delete_table(SEEN)? || pieces)
}

/// Whether something was put aside: by a snapshot that a crash cut off.
pub(super) fn is_littered(txn: &redb::ReadTransaction) -> Result<bool, StorageError> {
    match txn.open_table(PIECES) {
        Ok(_) => Ok(true),
        Err(TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
