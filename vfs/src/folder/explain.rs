//! Answers "why is this file not synced?" for any path.

use std::path::Path;

use wormhole_crdt::EntryKey;

use super::engine::{Engine, Outcome, Step};
use super::ignore::Shape;
use super::name::{self, Place};
use super::plan::Node;
use super::stamp::unchanged;
use super::state::{Keep, Row};
use super::status::{Explanation, Reason};

/// What the engine finds; the actor knows the rest (settling, waiting).
pub(crate) enum Found {
    Answer(Explanation),
    /// In the mesh and not here: the downloads know why.
    Absent(EntryKey),
    /// On disk and not as it was synced.
    Unrecorded,
}

impl Engine {
    /// Looks at every reason that the engine knows, the most specific first.
    pub(crate) fn explain(&mut self, path: &Path) -> Outcome<Found> {
        let found = self.explain_itself(path)?;
        Ok(match (found, self.problem_above(path)) {
            // What cannot be looked into hides what is in it.
            (
                Found::Absent(_) | Found::Unrecorded | Found::Answer(Explanation::Unknown),
                Some(above),
            ) => Found::Answer(Explanation::Problem(above)),
            (found, _) => found,
        })
    }

    /// What is wrong with the nearest directory above a path.
    fn problem_above(&self, path: &Path) -> Option<Reason> {
        let mut above = path.ancestors().skip(1);
        above
            .find_map(|directory| self.problems.at(directory))
            .cloned()
    }

    fn explain_itself(&mut self, path: &Path) -> Outcome<Found> {
        if let Some(reason) = self.problems.at(path) {
            return Ok(Found::Answer(Explanation::Problem(reason.clone())));
        }
        if name::is_control(path) {
            let (rule, file) = (name::CONTROL.to_owned(), name::CONTROL.into());
            return Ok(Found::Answer(Explanation::Ignored { rule, file }));
        }
        for shape in [Shape::Other, Shape::Directory] {
            if let Some(rule) = self.rules.ignored(&self.root, path, shape) {
                let (rule, file) = (rule.pattern, rule.file);
                let is_dir = self
                    .config
                    .dir
                    .join(path)
                    .symlink_metadata()
                    .is_ok_and(|found| found.is_dir());
                if shape == Shape::Other || is_dir {
                    return Ok(Found::Answer(Explanation::Ignored { rule, file }));
                }
            }
        }
        let mut step = self.begin_to_look(Keep::Later)?;
        let base = step.engine.config.base;
        if path.as_os_str().is_empty() {
            return Ok(Found::Answer(Explanation::Synced));
        }
        let place = step.batch.place_of(base, path)?;
        let row = match &place {
            Some(place) => step.batch.get(place)?,
            None => None,
        };
        let parent = path
            .parent()
            .and_then(|parent| step.engine.root.open_dir(parent).ok());
        let seen = match (parent, path.file_name()) {
            (Some(dir), Some(name)) => super::beneath::look(std::os::fd::AsFd::as_fd(&dir), name)
                .ok()
                .flatten(),
            _ => None,
        };
        let entry = match (&place, &row) {
            (_, Some(row)) => step.shown(&row.key)?,
            (Some(place), None) => step.shown_at(place)?,
            (None, None) => None,
        };
        let is_held = match &place {
            Some(place) => step.waits_for_a_person(place)?,
            None => false,
        };
        Ok(match (row, seen, entry) {
            (Some(row), Some(seen), Some(entry)) if unchanged(&row, &seen) => synced(&row, &entry),
            (Some(_), None, Some(_)) if is_held => {
                let entries = step.engine.held.shown().entries;
                let reason = Reason::DeletionHeld { entries };
                Found::Answer(Explanation::Problem(reason))
            }
            (_, Some(_), _) => Found::Unrecorded,
            (_, None, Some(entry)) => Found::Absent(entry.key),
            (_, None, None) => Found::Answer(Explanation::Unknown),
        })
    }
}

impl Step<'_> {
    /// Whether the deletion of a place, or of a directory above, waits for a person.
    fn waits_for_a_person(&self, place: &Place) -> Outcome<bool> {
        let mut at = place.clone();
        while !self.engine.held.contains(&at) {
            match self.batch.by_key(&EntryKey::from(at.parent))? {
                Some((above, _)) => at = above,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

fn synced(row: &Row, entry: &wormhole_crdt::Entry) -> Found {
    let same = match (&row.node, entry.file) {
        (Node::File { content, .. }, Some(file)) => *content == file.content,
        _ => true,
    };
    match (same, entry.conflict) {
        (true, true) => Found::Answer(Explanation::Conflict),
        (true, false) => Found::Answer(Explanation::Synced),
        (false, _) => Found::Absent(entry.key),
    }
}
