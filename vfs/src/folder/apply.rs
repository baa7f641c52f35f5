//! Mesh → disk: brings one entry to where, and to what, the mesh says it is.
//!
//! Before anything on disk is touched it is compared with what was last synced there. When it is something else, the user
//! was faster: nothing is done, the path is looked at (and so recorded) first, and the entry is tried again afterwards.

use std::sync::Arc;

use wormhole_crdt::{Entry, EntryKey, Kind};

use super::beneath::{self, Seen, SeenKind};
use super::engine::{Dir, Engine, Outcome, Step, Todo, node_of, version_of};
use super::ignore::Shape;
use super::name::{self, Place};
use super::partial::{PartialFile, Want};
use super::plan::{self, Action, Node};
use super::stamp::{same_data, same_inode, unchanged};
use super::state::{Keep, Row, STASH};

mod discard;
mod install;
mod withdraw;

impl Engine {
    /// Brings entries to disk. That they are there is durable with the next flush.
    pub(crate) fn apply(&mut self, keys: &[EntryKey]) -> Outcome<Todo> {
        let mut step = self.begin(Keep::Later)?;
        for key in keys {
            step.bring_or_put_off(key)?;
        }
        step.end()
    }

    /// Takes from disk what the mesh does not show any more. To be called when all that is new was looked at.
    pub(crate) fn withdraw(&mut self, keys: &[EntryKey]) -> Outcome<Todo> {
        let mut step = self.begin(Keep::Later)?;
        for key in keys {
            step.bring(key)?;
        }
        step.end()
    }

    /// Moves fetched files into place. That they are there is durable with the next flush.
    pub(crate) fn finish(&mut self, files: Vec<Arc<PartialFile>>) -> Outcome<Todo> {
        let mut step = self.begin(Keep::Later)?;
        let keys: Vec<EntryKey> = files.iter().map(|file| file.want().key).collect();
        step.ready = files
            .into_iter()
            .map(|file| (file.want().key, file))
            .collect();
        for key in &keys {
            step.bring(key)?;
        }
        // What was not used stays for now: what has to be recorded first may be all that it waits for.
        step.todo.untidy |= !step.ready.is_empty();
        step.end()
    }
}

/// How many entries may wait for one another in one step: each takes some kilobytes of the stack.
const MAX_BUSY: usize = 64;

/// Deeper than the tree can be.
const MAX_ABOVE: usize = 4096;

/// Whether a preparation succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Clear,
    Blocked,
}

impl Step<'_> {
    /// Brings one entry to disk, or leaves it for later when it is to go: what is new may want its bytes.
    pub(crate) fn bring_or_put_off(&mut self, key: &EntryKey) -> Outcome<()> {
        match self.shown(key)? {
            Some(_) => self.bring(key),
            None => {
                self.todo.unwanted.push(*key);
                self.todo.gone_keys.push(*key);
                Ok(())
            }
        }
    }

    /// Brings one entry to disk.
    pub(crate) fn bring(&mut self, key: &EntryKey) -> Outcome<()> {
        if *key == EntryKey::from(self.engine.config.base) || !self.busy.insert(*key) {
            return Ok(());
        }
        let refusals = self.engine.refusals;
        let outcome = self.bring_once(key);
        self.busy.remove(key);
        if self.engine.refusals > refusals {
            self.todo.refused.push(*key);
        }
        outcome
    }

    fn bring_once(&mut self, key: &EntryKey) -> Outcome<()> {
        let entry = self.shown(key)?;
        let mut synced = self.batch.by_key(key)?;
        if synced.is_none() && key.version.is_some() {
            // What stands under the plain name may be this copy: then it is renamed, and not made once more.
            let plain = EntryKey::from(key.id);
            if let Some((place, row)) = self.batch.by_key(&plain)? {
                self.following(&place, row)?;
                synced = self.batch.by_key(key)?;
            }
        }
        if let Some((place, row)) = &synced {
            let follows = self.following(place, row.clone())?.key;
            if follows != *key {
                self.bring(&follows)?;
                synced = None;
            }
        }
        match (synced, entry) {
            (None, None) => {
                self.todo.unwanted.push(*key);
                Ok(())
            }
            (Some((place, row)), None) => {
                self.todo.unwanted.push(*key);
                // Two of one name and content are shown as one: it may live on under the other's key.
                match self.shown_at(&place)? {
                    Some(other) => self.settle_place(&place, Some(row), &other),
                    None => self.withdraw(&place, &row),
                }
            }
            (synced, Some(entry)) => self.bring_shown(synced, &entry),
        }
    }

    fn bring_shown(&mut self, synced: Option<(Place, Row)>, entry: &Entry) -> Outcome<()> {
        if !self.has_parent(entry)? {
            if let Some((place, _)) = &synced
                && self.is_left_out_where_it_is_shown(entry)?
            {
                self.withdraw_left_out(place)?;
            }
            return Ok(());
        }
        let target = Place::new(entry.parent, entry.name.clone());
        if let Some((place, row)) = &synced
            && *place == target
            && row.version == version_of(entry)
            && Some(&row.node) == node_of(entry).as_ref()
        {
            // As it was synced. If the disk says otherwise, that is for the scan to find.
            self.todo.unwanted.push(entry.key);
            return Ok(());
        }
        if self.left_out(entry, &target)? {
            if let Some((place, _)) = synced.filter(|(place, _)| *place != target) {
                self.withdraw_left_out(&place)?;
            }
            return Ok(());
        }
        let mut row = None;
        let elsewhere = synced.is_some_and(|(place, _)| place != target);
        if let Some(occupant) = self.batch.get(&target)? {
            if occupant.key == entry.key {
                row = Some(occupant);
            } else if self.make_room(&target, &occupant, entry, elsewhere)? == Way::Blocked {
                return Ok(());
            } else {
                row = self.batch.get(&target)?;
            }
        }
        if elsewhere {
            // Making room may have moved it as well.
            let Some((from, old)) = self.batch.by_key(&entry.key)? else {
                return Ok(());
            };
            if from != target && self.relocate(&from, &old, &target)? == Way::Blocked {
                return Ok(());
            }
            row = self.batch.get(&target)?;
        }
        self.settle_place(&target, row, entry)
    }

    /// Whether the entry's directory is here; if not it is brought first, and brings its children.
    fn has_parent(&mut self, entry: &Entry) -> Outcome<bool> {
        if entry.parent == self.engine.config.base {
            return Ok(true);
        }
        let parent = EntryKey::from(entry.parent);
        // From the top down, so that none of them has to wait for the one above.
        let mut absent = Vec::new();
        let mut above = parent;
        while above != EntryKey::from(self.engine.config.base)
            && !absent.contains(&above)
            && self.batch.by_key(&above)?.is_none()
            && let Some(shown) = self.engine.replica.entry(&above)?
        {
            absent.push(above);
            above = EntryKey::from(shown.parent);
        }
        for directory in absent.into_iter().rev() {
            self.bring(&directory)?;
            if self.batch.by_key(&directory)?.is_none() {
                return Ok(false);
            }
        }
        Ok(self
            .batch
            .by_key(&parent)?
            .is_some_and(|(_, row)| row.node.is_directory()))
    }

    /// Whether this device leaves the place out.
    fn left_out(&mut self, entry: &Entry, place: &Place) -> Outcome<bool> {
        let Some(path) = self.path_of(place)? else {
            return Ok(true);
        };
        let shape = if entry.kind == Kind::Directory {
            Shape::Directory
        } else {
            Shape::Other
        };
        let ignored = self.ignored(&path, Some(place), shape)?;
        if ignored {
            self.todo.unwanted.push(entry.key);
        }
        Ok(ignored)
    }

    /// Whether this device leaves out the place where the mesh shows an entry, of which a directory above is not here.
    fn is_left_out_where_it_is_shown(&mut self, entry: &Entry) -> Outcome<bool> {
        let base = self.engine.config.base;
        let mut names = vec![entry.name.clone()];
        let mut at = entry.parent;
        let above = loop {
            if let Some(path) = self.batch.path_of_dir(base, at)? {
                break path;
            }
            match self.engine.replica.entry(&EntryKey::from(at))? {
                Some(above) if names.len() < MAX_ABOVE => {
                    names.push(above.name.clone());
                    at = above.parent;
                }
                Some(_) | None => return Ok(false),
            }
        };
        let path = names
            .iter()
            .rev()
            .fold(above, |path, name| name::child(&path, name));
        let shape = if entry.kind == Kind::Directory {
            Shape::Directory
        } else {
            Shape::Other
        };
        self.ignored(&path, None, shape)
    }

    /// Something else that is synced stands at the name an entry needs.
    fn make_room(
        &mut self,
        target: &Place,
        occupant: &Row,
        entry: &Entry,
        elsewhere: bool,
    ) -> Outcome<Way> {
        let other = self.shown(&occupant.key)?;
        match other {
            // Two directories of one name that were made apart are one now.
            None if occupant.node.is_directory() && entry.kind == Kind::Directory && !elsewhere => {
            }
            // Another file under the same name: it replaces the old one in one step.
            None if !elsewhere && !occupant.node.is_directory() => {}
            None => self.withdraw(target, occupant)?,
            Some(_) if self.busy.contains(&occupant.key) || self.busy.len() >= MAX_BUSY => {
                self.stash(target, occupant)?;
            }
            Some(_) => self.bring(&occupant.key.clone())?,
        }
        let still = self.batch.get(target)?;
        let replaceable = !elsewhere
            && still.as_ref().is_some_and(|row| {
                self.engine
                    .replica
                    .entry(&row.key)
                    .is_ok_and(|shown| shown.is_none())
            });
        if still.is_none() || replaceable {
            return Ok(Way::Clear);
        }
        self.todo.blocked.push(entry.key);
        Ok(Way::Blocked)
    }

    /// Moves something out of the way while names are swapped. It is brought to its own name right after.
    fn stash(&mut self, place: &Place, row: &Row) -> Outcome<()> {
        let mut text = format!("stash-{}", row.key.id);
        if let Some(version) = &row.key.version {
            text.push_str(&format!(
                "-{}-{}-{}",
                version.lamport, version.device, version.branch
            ));
        }
        let Ok(name) = wormhole_crdt::EntryName::parse(&text) else {
            return Ok(());
        };
        self.relocate(place, row, &Place::new(STASH, name))?;
        self.todo.keys.push(row.key);
        Ok(())
    }

    /// Renames on disk what was renamed or moved in the mesh: one system call, whatever is below it.
    fn relocate(&mut self, from: &Place, row: &Row, to: &Place) -> Outcome<Way> {
        let Some(from_dir) = self.dir_for(from, row.key)? else {
            return Ok(Way::Blocked);
        };
        let Some(to_dir) = self.dir_for(to, row.key)? else {
            return Ok(Way::Blocked);
        };
        let from_path = name::child(&from_dir.path, &from.name);
        let to_path = name::child(&to_dir.path, &to.name);
        let Ok(seen) = self.look(&from_dir, from.os_name()) else {
            return Ok(Way::Blocked);
        };
        let Some(before) = seen.filter(|seen| same_inode(&row.seen, seen)) else {
            return self.blocked_by(row.key, &from_path);
        };
        self.crash_point("before it is moved");
        match beneath::rename_new(from_dir.at(from.os_name()), to_dir.at(to.os_name())) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return self.blocked_by(row.key, &to_path);
            }
            Err(error) => {
                self.engine.io_problem(&to_path, &error);
                return Ok(Way::Blocked);
            }
        }
        self.touch(&from_dir);
        self.touch(&to_dir);
        self.batch.relocate(from, to)?;
        self.engine
            .store
            .moved(&self.engine.config.id, &from_path, &to_path)?;
        self.engine.problems.clear_tree(&from_path);
        self.engine.problems.clear(&to_path);
        if row.node.is_directory() {
            self.unwatch(&from_path);
            self.forget_dirs();
            self.todo.scans.push(to_path);
        } else if unchanged(row, &before)
            && let Ok(Some(after)) = self.look(&to_dir, to.os_name())
            && same_data(&before, &after)
            && before.mode == after.mode
        {
            // The rename moved its ctime; its content is what it was.
            self.batch.put(
                to,
                &Row {
                    seen: after,
                    ..row.clone()
                },
            )?;
        } else {
            // Somebody was at it meanwhile.
            self.todo.paths.push(to_path);
        }
        self.crash_point("relocated");
        Ok(Way::Clear)
    }

    /// The directory of a place that is to be changed for an entry. `None` when it is not where it was synced: the user was
    /// faster, and the entry waits until that was recorded.
    pub(super) fn dir_for(&mut self, place: &Place, key: EntryKey) -> Outcome<Option<Arc<Dir>>> {
        let refusals = self.engine.refusals;
        let dir = self.dir(place.parent)?;
        // What the system refused is tried again by itself, and nothing is recorded that a reader does.
        if dir.is_none() && self.engine.is_read_only() {
            self.todo.refused.push(key);
        } else if dir.is_none() && self.engine.refusals == refusals {
            self.todo.blocked.push(key);
        }
        Ok(dir)
    }

    /// What is at this path has to be recorded first.
    pub(super) fn blocked_by(&mut self, key: EntryKey, path: &std::path::Path) -> Outcome<Way> {
        self.todo.paths.push(path.to_owned());
        self.todo.blocked.push(key);
        Ok(Way::Blocked)
    }

    /// Makes the disk show `entry` at its place. `row` is what was last synced there, perhaps under another key.
    pub(super) fn settle_place(
        &mut self,
        place: &Place,
        row: Option<Row>,
        entry: &Entry,
    ) -> Outcome<()> {
        let Some(wanted) = node_of(entry) else {
            return Ok(());
        };
        let Some(dir) = self.dir_for(place, entry.key)? else {
            return Ok(());
        };
        let path = name::child(&dir.path, &place.name);
        let Ok(seen) = self.look(&dir, place.os_name()) else {
            return Ok(());
        };
        let believed = match (&row, &seen) {
            (Some(row), Some(seen)) => self.is_believed(row, seen, &path)?,
            _ => false,
        };
        self.todo.ask_held |= self.engine.held.contains(place);
        let known = match (&row, &seen) {
            (Some(row), Some(_)) if believed => Some(row.node.clone()),
            (_, None) => None,
            (_, Some(seen)) if seen.kind == SeenKind::Special => {
                self.engine
                    .problems
                    .report(&path, super::status::Reason::SpecialFile);
                return Ok(());
            }
            (_, Some(_)) => {
                self.blocked_by(entry.key, &path)?;
                return Ok(());
            }
        };
        let synced = row.as_ref().map(|row| &row.node);
        match plan::plan_entry(synced, known.as_ref(), Some(&wanted)) {
            Action::Nothing | Action::Adopt => {
                if let (Some(row), Some(seen)) = (row, seen) {
                    self.confirm(place, row, entry, wanted, seen)?;
                }
                Ok(())
            }
            Action::Record => {
                // Deleted here and not recorded yet.
                self.todo.paths.push(path);
                Ok(())
            }
            Action::Apply => self.show(place, &dir, row, seen, entry, wanted),
            Action::Forget => Ok(()),
        }
    }

    /// Disk and mesh agree; the key or version may be new.
    fn confirm(
        &mut self,
        place: &Place,
        row: Row,
        entry: &Entry,
        node: Node,
        seen: Seen,
    ) -> Outcome<()> {
        self.todo.unwanted.push(entry.key);
        let version = version_of(entry);
        if row.key == entry.key && row.version == version {
            return Ok(());
        }
        if row.key.id == entry.key.id || entry.kind != Kind::Directory {
            return Ok(self.batch.put(
                place,
                &Row {
                    key: entry.key,
                    version,
                    ..row
                },
            )?);
        }
        self.adopt(place, entry, node, seen, row.racy)
    }

    /// Puts on disk what the mesh says. What is there now is what was last synced, or nothing.
    fn show(
        &mut self,
        place: &Place,
        dir: &Arc<Dir>,
        row: Option<Row>,
        seen: Option<Seen>,
        entry: &Entry,
        wanted: Node,
    ) -> Outcome<()> {
        let path = name::child(&dir.path, &place.name);
        match (&wanted, &row) {
            (
                Node::File { content, .. },
                Some(Row {
                    node: Node::File { content: had, .. },
                    ..
                }),
            ) if content == had && seen.is_some() => {
                self.set_attributes(place, dir, row, entry, wanted)
            }
            (
                Node::File {
                    content,
                    mode,
                    mtime,
                },
                _,
            ) => {
                let want = Want {
                    key: entry.key,
                    content: *content,
                    mode: *mode,
                    mtime: *mtime,
                    label: name::display(&path),
                };
                match self.ready.remove(&entry.key) {
                    Some(file) if *file.want() == want => {
                        self.install(place, dir, row, seen, entry, wanted, &file)
                    }
                    other => {
                        // Something else was wanted when that was fetched.
                        self.todo.untidy |= other.is_some();
                        self.engine.wanted.insert(want.content.id);
                        self.todo.wants.push(want);
                        Ok(())
                    }
                }
            }
            (
                Node::Directory { .. },
                Some(Row {
                    node: Node::Directory { .. },
                    ..
                }),
            ) if seen.is_some() => self.set_dir_attributes(place, dir, row, entry, wanted),
            (Node::Directory { mode }, _) => {
                let mode = *mode;
                self.make_directory(place, dir, row, seen, entry, mode)
            }
            (Node::Symlink { target }, _) => {
                let target = target.clone();
                self.make_symlink(place, dir, row, seen, entry, &target)
            }
        }
    }

    /// Where a test cuts the power.
    #[cfg(test)]
    pub(crate) fn crash_point(&mut self, at: &'static str) {
        self.engine.fault.reached(at);
    }

    /// Where a test cuts the power; nothing outside of tests.
    #[cfg(not(test))]
    #[inline]
    pub(crate) fn crash_point(&mut self, _at: &'static str) {}

    /// Whether the disk can swap two names: where it cannot, it says so itself.
    #[cfg(test)]
    pub(super) fn can_swap(&self) -> bool {
        !self.engine.fault.cannot_swap
    }

    /// Whether the disk can swap two names: where it cannot, it says so itself.
    #[cfg(not(test))]
    #[inline]
    pub(super) fn can_swap(&self) -> bool {
        true
    }
}
