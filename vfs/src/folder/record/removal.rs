//! Deletions: judged last, when everything that might be a rename has been seen, and held back when there are too many.

use std::path::Path;
use std::time::Instant;

use wormhole_crdt::{Edit, EntryKey};

use super::{Place, Row};
use crate::error::FolderError;
use crate::folder::config::Writing;
use crate::folder::engine::{Outcome, Step, node_of};
use crate::folder::guard::Verdict;
use crate::folder::plan::{self, Action, Node};
use crate::folder::status::Reason;

impl Step<'_> {
    /// Records the deletion of what is still missing at these places. `whole`: they are all that is missing.
    pub(crate) fn remove_gone(&mut self, gone: Vec<Place>, whole: bool) -> Outcome<()> {
        let mut deleted = Vec::new();
        for place in gone {
            let Some(row) = self.batch.get(&place)? else {
                continue;
            };
            let row = self.following(&place, row)?;
            // When the directory is gone too, it is the one to be judged.
            let Some(dir) = self.dir(place.parent)? else {
                continue;
            };
            match self.look(&dir, place.os_name()) {
                Ok(None) => {}
                Ok(Some(_)) => {
                    self.todo
                        .paths
                        .push(crate::folder::name::child(&dir.path, &place.name));
                    continue;
                }
                Err(_passed) => continue,
            }
            if self.is_deletion(&place, &row)? {
                deleted.push((place, row));
            }
        }
        if deleted.is_empty() {
            if whole {
                self.release_held();
                self.engine.guard.scanned();
            }
            return Ok(());
        }
        // So much for single files; but if the whole folder went away, nothing was deleted.
        self.engine.is_itself().map_err(FolderError::Stopped)?;
        self.judge(deleted, whole)?;
        if whole {
            self.engine.guard.scanned();
        }
        Ok(())
    }

    /// A thing of another kind took the name: the old one is deleted. It is really gone.
    pub(super) fn replaced(&mut self, gone: &[Place]) -> Outcome<()> {
        let mut deleted = Vec::new();
        for place in gone {
            if let Some(row) = self.batch.get(place)?
                && self.is_deletion(place, &row)?
            {
                deleted.push((place.clone(), row));
            }
        }
        if deleted.is_empty() {
            Ok(())
        } else {
            self.judge(deleted, false)
        }
    }

    /// Whether the mesh still shows what vanished here, as it was here.
    fn is_deletion(&mut self, place: &Place, row: &Row) -> Outcome<bool> {
        let entry = self.shown(&row.key)?;
        let mesh = entry.as_ref().and_then(node_of);
        match plan::plan(Some(&row.node), None, mesh.as_ref()) {
            // Also when it was only renamed there: whoever deleted it knew what was in it.
            Action::Record => Ok(true),
            // Deleted here, changed there: it comes back as it is there.
            Action::Apply => {
                self.batch.remove_tree(place)?;
                self.todo.keys.push(row.key);
                Ok(false)
            }
            Action::Forget | Action::Nothing | Action::Adopt => {
                self.batch.remove_tree(place)?;
                Ok(false)
            }
        }
    }

    fn judge(&mut self, deleted: Vec<(Place, Row)>, whole: bool) -> Outcome<()> {
        if self.engine.config.writing == Writing::ReadOnly {
            for (place, _row) in deleted {
                if let Some(path) = self.path_of(&place)? {
                    self.engine.problems.report(&path, Reason::ReadOnlyMember);
                }
            }
            return Ok(());
        }
        let counts = self.batch.counts();
        let entries = counts.files + counts.directories + counts.symlinks;
        let mut total = 0;
        for (place, _row) in &deleted {
            total += self.batch.count_below(place, entries)?;
        }
        match self.engine.guard.judge(total, entries, Instant::now()) {
            Verdict::Hold => {
                let held = if whole {
                    total
                } else {
                    self.engine.held.max(total)
                };
                self.engine.held = held;
                let reason = Reason::DeletionHeld { entries: held };
                self.engine.problems.report(Path::new(""), reason);
                Ok(())
            }
            Verdict::Pass => {
                if whole {
                    self.release_held();
                }
                for (place, row) in deleted {
                    let path = self.path_of(&place)?.unwrap_or_default();
                    let edits = self.seen_removals(&row)?;
                    self.draft_removal(&place, &path, edits);
                }
                self.submit()
            }
        }
    }

    /// Removes what this device had seen, and nothing else: what others have put into a directory since stays, and brings
    /// the directory back.
    fn seen_removals(&mut self, row: &Row) -> Outcome<Vec<Edit>> {
        let mut edits = Vec::new();
        if self.removals_below(&row.key, row.node == Node::Directory, &mut edits)? {
            return Ok(vec![Edit::Remove { key: row.key }]);
        }
        self.todo.keys.push(row.key);
        Ok(edits)
    }

    /// True when everything at and below the key was seen here as it is now.
    fn removals_below(
        &mut self,
        key: &EntryKey,
        directory: bool,
        edits: &mut Vec<Edit>,
    ) -> Outcome<bool> {
        if !directory {
            return Ok(true);
        }
        let mut all = true;
        for child in self.engine.replica.children(key.id)? {
            let row = self.batch.by_key(&child.key)?.map(|(_, row)| row);
            let same = row.is_some_and(|row| Some(row.node) == node_of(&child));
            let mut below = Vec::new();
            let directory = child.kind == wormhole_crdt::Kind::Directory;
            if same && self.removals_below(&child.key, directory, &mut below)? {
                edits.push(Edit::Remove { key: child.key });
            } else {
                edits.append(&mut below);
                all = false;
            }
        }
        Ok(all)
    }
}
