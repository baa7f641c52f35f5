//! Deletions: judged last and all together, when everything that might be a rename has been seen, and held back when
//! there are too many. When that is, and what is judged together, the actor decides with `vanished`.

use std::collections::HashSet;
use std::time::Instant;

use wormhole_crdt::{Edit, Entry, EntryId, EntryKey, Version};

use super::draft::ENVELOPE_ENTRIES;
use super::{Place, Row};
use crate::error::FolderError;
use crate::folder::engine::{Engine, Outcome, Step, Todo, node_of};
use crate::folder::guard::{Burst, Extant, Verdict};
use crate::folder::name;
use crate::folder::plan::{self, Action};
use crate::folder::state::Keep;
use crate::folder::status::Reason;

/// What a person says of the deletions that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// They were meant.
    Confirm,
    /// Everything shall come back.
    Undo,
}

impl Engine {
    /// Judges everything that is missing, with what waits for a person already, and records what may be.
    pub(crate) fn judge_missing(&mut self, missing: Vec<Place>) -> Outcome<Todo> {
        // Many envelopes share the flush that follows at once.
        let mut step = self.begin(Keep::Later)?;
        let held = step.engine.held.places();
        let mut known: HashSet<Place> = held.iter().cloned().collect();
        // First, so that a directory above what is held is held with it.
        let waiting = step.still_missing(held, &mut known)?;
        let new = missing
            .into_iter()
            .filter(|place| known.insert(place.clone()));
        let new = step.still_missing(new.collect(), &mut known)?;
        if !waiting.is_empty() || !new.is_empty() {
            // So much for single files; but if the whole folder went away, nothing was deleted.
            step.engine.is_itself().map_err(FolderError::Stopped)?;
        }
        step.judge(waiting, new)?;
        step.end()
    }

    /// What was held before this process began.
    pub(crate) fn load_held(&mut self) -> Outcome<()> {
        let mut step = self.begin(Keep::Later)?;
        let mut places = Vec::new();
        for place in step.batch.held()? {
            if let Some(row) = step.batch.get(&place)? {
                places.push((place, row));
            }
        }
        step.hold(&places)?;
        step.end()?;
        Ok(())
    }

    /// Does what a person says of the list of held deletions that they were shown. `None` when it is another list by now.
    pub(crate) fn answer_held(
        &mut self,
        list: u64,
        answer: Answer,
    ) -> Outcome<(Option<u64>, Todo)> {
        let shown = self.held.shown();
        if self.held.is_empty() || shown.list != list {
            return Ok((None, Todo::default()));
        }
        let entries = shown.entries;
        let mut step = self.begin(Keep::Later)?;
        step.engine.is_itself().map_err(FolderError::Stopped)?;
        for place in step.engine.held.places() {
            let Some(row) = step.batch.get(&place)? else {
                continue;
            };
            let row = step.following(&place, row)?;
            // What came back, and what vanished since, is for the next judgement.
            if !step.is_missing(&place)? {
                continue;
            }
            match answer {
                Answer::Confirm => {
                    if step.is_deletion(&place, &row)? {
                        step.remove_seen(&place, &row)?;
                    }
                }
                Answer::Undo => {
                    step.batch.remove_tree(&place)?;
                    step.todo.keys.push(row.key);
                }
            }
        }
        step.submit()?;
        step.hold(&[])?;
        step.todo.progress = true;
        Ok((Some(entries), step.end()?))
    }
}

impl Step<'_> {
    /// Whether nothing stands at a place, also when its directory is not there.
    fn is_missing(&mut self, place: &Place) -> Outcome<bool> {
        match self.dir(place.parent)? {
            Some(dir) => Ok(matches!(self.look(&dir, place.os_name()), Ok(None))),
            None => self.is_dir_gone(place.parent),
        }
    }

    /// Which of these places lost what the mesh still shows there. A directory that is gone is judged in place of what was
    /// in it, unless it is `known`.
    fn still_missing(
        &mut self,
        places: Vec<Place>,
        known: &mut HashSet<Place>,
    ) -> Outcome<Vec<(Place, Row)>> {
        let mut deleted = Vec::new();
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

    /// A thing of another kind took the name: the old one is really gone, and replaced. Only what was in a directory has
    /// vanished with it.
    pub(super) fn replaced(&mut self, place: &Place) -> Outcome<()> {
        let Some(row) = self.batch.get(place)? else {
            return Ok(());
        };
        if !self.is_deletion(place, &row)? {
            return Ok(());
        }
        if self.engine.is_read_only() {
            return self.report_read_only(&[(place.clone(), row)]);
        }
        let old = [(place.clone(), row.clone())];
        self.tell_guard(&old)?;
        let mut below = self.burst_of(&old)?;
        below.entries = below.entries.saturating_sub(1);
        let extant = self.extant();
        if below.entries > 0
            && self.engine.guard.judge(&below, extant, Instant::now()) == Verdict::Hold
        {
            // What took its name steps aside; then it is missing like others.
            self.todo.gone.push(place.clone());
            return Ok(());
        }
        self.remove_seen(place, &row)?;
        self.submit()
    }

    /// Exactly these wait for a person from now on.
    fn hold(&mut self, deleted: &[(Place, Row)]) -> Outcome<()> {
        let entries = self.burst_of(deleted)?.entries;
        let places: HashSet<Place> = deleted.iter().map(|(place, _)| place.clone()).collect();
        let before: HashSet<Place> = self.batch.held()?.into_iter().collect();
        if places != before {
            self.batch.set_held(places.iter())?;
        }
        let mut paths = Vec::new();
        for place in &places {
            if let Some(path) = self.path_of(place)? {
                paths.push(name::display(&path));
            }
        }
        let reason = Reason::DeletionHeld { entries };
        if places.is_empty() {
            self.engine.problems.clear_folder(&reason);
        } else {
            self.engine.problems.report_folder(reason);
        }
        self.engine.held.set(places, entries, paths);
        Ok(())
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

    /// `waiting` waits for a person already, and goes on to, unless it turns out to have been rewritten.
    fn judge(&mut self, mut waiting: Vec<(Place, Row)>, new: Vec<(Place, Row)>) -> Outcome<()> {
        if self.engine.is_read_only() {
            self.report_read_only(&new)?;
            return self.hold(&[]);
        }
        let now = Instant::now();
        self.tell_guard(&waiting)?;
        let held = self.burst_of(&waiting)?;
        let engine = &mut *self.engine;
        if engine.held.is_young(now) && engine.guard.is_rewritten(&held, now) {
            self.record(std::mem::take(&mut waiting))?;
        }
        if !new.is_empty() {
            self.tell_guard(&new)?;
            let burst = self.burst_of(&new)?;
            let extant = Extant {
                held: if waiting.is_empty() { 0 } else { held.entries },
                ..self.extant()
            };
            let engine = &mut *self.engine;
            let goes_on = !waiting.is_empty() && engine.held.goes_on(&burst, now);
            if goes_on || engine.guard.judge(&burst, extant, now) == Verdict::Hold {
                waiting.extend(new);
                let all = self.burst_of(&waiting)?;
                self.engine.held.since(now, all);
            } else {
                self.record(new)?;
            }
        }
        self.hold(&waiting)
    }

    fn extant(&self) -> Extant {
        let counts = self.batch.counts();
        Extant {
            entries: counts.files + counts.directories + counts.symlinks,
            held: 0,
        }
    }

    /// How much that is, and the smallest directory that holds it.
    fn burst_of(&self, deleted: &[(Place, Row)]) -> Outcome<Burst> {
        let limit = self.extant().entries;
        let mut burst = Burst::default();
        for (place, _row) in deleted {
            let (entries, bytes) = self.batch.count_below(place, limit)?;
            let base = self.engine.config.base;
            let dir = self.batch.path_of_dir(base, place.parent)?;
            burst.add(&dir.unwrap_or_default(), entries, bytes);
        }
        Ok(burst)
    }

    fn tell_guard(&mut self, deleted: &[(Place, Row)]) -> Outcome<()> {
        for (place, _row) in deleted {
            if let Some(path) = self.path_of(place)? {
                self.engine.guard.vanished(&path);
            }
        }
        Ok(())
    }

    fn report_read_only(&mut self, deleted: &[(Place, Row)]) -> Outcome<()> {
        for (place, _row) in deleted {
            if let Some(path) = self.path_of(place)? {
                self.engine.problems.report(&path, Reason::ReadOnlyMember);
            }
        }
        Ok(())
    }

    fn record(&mut self, deleted: Vec<(Place, Row)>) -> Outcome<()> {
        for (place, row) in deleted {
            self.remove_seen(&place, &row)?;
        }
        self.submit()
    }

    /// Drafts the removal of what this device had seen, and of nothing else: what others have put into a directory since
    /// stays, and brings the directory back.
    ///
    /// A big tree goes in parts that fit into an envelope each, what is below before what is above: a crash in between
    /// leaves a smaller tree.
    fn remove_seen(&mut self, place: &Place, row: &Row) -> Outcome<()> {
        let top = row.key.id;
        if row.node.is_directory() {
            self.remove_copies_below(top)?;
        }
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

    /// Drafts the removal of conflict copies that went with a directory, though the mesh shows them elsewhere by now:
    /// somebody has moved the file there and written to it, and of the version that stood here nobody else may have
    /// the bytes.
    fn remove_copies_below(&mut self, top: EntryId) -> Outcome<()> {
        let mut directories = vec![top];
        while let Some(directory) = directories.pop() {
            for (place, row) in self.batch.children(directory)? {
                if row.node.is_directory() {
                    directories.push(row.key.id);
                    continue;
                }
                let row = self.following(&place, row)?;
                if let Some(copy) = self.shown(&row.key)?.filter(|_| row.key.version.is_some()) {
                    self.draft_part(&Part {
                        edits: vec![removal(copy.key, Some(copy.version))],
                        place,
                        entries: 1,
                    })?;
                }
            }
        }
        self.submit()
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
