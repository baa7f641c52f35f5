//! One author's change to one bucket, in the form in which it travels: an Automerge change.
//!
//! Automerge is the codec of changes and nothing more. A change is data from a stranger until
//! [`Incoming::parse`] and [`Incoming::follows`] have passed: the first looks at the bytes alone, the second at the
//! author's earlier changes. The codec itself accepts far more than is safe: it does not compare a
//! change's checksum, and unfolds and inflates what is packed without a bound (`bucket/column`).
//!
//! Changes, and the operations in them, are numbered by author and bucket, without gaps. They name
//! no dependencies: their causes are those of the envelope that carries them.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::panic::catch_unwind;

use automerge::legacy::{Key, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::{ActorId, Change, ExpandedChange, ScalarValue};

use super::key::RegisterKey;
use super::row::{Last, OpRef};
use super::{Actor, column};
use crate::error::{ChangeFault, Limit};
use crate::id::{Author, BucketId};
use crate::limit::{MAX_CHANGE_BYTES, MAX_CHANGE_OPS, MAX_CHANGE_REPLACED};
use crate::register::{self, ValueError};

/// The chunk type of an uncompressed change (Automerge binary format, "chunk types").
const CHANGE_CHUNK: u8 = 1;
const CHUNK_MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// A foreign change that is well formed and writes nothing but registers of its bucket.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) actor: Actor,
    seq: u64,
    /// The number of its first operation.
    pub(crate) start_op: u64,
    /// One per operation.
    pub(crate) writes: Vec<IncomingWrite>,
    /// The greatest stamp in the values.
    pub(crate) clock: u64,
}

/// One register that a foreign change writes.
#[derive(Debug)]
pub(crate) struct IncomingWrite {
    pub(crate) key: RegisterKey,
    pub(crate) value: Vec<u8>,
    pub(crate) replaces: Vec<OpRef>,
}

impl Incoming {
    /// Checks everything that needs no state.
    pub(crate) fn parse(
        bucket: BucketId,
        bytes: &[u8],
        author: &Author,
    ) -> Result<Self, ChangeFault> {
        let change = decode(bytes)?;
        let actor = author.actor();
        if change.actor_id().to_bytes() != actor {
            return Err(ChangeFault::ForeignActor);
        }
        if change.is_empty() || change.len() > MAX_CHANGE_OPS {
            return Err(ChangeFault::OpCount);
        }
        let plain = change.message().is_none()
            && change.author().is_none()
            && change.extra_bytes().is_empty()
            && change.timestamp() == 0;
        if !plain {
            return Err(ChangeFault::Extra);
        }
        if !change.deps().is_empty() {
            return Err(ChangeFault::Deps);
        }
        // `decode` panics on actions that it does not know.
        let expanded = catch_unwind(|| change.decode()).map_err(|_| ChangeFault::OpKind)?;
        let mut seen = BTreeSet::new();
        let mut clock = 0;
        let mut writes = Vec::with_capacity(expanded.operations.len());
        for op in expanded.operations {
            let (write, stamp) = IncomingWrite::read(bucket, op)?;
            if !seen.insert(write.key) {
                return Err(ChangeFault::Repeated);
            }
            clock = clock.max(stamp);
            writes.push(write);
        }
        let (seq, start_op) = (change.seq(), change.start_op().get());
        Ok(Self {
            actor,
            seq,
            start_op,
            writes,
            clock,
        })
    }

    /// Checks that the change is the next one of its author after `last`.
    pub(crate) fn follows(&self, last: Last) -> Result<(), ChangeFault> {
        if self.seq != last.seq + 1 {
            return Err(ChangeFault::Sequence);
        }
        if self.start_op != last.op + 1 {
            return Err(ChangeFault::StartOp);
        }
        // What others wrote is held against what the author has seen when the change is applied.
        let early = |op: &OpRef| op.actor == self.actor && op.counter >= self.start_op;
        if self
            .writes
            .iter()
            .any(|write| write.replaces.iter().any(early))
        {
            return Err(ChangeFault::Predecessor);
        }
        Ok(())
    }

    /// Checks that the change may come after `last`, with any number of others between.
    pub(crate) fn comes_after(&self, last: Last) -> Result<(), ChangeFault> {
        let changes = self.seq.saturating_sub(last.seq);
        let ops = self.start_op.saturating_sub(last.op);
        // Each change has at least one operation.
        if changes == 0 {
            Err(ChangeFault::Sequence)
        } else if ops < changes || (changes == 1 && ops > 1) {
            Err(ChangeFault::StartOp)
        } else {
            Ok(())
        }
    }

    /// Where the author's numbers stand after it.
    pub(crate) fn last(&self) -> Last {
        Last {
            seq: self.seq,
            op: self.start_op + self.writes.len() as u64 - 1,
        }
    }
}

impl IncomingWrite {
    /// Reads one operation; gives the greatest stamp in its value, too.
    fn read(bucket: BucketId, op: Op) -> Result<(Self, u64), ChangeFault> {
        let Key::Map(text) = &op.key else {
            return Err(ChangeFault::OpKind);
        };
        if op.obj != ObjectId::Root || op.insert {
            return Err(ChangeFault::OpKind);
        }
        let key = RegisterKey::parse(text).ok_or(ChangeFault::Key)?;
        if key.id.bucket() != bucket {
            return Err(ChangeFault::Key);
        }
        let value = match op.action {
            OpType::Put(ScalarValue::Bytes(value)) => value,
            OpType::Delete
            | OpType::Put(_)
            | OpType::Make(_)
            | OpType::Increment(_)
            | OpType::MarkBegin(_)
            | OpType::MarkEnd(_) => return Err(ChangeFault::OpKind),
        };
        let stamp =
            register::check(&key.id, key.register, &value).map_err(|error| match error {
                ValueError::UnknownFormat { .. } => ChangeFault::UnknownValue,
                _ => ChangeFault::Value,
            })?;
        let replaces = op
            .pred
            .iter()
            .map(|OpId(counter, actor)| {
                let actor = actor.to_bytes().try_into();
                let actor = actor.map_err(|_| ChangeFault::Predecessor)?;
                let counter = *counter;
                Ok(OpRef { actor, counter })
            })
            .collect::<Result<_, _>>()?;
        let write = Self {
            key,
            value,
            replaces,
        };
        Ok((write, stamp))
    }
}

/// A change of this device in the making.
#[derive(Debug)]
pub(super) struct Draft {
    actor: Actor,
    before: Last,
    operations: Vec<Op>,
}

impl Draft {
    /// The author's next change after `before`.
    pub(super) fn new(actor: Actor, before: Last) -> Self {
        Self {
            actor,
            before,
            operations: Vec::new(),
        }
    }

    /// The number of the operation that is added next.
    pub(super) fn next_op(&self) -> u64 {
        self.before.op + self.operations.len() as u64 + 1
    }

    /// Adds a write that replaces these operations.
    pub(super) fn put(&mut self, key: RegisterKey, value: Vec<u8>, replaces: Vec<OpRef>) {
        let pred: Vec<OpId> = replaces
            .into_iter()
            .map(|op| OpId(op.counter, ActorId::from(op.actor.as_slice())))
            .collect();
        self.operations.push(Op {
            action: OpType::Put(ScalarValue::Bytes(value)),
            obj: ObjectId::Root,
            key: Key::Map(key.to_string().into()),
            pred: SortedVec::from(pred),
            insert: false,
        });
    }

    /// The bytes, and where the author's numbers stand after it.
    ///
    /// # Errors
    ///
    /// [`Limit::Changes`] when others would refuse it.
    pub(super) fn encode(self) -> Result<(Vec<u8>, Last), Limit> {
        let last = Last {
            seq: self.before.seq + 1,
            op: self.before.op + self.operations.len() as u64,
        };
        // The codec has room for operation numbers of 32 bits.
        let replaced: usize = self.operations.iter().map(|op| op.pred.len()).sum();
        if self.operations.len() > MAX_CHANGE_OPS
            || replaced > MAX_CHANGE_REPLACED
            || last.op > u64::from(u32::MAX)
        {
            return Err(Limit::Changes);
        }
        let change = Change::from(ExpandedChange {
            operations: self.operations,
            actor_id: ActorId::from(self.actor.as_slice()),
            hash: None,
            seq: last.seq,
            start_op: NonZeroU64::MIN.saturating_add(self.before.op),
            time: 0,
            message: None,
            deps: Vec::new(),
            extra_bytes: Vec::new(),
            author: None,
        });
        let bytes = change.raw_bytes().to_vec();
        if bytes.len() > MAX_CHANGE_BYTES {
            return Err(Limit::Changes);
        }
        Ok((bytes, last))
    }
}

/// Decodes an uncompressed change chunk whose checksum is right and that has nothing behind it.
fn decode(bytes: &[u8]) -> Result<Change, ChangeFault> {
    if bytes.len() > MAX_CHANGE_BYTES {
        return Err(ChangeFault::TooLarge);
    }
    let Some((&[m0, m1, m2, m3, c0, c1, c2, c3, kind], body)) = bytes.split_first_chunk::<9>()
    else {
        return Err(ChangeFault::Malformed);
    };
    if [m0, m1, m2, m3] != CHUNK_MAGIC {
        return Err(ChangeFault::Malformed);
    }
    if kind != CHANGE_CHUNK {
        return Err(ChangeFault::Compressed);
    }
    column::check(body)?;
    let change = catch_unwind(|| Change::from_bytes(bytes.to_vec()))
        .map_err(|_| ChangeFault::Malformed)?
        .map_err(|_| ChangeFault::Malformed)?;
    if change.hash().0.first_chunk::<4>() != Some(&[c0, c1, c2, c3]) || change.raw_bytes() != bytes
    {
        return Err(ChangeFault::Malformed);
    }
    Ok(change)
}
