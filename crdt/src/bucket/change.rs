//! One author's change to one bucket, in the form in which it travels: an Automerge change.
//!
//! Automerge is the codec of changes and nothing more. A change is data from a stranger until
//! [`Incoming::parse`] has passed, which looks at nothing but the bytes. The codec itself accepts far more than is safe: it does not compare a
//! change's checksum, and unfolds and inflates what is packed without a bound (`bucket/column`).
//!
//! A change is numbered 1 and names no dependencies: its place and its causes are those of the envelope that
//! carries it. What an operation replaces it names by the writer's actor and the number of the writer's envelope.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::panic::catch_unwind;

use automerge::legacy::{Key, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::{ActorId, Change, ExpandedChange, ScalarValue};

use super::key::RegisterKey;
use super::row::OpRef;
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
    /// Checks a change that came in the author's envelope of that number. Nothing else is looked at, so that all
    /// who look find the same.
    pub(crate) fn parse(
        bucket: BucketId,
        bytes: &[u8],
        author: &Author,
        envelope: u64,
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
        if change.seq() != 1 || change.start_op().get() != 1 {
            return Err(ChangeFault::Sequence);
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
            // What others wrote is held against what the author has seen when the change is applied.
            let early = |op: &OpRef| op.actor == actor && op.envelope >= envelope;
            if write.replaces.iter().any(early) {
                return Err(ChangeFault::Predecessor);
            }
            clock = clock.max(stamp);
            writes.push(write);
        }
        Ok(Self {
            actor,
            writes,
            clock,
        })
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
            .map(|OpId(envelope, actor)| {
                let actor = actor.to_bytes().try_into();
                let actor = actor.map_err(|_| ChangeFault::Predecessor)?;
                let envelope = *envelope;
                Ok(OpRef { actor, envelope })
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
    operations: Vec<Op>,
}

impl Draft {
    pub(super) fn new(actor: Actor) -> Self {
        Self {
            actor,
            operations: Vec::new(),
        }
    }

    /// Adds a write that replaces these operations.
    pub(super) fn put(&mut self, key: RegisterKey, value: Vec<u8>, replaces: Vec<OpRef>) {
        let pred: Vec<OpId> = replaces
            .into_iter()
            .map(|op| OpId(op.envelope, ActorId::from(op.actor.as_slice())))
            .collect();
        self.operations.push(Op {
            action: OpType::Put(ScalarValue::Bytes(value)),
            obj: ObjectId::Root,
            key: Key::Map(key.to_string().into()),
            pred: SortedVec::from(pred),
            insert: false,
        });
    }

    /// The bytes.
    ///
    /// # Errors
    ///
    /// [`Limit::Changes`] when others would refuse it.
    pub(super) fn encode(self) -> Result<Vec<u8>, Limit> {
        let named = self.operations.iter().flat_map(|op| op.pred.iter());
        // The codec has room for numbers of 32 bits.
        let (mut replaced, mut greatest) = (0_usize, 0);
        for OpId(envelope, _) in named {
            replaced += 1;
            greatest = greatest.max(*envelope);
        }
        if self.operations.len() > MAX_CHANGE_OPS
            || replaced > MAX_CHANGE_REPLACED
            || greatest > u64::from(u32::MAX)
        {
            return Err(Limit::Changes);
        }
        let change = Change::from(ExpandedChange {
            operations: self.operations,
            actor_id: ActorId::from(self.actor.as_slice()),
            hash: None,
            seq: 1,
            start_op: NonZeroU64::MIN,
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
        Ok(bytes)
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
