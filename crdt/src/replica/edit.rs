//! Local changes: from edits to one signed, stored, durable envelope.

use std::collections::BTreeMap;

use redb::WriteTransaction;

use super::view::View;
use super::{Change, Commit, Entries, Replica, Writer};
use crate::bucket::Buckets;
use crate::bucket::past::Past;
use crate::edit::{self, Edit};
use crate::entry::EntryChange;
use crate::envelope::{self, Draft};
use crate::error::EditError;
use crate::id::{Author, BucketId, DeviceKey, Hash, MeshId, Timestamp};
use crate::log;
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
        self.edit_with(edits, now, Commit::Durable)
    }

    /// Like [`Replica::edit`], but survives a crash, and is sent to others, only after the next
    /// [`Replica::flush`] or `edit`. For imports of many batches, which then share one fsync.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing has then changed.
    pub fn edit_deferred(&self, edits: &[Edit], now: Timestamp) -> Result<EditOutcome, EditError> {
        self.edit_with(edits, now, Commit::Deferred)
    }

    fn edit_with(
        &self,
        edits: &[Edit],
        now: Timestamp,
        commit: Commit,
    ) -> Result<EditOutcome, EditError> {
        let mut writer = self.inner.writer()?;
        let role = writer.members.state().role_of(&self.device());
        if !role.is_some_and(Role::can_write) {
            return Err(EditError::NotWriter { role });
        }
        let (key, mesh) = (&self.inner.key, self.inner.mesh);
        let outcome = self.inner.transact(&mut writer, commit, |txn, writer| {
            let tag = key.device_id().tag();
            let clock = writer.position.clock;
            let done = edit::perform(txn, &View::open(txn)?, edits, tag, clock)?;
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
        let end = self.position.ends.get(&author).copied();
        let seq = end.map_or(0, |end| end.seq) + 1;
        let mut by_bucket: BTreeMap<BucketId, Vec<Put>> = BTreeMap::new();
        for put in puts {
            by_bucket.entry(put.id.bucket()).or_default().push(put);
        }
        let mut changes = Vec::with_capacity(by_bucket.len());
        let mut buckets = Buckets::open(txn)?;
        for (bucket, puts) in by_bucket {
            changes.push((bucket, buckets.write(bucket, &author, seq, &puts)?));
        }
        let mut past = log::past(txn, &author)?;
        let deps = self.unseen(&past);
        if !deps.is_empty() {
            past.learn(&deps);
            log::set_past(txn, &author, &past)?;
        }
        let draft = Draft {
            mesh,
            author,
            seq,
            prev: end.map_or(Hash::from_bytes([0; 32]), |end| end.hash),
            deps,
            members: self.members.heads(),
            clock: self.position.clock,
            at: now,
            changes: changes
                .iter()
                .map(|(id, bytes)| (*id, bytes.as_slice()))
                .collect(),
        };
        let bytes = draft
            .sign(key)
            .map_err(|limit| EditError::TooLarge { limit })?;
        self.append(txn, author, seq, envelope::hash(&bytes), &bytes)?;
        Ok(seq)
    }

    /// What came from others since this device last said what it had seen.
    fn unseen(&self, past: &Past) -> Vec<(Author, u64)> {
        let ends = self.position.ends.iter();
        ends.filter(|(author, end)| {
            **author != self.position.author && end.seq > past.seen(&author.actor())
        })
        .map(|(author, end)| (*author, end.seq))
        .collect()
    }
}
