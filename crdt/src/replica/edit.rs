//! Local changes: from edits to one signed, stored, durable envelope.

use std::collections::BTreeMap;

use redb::WriteTransaction;

use super::view::View;
use super::{Change, Commit, Entries, Replica, Writer};
use crate::bucket::past::Past;
use crate::bucket::{Buckets, Replaces};
use crate::edit::{self, Edit};
use crate::entry::EntryChange;
use crate::envelope::{self, Draft};
use crate::error::EditError;
use crate::id::{Author, BucketId, DeviceKey, EntryId, Hash, MeshId, Timestamp};
use crate::index;
use crate::limit::MAX_ENVELOPE_DEPS;
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
            let written: Vec<EntryId> = done.puts.iter().map(|put| put.id).collect();
            let pen = Pen { key, mesh, now };
            let (seq, deps) = writer.issue(txn, pen, done.puts, &Replaces::Seen)?;
            let mut changes = done.changes;
            if deps == MAX_ENVELOPE_DEPS {
                // Values of others that could not be named are still there: the tree was not told.
                changes.extend(index::apply(txn, &View::open(txn)?, &written)?);
            }
            Ok::<_, EditError>(EditOutcome { changes, seq })
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

/// What an envelope is signed with and says of itself.
#[derive(Clone, Copy)]
pub(super) struct Pen<'a> {
    pub(super) key: &'a DeviceKey,
    pub(super) mesh: MeshId,
    pub(super) now: Timestamp,
}

impl Writer {
    /// Writes registers into their buckets and the envelope that says so into this device's log. Gives its
    /// number, and how many causes it names.
    pub(super) fn issue(
        &mut self,
        txn: &WriteTransaction,
        pen: Pen<'_>,
        puts: Vec<Put>,
        replaces: &Replaces,
    ) -> Result<(u64, usize), EditError> {
        let author = self.position.author;
        let end = self.position.ends.get(&author).copied();
        let seq = end.map_or(0, |end| end.seq) + 1;
        let mut by_bucket: BTreeMap<BucketId, Vec<Put>> = BTreeMap::new();
        for put in puts {
            by_bucket.entry(put.id.bucket()).or_default().push(put);
        }
        let mut past = log::past(txn, &author)?;
        let deps = self.unseen(&past);
        if !deps.is_empty() {
            past.learn(&deps);
            log::set_past(txn, &author, &past)?;
        }
        let mut changes = Vec::with_capacity(by_bucket.len());
        let mut buckets = Buckets::open(txn)?;
        for (bucket, puts) in by_bucket {
            changes.push((
                bucket,
                buckets.write(bucket, &author, seq, &past, &puts, replaces)?,
            ));
        }
        drop(buckets);
        let named = deps.len();
        let draft = Draft {
            mesh: pen.mesh,
            author,
            seq,
            prev: end.map_or(Hash::from_bytes([0; 32]), |end| end.hash),
            deps,
            members: self.members.heads(),
            clock: self.position.clock,
            at: pen.now,
            changes: changes
                .iter()
                .map(|(id, bytes)| (*id, bytes.as_slice()))
                .collect(),
        };
        let bytes = draft
            .sign(pen.key)
            .map_err(|limit| EditError::TooLarge { limit })?;
        self.append(txn, author, seq, envelope::hash(&bytes), &bytes)?;
        Ok((seq, named))
    }

    /// What came from others since this device last said what it had seen, as much of it as one envelope
    /// may name. What is left for the next one cannot be replaced yet: its values stay beside the new ones.
    fn unseen(&self, past: &Past) -> Vec<(Author, u64)> {
        let ends = self.position.ends.iter();
        ends.filter(|(author, end)| {
            **author != self.position.author && end.seq > past.seen(&author.actor())
        })
        .map(|(author, end)| (*author, end.seq))
        .take(MAX_ENVELOPE_DEPS)
        .collect()
    }
}
