//! Many files at once, on every core.
//!
//! For trees of small files, where opening costs more than hashing. One large file is not split
//! into parts: `segment` reads and hashes it at the same time.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Imported;
use crate::error::ImportError;
use crate::reference::FilePath;
use crate::store::Store;

/// Files that one thread takes at a time; more would leave cores idle at the end.
const BATCH: usize = 16;

impl Store {
    /// Imports files as [`import_reference`](Self::import_reference) does, on all cores. The
    /// results are in the order of `files`. Blocks until all are done.
    pub fn import_many(&self, files: &[FilePath]) -> Vec<Result<Imported, ImportError>> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = cores.min(files.len().div_ceil(BATCH));
        if threads <= 1 {
            return files
                .iter()
                .map(|file| self.import_reference(file))
                .collect();
        }
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::with_capacity(files.len().div_ceil(BATCH)));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let batch = next.fetch_add(1, Ordering::Relaxed);
                        let Some(files) = files.chunks(BATCH).nth(batch) else {
                            break;
                        };
                        let results: Vec<_> = files
                            .iter()
                            .map(|file| self.import_reference(file))
                            .collect();
                        done.lock()
                            .expect("no thread panics with it")
                            .push((batch, results));
                    }
                });
            }
        });
        let mut done = done.into_inner().expect("the scope has propagated panics");
        done.sort_unstable_by_key(|(batch, _)| *batch);
        done.into_iter().flat_map(|(_, results)| results).collect()
    }
}
