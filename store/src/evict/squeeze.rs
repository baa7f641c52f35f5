//! Compressing what was written raw: once for each pack, when nothing is appended to it any more.
//!
//! Nothing is compressed between a write and its acknowledgement. A sweep looks at packs that are
//! full, in the order of their numbers, and rewrites those that become smaller by it. Packs are never
//! renumbered, so one number in the index remembers which were looked at. A few packs a sweep: whole
//! disks of text take days, and nobody notices.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;

use super::compact::MoveError;
use super::{Swept, Watch};
use crate::codec::{Codec, DISK_LEVEL, compress};
use crate::error::WriteError;
use crate::index::PackId;
use crate::pack::{Found, PACK_HEADER, PackOnDisk, scan};
use crate::store::Store;

/// Packs rewritten in one sweep: 4 GiB, 10 CPU seconds of text.
const MOST_PACKS: u64 = 16;
/// One part in so many of a pack is compressed to see what the whole would gain.
const SAMPLED_PART: u64 = 16;
/// Percentage of a pack that must be gained to rewrite it.
const GAIN_PERCENT: u64 = 15;

/// What compressing a pack would gain, by a sample of it.
#[derive(Debug, Default)]
struct Estimate {
    raw_bytes: u64,
    sampled: u64,
    saved: u64,
}

impl Estimate {
    fn add(&mut self, found: &Found) {
        match found.record.codec {
            Codec::Zstd => return,
            Codec::Raw => self.raw_bytes += u64::from(found.record.stored),
        }
        if self.sampled * SAMPLED_PART < self.raw_bytes {
            let plain = &found.encoded.bytes;
            let packed = compress(plain, DISK_LEVEL).map_or(plain.len(), |packed| packed.len());
            self.sampled += plain.len() as u64;
            self.saved += (plain.len() - packed) as u64;
        }
    }

    /// Whether a pack of this length is worth rewriting.
    fn pays(&self, length: u64) -> bool {
        let gain = self.raw_bytes * (self.saved * 100 / self.sampled.max(1));
        gain > length * GAIN_PERCENT
    }
}

impl Store {
    /// Compresses the packs below `sealed` that were not looked at yet.
    pub(super) fn squeeze(
        &self,
        live_bytes: &HashMap<PackId, u64>,
        sealed: PackId,
        watch: Watch<'_>,
        swept: &mut Swept,
    ) -> Result<(), WriteError> {
        let listed = self.inner.packs.list();
        let mut packs = listed.map_err(|error| WriteError::io(error.path, error.source))?;
        let from = self.inner.index.squeezed_below();
        packs.retain(|pack| pack.id >= from && pack.id < sealed);
        for pack in packs {
            if swept.squeezed_packs == MOST_PACKS {
                break;
            }
            let ControlFlow::Continue(estimate) = self.estimate(&pack, watch)? else {
                break;
            };
            if estimate.pays(pack.length) {
                let live = live_bytes.get(&pack.id).copied().unwrap_or_default();
                let moved = self.move_records(pack.id, watch)?;
                if watch().is_break() {
                    break;
                }
                // What is damaged could not be moved and keeps its pack, for a scrub to report.
                if moved.read >= live {
                    self.remove_moved(&pack, moved, swept)?;
                    swept.squeezed_packs += 1;
                }
            }
            self.inner.index.set_squeezed_below(PackId(pack.id.0 + 1));
        }
        self.commit()
    }

    fn estimate(
        &self,
        pack: &PackOnDisk,
        watch: Watch<'_>,
    ) -> Result<ControlFlow<(), Estimate>, WriteError> {
        let path = self.inner.packs.path(pack.id);
        let failed = |source: io::Error| WriteError::io(&path, source);
        let file = self.inner.packs.file(pack.id).map_err(failed)?;
        let mut estimate = Estimate::default();
        let outcome = scan(&file, PACK_HEADER, |found| {
            if watch().is_break() {
                return Err(MoveError::Ended);
            }
            estimate.add(&found);
            Ok(())
        });
        match outcome {
            Ok(_) => Ok(ControlFlow::Continue(estimate)),
            Err(MoveError::Ended) => Ok(ControlFlow::Break(())),
            // One bad sector must not keep all later packs from being looked at, for ever.
            Err(MoveError::Io(error)) => {
                tracing::warn!(pack = %path.display(), %error, "a part of a pack cannot be read");
                Ok(ControlFlow::Continue(Estimate::default()))
            }
            Err(MoveError::Write(error)) => Err(error),
        }
    }
}
