//! One author's change to one bucket: checking a foreign one, before Automerge sees it.
//!
//! A change is data from a stranger until [`Incoming::parse`] and [`Incoming::check`] have passed. The first
//! looks at the bytes alone, the second at the bucket that they are for. Automerge itself
//! accepts far more than is safe: it does not compare a change's checksum, inflates compressed
//! changes without a bound, and takes operation numbers after which every later write panics.

use std::collections::BTreeSet;
use std::panic::catch_unwind;

use automerge::legacy::{Key, ObjectId, OpType};
use automerge::{Change, ReadDoc, ScalarValue};

use super::key::RegisterKey;
use super::{Bucket, OpRef};
use crate::error::ChangeFault;
use crate::id::{Author, BucketId};
use crate::limit::{MAX_CHANGE_BYTES, MAX_CHANGE_OPS};
use crate::register;

/// The chunk type of an uncompressed change (Automerge binary format, "chunk types").
const CHANGE_CHUNK: u8 = 1;
const CHUNK_MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// A foreign change that is well formed and writes nothing but registers of its bucket.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) change: Change,
    pub(crate) writes: Vec<IncomingWrite>,
    /// The greatest stamp in the values.
    pub(crate) clock: u64,
}

/// One register that a foreign change writes.
#[derive(Debug)]
pub(crate) struct IncomingWrite {
    pub(crate) key: RegisterKey,
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
        if change.actor_id().to_bytes() != author.actor() {
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
        // `decode` panics on actions that it does not know.
        let expanded = catch_unwind(|| change.decode()).map_err(|_| ChangeFault::OpKind)?;
        let mut seen = BTreeSet::new();
        let mut clock = 0;
        let mut writes = Vec::with_capacity(expanded.operations.len());
        for op in &expanded.operations {
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
            match &op.action {
                OpType::Put(ScalarValue::Bytes(value)) => {
                    let stamp = register::check(&key.id, key.register, value)
                        .map_err(|_| ChangeFault::Value)?;
                    clock = clock.max(stamp);
                }
                OpType::Delete
                | OpType::Put(_)
                | OpType::Make(_)
                | OpType::Increment(_)
                | OpType::MarkBegin(_)
                | OpType::MarkEnd(_) => return Err(ChangeFault::OpKind),
            }
            if !seen.insert(key) {
                return Err(ChangeFault::Repeated);
            }
            let replaces = op.pred.iter().map(|op| OpRef(op.clone())).collect();
            writes.push(IncomingWrite { key, replaces });
        }
        Ok(Self {
            change,
            writes,
            clock,
        })
    }

    /// Checks that the change is the honest next one of its author for this bucket.
    ///
    /// All answers depend only on the change's own past, so every replica gives the same.
    pub(crate) fn check(&self, bucket: &Bucket) -> Result<(), ChangeFault> {
        let change = &self.change;
        if change.seq() != bucket.last_seq(change.actor_id()) + 1 {
            return Err(ChangeFault::Sequence);
        }
        let mut last_op = 0;
        for dep in change.deps() {
            let meta = bucket
                .doc
                .get_change_meta_by_hash(dep)
                .ok_or(ChangeFault::UnknownDep)?;
            last_op = last_op.max(meta.max_op);
        }
        if change.start_op().get() != last_op + 1 {
            return Err(ChangeFault::StartOp);
        }
        for write in self
            .writes
            .iter()
            .filter(|write| !write.replaces.is_empty())
        {
            let visible = bucket
                .doc
                .get_all_at(automerge::ROOT, write.key.to_string(), change.deps())
                .map_err(|_| ChangeFault::Predecessor)?;
            let known = |op: &OpRef| visible.iter().any(|(_, id)| op.names(id));
            if !write.replaces.iter().all(known) {
                return Err(ChangeFault::Predecessor);
            }
        }
        Ok(())
    }
}

/// Decodes an uncompressed change chunk whose checksum is right and that has nothing behind it.
fn decode(bytes: &[u8]) -> Result<Change, ChangeFault> {
    if bytes.len() > MAX_CHANGE_BYTES {
        return Err(ChangeFault::TooLarge);
    }
    let Some((&[m0, m1, m2, m3, c0, c1, c2, c3, kind], _)) = bytes.split_first_chunk::<9>() else {
        return Err(ChangeFault::Malformed);
    };
    if [m0, m1, m2, m3] != CHUNK_MAGIC {
        return Err(ChangeFault::Malformed);
    }
    if kind != CHANGE_CHUNK {
        return Err(ChangeFault::Compressed);
    }
    let change = catch_unwind(|| Change::from_bytes(bytes.to_vec()))
        .map_err(|_| ChangeFault::Malformed)?
        .map_err(|_| ChangeFault::Malformed)?;
    if change.hash().0.first_chunk::<4>() != Some(&[c0, c1, c2, c3]) || change.raw_bytes() != bytes
    {
        return Err(ChangeFault::Malformed);
    }
    Ok(change)
}
