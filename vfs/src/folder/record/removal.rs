//! Deletions: judged last and all together, when everything that might be a rename has been seen, and held back when
//! there are too many. When that is, and what is judged together, the actor decides with `vanished`.

use std::collections::HashSet;
use std::time::Instant;

use wormhole_crdt::{Edit, Entry, EntryId, EntryKey, Version};

use super::draft::ENVELOPE_ENTRIES;
use super::{Place, Row};
use crate::error::FolderError;
use crate::folder::engine::{Engine, Outcome, Step, Todo, node_of};
use crate::folder::guard::Verdict;
use crate::folder::name;
use crate::folder::plan::{self, Action};
use crate::folder::state::Keep;
use crate::folder::status::Reason;
use crate::folder::vanished::{Extent, Missing};

impl Engine {
    /// Judges everything that is missing and records what may be; [`Todo::held`] are the places that wait for a person.
    pub(crate) fn judge_missing(&mut self, missing: Missing) -> Outcome<Todo> {
        // Many envelopes share the flush that follows at once.
        let mut step = self.begin(Keep::Later)?;
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
        match plan::plan_entry(Some(&row.node), None, mesh.as_ref()) {
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
        if self.engine.is_read_only() {
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
                    self.remove_seen(&place, &row)?;
                }
                self.submit()?;
                Ok(Judged::Recorded)
            }
        }
    }

    /// Drafts the removal of what this device had seen, and of nothing else: what others have put into a directory since
    /// stays, and brings the directory back.
    ///
    /// A big tree goes in parts that fit into an envelope each, what is below before what is above: a crash in between
    /// leaves a smaller tree.
    fn remove_seen(&mut self, place: &Place, row: &Row) -> Outcome<()> {
        let top = row.key.id;
        let mut levels = vec![self.level(place.clone(), row)?];
        while let Some(level) = levels.last_mut() {
            let Some(child) = level.unvisited.pop() else {
                let Some(done) = levels.pop() else { break };
                let whole = self.close(done)?;
                match (levels.last_mut(), whole) {
                    (Some(above), Some(part)) => above.add(part),
                    (Some(above), None) => above.all_seen = false,
                    (None, Some(part)) => self.draft_part(&part)?,
                    (None, None) => {
                        // It comes back with what is left in it.
                        self.todo.keys.push(row.key);
                        let path = self.path_of(place)?.unwrap_or_default();
                        self.draft_removal(place, &path, Vec::new(), 1);
                    }
                }
                continue;
            };
            let seen = match self.batch.by_key(&child.key)? {
                Some((at, row)) if node_of(&child).is_some_and(|now| now.holds_same(&row.node)) => {
                    self.is_below(&at, top)?.then_some((at, row))
                }
                Some(_) | None => None,
            };
            match seen {
                Some((at, row)) if row.node.is_directory() => {
                    levels.push(self.level(at, &row)?);
                }
                // As it is shown: perhaps somebody has written the same bytes once more.
                Some((place, row)) => level.add(Part {
                    edits: vec![removal(row.key, Some(child.version))],
                    place,
                    entries: 1,
                }),
                None => level.all_seen = false,
            }
            if let Some(level) = levels.last_mut()
                && level.entries >= ENVELOPE_ENTRIES
            {
                // They go whatever becomes of the directory.
                level.in_parts = true;
                let parts = std::mem::take(&mut level.parts);
                self.draft_parts(&parts)?;
                self.submit()?;
            }
        }
        Ok(())
    }

    fn level(&mut self, place: Place, row: &Row) -> Outcome<Level> {
        let unvisited = if row.node.is_directory() {
            self.engine.replica.children(row.key.id)?
        } else {
            Vec::new()
        };
        let base = self.shown(&row.key)?.map(|entry| entry.version);
        Ok(Level {
            place,
            key: row.key,
            base,
            unvisited,
            parts: Vec::new(),
            entries: 1,
            all_seen: true,
            in_parts: false,
        })
    }

    /// Everything in a directory was visited. Answers the directory as a part of the one above, if it may go as a whole.
    fn close(&mut self, level: Level) -> Outcome<Option<Part>> {
        if !level.all_seen {
            self.draft_parts(&level.parts)?;
            return Ok(None);
        }
        let mut entries = level.entries;
        let mut edits = Vec::new();
        if level.in_parts || entries > ENVELOPE_ENTRIES {
            self.draft_parts(&level.parts)?;
            self.submit()?;
            // That took a while: somebody may have put something into it.
            if !self.engine.replica.children(level.key.id)?.is_empty() {
                return Ok(None);
            }
            entries = 1;
        } else {
            edits.extend(level.parts.into_iter().flat_map(|part| part.edits));
        }
        // Alone: what somebody put into it since stays, and keeps it.
        edits.push(removal(level.key, level.base));
        Ok(Some(Part {
            edits,
            place: level.place,
            entries,
        }))
    }

    fn draft_parts(&mut self, parts: &[Part]) -> Outcome<()> {
        parts.iter().try_for_each(|part| self.draft_part(part))
    }

    fn draft_part(&mut self, part: &Part) -> Outcome<()> {
        let path = self.path_of(&part.place)?.unwrap_or_default();
        let edits = part.edits.clone();
        self.draft_removal(&part.place, &path, edits, part.entries);
        Ok(())
    }

    /// Whether a place is in a directory or deeper.
    fn is_below(&self, place: &Place, top: EntryId) -> Outcome<bool> {
        let mut at = place.parent;
        while at != top {
            match self.batch.by_key(&EntryKey::from(at))? {
                Some((above, _)) => at = above.parent,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Removes what was seen.
fn removal(key: EntryKey, base: Option<Version>) -> Edit {
    Edit::Remove { key, base }
}

/// A file, or a directory with all that is below it, that goes as a whole.
struct Part {
    /// What is below before what is above.
    edits: Vec<Edit>,
    place: Place,
    /// How many entries that are.
    entries: usize,
}

/// A directory on the way to what is to be removed below it.
struct Level {
    place: Place,
    key: EntryKey,
    /// The version of it that was seen.
    base: Option<Version>,
    unvisited: Vec<Entry>,
    /// What of it may go and was not drafted yet.
    parts: Vec<Part>,
    /// How many entries that are, the directory included.
    entries: usize,
    /// Everything visited so far was seen here as it is now.
    all_seen: bool,
    /// Some of it has gone before.
    in_parts: bool,
}

impl Level {
    fn add(&mut self, part: Part) {
        self.entries += part.entries;
        self.parts.push(part);
    }
}
