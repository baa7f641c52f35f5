//! Questions about the tree. Each is answered from one snapshot of the database and waits for nobody.

use std::ops::ControlFlow;

use wormhole_store::Content;

use super::Replica;
use crate::edit::{self, Edit, Kept, ResolveError};
use crate::entry::{Counts, Entry, EntryKey, Rival};
use crate::error::StorageError;
use crate::id::EntryId;
use crate::index::{IndexError, View};
use crate::name::EntryPath;

impl Replica {
    /// What the tree shows under this key.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn entry(&self, key: &EntryKey) -> Result<Option<Entry>, StorageError> {
        self.tree(|tree| tree.entry(key))
    }

    /// The entry of that name in a directory, by any spelling of case and accents.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn lookup(&self, parent: EntryId, name: &str) -> Result<Option<Entry>, StorageError> {
        self.tree(|tree| tree.lookup(&parent, name))
    }

    /// All entries of a directory.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn children(&self, parent: EntryId) -> Result<Vec<Entry>, StorageError> {
        self.tree(|tree| tree.children(&parent))
    }

    /// How many entries a directory has.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn child_count(&self, parent: EntryId) -> Result<u64, StorageError> {
        self.tree(|tree| tree.child_count(&parent))
    }

    /// Where an entry is shown.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn path_of(&self, key: &EntryKey) -> Result<Option<EntryPath>, StorageError> {
        self.tree(|tree| tree.path_of(key))
    }

    /// What is shown at a path.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn resolve(&self, path: &EntryPath) -> Result<Option<Entry>, StorageError> {
        self.tree(|tree| tree.resolve(path))
    }

    /// Visits everything below `from`, a directory before what is in it. `Break` ends the walk.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn walk(
        &self,
        from: EntryId,
        visit: &mut dyn FnMut(&EntryPath, &Entry) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.tree(|tree| tree.walk(&from, visit))
    }

    /// Every conflict copy in the tree, until it is removed, or a user has given it a name or a place.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn conflicts(&self) -> Result<Vec<Entry>, StorageError> {
        self.tree(|tree| tree.conflicts())
    }

    /// The conflict copies beside an entry, each with what it stands beside; of a copy, that one.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn rivals(&self, entry: &Entry) -> Result<Vec<Rival>, StorageError> {
        self.tree(|tree| tree.rivals(entry))
    }

    /// The edits that end the conflict of an entry, for [`Replica::edit`]. The inner error says why there are
    /// none.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn resolution(
        &self,
        entry: &Entry,
        keep: Kept,
    ) -> Result<Result<Vec<Edit>, ResolveError>, StorageError> {
        Ok(edit::draw_up(entry, &self.rivals(entry)?, keep))
    }

    /// How much the tree shows.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn counts(&self) -> Result<Counts, StorageError> {
        self.tree(|tree| tree.counts())
    }

    /// Visits every live content, each as often as it is shown.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn contents(&self, visit: &mut dyn FnMut(&Content)) -> Result<(), StorageError> {
        self.tree(|tree| tree.contents(visit))
    }

    fn tree<T>(&self, ask: impl FnOnce(&View) -> Result<T, IndexError>) -> Result<T, StorageError> {
        let answer = View::open(&self.read()?).and_then(|tree| ask(&tree));
        if answer.as_ref().is_err_and(IndexError::is_damage) {
            let writer = self.inner.writer()?;
            self.inner.distrust_index()?;
            drop(writer);
        }
        Ok(answer?)
    }
}
