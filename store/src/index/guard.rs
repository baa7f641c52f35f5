//! Keeps a damaged database from taking the process with it.
//!
//! redb checks its pages when it repairs, not at every read, and panics over a page that makes no
//! sense. Everything that touches the database runs in here: a panic becomes an error, and a file
//! beside the database remembers it, so that the next opening rebuilds the index.

use std::fs;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::Database;

use crate::error::{IndexError, IndexReason};

/// Watches over one database file.
#[derive(Debug)]
pub(crate) struct Guard {
    mark: PathBuf,
}

impl Guard {
    /// Guards the database at `path`.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            mark: path.with_extension("redb.suspect"),
        }
    }

    /// Whether damage was met since the database was last rebuilt.
    pub(crate) fn is_marked(&self) -> bool {
        self.mark.exists()
    }

    /// Forgets the damage: the database is a new one.
    pub(crate) fn clear(&self) -> std::io::Result<()> {
        match fs::remove_file(&self.mark) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// Does something with the database.
    pub(crate) fn run<T>(
        &self,
        work: impl FnOnce() -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        // What `work` touches is thrown away after a panic, but for the database itself, which
        // answers with errors from then on.
        let outcome = catch_unwind(AssertUnwindSafe(work));
        let outcome = outcome.unwrap_or_else(|_| {
            Err(IndexError {
                reason: IndexReason::Damaged,
            })
        });
        if let Err(error) = &outcome
            && error.is_damage()
            && let Err(failed) = fs::write(&self.mark, "the index is rebuilt at the next start\n")
        {
            tracing::error!(%error, %failed, "the index is damaged and could not be marked so");
        }
        outcome
    }

    /// Walks over rows; ends after the first error.
    pub(crate) fn rows<I: Iterator, T>(
        &self,
        mut rows: I,
        decode: impl Fn(I::Item) -> Result<T, IndexError>,
    ) -> impl Iterator<Item = Result<T, IndexError>> {
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed {
                return None;
            }
            let row = self.run(|| rows.next().map(&decode).transpose());
            failed = row.is_err();
            row.transpose()
        })
    }
}

/// A database whose closing is guarded too: it writes, and panics after a panic.
pub(super) struct Guarded {
    database: Option<Database>,
    guard: Arc<Guard>,
}

impl Guarded {
    pub(super) fn new(database: Database, guard: Arc<Guard>) -> Self {
        Self {
            database: Some(database),
            guard,
        }
    }
}

impl Deref for Guarded {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.database
            .as_ref()
            .expect("taken out only when it is dropped")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let database = self.database.take();
        let closed = self.guard.run(|| {
            drop(database);
            Ok(())
        });
        // Everything acknowledged is durable; what else closing would save is rebuilt.
        closed.unwrap_or_else(|error| tracing::error!(%error, "the index did not close cleanly"));
    }
}
