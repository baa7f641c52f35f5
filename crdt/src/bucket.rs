//! The registers of all entries, as they rest in the database: the current values and nothing else.
//!
//! Each register is one row with its siblings, the values written by authors that had not seen one
//! another; which of them is shown is decided elsewhere (`rule`). A change travels as an Automerge change
//! (`bucket/change`), but no document and no history is kept: what a later change replaces is gone at
//! once, so a file that was written 100,000 times costs what one written once costs. A bucket is
//! the part of the id space that one change may write to.
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

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::error::{Damage, EditError, StorageError};
use crate::id::{Author, BucketId, EntryId, Hash};
use crate::register::{Put, Register};
use change::{Draft, Incoming, IncomingWrite};
use key::RegisterKey;
use past::Past;
use row::{Mark, OpRef, Sibling, State};

/// Tells which of the lines that its author's log may have a write is on.
pub(crate) trait Writers {
    /// What pasts call that line.
    fn writer_of(&self, op: &OpRef, mark: &Mark) -> Result<Actor, StorageError>;
}

/// The envelope that a change is in, as far as registers need to know it.
pub(crate) struct Carrier<'a> {
    /// Its number in the log of its author.
    pub(crate) seq: u64,
    pub(crate) mark: Mark,
    /// What the author had seen when it wrote it.
    pub(crate) past: &'a Past,
    pub(crate) writers: &'a dyn Writers,
}

impl Carrier<'_> {
    /// Whether the author had seen what that value is.
    fn saw(&self, old: &Sibling<'_>) -> Result<bool, StorageError> {
        let writer = self.writers.writer_of(&old.op, &old.mark)?;
        Ok(self.past.holds(&writer, old.op.envelope))
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

    /// Applies a change that came in an envelope.
    pub(crate) fn apply(
        &mut self,
        bucket: BucketId,
        incoming: &Incoming,
        carrier: &Carrier<'_>,
    ) -> Result<(), StorageError> {
        let mut state = self.state(bucket)?;
        for write in &incoming.writes {
            let new = Sibling {
                op: OpRef {
                    actor: incoming.actor,
                    envelope: carrier.seq,
                },
                mark: carrier.mark,
                value: &write.value,
            };
            let replaced = |old: &Sibling<'_>| {
                if old.op.actor != incoming.actor && !write.replaces.contains(&old.op) {
                    return Ok(false);
                }
                carrier.saw(old)
            };
            self.put(&mut state, write.key, replaced, new)?;
        }
        state.count(incoming.writes.len());
        self.store(bucket, &state)
    }

    /// Makes this device's change, for its next envelope: each put replaces those values of its register that the
    /// author will have said it had seen. Returns the bytes, to be sent, and the change, to be applied when the
    /// envelope has its name: the registers are not touched.
    pub(crate) fn draft(
        &self,
        author: &Author,
        puts: Vec<Put>,
        carrier: &Carrier<'_>,
    ) -> Result<(Vec<u8>, Incoming), EditError> {
        let mut draft = Draft::new(author.actor());
        let mut writes = Vec::with_capacity(puts.len());
        for put in puts {
            let key = RegisterKey {
                id: put.id,
                register: put.register,
            };
            let mut named = Vec::new();
            let row = self.registers.get(&key.to_bytes());
            if let Some(row) = row.map_err(StorageError::from)? {
                let siblings = row::unpack(row.value()).ok_or_else(|| damaged(key.id.bucket()))?;
                for old in siblings {
                    if carrier.saw(&old)? {
                        named.push(old.op);
                    }
                }
            }
            named.sort_unstable();
            named.dedup();
            draft.put(key, put.value.clone(), named.clone());
            writes.push(IncomingWrite {
                key,
                value: put.value,
                replaces: named,
            });
        }
        let bytes = draft.encode();
        let bytes = bytes.map_err(|limit| EditError::TooLarge { limit })?;
        let actor = author.actor();
        // Nobody asks for the clock of what was not sent by somebody else.
        let clock = 0;
        let own = Incoming {
            actor,
            writes,
            clock,
        };
        Ok((bytes, own))
    }

    /// Puts those values of a change that are still shown, with `true` in `alive`, beside what is there.
    ///
    /// Gives `false` when a register shows another value of the same author already: nobody's program lets its
    /// own value stand beside a later one.
    pub(crate) fn install(
        &mut self,
        bucket: BucketId,
        incoming: &Incoming,
        (envelope, mark): (u64, Mark),
        alive: impl Iterator<Item = bool>,
    ) -> Result<bool, StorageError> {
        let mut state = self.state(bucket)?;
        let mut alone = true;
        let writes = incoming.writes.iter().zip(alive);
        for (write, _) in writes.filter(|(_, alive)| *alive) {
            let new = Sibling {
                op: OpRef {
                    actor: incoming.actor,
                    envelope,
                },
                mark,
                value: &write.value,
            };
            let replaced = |old: &Sibling<'_>| {
                alone &= old.op.actor != incoming.actor;
                Ok::<_, StorageError>(false)
            };
            self.put(&mut state, write.key, replaced, new)?;
        }
        state.count(incoming.writes.len());
        self.store(bucket, &state)?;
        Ok(alone)
    }

    /// Counts a change that replaced nothing which is still shown, and of which nothing is.
    pub(crate) fn count(&mut self, bucket: BucketId, values: usize) -> Result<(), StorageError> {
        let mut state = self.state(bucket)?;
        state.count(values);
        self.store(bucket, &state)
    }

    /// Empties all buckets.
    pub(crate) fn clear_all(&mut self) -> Result<(), StorageError> {
        self.registers.retain(|_, _| false)?;
        self.states.retain(|_, _| false)?;
        Ok(())
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
        mut replaced: impl FnMut(&Sibling<'_>) -> Result<bool, StorageError>,
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
            let mut left = Vec::with_capacity(siblings.len() + 1);
            for sibling in siblings.drain(..) {
                if !replaced(&sibling)? {
                    left.push(sibling);
                }
            }
            left.push(new);
            row::pack(&mut left)
        };
        state.add(&at, &packed);
        self.registers.insert(&at, packed.as_slice())?;
        Ok(())
    }

    fn state(&self, bucket: BucketId) -> Result<State, StorageError> {
        let row = self.states.get(bucket.number())?;
        Ok(row.map_or_else(State::default, |row| State::from_parts(row.value())))
    }

    fn store(&mut self, bucket: BucketId, state: &State) -> Result<(), StorageError> {
        self.states.insert(bucket.number(), state.parts())?;
        Ok(())
    }
}

fn damaged(bucket: BucketId) -> StorageError {
    StorageError::Damaged(Damage::Bucket(bucket))
}
