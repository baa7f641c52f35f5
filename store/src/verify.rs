//! Scrubbing: every copy is read and compared with its id, before somebody needs it.
//!
//! What is damaged is reported and forgotten, so that it counts as absent and is fetched again from
//! another device. A scrub can be broken off and go on later from where it was, also after a
//! restart. A lost index needs no scrub: it is rebuilt when the store is opened.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::PoisonError;

use crate::damage::{Damage, MAX_NAMED};
use crate::error::{ReadError, WriteError};
use crate::id::{ChunkId, Content, ParseIdError};
use crate::index::{Place, place_key};
use crate::reader::{Miss, Use};
use crate::store::Store;

/// What to scrub.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScrubScope {
    /// The packs: our own copies.
    Packs,
    /// The packs, and every file that is referred to.
    Everything,
}

/// How far a scrub has come, to go on from there. Its text is 80 hex digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ScrubPosition([u8; 40]);

impl fmt::Display for ScrubPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl FromStr for ScrubPosition {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(ParseIdError { digits: 80 })
    }
}

/// What a scrub has found so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ScrubReport {
    /// Copies that were read.
    pub checked: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Chunks of which a copy was damaged, in a pack or a file; the first 10,000 of them.
    pub damaged: Vec<ChunkId>,
    /// How many copies in packs were damaged.
    pub damaged_copies: u64,
    /// Files whose bytes have changed although the file system notes no change; the first 10,000.
    pub damaged_files: Vec<PathBuf>,
    /// References that no longer hold: their files have changed.
    pub stale_references: u64,
    /// Copies that could not be read now; they stay.
    pub unreadable: u64,
    /// Where to go on, when it was broken off.
    pub position: Option<ScrubPosition>,
}

impl ScrubReport {
    fn add(&mut self, id: ChunkId, outcome: Result<u64, Miss>) {
        self.checked += 1;
        match outcome {
            Ok(bytes) => self.bytes += bytes,
            Err(Miss::Stale | Miss::Gone) => self.stale_references += 1,
            Err(Miss::Unreachable { .. }) => self.unreadable += 1,
            Err(Miss::Damaged) => {
                self.damaged_copies += 1;
                self.name(id);
            }
            Err(Miss::Rotten { path }) => {
                self.name(id);
                if self.damaged_files.len() < MAX_NAMED && !self.damaged_files.contains(&path) {
                    self.damaged_files.push(path);
                }
            }
        }
    }

    fn name(&mut self, id: ChunkId) {
        if self.damaged.len() < MAX_NAMED && self.damaged.last() != Some(&id) {
            self.damaged.push(id);
        }
    }
}

impl Store {
    /// Reads and verifies all copies in `scope`, from `position` on: 0.2 CPU s/GiB and as fast as
    /// the disk gives.
    ///
    /// `watch` is called after every copy; it may wait, to spare the disk, or break off. Nobody can
    /// sweep meanwhile, so a slow scrub is one that is broken off and gone on with often.
    ///
    /// # Errors
    /// The index could not be read or corrected.
    pub fn scrub(
        &self,
        scope: ScrubScope,
        position: Option<ScrubPosition>,
        watch: &mut dyn FnMut(&ScrubReport) -> ControlFlow<()>,
    ) -> Result<ScrubReport, WriteError> {
        let _alone = self
            .inner
            .upkeep
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.commit()?;
        let snapshot = self.inner.index.read().snapshot();
        let mut report = ScrubReport::default();
        let after = position.as_ref().map(|position| &position.0);
        for row in snapshot.places_after(after)? {
            let (id, node, place) = row?;
            let outcome = match (place, scope) {
                (Place::Pack(place), ScrubScope::Packs | ScrubScope::Everything) => {
                    self.read_pack(&id, place).map(|(_, plain)| plain)
                }
                (Place::File(place), ScrubScope::Everything) => {
                    self.read_reference(&id, place, Use::Once)?
                }
                (Place::File(_), ScrubScope::Packs) => continue,
            };
            report.add(id, outcome.map(|plain| plain.len() as u64));
            if watch(&report).is_break() {
                report.position = Some(ScrubPosition(place_key(id, node)));
                break;
            }
        }
        self.commit()?;
        Ok(report)
    }

    /// Takes what readers found damaged since this was called last. A scrub's own findings are in its report, and
    /// here, too.
    pub fn take_damage(&self) -> Damage {
        self.inner.found.take()
    }

    /// Whether a content consists of one of these chunks or more, as far as its manifest is here.
    ///
    /// # Errors
    /// The manifest is here, but cannot be read.
    pub fn consists_of_any(
        &self,
        content: &Content,
        chunks: &BTreeSet<ChunkId>,
    ) -> Result<bool, ReadError> {
        if content.is_empty() {
            return Ok(false);
        }
        if chunks.contains(&content.id.first_blob()) {
            return Ok(true);
        }
        if content.is_single() {
            return Ok(false);
        }
        let manifest = match self.manifest(content) {
            Err(ReadError::Absent { .. }) => return Ok(false),
            manifest => manifest?,
        };
        for (number, page) in manifest.pages().iter().enumerate() {
            if chunks.contains(&page.id) {
                return Ok(true);
            }
            match self.page(content, &manifest, number) {
                Err(ReadError::Absent { .. }) => {}
                page => {
                    if page?.iter().any(|chunk| chunks.contains(&chunk.id)) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
