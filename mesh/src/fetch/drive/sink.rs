//! The blocking part of a fetch: looking what a job lacks, and verifying and writing what came.

use wormhole_store::{Encoded, FetchJob, Lack, Store, WriteError};

use crate::fetch::plan::{ItemId, JobId, Target};

/// What a job needs.
pub(super) enum Surveyed {
    /// Blobs of its manifest are missing.
    NeedsManifest,
    /// These slots, or the next part (neither: it is complete).
    Lacks(Lack),
    /// It cannot be fetched.
    Failed(WriteError),
}

/// What was looked at, and what was left for another time.
pub(super) type Survey = (Vec<(JobId, Surveyed)>, Vec<JobId>);

/// Slots after which a survey ends: a few of the largest jobs, or thousands of small ones.
const ENOUGH_SLOTS: usize = 4 * Lack::MAX_SLOTS;

/// Looks what each job lacks, from a part on, until there is enough to do; the others are given back.
pub(super) fn survey(store: &Store, jobs: &[FetchJob], batch: Vec<(JobId, u64)>) -> Survey {
    let look = |id: JobId, part: u64| {
        let job = jobs.get(id.0)?;
        let surveyed = match store.missing_manifest(&job.content) {
            Ok(blobs) if !blobs.is_empty() => Surveyed::NeedsManifest,
            Ok(_) => match job.sink.prepare(&job.content, part) {
                Ok(lack) => Surveyed::Lacks(lack),
                Err(error) => Surveyed::Failed(error),
            },
            Err(error) => Surveyed::Failed(WriteError::Read(Box::new(error))),
        };
        Some((id, surveyed))
    };
    let (mut surveyed, mut slots) = (Vec::with_capacity(batch.len()), 0);
    let mut batch = batch.into_iter();
    for (id, part) in batch.by_ref() {
        let Some((id, found)) = look(id, part) else {
            continue;
        };
        if let Surveyed::Lacks(lack) = &found {
            slots += lack.slots.len();
        }
        surveyed.push((id, found));
        if slots >= ENOUGH_SLOTS {
            break;
        }
    }
    (surveyed, batch.map(|(id, _)| id).collect())
}

/// What became of an item's bytes.
pub(super) enum Wrote {
    /// They are in every sink: bytes for each job.
    All(Vec<(JobId, u64)>),
    /// Sinks of these jobs failed; those of others have them.
    Failed(Vec<(JobId, WriteError)>),
    /// They are not the chunk that was asked for.
    NotThatChunk,
}

/// Verifies what came, and puts it into its places.
pub(super) fn write(
    store: &Store,
    jobs: &[FetchJob],
    work: Vec<(ItemId, Encoded, Vec<Target>)>,
) -> Vec<(ItemId, Wrote)> {
    let write = |(item, encoded, targets): (ItemId, Encoded, Vec<Target>)| {
        let Some(first) = targets.first() else {
            return (item, Wrote::All(Vec::new()));
        };
        let Ok(plain) = store.decode(first.slot.chunk.id, &encoded) else {
            return (item, Wrote::NotThatChunk);
        };
        let (mut put, mut failed) = (Vec::with_capacity(targets.len()), Vec::new());
        for Target { job, slot } in targets {
            let Some(to) = jobs.get(job.0) else { continue };
            match to.sink.put(slot, &plain) {
                Ok(()) => put.push((job, plain.len() as u64)),
                Err(error) => failed.push((job, error)),
            }
        }
        (
            item,
            if failed.is_empty() {
                Wrote::All(put)
            } else {
                Wrote::Failed(failed)
            },
        )
    };
    work.into_iter().map(write).collect()
}
