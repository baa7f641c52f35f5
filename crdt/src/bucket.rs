//! The registers of all entries, as they rest in the database: the current values and nothing else.
//!
//! Each register is one row with its siblings, the values written by authors that had not seen one
//! another; which of them is shown is decided elsewhere (`rule`). A change travels as an Automerge change
//! (`bucket/change`), but no document and no history is kept: what a later change replaces is gone at
//! once, so a file that was written 100,000 times costs what one written once costs. A bucket is
//! the part of the id space that one change may write to; it remembers how far each author has
//! numbered its operations there.
//!
//! What a value is replaced by depends only on the set of changes, never on the order in which they
//! came: a change replaces those siblings that it names *and* that its author had seen
//! ([`past::Past`]), and whatever its author wrote there before, named or not: so a register never holds
//! more values than there are authors. Naming what the author cannot have seen has no effect, in any
//! order. So equal sets of changes give equal rows, byte by byte (`bucket/row`).

pub(crate) mod alive;
pub(crate) mod change;
mod column;
#[cfg(test)]
pub(crate) mod desk;
pub(crate) mod key;
#[cfg(test)]
mod oracle;
pub(crate) mod past;
pub(crate) mod row;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::error::{ChangeFault, Damage, EditError, StorageError};
use crate::id::{Author, BucketId, EntryId, Hash};
use crate::register::{Put, Register};
use change::{Draft, Incoming};
use key::RegisterKey;
use past::Past;
pub(crate) use row::OpRef;
use row::{Last, Sibling, State};

/// Which values the writes of a change replace.
#[derive(Debug)]
pub(crate) enum Replaces {
    /// All that the author has seen.
    Seen,
    /// Those of them that these operations wrote.
    Only(BTreeSet<(RegisterKey, OpRef)>),
}

impl Replaces {
    fn holds(&self, key: RegisterKey, op: OpRef) -> bool {
        match self {
            Self::Seen => true,
            Self::Only(named) => named.contains(&(key, op)),
        }
    }
}

/// An author's name in changes: [`Author::actor`].
pub(crate) type Actor = [u8; 16];

/// [`RegisterKey::to_bytes`] → [`row::pack`].
const REGISTERS: TableDefinition<'_, &[u8; 17], &[u8]> = TableDefinition::new("register");
/// bucket → [`row::Parts`].
const STATES: TableDefinition<'_, u16, row::Parts<'_>> = TableDefinition::new("bucket");

/// Creates the tables, so that readers need not care whether they exist.
pub(crate) fn create(txn: &WriteTransaction) -> Result<(), StorageError> {
    Buckets::open(txn)?;
    Ok(())
}

/// A hash of all registers: equal in two replicas exactly if they hold the same values, each by the same write.
pub(crate) fn digest(txn: &ReadTransaction) -> Result<Hash, StorageError> {
    let mut hasher = blake3::Hasher::new();
    for row in txn.open_table(STATES)?.iter()? {
        let (bucket, state) = row?;
        hasher.update(&bucket.value().to_be_bytes());
        hasher.update(state.value().0);
    }
    Ok(Hash::from_bytes(*hasher.finalize().as_bytes()))
}

/// The bytes of a bucket's registers.
pub(crate) fn fill(txn: &ReadTransaction, bucket: BucketId) -> Result<u64, StorageError> {
    let state = txn.open_table(STATES)?.get(bucket.number())?;
    Ok(state.map_or(0, |state| state.value().1))
}

/// The registers in one open transaction. At most one may be open at a time.
pub(crate) struct Buckets<'t> {
    registers: Table<'t, &'static [u8; 17], &'static [u8]>,
    states: Table<'t, u16, row::Parts<'static>>,
}

impl<'t> Buckets<'t> {
    pub(crate) fn open(txn: &'t WriteTransaction) -> Result<Self, StorageError> {
        Ok(Self {
            registers: txn.open_table(REGISTERS)?,
            states: txn.open_table(STATES)?,
        })
    }

    /// All values of a register; none when it was never written.
    pub(crate) fn values(&self, key: RegisterKey) -> Result<Vec<Vec<u8>>, StorageError> {
        let Some(row) = self.registers.get(&key.to_bytes())? else {
            return Ok(Vec::new());
        };
        let siblings = row::unpack(row.value()).ok_or_else(|| damaged(key.id.bucket()))?;
        Ok(siblings.iter().map(|one| one.value.to_vec()).collect())
    }

    /// Every entry that has a placement, in ascending order.
    pub(crate) fn placed(&self) -> Result<Vec<EntryId>, StorageError> {
        let mut ids = Vec::new();
        for row in self.registers.iter()? {
            let key = RegisterKey::from_bytes(row?.0.value());
            ids.extend(
                key.filter(|key| key.register == Register::Placement)
                    .map(|key| key.id),
            );
        }
        Ok(ids)
    }

    /// Whether a foreign change is its author's next one for the bucket. The outer error is ours.
    ///
    /// The answer depends on nothing but the author's earlier changes, so every replica gives the same.
    pub(crate) fn check(
        &self,
        bucket: BucketId,
        incoming: &Incoming,
    ) -> Result<Result<(), ChangeFault>, StorageError> {
        Ok(incoming.follows(self.state(bucket)?.last(&incoming.actor)))
    }

    /// Applies a foreign change that passed [`Buckets::check`] and came in the author's envelope of that
    /// number. `past` is what the author had seen when it wrote it.
    pub(crate) fn apply(
        &mut self,
        bucket: BucketId,
        incoming: &Incoming,
        envelope: u64,
        past: &Past,
    ) -> Result<(), StorageError> {
        let mut state = self.state(bucket)?;
        for (counter, write) in (incoming.start_op..).zip(&incoming.writes) {
            let op = OpRef {
                actor: incoming.actor,
                counter,
            };
            let new = Sibling {
                op,
                envelope,
                value: &write.value,
            };
            let replaced = |old: &Sibling<'_>| {
                old.op.actor == incoming.actor
                    || (write.replaces.contains(&old.op) && past.holds(&old.op.actor, old.envelope))
            };
            self.put(&mut state, write.key, replaced, new)?;
        }
        state.set_last(incoming.actor, incoming.last());
        self.store(bucket, &state)
    }

    /// Every operation that wrote a value which is there, with the number of its envelope and the value.
    pub(crate) fn operations(
        &self,
        key: RegisterKey,
    ) -> Result<Vec<(OpRef, u64, Vec<u8>)>, StorageError> {
        let Some(row) = self.registers.get(&key.to_bytes())? else {
            return Ok(Vec::new());
        };
        let siblings = row::unpack(row.value()).ok_or_else(|| damaged(key.id.bucket()))?;
        let all = siblings.iter();
        Ok(all
            .map(|one| (one.op, one.envelope, one.value.to_vec()))
            .collect())
    }

    /// Makes this device's change, for its envelope of that number: each put replaces those values of its register
    /// that `replaces` says, among those that the author will have said it had seen. Returns the bytes, to be
    /// sent.
    pub(crate) fn write(
        &mut self,
        bucket: BucketId,
        author: &Author,
        envelope: u64,
        past: &Past,
        puts: &[Put],
        replaces: &Replaces,
    ) -> Result<Vec<u8>, EditError> {
        let actor = author.actor();
        let mut state = self.state(bucket)?;
        let mut draft = Draft::new(actor, state.last(&actor));
        for put in puts {
            let key = RegisterKey {
                id: put.id,
                register: put.register,
            };
            let op = OpRef {
                actor,
                counter: draft.next_op(),
            };
            let new = Sibling {
                op,
                envelope,
                value: &put.value,
            };
            let mut named = Vec::new();
            let replaced = |old: &Sibling<'_>| {
                let replaced =
                    past.holds(&old.op.actor, old.envelope) && replaces.holds(key, old.op);
                if replaced {
                    named.push(old.op);
                }
                replaced
            };
            self.put(&mut state, key, replaced, new)?;
            draft.put(key, put.value.clone(), named);
        }
        let (bytes, last) = draft
            .encode()
            .map_err(|limit| EditError::TooLarge { limit })?;
        state.set_last(actor, last);
        self.store(bucket, &state)?;
        Ok(bytes)
    }

    /// Puts those values of a change that are still shown, with `true` in `alive`, beside what is there. The
    /// author's numbers do not move.
    ///
    /// Gives `false` when a register shows another value of the same author already: nobody's program lets its
    /// own value stand beside a later one.
    pub(crate) fn install(
        &mut self,
        bucket: BucketId,
        incoming: &Incoming,
        envelope: u64,
        alive: impl Iterator<Item = bool>,
    ) -> Result<bool, StorageError> {
        let mut state = self.state(bucket)?;
        let mut alone = true;
        let writes = (incoming.start_op..).zip(&incoming.writes).zip(alive);
        for ((counter, write), _) in writes.filter(|(_, alive)| *alive) {
            let op = OpRef {
                actor: incoming.actor,
                counter,
            };
            let new = Sibling {
                op,
                envelope,
                value: &write.value,
            };
            let replaced = |old: &Sibling<'_>| {
                alone &= old.op.actor != op.actor;
                false
            };
            self.put(&mut state, write.key, replaced, new)?;
        }
        self.store(bucket, &state)?;
        Ok(alone)
    }

    /// Sets how far an author has numbered its changes and operations in a bucket.
    pub(crate) fn set_last(
        &mut self,
        bucket: BucketId,
        actor: Actor,
        last: Last,
    ) -> Result<(), StorageError> {
        let mut state = self.state(bucket)?;
        state.set_last(actor, last);
        self.store(bucket, &state)
    }

    /// Empties all buckets.
    pub(crate) fn clear_all(&mut self) -> Result<(), StorageError> {
        self.registers.retain(|_, _| false)?;
        self.states.retain(|_, _| false)?;
        Ok(())
    }

    /// The numbers of these actors in all buckets.
    pub(crate) fn lasts(
        &self,
        actors: &[Actor],
    ) -> Result<Vec<(BucketId, Actor, Last)>, StorageError> {
        let mut found = Vec::new();
        for row in self.states.iter()? {
            let (number, parts) = row?;
            let Some(bucket) = BucketId::new(number.value()) else {
                continue;
            };
            let state = State::from_parts(parts.value()).ok_or_else(|| damaged(bucket))?;
            let known = actors
                .iter()
                .map(|actor| (bucket, *actor, state.last(actor)));
            found.extend(known.filter(|(_, _, last)| last.seq > 0));
        }
        Ok(found)
    }

    /// Empties a bucket, as if nothing had ever been written to it.
    pub(crate) fn clear(&mut self, bucket: BucketId) -> Result<(), StorageError> {
        let (first, last) = RegisterKey::range(bucket);
        self.registers
            .retain_in::<&[u8; 17], _>(&first..=&last, |_, _| false)?;
        self.states.remove(bucket.number())?;
        Ok(())
    }

    /// Adds a value to a register and drops those that it replaces.
    fn put(
        &mut self,
        state: &mut State,
        key: RegisterKey,
        mut replaced: impl FnMut(&Sibling<'_>) -> bool,
        new: Sibling<'_>,
    ) -> Result<(), StorageError> {
        let at = key.to_bytes();
        let packed = {
            let old = self.registers.get(&at)?;
            let mut siblings = match &old {
                Some(old) => {
                    state.remove(&at, old.value());
                    row::unpack(old.value()).ok_or_else(|| damaged(key.id.bucket()))?
                }
                None => Vec::new(),
            };
            siblings.retain(|sibling| !replaced(sibling));
            siblings.push(new);
            row::pack(&mut siblings)
        };
        state.add(&at, &packed);
        self.registers.insert(&at, packed.as_slice())?;
        Ok(())
    }

    fn state(&self, bucket: BucketId) -> Result<State, StorageError> {
        match self.states.get(bucket.number())? {
            None => Ok(State::default()),
            Some(row) => State::from_parts(row.value()).ok_or_else(|| damaged(bucket)),
        }
    }

    fn store(&mut self, bucket: BucketId, state: &State) -> Result<(), StorageError> {
        let actors = state.packed_actors();
        let parts = (state.sum(), state.bytes(), actors.as_slice());
        self.states.insert(bucket.number(), parts)?;
        Ok(())
    }
}

fn damaged(bucket: BucketId) -> StorageError {
    StorageError::Damaged(Damage::Bucket(bucket))
}
