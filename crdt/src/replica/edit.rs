//! Local changes: from edits to one signed, stored, durable envelope.

use std::collections::BTreeMap;

use redb::WriteTransaction;

use super::view::View;
use super::{Change, Commit, Entries, Replica, Writer};
use crate::bucket::past::Past;
use crate::bucket::{Buckets, Carrier};
use crate::edit::{self, Edit, Hand};
use crate::entry::EntryChange;
use crate::envelope::{Cause, Draft, Frame};
use crate::error::{Damage, EditError, StorageError};
use crate::id::{Branch, BucketId, DeviceKey, EntryId, Hash, Line, MeshId, Timestamp};
use crate::index;
use crate::limit::MAX_ENVELOPE_DEPS;
use crate::log::fork::Lines;
use crate::log::{self, LogEnd};
use crate::member::{Role, WRITES_FORMAT};
use crate::register::Put;

/// The context in which branches are derived.
const BRANCH: &str = "wormhole 2026 branch of a version";

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
        if writer.members.state().format > WRITES_FORMAT {
            return Err(EditError::NeedsUpdate);
        }
        let (key, mesh) = (&self.inner.key, self.inner.mesh);
        let outcome = self.inner.transact(&mut writer, commit, |txn, writer| {
            let hand = Hand {
                device: key.device_id().tag(),
                branch: writer.branch(edits, now),
            };
            let clock = writer.position.clock;
            let done = edit::perform(txn, &View::open(txn)?, edits, hand, clock)?;
            writer.position.clock = done.lamport.max(clock);
            let written: Vec<EntryId> = done.puts.iter().map(|put| put.id).collect();
            let pen = Pen { key, mesh, now };
            let (seq, deps) = writer.issue(txn, pen, done.puts)?;
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
struct Pen<'a> {
    key: &'a DeviceKey,
    mesh: MeshId,
    now: Timestamp,
}

impl Writer {
    /// What tells the versions of this operation from those of another one with the same numbers, which this
    /// device may have made before it was set back: the log so far, and the operation itself.
    fn branch(&self, edits: &[Edit], now: Timestamp) -> Branch {
        let author = self.position.author;
        let end = self.position.ends.get(&Line::from(author));
        let last = end.map_or([0; 32], |end| *end.hash.as_bytes());
        let said = (author, last, now, edits);
        let said = postcard::to_stdvec(&said).expect("memory takes any value");
        let mut branch = [0; 8];
        let mut hasher = blake3::Hasher::new_derive_key(BRANCH);
        hasher.update(&said).finalize_xof().fill(&mut branch);
        Branch::from_bytes(branch)
    }

    /// Writes registers into their buckets and the envelope that says so into this device's log. Gives its
    /// number, and how many causes it names.
    fn issue(
        &mut self,
        txn: &WriteTransaction,
        pen: Pen<'_>,
        puts: Vec<Put>,
    ) -> Result<(u64, usize), EditError> {
        let author = self.position.author;
        let line = Line::from(author);
        let end = self.position.ends.get(&line).copied();
        let seq = end.map_or(0, |end| end.seq) + 1;
        let mut by_bucket: BTreeMap<BucketId, Vec<Put>> = BTreeMap::new();
        for put in puts {
            by_bucket.entry(put.id.bucket()).or_default().push(put);
        }
        let mut past = log::past(txn, &line)?;
        let causes = self.unseen(&past);
        if !causes.is_empty() {
            past.learn(&self.position.forks.place(txn, &causes)?);
            log::set_past(txn, &line, &past)?;
        }
        let forks = &self.position.forks;
        let mut carrier = Carrier {
            seq,
            mark: Default::default(),
            past: &past,
            writers: &Lines { txn, forks },
        };
        let mut buckets = Buckets::open(txn)?;
        let mut drafts = Vec::with_capacity(by_bucket.len());
        for (bucket, puts) in by_bucket {
            let (bytes, change) = buckets.draft(&author, puts, &carrier)?;
            drafts.push((bucket, bytes, change));
        }
        let named = causes.len();
        let clock = self.position.clock;
        let draft = Draft {
            mesh: pen.mesh,
            author,
            seq,
            prev: end.map_or(Hash::ZERO, |end| end.hash),
            causes,
            members: self.members.cited(&author.device),
            clock,
            at: pen.now,
            changes: drafts
                .iter()
                .map(|(id, bytes, _)| (*id, bytes.as_slice()))
                .collect(),
        };
        let epoch = self.epochs.current();
        let epoch = epoch.ok_or(StorageError::Damaged(Damage::Header("epoch")))?;
        let bytes = draft
            .sign(pen.key, epoch)
            .map_err(|limit| EditError::TooLarge { limit })?;
        let frame = Frame::read(&bytes).map_err(|_| StorageError::Damaged(Damage::Log(author)))?;
        let hash = frame.hash;
        carrier.mark = hash.mark();
        for (bucket, _, change) in &drafts {
            buckets.apply(*bucket, change, &carrier)?;
        }
        drop(buckets);
        self.append(txn, line, LogEnd { seq, hash, clock }, &bytes)?;
        Ok((seq, named))
    }

    /// What came from others since this device last said what it had seen, as much of it as one envelope
    /// may name. What is left for the next one cannot be replaced yet: its values stay beside the new ones.
    fn unseen(&self, past: &Past) -> Vec<Cause> {
        let ends = self.position.ends.iter();
        let mut unseen: Vec<_> = ends
            .filter(|(line, end)| {
                line.author != self.position.author && end.seq > past.seen(&line.actor())
            })
            .collect();
        if unseen.len() > MAX_ENVELOPE_DEPS {
            // The clock of this device must not be further ahead of what it names than others allow.
            unseen.sort_by_key(|(_, end)| std::cmp::Reverse(end.clock));
            unseen.truncate(MAX_ENVELOPE_DEPS);
        }
        let causes = unseen.into_iter().map(|(line, end)| Cause {
            author: line.author,
            seq: end.seq,
            hash: end.hash,
        });
        causes.collect()
    }
}
