//! Compares directories with what was last synced, a bounded number of names at a time.
//!
//! The walk keeps a stack of directories, not of files, so a million entries cost little memory. A directory is watched
//! before it is read. Deletions are only collected: a name that is missing here may turn up as a rename further on.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use wormhole_crdt::{EntryId, EntryKey};

use super::beneath;
use super::engine::{Engine, Outcome, Step, Todo, node_of};
use super::name::{self, Place};
use super::plan::Node;
use super::state::{Keep, Row};
use super::status::Counts;
use super::vanished::Extent;

/// Names looked at in one step: some tens of milliseconds, so that a save in between is not delayed.
const STEP_NAMES: usize = 4_096;
/// Files hashed in one step; also the size of an envelope.
const STEP_LOOKS: usize = 500;
const STEP_LOOK_BYTES: u64 = 64 << 20;

/// A walk over the folder or a part of it.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    stack: Vec<PathBuf>,
    /// Covers the whole folder: afterwards it is known that nothing else is missing.
    extent: Extent,
    /// Of the whole folder, and nothing was compared yet.
    begins: bool,
}

/// How far a walk came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    /// There is more.
    Partly,
    /// This was the last step; so much was compared.
    Done(Extent),
}

impl Walk {
    /// The whole folder.
    pub(crate) fn whole() -> Self {
        Self {
            stack: vec![PathBuf::new()],
            extent: Extent::Whole,
            begins: true,
        }
    }

    /// Adds a part.
    pub(crate) fn add(&mut self, path: PathBuf) {
        if !self.stack.contains(&path) {
            self.stack.push(path);
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.stack.is_empty()
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.extent == Extent::Whole
    }
}

impl Engine {
    /// One step of a walk.
    pub(crate) fn scan(&mut self, walk: &mut Walk) -> Outcome<(Walked, Todo)> {
        if std::mem::take(&mut walk.begins) {
            self.rules.forget();
        }
        let mut step = self.begin(Keep::Later)?;
        // Of a folder that is new to us nothing was synced yet, and nobody waits for it.
        step.comparing = step.batch.counts() != Counts::default();
        let mut names = 0;
        let mut looks = Vec::new();
        let mut bytes = 0u64;
        while names < STEP_NAMES
            && looks.len() < STEP_LOOKS
            && bytes < STEP_LOOK_BYTES
            && let Some(path) = walk.stack.pop()
        {
            let found = looks.len();
            names += 1 + step.scan_dir(&path, &mut walk.stack, &mut looks)?;
            bytes += looks
                .get(found..)
                .unwrap_or_default()
                .iter()
                .map(|look| look.seen.stamp.size)
                .sum::<u64>();
        }
        step.examine(looks)?;
        let mut walked = Walked::Partly;
        if walk.stack.is_empty() && step.todo.scans.is_empty() {
            walked = Walked::Done(std::mem::take(&mut walk.extent));
        }
        let mut todo = step.end()?;
        for path in std::mem::take(&mut todo.scans) {
            walk.add(path);
        }
        Ok((walked, todo))
    }

    /// Compares what the mesh shows with what was last synced: at the start, and when too much changed to be listed.
    /// `stack` holds directories; children are pushed to it.
    pub(crate) fn audit(&mut self, stack: &mut Vec<EntryId>) -> Outcome<Todo> {
        let mut step = self.begin(Keep::Later)?;
        let mut names = 0;
        let mut keys = Vec::new();
        while names < STEP_NAMES
            && let Some(dir) = stack.pop()
        {
            names += 1 + step.audit_dir(dir, stack, &mut keys)?;
        }
        for key in keys {
            step.bring_or_put_off(&key)?;
        }
        step.end()
    }
}

impl Step<'_> {
    /// Scans one directory; answers how many names it has.
    fn scan_dir(
        &mut self,
        path: &Path,
        stack: &mut Vec<PathBuf>,
        looks: &mut Vec<super::engine::Look>,
    ) -> Outcome<usize> {
        let base = self.engine.config.base;
        let id = if path.as_os_str().is_empty() {
            base
        } else {
            match self.batch.place_of(base, path)? {
                Some(place) => match self.batch.get(&place)? {
                    Some(row) if row.node == Node::Directory => row.key.id,
                    Some(_) | None => return Ok(0),
                },
                None => return Ok(0),
            }
        };
        let Some(dir) = self.dir(id)? else {
            return Ok(0);
        };
        self.watch(path);
        let mut names: Vec<OsString> = Vec::new();
        if let Err(error) = beneath::list(dir.fd.as_fd(), &mut |name| names.push(name.to_owned())) {
            self.engine.io_problem(path, &error);
            return Ok(0);
        }
        let rows = self.batch.children(id)?;
        let mut missing: HashMap<Place, Row> = rows.into_iter().collect();
        for name in &names {
            let child = path.join(name);
            let entry = match name::parse(name) {
                Ok(entry) => entry,
                Err(reason) => {
                    if !self.ignored_name(&child) {
                        self.engine.problems.report(&child, reason);
                    }
                    continue;
                }
            };
            let place = Place::new(id, entry);
            let row = missing.remove(&place);
            let directory = row.as_ref().is_some_and(|row| row.node == Node::Directory);
            if let Some(look) = self.find(&place, row, &dir)? {
                looks.push(look);
            }
            // New directories ask for their own scan; known ones are part of this walk.
            if directory && !self.todo.scans.contains(&child) {
                stack.push(child);
            }
        }
        self.todo.gone.extend(missing.into_keys());
        Ok(names.len())
    }

    fn ignored_name(&mut self, path: &Path) -> bool {
        name::is_control(path)
            || self
                .engine
                .rules
                .ignored(&self.engine.root, path, super::ignore::Shape::Other)
                .is_some()
    }

    fn audit_dir(
        &mut self,
        dir: EntryId,
        stack: &mut Vec<EntryId>,
        keys: &mut Vec<EntryKey>,
    ) -> Outcome<usize> {
        let shown = self.engine.replica.children(dir)?;
        let mut rows: HashMap<Place, Row> = self.batch.children(dir)?.into_iter().collect();
        let names = shown.len().max(rows.len());
        for entry in shown {
            let place = Place::new(entry.parent, entry.name.clone());
            let row = rows.remove(&place);
            let same = row.as_ref().is_some_and(|row| {
                row.key == entry.key && Some(&row.node) == node_of(&entry).as_ref()
            });
            if !same {
                keys.push(entry.key);
            } else if row.is_some_and(|row| row.node == Node::Directory) {
                stack.push(entry.key.id);
            }
        }
        keys.extend(rows.into_values().map(|row| row.key));
        Ok(names)
    }
}
