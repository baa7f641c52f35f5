//! Compares directories with what was last synced, a bounded number of names at a time.
//!
//! The walk keeps a stack of directories and the names of one, so a million entries cost little memory, also in one
//! directory. A directory is watched before it is read. Deletions are only collected: a name that is missing here may turn up as a rename further on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wormhole_crdt::{EntryId, EntryKey, Kind};

use super::beneath;
use super::engine::{Dir, Engine, Look, Outcome, Step, Todo, node_of};
use super::name::{self, Place};
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
    /// What is on the stack, and how much of it is compared.
    queued: HashMap<PathBuf, Depth>,
    /// The directory that is being compared.
    open: Option<Listing>,
    /// Covers the whole folder: afterwards it is known that nothing else is missing.
    extent: Extent,
    /// Of the whole folder, and nothing was compared yet.
    begins: bool,
}

/// A directory's names, sorted, and which of them is next.
#[derive(Debug)]
struct Listing {
    id: EntryId,
    names: Vec<OsString>,
    next: usize,
    depth: Depth,
}

/// How much of a directory is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// What is directly in it.
    Names,
    /// That, and everything below.
    All,
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
        let mut walk = Self {
            extent: Extent::Whole,
            begins: true,
            ..Self::default()
        };
        walk.add(PathBuf::new());
        walk
    }

    /// Adds a directory with everything below it.
    pub(crate) fn add(&mut self, path: PathBuf) {
        if self.queued.insert(path.clone(), Depth::All).is_none() {
            self.stack.push(path);
        }
    }

    /// Adds what is directly in a directory.
    pub(crate) fn add_names(&mut self, path: PathBuf) {
        if let Entry::Vacant(place) = self.queued.entry(path.clone()) {
            place.insert(Depth::Names);
            self.stack.push(path);
        }
    }

    fn next(&mut self) -> Option<(PathBuf, Depth)> {
        let path = self.stack.pop()?;
        let depth = self.queued.remove(&path).unwrap_or(Depth::All);
        Some((path, depth))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.stack.is_empty() && self.open.is_none()
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
        while names < STEP_NAMES && looks.len() < STEP_LOOKS && bytes < STEP_LOOK_BYTES {
            names += 1;
            let Some(mut listing) = walk.open.take() else {
                let Some((path, depth)) = walk.next() else {
                    break;
                };
                walk.open = step.list(&path, depth)?;
                continue;
            };
            let Some(dir) = step.dir(listing.id)? else {
                continue;
            };
            let Some(name) = listing.names.get(listing.next) else {
                let missing = step.batch.places_but(listing.id, &listing.names)?;
                step.todo.gone.extend(missing);
                continue;
            };
            let (look, below) = step.scan_name(listing.id, &dir, name)?;
            if let Some(look) = look {
                bytes = bytes.saturating_add(look.seen.stamp.size);
                looks.push(look);
            }
            if let Some(below) = below.filter(|_| listing.depth == Depth::All) {
                walk.add(below);
            }
            listing.next += 1;
            walk.open = Some(listing);
        }
        step.examine(looks)?;
        let mut walked = Walked::Partly;
        if walk.is_idle() && step.todo.scans.is_empty() {
            let extent = std::mem::take(&mut walk.extent);
            if extent == Extent::Whole && !step.engine.at_home {
                step.batch.set_compared()?;
                step.engine.at_home = true;
            }
            walked = Walked::Done(extent);
        }
        let mut todo = step.end()?;
        for path in std::mem::take(&mut todo.scans) {
            walk.add(path);
        }
        Ok((walked, todo))
    }

    /// Looks at some of the directories that are watched. Those of which the kernel did not say everything are listed again.
    pub(crate) fn audit_watches(
        &mut self,
        after: Option<PathBuf>,
    ) -> Outcome<(Todo, Option<PathBuf>)> {
        let mut todo = Todo::default();
        let Some(watcher) = &self.watcher else {
            return Ok((todo, None));
        };
        let begins = after.is_none();
        let next;
        (todo.scans, todo.lists, next) = watcher.audit(&self.root, after, STEP_NAMES);
        // The folder itself and its control directory are watched as well. Some directories cannot be: if those are all,
        // nothing new is found by looking for them again.
        let unwatched = (self.counts.directories + 2).saturating_sub(watcher.len() as u64);
        if begins && std::mem::replace(&mut self.unwatched, unwatched) < unwatched {
            todo.scans.push(PathBuf::new());
        }
        Ok((todo, next))
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
        step.todo.keys.extend(keys);
        step.end()
    }
}

impl Step<'_> {
    /// Reads a directory's names. `None` when it is not synced or not there any more.
    fn list(&mut self, path: &Path, depth: Depth) -> Outcome<Option<Listing>> {
        let base = self.engine.config.base;
        let id = if path.as_os_str().is_empty() {
            base
        } else {
            match self.batch.place_of(base, path)? {
                Some(place) => match self.batch.get(&place)? {
                    Some(row) if row.node.is_directory() => row.key.id,
                    Some(_) | None => return Ok(None),
                },
                None => return Ok(None),
            }
        };
        let Some(dir) = self.dir(id)? else {
            return Ok(None);
        };
        self.watch(path, &dir.fd);
        let mut names: Vec<OsString> = Vec::new();
        if let Err(error) = beneath::list(dir.fd.as_fd(), &mut |name| names.push(name.to_owned())) {
            self.engine.io_problem(path, &error);
            return Ok(None);
        }
        self.engine.problems.clear(path);
        let rules = path.join(name::IGNORE);
        if self.engine.rules.has(&rules) && !names.iter().any(|name| name == name::IGNORE) {
            // The directory is another one: its rules went with the old one, whether anybody told or not.
            self.rules_changed(&rules);
        }
        names.sort_unstable();
        Ok(Some(Listing {
            id,
            names,
            next: 0,
            depth,
        }))
    }

    /// Compares one name. Answers a file whose content has to be found out, or a known directory to go on with.
    fn scan_name(
        &mut self,
        id: EntryId,
        dir: &Arc<Dir>,
        name: &OsStr,
    ) -> Outcome<(Option<Look>, Option<PathBuf>)> {
        let child = dir.path.join(name);
        let entry = match name::parse(name) {
            Ok(entry) => entry,
            Err(reason) => {
                if !self.ignored_name(&child) {
                    self.engine.problems.report(&child, reason);
                }
                return Ok((None, None));
            }
        };
        let place = Place::new(id, entry);
        let row = self.batch.get(&place)?;
        let directory = row.as_ref().is_some_and(|row| row.node.is_directory());
        let look = self.find(&place, row, dir)?;
        // New directories ask for their own scan; known ones are part of this walk.
        let below = directory && !self.todo.scans.contains(&child);
        Ok((look, below.then_some(child)))
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
            }
            // Also below one that has another name, other permissions or another key now: nobody tells what changed there.
            // Only what is shown leads on, so that the way ends.
            let stands = row.filter(|row| row.node.is_directory());
            if entry.kind == Kind::Directory
                && (stands.is_some() || self.batch.by_key(&entry.key)?.is_some())
            {
                stack.push(entry.key.id);
            }
            if let Some(other) = stands.filter(|row| row.key.id != entry.key.id) {
                let below = self.batch.children(other.key.id)?;
                keys.extend(below.into_iter().map(|(_, row)| row.key));
            }
        }
        keys.extend(rows.into_values().map(|row| row.key));
        Ok(names)
    }
}
