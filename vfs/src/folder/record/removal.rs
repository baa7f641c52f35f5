//! Deletions: judged last and all together, when everything that might be a rename has been seen, and held back when
//! there are too many. When that is, and what is judged together, the actor decides with `vanished`.

use std::collections::HashSet;
use std::time::Instant;

use wormhole_crdt::{Edit, EntryKey};

use super::{Place, Row};
use crate::error::FolderError;
use crate::folder::config::Writing;
use crate::folder::engine::{Engine, Outcome, Step, Todo, node_of};
use crate::folder::guard::Verdict;
use crate::folder::name;
use crate::folder::plan::{self, Action, Node};
use crate::folder::state::Keep;
use crate::folder::status::Reason;
use crate::folder::vanished::{Extent, Missing};

impl Engine {
    /// Judges everything that is missing and records what may be; [`Todo::held`] are the places that wait for a person.
    pub(crate) fn judge_missing(&mut self, missing: Missing) -> Outcome<Todo> {
        let mut step = self.begin(Keep::Now)?;
        let deleted = step.still_missing(missing.places)?;
        if deleted.is_empty() {
            step.release_held();
        } else {
            // So much for single files; but if the whole folder went away, nothing was deleted.
            step.engine.is_itself().map_err(FolderError::Stopped)?;
            match step.judge(deleted)? {
                Judged::Recorded => step.release_held(),
                Judged::Held { places, entries } => step.hold(places, entries),
            }
        }
        if missing.extent == Extent::Whole {
            step.engine.guard.scanned();
        }
        step.end()
    }
}

/// What became of deletions.
enum Judged {
    Recorded,
    Held { places: Vec<Place>, entries: u64 },
}

impl Step<'_> {
    /// Which of these places lost what the mesh still shows there.
    fn still_missing(&mut self, places: Vec<Place>) -> Outcome<Vec<(Place, Row)>> {
        let mut deleted = Vec::new();
        let mut known: HashSet<Place> = places.iter().cloned().collect();
        let mut lost_dirs = HashSet::new();
        let mut queue = places;
        while let Some(place) = queue.pop() {
            if lost_dirs.contains(&place.parent) {
                continue;
            }
            let Some(row) = self.batch.get(&place)? else {
                continue;
            };
            let row = self.following(&place, row)?;
            let Some(dir) = self.dir(place.parent)? else {
                // The directory is gone too, and is judged in place of what was in it.
                lost_dirs.insert(place.parent);
                if let Some((above, _)) = self.batch.by_key(&EntryKey::from(place.parent))?
                    && known.insert(above.clone())
                {
                    queue.push(above);
                }
                continue;
            };
            match self.look(&dir, place.os_name()) {
                Ok(None) => {}
                Ok(Some(_)) => {
                    let path = name::child(&dir.path, &place.name);
                    self.todo.paths.push(path);
                    continue;
                }
                Err(_passed) => continue,
            }
            if self.is_deletion(&place, &row)? {
                deleted.push((place, row));
            }
        }
        Ok(deleted)
    }

    /// A thing of another kind took the name: the old one is deleted. It is really gone.
    pub(super) fn replaced(&mut self, place: &Place) -> Outcome<()> {
        let Some(row) = self.batch.get(place)? else {
            return Ok(());
        };
        if !self.is_deletion(place, &row)? {
            return Ok(());
        }
        match self.judge(vec![(place.clone(), row)])? {
            Judged::Recorded => {}
            // What took its name steps aside; then it is missing like the others.
            Judged::Held { places, .. } => self.todo.gone.extend(places),
        }
        Ok(())
    }

    fn hold(&mut self, places: Vec<Place>, entries: u64) {
        self.engine.held = entries;
        let reason = Reason::DeletionHeld { entries };
        self.engine.problems.report_folder(reason);
        self.todo.held = places;
    }

    /// Nothing waits for a person any more.
    fn release_held(&mut self) {
        self.engine.held = 0;
        let over = Reason::DeletionHeld { entries: 0 };
        self.engine.problems.clear_folder(&over);
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

    fn judge(&mut self, deleted: Vec<(Place, Row)>) -> Outcome<Judged> {
        if self.engine.config.writing == Writing::ReadOnly {
            for (place, _row) in deleted {
                if let Some(path) = self.path_of(&place)? {
                    self.engine.problems.report(&path, Reason::ReadOnlyMember);
                }
            }
            return Ok(Judged::Recorded);
        }
        let counts = self.batch.counts();
        let held = counts.files + counts.directories + counts.symlinks;
        let mut entries = 0;
        for (place, _row) in &deleted {
            entries += self.batch.count_below(place, held)?;
        }
        match self.engine.guard.judge(entries, held, Instant::now()) {
            Verdict::Hold => Ok(Judged::Held {
                places: deleted.into_iter().map(|(place, _row)| place).collect(),
                entries,
            }),
            Verdict::Pass => {
                for (place, row) in deleted {
                    let path = self.path_of(&place)?.unwrap_or_default();
                    let edits = self.seen_removals(&row)?;
                    self.draft_removal(&place, &path, edits);
                }
                self.submit()?;
                Ok(Judged::Recorded)
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
