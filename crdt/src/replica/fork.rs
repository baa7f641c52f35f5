//! Two histories of this device under one name, and how it gets out of that.
//!
//! A device that was restored from a backup, and wrote before it met anybody who knew more of it, has
//! numbered other envelopes like those that it lost. The others hold the lost ones, so those keep the
//! numbers. What was written since the backup is said anew under a new incarnation, with new stamps, as if
//! the other history had been somebody else's: the values that are in the registers, and nothing more.
//!
//! Where the histories part is found by the session, which asks for older and older envelopes of this
//! device until one follows on one that is here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use rand::Rng;
use redb::WriteTransaction;

use super::edit::Pen;
use super::retract::Fate;
use super::view::View;
use super::{Change, Commit, Entries, Replica, Writer, header, leap, renew};
use crate::bucket::change::Incoming;
use crate::bucket::key::RegisterKey;
use crate::bucket::{Buckets, OpRef, Replaces};
use crate::entry::{EntryChange, Version};
use crate::envelope::Envelope;
use crate::error::{Damage, EditError, StorageError};
use crate::id::{Author, DeviceTag, EntryId, Hash};
use crate::index;
use crate::log;
use crate::member::Role;
use crate::register::{
    Attributes, ContentRecord, Packed, Placement, Put, Register, RegisterError, ValueError,
};

/// Bytes of values in one envelope that says something anew.
const BATCH_BYTES: usize = 128 << 10;

/// Values in one such envelope.
const BATCH_PUTS: usize = 512;

/// Envelopes of this device that others have and it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fork {
    pub(crate) author: Author,
    /// The number of one that is not the one here.
    pub(crate) at: u64,
    pub(crate) hash: Hash,
    /// Whether it follows on one that is here: the histories part between the two.
    pub(crate) first: bool,
}

/// What became of a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// This device gave way: its numbers are those that others know.
    Given,
    /// Not yet: registers cannot be derived anew while envelopes are missing below a snapshot.
    Later,
    /// It may not write any more, or has gone on under another life: two peers with different histories of
    /// an earlier one must not make it go back and forth.
    Barred,
}

/// Stamps of the history that is given up, which may be in the other one, too.
struct Shift {
    tag: DeviceTag,
    after: u64,
    by: u64,
}

impl Shift {
    fn of(&self, version: &mut Version) {
        if version.device == self.tag && version.lamport > self.after {
            version.lamport = version.lamport.saturating_add(self.by);
        }
    }

    fn all(&self, versions: &mut [Version]) {
        for version in versions {
            self.of(version);
        }
    }

    fn value(&self, register: Register, value: &[u8]) -> Result<Vec<u8>, ValueError> {
        Ok(match register {
            Register::Placement => {
                let mut placement = Placement::decode(value)?;
                self.of(&mut placement.moved);
                self.of(&mut placement.written);
                self.all(&mut placement.seen);
                self.all(&mut placement.had);
                placement.encode()
            }
            Register::Content => {
                let mut record = ContentRecord::decode(value)?;
                self.of(&mut record.version);
                self.all(&mut record.base);
                self.all(&mut record.copied);
                record.encode()
            }
            Register::Attributes => {
                let mut attributes = Attributes::decode(value)?;
                self.of(&mut attributes.written);
                if let Some(mode) = &mut attributes.mode {
                    self.of(&mut mode.written);
                }
                if let Some(mtime) = &mut attributes.mtime {
                    self.of(&mut mtime.written);
                }
                attributes.encode()
            }
        })
    }
}

impl Replica {
    /// The hash of an envelope that is here.
    pub(crate) fn envelope_hash(
        &self,
        author: &Author,
        seq: u64,
    ) -> Result<Option<Hash>, StorageError> {
        log::hash_at(&self.read()?, author, seq)
    }

    /// Notes that somebody has another history of one of this device's lives, and that it cannot give way yet.
    /// What it writes meanwhile goes on with that life, so that it will be said anew, too.
    pub(crate) fn postpone(&self, author: Author) -> Result<(), StorageError> {
        self.inner.forked.store(true, Ordering::Release);
        let mut writer = self.inner.writer()?;
        let position = &writer.position;
        let current = position.author;
        let fresh = !position.ends.contains_key(&current);
        let gap = position.gap.as_ref();
        let whole = gap.is_none_or(|gap| !gap.holes.contains_key(&author));
        if current == author || current.device != author.device || !fresh || !whole {
            return Ok(());
        }
        self.inner
            .transact(&mut writer, Commit::Durable, |txn, writer| {
                header::set_incarnation(txn, author.incarnation)?;
                writer.position.author = author;
                Ok(())
            })
    }

    /// Whether what this device wrote must not be spread, because it will be said anew.
    pub(crate) fn is_forked(&self) -> bool {
        self.inner.forked.load(Ordering::Acquire) && self.shared().gap().is_some()
    }

    /// Gives up this device's envelopes after number `common` of one of its lives, and says anew what they
    /// said.
    pub(crate) fn give_way(
        &self,
        author: Author,
        common: u64,
        rng: &mut dyn Rng,
    ) -> Result<Way, StorageError> {
        let mut writer = self.inner.writer()?;
        let role = writer.members.state().role_of(&self.device());
        let current = writer.position.author;
        let may = role.is_some_and(Role::can_write)
            && author.device == current.device
            && (author == current || !writer.position.ends.contains_key(&current));
        if !may {
            return Ok(Way::Barred);
        }
        if writer.position.gap.is_some() {
            return Ok(Way::Later);
        }
        let (key, mesh) = (&self.inner.key, self.inner.mesh);
        let outcome = self
            .inner
            .transact(&mut writer, Commit::Durable, |txn, writer| {
                let now = writer.position.ends.get(&author).copied();
                let bytes = match now {
                    Some(end) => log::stored(txn, author, end.seq)?,
                    None => None,
                };
                let damaged = || StorageError::Damaged(Damage::Log(author));
                let last = bytes.ok_or_else(damaged)?;
                let now = Envelope::decode_trusted(&last)
                    .map_err(|_| damaged())?
                    .head
                    .at;
                writer.say_anew(txn, Pen { key, mesh, now }, author, common, rng)
            });
        let changes = match outcome {
            Ok(changes) => changes,
            Err(EditError::Storage(error)) => return Err(error),
            // They have been in envelopes before, so they fit.
            Err(
                EditError::Tree(_)
                | EditError::NotWriter { .. }
                | EditError::NeedsUpdate
                | EditError::TooLarge { .. },
            ) => {
                return Err(StorageError::Damaged(Damage::Log(author)));
            }
        };
        self.inner.observers.push(Change {
            entries: Entries::Listed(changes),
            local: false,
            members: false,
        });
        drop(writer);
        self.inner.observers.deliver();
        Ok(Way::Given)
    }
}

impl Writer {
    fn say_anew(
        &mut self,
        txn: &WriteTransaction,
        pen: Pen<'_>,
        author: Author,
        common: u64,
        rng: &mut dyn Rng,
    ) -> Result<Vec<EntryChange>, EditError> {
        let after = match log::stored(txn, author, common)? {
            Some(bytes) => body_clock(&bytes, author)?,
            None => 0,
        };
        let GivenUp {
            touched,
            before,
            came_back,
        } = self.give_up(txn, author, common)?;
        let clock = self.position.clock;
        if author == self.position.author {
            renew(txn, self, rng)?;
        } else {
            leap(self, rng);
        }
        let shift = Shift {
            tag: author.device.tag(),
            after,
            by: self.position.clock - clock,
        };
        // Stamps move up to that far, too.
        self.position.clock += shift.by;
        let actor = author.actor();
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (key, ops) in &before {
            for (_, _, value) in ops
                .iter()
                .filter(|(op, envelope, _)| op.actor == actor && *envelope > common)
            {
                let value = shift.value(key.register, value).map_err(|source| {
                    StorageError::from(index::IndexError::from(RegisterError::Value {
                        id: key.id,
                        source,
                    }))
                })?;
                bytes += value.len();
                batch.push(Put {
                    id: key.id,
                    register: key.register,
                    value,
                });
            }
            if bytes >= BATCH_BYTES || batch.len() >= BATCH_PUTS {
                self.issue(
                    txn,
                    pen,
                    std::mem::take(&mut batch),
                    &news(&before, &came_back),
                )?;
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            self.issue(txn, pen, batch, &news(&before, &came_back))?;
        }
        Ok(index::apply(txn, &View::open(txn)?, &touched)?)
    }

    /// Ends the log of one of this device's lives.
    fn give_up(
        &mut self,
        txn: &WriteTransaction,
        author: Author,
        common: u64,
    ) -> Result<GivenUp, StorageError> {
        let end = self.position.ends.get(&author).map_or(0, |end| end.seq);
        let mut keys = BTreeSet::new();
        for seq in common + 1..=end {
            keys.extend(written(txn, author, seq)?);
        }
        // Their causes are in the other history. Whoever gives that gives them again.
        let others = built_on(txn, author, common)?;
        let mut touched = self.take_back(txn, &others, Fate::Forget)?;
        let before = operations(txn, &keys)?;
        let given_up = BTreeMap::from([(author, common)]);
        touched.extend(self.take_back(txn, &given_up, Fate::Forget)?);
        Ok(GivenUp {
            touched,
            before,
            came_back: operations(txn, &keys)?,
        })
    }
}

/// What it means that the end of a log is given up.
struct GivenUp {
    /// The entries that were written to.
    touched: Vec<EntryId>,
    /// What the registers held.
    before: Operations,
    /// What they hold now.
    came_back: Operations,
}

type Operations = BTreeMap<RegisterKey, Vec<(OpRef, u64, Vec<u8>)>>;

/// What came back because it was taken back what replaced it.
fn news(before: &Operations, after: &Operations) -> Replaces {
    let mut came = BTreeSet::new();
    for (key, ops) in after {
        let known = before.get(key);
        for (op, _, _) in ops {
            if !known.is_some_and(|known| known.iter().any(|(old, _, _)| old == op)) {
                came.insert((*key, *op));
            }
        }
    }
    Replaces::Only(came)
}

fn operations(
    txn: &WriteTransaction,
    keys: &BTreeSet<RegisterKey>,
) -> Result<Operations, StorageError> {
    let buckets = Buckets::open(txn)?;
    keys.iter()
        .map(|key| Ok((*key, buckets.operations(*key)?)))
        .collect()
}

/// Where the logs of others have to end so that nothing in them builds on what came after that number.
fn built_on(
    txn: &WriteTransaction,
    author: Author,
    common: u64,
) -> Result<BTreeMap<Author, u64>, StorageError> {
    let mut limits = BTreeMap::from([(author, common)]);
    log::visit(txn, |other, bytes| {
        if other == author || limits.contains_key(&other) {
            return Ok(());
        }
        let damaged = |_| StorageError::Damaged(Damage::Log(other));
        let envelope = Envelope::decode_trusted(bytes).map_err(damaged)?;
        let beyond = |(cause, seq): &(Author, u64)| limits.get(cause).is_some_and(|end| seq > end);
        if envelope.deps().iter().any(beyond) {
            limits.insert(other, envelope.frame.seq - 1);
        }
        Ok(())
    })?;
    limits.remove(&author);
    Ok(limits)
}

/// The registers that an envelope in the log writes.
fn written(
    txn: &WriteTransaction,
    author: Author,
    seq: u64,
) -> Result<Vec<RegisterKey>, StorageError> {
    let damaged = || StorageError::Damaged(Damage::Log(author));
    let bytes = log::stored(txn, author, seq)?.ok_or_else(damaged)?;
    let envelope = Envelope::decode_trusted(&bytes).map_err(|_| damaged())?;
    let mut keys = Vec::new();
    for (bucket, change) in &envelope.changes {
        let change = Incoming::parse(*bucket, change, &author).map_err(|_| damaged())?;
        keys.extend(change.writes.iter().map(|write| write.key));
    }
    Ok(keys)
}

fn body_clock(bytes: &[u8], author: Author) -> Result<u64, StorageError> {
    let envelope = Envelope::decode_trusted(bytes);
    let envelope = envelope.map_err(|_| StorageError::Damaged(Damage::Log(author)))?;
    Ok(envelope.head.clock)
}
