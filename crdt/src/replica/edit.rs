//! Local changes: from edits to one signed, stored, durable envelope.

use std::collections::BTreeMap;

use redb::{Durability, WriteTransaction};

use super::{Change, Entries, Replica, Writer};
use crate::edit::{self, Edit};
use crate::entry::EntryChange;
use crate::envelope::{self, Draft};
use crate::error::{Damage, EditError, Limit, StorageError};
use crate::id::{BucketId, DeviceKey, Hash, MeshId, Timestamp};
use crate::limit::{MAX_CHANGE_BYTES, MAX_CHANGE_OPS};
use crate::member::Role;
use crate::register::Put;

/// What a batch of edits did.
#[derive(Debug, Clone)]
pub struct EditOutcome {
    /// What the tree shows differently.
    pub changes: Vec<EntryChange>,
    /// The number of the envelope in this device's log.
    pub seq: u64,
}

impl Replica {
    /// Makes a batch of edits: all or none, here and on every other device. Durable on return.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing has then changed.
    pub fn edit(&self, edits: &[Edit], now: Timestamp) -> Result<EditOutcome, EditError> {
        self.edit_with(edits, now, Durability::Immediate)
    }

    /// Like [`Replica::edit`], but survives a crash, and is sent to others, only after the next
    /// [`Replica::flush`] or `edit`. For imports of many batches, which then share one fsync.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing has then changed.
    pub fn edit_deferred(&self, edits: &[Edit], now: Timestamp) -> Result<EditOutcome, EditError> {
        self.edit_with(edits, now, Durability::None)
    }

    fn edit_with(
        &self,
        edits: &[Edit],
        now: Timestamp,
        durability: Durability,
    ) -> Result<EditOutcome, EditError> {
        let mut writer = self.inner.writer()?;
        let role = writer.members.state().role_of(&self.device());
        if !role.is_some_and(Role::can_write) {
            return Err(EditError::NotWriter { role });
        }
        let (key, mesh) = (&self.inner.key, self.inner.mesh);
        let outcome = self
            .inner
            .transact(&mut writer, durability, |txn, writer| {
                let tag = key.device_id().tag();
                let clock = writer.position.clock;
                let done = edit::perform(txn, &writer.registers(txn), edits, tag, clock)?;
                writer.position.clock = done.lamport.max(clock);
                let seq = writer.issue(txn, key, mesh, now, done.puts)?;
                Ok::<_, EditError>(EditOutcome {
                    changes: done.changes,
                    seq,
                })
            })?;
        let entries = Entries::Listed(outcome.changes.clone());
        self.inner.observers.push(Change {
            entries,
            local: true,
            members: false,
        });
        drop(writer);
        self.inner.observers.deliver();
        Ok(outcome)
    }
}

impl Writer {
    /// Writes registers into their buckets and the envelope that says so into this device's log.
    pub(super) fn issue(
        &mut self,
        txn: &WriteTransaction,
        key: &DeviceKey,
        mesh: MeshId,
        now: Timestamp,
        puts: Vec<Put>,
    ) -> Result<u64, EditError> {
        let author = self.position.author;
        let arrival = self.position.next_arrival;
        let mut by_bucket: BTreeMap<BucketId, Vec<Put>> = BTreeMap::new();
        for put in puts {
            by_bucket.entry(put.id.bucket()).or_default().push(put);
        }
        let mut changes = Vec::with_capacity(by_bucket.len());
        for (id, puts) in by_bucket {
            if puts.len() > MAX_CHANGE_OPS {
                return Err(EditError::TooLarge {
                    limit: Limit::Changes,
                });
            }
            self.buckets.touch(id);
            let bucket = self.buckets.get(txn, id)?;
            let change = bucket
                .write(&author, puts)
                .map_err(|_| StorageError::Damaged(Damage::Bucket(id)))?;
            if change.len() > MAX_CHANGE_BYTES {
                return Err(EditError::TooLarge {
                    limit: Limit::Changes,
                });
            }
            self.buckets.store(txn, id, arrival, &change)?;
            changes.push((id, change));
        }
        let end = self.position.ends.get(&author).copied();
        let seq = end.map_or(0, |end| end.seq) + 1;
        let draft = Draft {
            mesh,
            author,
            seq,
            prev: end.map_or(Hash::from_bytes([0; 32]), |end| end.hash),
            deps: self.uncited(),
            members: self.members.heads(),
            clock: self.position.clock,
            at: now,
            changes: changes
                .iter()
                .map(|(id, bytes)| (*id, bytes.as_slice()))
                .collect(),
        };
        let deps = draft.deps.clone();
        let bytes = draft
            .sign(key)
            .map_err(|limit| EditError::TooLarge { limit })?;
        for (author, seq) in deps {
            self.position.cited.advance(author, seq);
        }
        self.append(txn, author, seq, envelope::hash(&bytes), &bytes)?;
        Ok(seq)
    }

    /// What came from others since this device last said what it had seen.
    fn uncited(&self) -> Vec<(crate::id::Author, u64)> {
        let ends = self.position.ends.iter();
        ends.filter(|(author, end)| {
            **author != self.position.author && end.seq > self.position.cited.get(author)
        })
        .map(|(author, end)| (*author, end.seq))
        .collect()
    }
}
