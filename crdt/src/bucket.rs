//! One bucket: an Automerge document that holds the registers of a few hundred entries.
//!
//! Automerge types do not leave this module. A register may hold several values at once (siblings), when
//! writers did not see one another; which of them is shown is decided elsewhere (`rule`). Which
//! buckets are in memory is decided in `bucket/cache`; bytes of strangers are checked in `bucket/change`.

pub(crate) mod cache;
pub(crate) mod change;
pub(crate) mod key;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::legacy::{Key, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::{ActorId, Automerge, Change, ExpandedChange, ObjId, ReadDoc, ScalarValue};

use crate::error::ChangeFault;
use crate::id::{Author, Hash};
use crate::register::Put;
use change::Incoming;
use key::RegisterKey;

/// The operation that wrote a value; named by the change that replaces the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpRef(OpId);

impl OpRef {
    fn names(&self, id: &ObjId) -> bool {
        matches!(id, ObjId::Id(counter, actor, _) if self.0.0 == *counter && self.0.1 == *actor)
    }
}

/// A document in memory.
#[derive(Debug)]
pub(crate) struct Bucket {
    doc: Automerge,
    /// The last change number of each actor here.
    seqs: BTreeMap<ActorId, u64>,
    max_op: u64,
    /// Stored changes that the stored snapshot does not hold yet.
    pub(crate) increments: u64,
    pub(crate) increment_bytes: u64,
}

/// A document or change that Automerge refused, or on which it panicked.
#[derive(Debug)]
pub(crate) struct Unusable;

impl Bucket {
    pub(crate) fn empty() -> Self {
        Self {
            doc: Automerge::new(),
            seqs: BTreeMap::new(),
            max_op: 0,
            increments: 0,
            increment_bytes: 0,
        }
    }

    /// Rebuilds a bucket from a snapshot and the changes since. Damage is an error, never a part.
    pub(crate) fn load(snapshot: Option<&[u8]>, changes: &[Vec<u8>]) -> Result<Self, Unusable> {
        let load = || -> Option<Self> {
            let mut doc = match snapshot {
                Some(bytes) => Automerge::load(bytes).ok()?,
                None => Automerge::new(),
            };
            let parsed: Vec<Change> = changes
                .iter()
                .map(|bytes| Change::from_bytes(bytes.clone()))
                .collect::<Result<_, _>>()
                .ok()?;
            let last = parsed.last().map(Change::hash);
            doc.apply_changes(parsed).ok()?;
            if let Some(last) = last {
                // Automerge queues what it cannot apply; stored changes always have their causes.
                doc.get_change_meta_by_hash(&last)?;
            }
            Some(Self::of(doc))
        };
        let mut bucket = catch_unwind(AssertUnwindSafe(load))
            .ok()
            .flatten()
            .ok_or(Unusable)?;
        bucket.increments = changes.len() as u64;
        bucket.increment_bytes = changes.iter().map(|bytes| bytes.len() as u64).sum();
        Ok(bucket)
    }

    fn of(doc: Automerge) -> Self {
        let mut bucket = Self {
            doc,
            ..Self::empty()
        };
        for meta in bucket.doc.get_changes_meta(&[]) {
            let last = bucket.seqs.entry(meta.actor.into_owned()).or_insert(0);
            *last = (*last).max(meta.seq);
            bucket.max_op = bucket.max_op.max(meta.max_op);
        }
        bucket
    }

    /// All values of a register; empty when it was never written.
    pub(crate) fn values(&self, key: RegisterKey) -> Vec<Vec<u8>> {
        let values = self
            .doc
            .get_all(automerge::ROOT, key.to_string())
            .unwrap_or_default();
        values
            .into_iter()
            .filter_map(|(value, _)| Some(value.as_bytes()?.to_vec()))
            .collect()
    }

    /// Every register that has a value.
    pub(crate) fn keys(&self) -> Vec<RegisterKey> {
        self.doc
            .keys(automerge::ROOT)
            .filter_map(|text| RegisterKey::parse(&text))
            .collect()
    }

    /// Applies a foreign change that passed [`Incoming::check`].
    ///
    /// # Errors
    ///
    /// The bucket must then be dropped: Automerge may have panicked half way.
    pub(crate) fn apply(&mut self, incoming: &Incoming) -> Result<(), ChangeFault> {
        self.take(incoming.change.clone())
            .map_err(|_| ChangeFault::Apply)
    }

    /// Makes this device's change: each put replaces all values of its register. Returns the bytes, to be
    /// stored and sent.
    pub(crate) fn write(&mut self, author: &Author, puts: Vec<Put>) -> Result<Vec<u8>, Unusable> {
        let actor = ActorId::from(author.actor().as_slice());
        let start_op = std::num::NonZeroU64::new(self.max_op + 1).ok_or(Unusable)?;
        let expanded = ExpandedChange {
            operations: puts.into_iter().map(|put| self.operation(put)).collect(),
            seq: self.last_seq(&actor) + 1,
            actor_id: actor,
            hash: None,
            start_op,
            time: 0,
            message: None,
            deps: self.doc.get_heads(),
            extra_bytes: Vec::new(),
            author: None,
        };
        let change =
            catch_unwind(AssertUnwindSafe(|| Change::from(expanded))).map_err(|_| Unusable)?;
        let bytes = change.raw_bytes().to_vec();
        self.take(change)?;
        Ok(bytes)
    }

    /// The same bucket as if these changes, on which nothing that stays builds, had never come.
    pub(crate) fn without(&self, changes: &[Incoming]) -> Result<Self, Unusable> {
        let gone: BTreeSet<_> = changes
            .iter()
            .map(|incoming| incoming.change.hash())
            .collect();
        let stays = self
            .doc
            .get_changes(&[])
            .into_iter()
            .filter(|c| !gone.contains(&c.hash()));
        let stays: Vec<Vec<u8>> = stays.map(|change| change.raw_bytes().to_vec()).collect();
        Self::load(None, &stays)
    }

    /// The bytes from which [`Bucket::load`] rebuilds this state.
    pub(crate) fn save(&self) -> Vec<u8> {
        self.doc.save()
    }

    /// A hash of the state: equal in two replicas exactly if they hold the same changes.
    pub(crate) fn digest(&self) -> Hash {
        let mut heads: Vec<_> = self.doc.get_heads();
        heads.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        for head in heads {
            hasher.update(&head.0);
        }
        Hash::from_bytes(*hasher.finalize().as_bytes())
    }

    fn operation(&self, put: Put) -> Op {
        let text = RegisterKey {
            id: put.id,
            register: put.register,
        }
        .to_string();
        let replaced = self
            .doc
            .get_all(automerge::ROOT, text.as_str())
            .unwrap_or_default();
        let replaced = replaced.into_iter().filter_map(|(_, id)| match id {
            ObjId::Id(counter, actor, _) => Some(OpId(counter, actor)),
            ObjId::Root => None,
        });
        Op {
            action: OpType::Put(ScalarValue::Bytes(put.value)),
            obj: ObjectId::Root,
            key: Key::Map(text.into()),
            pred: SortedVec::from(replaced.collect::<Vec<_>>()),
            insert: false,
        }
    }

    fn last_seq(&self, actor: &ActorId) -> u64 {
        self.seqs.get(actor).copied().unwrap_or(0)
    }

    fn take(&mut self, change: Change) -> Result<(), Unusable> {
        let (actor, seq, max_op) = (change.actor_id().clone(), change.seq(), change.max_op());
        let hash = change.hash();
        // Automerge is not panic free on hostile input. What is unwound past is thrown away by the
        // caller: the bucket is loaded again from what the database holds.
        let applied = catch_unwind(AssertUnwindSafe(|| {
            self.doc.apply_changes([change]).is_ok() && self.doc.get_heads().contains(&hash)
        }));
        if !matches!(applied, Ok(true)) {
            return Err(Unusable);
        }
        self.seqs.insert(actor, seq);
        self.max_op = self.max_op.max(max_op);
        Ok(())
    }
}
