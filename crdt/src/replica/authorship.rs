//! Whose versions the values of an envelope may speak of.
//!
//! A value names versions: its own, which its author writes; those that it replaces, removes or hands on,
//! which its author must have seen; and some that it only says once more. A writer could otherwise replace in
//! advance what others are yet to write, or put its own bytes under somebody else's name. What an author had
//! seen are the causes of its envelopes, so every device comes to the same answer.

use std::collections::BTreeMap;

use redb::WriteTransaction;

use crate::bucket::change::{Incoming, IncomingWrite};
use crate::bucket::past::Past;
use crate::entry::Version;
use crate::envelope::Envelope;
use crate::error::{ChangeFault, Damage, StorageError};
use crate::id::{Author, BucketId, DeviceId, DeviceTag, Incarnation, Line};
use crate::log::fork::Forks;
use crate::log::{self, LogEnd};
use crate::register::{
    Attributes, ContentRecord, Packed, Placement, Register, Stamped, ValueError,
};

#[cfg(test)]
mod tests;

/// A life of a device, and how far the author had seen it.
#[derive(Debug, Clone, Copy)]
struct Life {
    line: Line,
    seq: u64,
    clock: u64,
}

/// What the author of one envelope had seen when it wrote it.
pub(super) struct Sight<'a> {
    txn: &'a WriteTransaction,
    ends: &'a BTreeMap<Line, LogEnd>,
    forks: &'a Forks,
    author: Author,
    /// The line that it continues; none when it begins one.
    own: Option<Line>,
    past: Past,
    /// The clock of the envelope itself.
    clock: u64,
    lives: BTreeMap<DeviceTag, Vec<Life>>,
}

/// A value speaks of what its author cannot have seen, or not so.
enum Wrong {
    Fault(ChangeFault),
    Storage(StorageError),
}

impl From<StorageError> for Wrong {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<ValueError> for Wrong {
    fn from(_: ValueError) -> Self {
        Self::Fault(ChangeFault::Value)
    }
}

impl<'a> Sight<'a> {
    /// The logs are those that are here; all causes of the envelope are. `past` is what its author had seen when it
    /// wrote it.
    pub(super) fn of(
        txn: &'a WriteTransaction,
        (ends, forks): (&'a BTreeMap<Line, LogEnd>, &'a Forks),
        own: Option<Line>,
        past: Past,
        envelope: &Envelope<'_>,
    ) -> Self {
        Self {
            txn,
            ends,
            forks,
            author: envelope.frame.author,
            own,
            past,
            clock: envelope.head.clock,
            lives: BTreeMap::new(),
        }
    }

    /// Holds every value of a change against what its author had seen. The outer error is ours.
    pub(super) fn check(
        &mut self,
        bucket: BucketId,
        change: &Incoming,
    ) -> Result<Result<(), ChangeFault>, StorageError> {
        for write in &change.writes {
            match self.check_write(bucket, write) {
                Ok(()) => {}
                Err(Wrong::Fault(fault)) => return Ok(Err(fault)),
                Err(Wrong::Storage(error)) => return Err(error),
            }
        }
        Ok(Ok(()))
    }

    fn check_write(&mut self, bucket: BucketId, write: &IncomingWrite) -> Result<(), Wrong> {
        match write.key.register {
            Register::Placement => {
                let Placement {
                    moved,
                    written,
                    seen,
                    had,
                    ..
                } = Placement::decode(&write.value)?;
                self.is_own(written)?;
                self.was_seen([moved].iter().chain(&seen).chain(&had))
            }
            Register::Attributes => {
                let Attributes {
                    written,
                    mode,
                    mtime,
                    ..
                } = Attributes::decode(&write.value)?;
                self.is_own(written)?;
                let mode = mode.map(|Stamped { written, .. }| written);
                let mtime = mtime.map(|Stamped { written, .. }| written);
                self.was_seen(mode.iter().chain(&mtime))
            }
            Register::Content => {
                let record = ContentRecord::decode(&write.value)?;
                self.was_seen(record.base.iter().chain(&record.copied))?;
                match self.is_own(record.version) {
                    Err(Wrong::Fault(_)) => self.restates(bucket, &record),
                    own => own,
                }
            }
        }
    }

    /// A version that the author gives to what it writes.
    fn is_own(&self, version: Version) -> Result<(), Wrong> {
        if version.device == self.author.device.tag() && version.lamport <= self.clock {
            return Ok(());
        }
        Err(Wrong::Fault(ChangeFault::Authorship))
    }

    fn was_seen<'v>(&mut self, versions: impl Iterator<Item = &'v Version>) -> Result<(), Wrong> {
        for version in versions {
            if self.is_own(*version).is_ok() {
                continue;
            }
            let lives = self.lives(version.device)?;
            if !lives.iter().any(|life| version.lamport <= life.clock) {
                return Err(Wrong::Fault(ChangeFault::Unseen));
            }
        }
        Ok(())
    }

    /// Whether a content of somebody else's version is what that one wrote.
    fn restates(&mut self, bucket: BucketId, record: &ContentRecord) -> Result<(), Wrong> {
        for life in self.lives(record.version.device)? {
            if let Some(original) = self.original(life, bucket, record.version)? {
                let same = original.body == record.body
                    && original.fence == record.fence
                    && original.extensions == record.extensions;
                return if same {
                    Ok(())
                } else {
                    Err(Wrong::Fault(ChangeFault::Authorship))
                };
            }
        }
        Err(Wrong::Fault(ChangeFault::Authorship))
    }

    /// The content as its author wrote it, if it is in this life's log as far as that was seen. Clocks in a log
    /// only grow, and a version lies between that of its envelope and the one before.
    fn original(
        &self,
        life: Life,
        bucket: BucketId,
        version: Version,
    ) -> Result<Option<ContentRecord>, StorageError> {
        let damaged = || StorageError::Damaged(Damage::Log(life.line.author));
        let (mut first, mut last) = (1, life.seq);
        while first < last {
            let middle = first + (last - first) / 2;
            let link = self.forks.link(self.txn, life.line, middle)?;
            let link = link.ok_or_else(damaged)?;
            if link.clock < version.lamport {
                first = middle + 1;
            } else {
                last = middle;
            }
        }
        let line = self.forks.holder(life.line, first);
        let bytes = log::stored(self.txn, line, first)?.ok_or_else(damaged)?;
        let envelope = Envelope::decode_trusted(&bytes).map_err(|_| damaged())?;
        for (_, change) in envelope.changes.iter().filter(|(id, _)| *id == bucket) {
            let change = Incoming::parse(bucket, change, &line.author, first);
            let change = change.map_err(|_| damaged())?;
            let contents = change
                .writes
                .iter()
                .filter(|write| write.key.register == Register::Content);
            for write in contents {
                let record = ContentRecord::decode(&write.value).map_err(|_| damaged())?;
                if record.version == version {
                    return Ok(Some(record));
                }
            }
        }
        Ok(None)
    }

    /// What the author had seen of a device.
    fn lives(&mut self, tag: DeviceTag) -> Result<Vec<Life>, StorageError> {
        if let Some(lives) = self.lives.get(&tag) {
            return Ok(lives.clone());
        }
        let bound = |rest: u8, incarnation: u64| {
            let mut id = [rest; 32];
            if let Some(first) = id.first_chunk_mut::<8>() {
                *first = *tag.as_bytes();
            }
            let author = Author {
                device: DeviceId::from_bytes(id),
                incarnation: Incarnation(incarnation),
            };
            Line {
                author,
                branch: incarnation,
            }
        };
        let mut lives = Vec::new();
        for (line, end) in self.ends.range(bound(0, 0)..=bound(0xff, u64::MAX)) {
            let seq = match Some(*line) == self.own {
                true => end.seq,
                false => self.past.seen(&line.actor()).min(end.seq),
            };
            if seq == 0 {
                continue;
            }
            let link = self.forks.link(self.txn, *line, seq)?;
            let link = link.ok_or(StorageError::Damaged(Damage::Log(line.author)))?;
            lives.push(Life {
                line: *line,
                seq,
                clock: link.clock,
            });
        }
        self.lives.insert(tag, lives.clone());
        Ok(lives)
    }
}
