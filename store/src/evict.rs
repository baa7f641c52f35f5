//! Making room: what no live content needs goes, and packs that are mostly garbage are rewritten.
//!
//! A sweep marks from the contents that the caller names, then drops rows, then compacts. A pack
//! copy may go when no live content has the chunk, or when a referenced file that looks unchanged
//! has it too; never the only copy of something live. What was put since the sweep before this one
//! began stays in any case: its content may not have been named yet. That is the generation guard;
//! imports under way extend it for as long as they take.

mod compact;
mod squeeze;
mod survey;

use std::ops::ControlFlow;
use std::sync::PoisonError;

use crate::error::{ReadError, WriteError};
use crate::id::{ChunkId, Content};
use crate::index::{NodeId, PackId};
use crate::store::Store;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Swept {
    /// Chunks that no live content needs, dropped from packs.
    pub dropped_chunks: u64,
    /// Live chunks whose pack copy was dropped because a file holds them too.
    pub released_chunks: u64,
    /// Rows of references into files that are gone or were imported anew.
    pub dropped_references: u64,
    /// Packs that were rewritten or were empty, and are gone.
    pub removed_packs: u64,
    /// Of those, packs that were rewritten only to compress what is in them.
    pub squeezed_packs: u64,
    /// Bytes that the packs shrank by.
    pub freed_bytes: u64,
}

/// Asked again and again during a sweep whether to go on.
type Watch<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;

/// What a sweep may touch.
#[derive(Clone, Copy, Debug)]
struct Horizon {
    /// Pack copies of generations below.
    generation: u32,
    /// References of nodes below.
    node: NodeId,
    /// Packs below.
    pack: PackId,
}

impl Store {
    /// Drops what none of the `live` contents needs and gives its space back; then compresses packs
    /// that are full and have never been looked at for that, a few at a time.
    ///
    /// Chunks put after the previous sweep began are kept, so garbage goes at the second sweep
    /// after it became garbage. Contents whose manifest is not here protect only what is known of
    /// them. Takes about 2 µs for each chunk, and the copying of what is live in packs with over
    /// 30 % garbage; reads and writes go on meanwhile. Uses 8 bytes of RAM a live chunk.
    ///
    /// `watch` is called all the time, at least once for every chunk that is copied, and can end the
    /// sweep early; the next one does what this one did not.
    ///
    /// # Errors
    /// A manifest could not be read or rows not be written; what is live is untouched then.
    pub fn sweep(
        &self,
        live: &mut dyn Iterator<Item = Content>,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Swept, WriteError> {
        self.check_writable()?;
        let _alone = self
            .inner
            .upkeep
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let horizon = self.begin_sweep();
        let mut swept = Swept::default();
        let ControlFlow::Continue(marks) = self.mark(live, watch)? else {
            return Ok(swept);
        };
        self.commit()?;
        let dropped = survey::drop_rows(self, &marks, &horizon, watch, &mut swept)?;
        let ControlFlow::Continue(live_bytes) = dropped else {
            return Ok(swept);
        };
        survey::drop_orphans(self, watch)?;
        self.commit()?;
        self.compact(&live_bytes, horizon.pack, watch, &mut swept)?;
        self.squeeze(&live_bytes, horizon.pack, watch, &mut swept)?;
        Ok(swept)
    }

    fn begin_sweep(&self) -> Horizon {
        let index = &self.inner.index;
        let before = index.next_generation() - 1;
        let (in_flight, node) = self.inner.in_flight.oldest(index);
        let pack = self.inner.packs.appender().sealed_below();
        Horizon {
            generation: before.min(in_flight),
            node,
            pack,
        }
    }

    /// Collects the ids of everything the live contents consist of.
    fn mark(
        &self,
        live: &mut dyn Iterator<Item = Content>,
        watch: Watch<'_>,
    ) -> Result<ControlFlow<(), Marks>, WriteError> {
        let mut marks = Marks::default();
        for content in live.filter(|content| !content.is_empty()) {
            if watch().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            marks.add(&content.id.first_blob());
            if content.is_single() {
                continue;
            }
            let Some(manifest) = known(self.manifest(&content))? else {
                continue;
            };
            for (number, page) in manifest.pages().iter().enumerate() {
                marks.add(&page.id);
                let chunks = known(self.page(&content, &manifest, number))?;
                chunks
                    .into_iter()
                    .flatten()
                    .for_each(|chunk| marks.add(&chunk.id));
            }
        }
        marks.seal();
        Ok(ControlFlow::Continue(marks))
    }
}

/// The ids that live contents consist of, by their first 8 bytes: two ids that share them only
/// keep some garbage, and keyed ids cannot be chosen to do so.
#[derive(Debug, Default)]
struct Marks(Vec<u64>);

impl Marks {
    fn add(&mut self, id: &ChunkId) {
        self.0.push(prefix(id));
    }

    fn seal(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
    }

    fn contains(&self, id: &ChunkId) -> bool {
        self.0.binary_search(&prefix(id)).is_ok()
    }
}

fn prefix(id: &ChunkId) -> u64 {
    id.as_bytes()
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A part of a manifest that is not here, or not valid, protects nothing; one that cannot be read
/// just now stops the sweep.
fn known<T>(read: Result<T, ReadError>) -> Result<Option<T>, WriteError> {
    match read {
        Ok(part) => Ok(Some(part)),
        Err(
            ReadError::Absent { .. }
            | ReadError::Stale { .. }
            | ReadError::Damaged { .. }
            | ReadError::Manifest { .. },
        ) => Ok(None),
        Err(error @ (ReadError::Io { .. } | ReadError::Index(_))) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
