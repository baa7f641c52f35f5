//! Rewriting packs that are mostly garbage.
//!
//! What is live is copied to the pack that is being appended to, compressed where that pays; when
//! the new rows are durable the old pack is unlinked. Nothing is changed in place, so a crash at
//! any point leaves one whole copy at least. A record that turns out damaged is left where it is,
//! and its pack with it, for a scrub to report.

use std::collections::HashMap;
use std::io;

use super::{Swept, Watch};
use crate::codec::{Codec, DISK_LEVEL, compress};
use crate::error::{IndexError, WriteError};
use crate::index::{NodeId, PackId, PackPlace, Place};
use crate::pack::{Found, HEADER_BYTES, PACK_HEADER, PackOnDisk, scan};
use crate::store::Store;

/// Percentage of garbage above which a pack is rewritten. Lower copies more often than it frees.
const GARBAGE_PERCENT: u64 = 30;
/// The last pack is ended early only above this fraction of the usual size.
const SMALL_PART: u64 = 8;

impl Store {
    /// Rewrites or removes the sealed packs (below `sealed`) that hold too much garbage.
    pub(super) fn compact(
        &self,
        live_bytes: &HashMap<PackId, u64>,
        sealed: PackId,
        watch: Watch<'_>,
        swept: &mut Swept,
    ) -> Result<(), WriteError> {
        let listed = self.inner.packs.list();
        let mut packs = listed.map_err(|error| WriteError::io(error.path, error.source))?;
        let mostly_garbage = |pack: &PackOnDisk, live: u64| {
            let garbage = pack.length.saturating_sub(live + PACK_HEADER);
            live == 0 || garbage * 100 > pack.length * GARBAGE_PERCENT
        };
        // The last pack is still appended to; it is ended here and rewritten by the next sweep.
        if let Some(last) = packs.iter().find(|pack| pack.id == sealed) {
            let live = live_bytes.get(&last.id).copied().unwrap_or_default();
            let worth_it = last.length * SMALL_PART > self.inner.options.pack_bytes;
            if worth_it && mostly_garbage(last, live) {
                self.inner.packs.appender().seal(last.id);
            }
        }
        packs.retain(|pack| pack.id < sealed);
        // The emptiest first: what they free is room for copying the others.
        packs.sort_by_key(|pack| live_bytes.get(&pack.id).copied().unwrap_or_default());
        for pack in packs {
            let live = live_bytes.get(&pack.id).copied().unwrap_or_default();
            if !mostly_garbage(&pack, live) {
                continue;
            }
            let moved = match live {
                0 => Moved::default(),
                _ => self.move_records(pack.id, watch)?,
            };
            if watch().is_break() {
                break;
            }
            if moved.read < live {
                tracing::warn!(pack = %self.inner.packs.path(pack.id).display(), "pack is damaged");
                continue;
            }
            self.remove_moved(&pack, moved, swept)?;
        }
        Ok(())
    }

    /// Unlinks a pack after everything live in it was moved.
    pub(super) fn remove_moved(
        &self,
        pack: &PackOnDisk,
        moved: Moved,
        swept: &mut Swept,
    ) -> Result<(), WriteError> {
        self.inner.index.update().set_pack(pack.id, None);
        self.commit()?;
        self.inner.packs.remove(pack.id)?;
        swept.removed_packs += 1;
        swept.freed_bytes += pack.length.saturating_sub(moved.written);
        Ok(())
    }

    /// Copies every record of a pack that is live to the pack that is appended to.
    pub(super) fn move_records(&self, pack: PackId, watch: Watch<'_>) -> Result<Moved, WriteError> {
        let mut moved = Moved::default();
        let path = self.inner.packs.path(pack);
        let file = self
            .inner
            .packs
            .file(pack)
            .map_err(|source| WriteError::io(&path, source))?;
        let outcome = scan(&file, PACK_HEADER, |found| {
            if watch().is_break() {
                return Err(MoveError::Ended);
            }
            self.move_record(pack, &found, &mut moved)
        });
        match outcome {
            Ok(_) | Err(MoveError::Ended) => Ok(moved),
            // As one that is damaged: what could not be moved keeps its pack, and the others have their turn.
            Err(MoveError::Io(error)) => {
                tracing::warn!(pack = %path.display(), %error, "a part of a pack cannot be read");
                Ok(moved)
            }
            Err(MoveError::Write(error)) => Err(error),
        }
    }

    fn move_record(&self, pack: PackId, found: &Found, moved: &mut Moved) -> Result<(), MoveError> {
        let id = found.record.id;
        let is_here =
            |place: &PackPlace| place.pack == pack && u64::from(place.offset) == found.offset;
        if !self
            .inner
            .index
            .read()
            .pack_place(&id)?
            .as_ref()
            .is_some_and(is_here)
        {
            return Ok(());
        }
        let Ok(plain) = self.decode(id, &found.encoded) else {
            return Ok(());
        };
        let packed = match found.record.codec {
            Codec::Raw => compress(&plain, DISK_LEVEL),
            Codec::Zstd => None,
        };
        let (codec, payload) = match &packed {
            Some(packed) => (Codec::Zstd, packed.as_slice()),
            None => (found.record.codec, found.encoded.bytes.as_ref()),
        };
        let mut appender = self.inner.packs.appender();
        let Some(old) = self.inner.index.read().pack_place(&id)?.filter(is_here) else {
            return Ok(()); // dropped meanwhile
        };
        let place = appender.append(id, codec, found.record.len, payload, old.generation)?;
        self.count_appended(place.stored);
        self.inner
            .index
            .update()
            .set_place(id, NodeId::NONE, Some(Place::Pack(place)));
        drop(appender);
        moved.read += HEADER_BYTES + u64::from(found.record.stored);
        moved.written += HEADER_BYTES + u64::from(place.stored);
        Ok(self.commit_if_large()?)
    }
}

/// How much of a pack was copied: bytes as they were, and as they are now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) read: u64,
    written: u64,
}

/// Why copying stopped; the path belongs to the second.
pub(super) enum MoveError {
    /// Whoever watches has had enough.
    Ended,
    Io(io::Error),
    Write(WriteError),
}

impl From<io::Error> for MoveError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<WriteError> for MoveError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<IndexError> for MoveError {
    fn from(error: IndexError) -> Self {
        Self::Write(error.into())
    }
}
