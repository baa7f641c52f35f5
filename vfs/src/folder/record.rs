//! Disk → mesh: finds out what became of a path and drafts the edits that say so.
//!
//! A rename is recognised by inode; a file that was replaced under its name stays the same entry, which is how editors
//! save. Drafts are submitted together (`draft`); deletions are judged last (`removal`).

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use wormhole_crdt::{Entry, EntryKey, LinkTarget, Mode};

use super::beneath::{self, Seen, SeenKind};
use super::engine::{
    Dir, Engine, Look, Outcome, Passed, Step, Todo, is_replaced, node_of, version_of,
};
use super::ignore::Shape;
use super::name::{self, Place};
use super::plan::{self, Action, Node};
use super::settle::{Doubt, Due};
use super::stamp::{same_data, same_inode, unchanged};
use super::state::{Keep, Row};
use super::status::Reason;

mod draft;
mod import;
mod removal;
mod submit;

pub(crate) use draft::Draft;
pub(crate) use import::now_ns;
pub(crate) use removal::Answer;

/// Bigger files are hashed beside the steps, so that they delay nobody.
const BESIDE_BYTES: u64 = 16 << 20;

impl Engine {
    /// Looks at paths that are due and records what became of them. Names that vanished are only noted: they are judged
    /// together, after the new directories were seen that they may have been moved to.
    pub(crate) fn check(&mut self, due: Vec<Due>) -> Outcome<Todo> {
        let mut step = self.begin(Keep::Now)?;
        let mut looks = Vec::new();
        for Due { path, doubt } in due {
            if path == Path::new(name::LOCAL_IGNORE) {
                step.rules_changed(&path);
                continue;
            }
            looks.extend(step.check_path(&path, doubt)?);
        }
        step.examine(looks)?;
        step.end()
    }

    /// Reads files again that were renamed.
    pub(crate) fn read_again(&mut self, paths: Vec<PathBuf>) -> Outcome<Todo> {
        let due = |path| Due {
            path,
            doubt: Doubt::Bytes,
        };
        self.check(paths.into_iter().map(due).collect())
    }
}

impl Step<'_> {
    /// Looks at one path. Answers a file whose content has to be found out: also of one whose stamp says that it has not
    /// changed, if there is doubt about that.
    pub(crate) fn check_path(&mut self, path: &Path, doubt: Doubt) -> Outcome<Option<Look>> {
        if path.as_os_str().is_empty() {
            self.todo.scans.push(PathBuf::new());
            return Ok(None);
        }
        let base = self.engine.config.base;
        let Some(place) = self.batch.place_of(base, path)? else {
            return self.check_above(path);
        };
        let Some(dir) = self.dir(place.parent)? else {
            return Ok(None);
        };
        let shape = match beneath::look(dir.fd.as_fd(), place.os_name()) {
            Ok(Some(seen)) if seen.kind == SeenKind::Directory => Shape::Directory,
            Ok(_) | Err(_) => Shape::Other,
        };
        if self.ignored(path, Some(&place), shape)? {
            return Ok(None);
        }
        let mut row = self.batch.get(&place)?;
        if let Some(row) = &mut row {
            row.racy |= doubt == Doubt::Bytes;
            let directory = row.node.is_directory() && shape == Shape::Directory;
            if directory && doubt >= Doubt::Identity {
                self.todo.scans.push(path.to_owned());
            }
        }
        if row.is_none()
            && beneath::look(dir.fd.as_fd(), place.os_name()).is_ok_and(|seen| seen.is_none())
        {
            self.engine.problems.clear_tree(path);
            // A directory that is made there again is a new one.
            self.batch.unkeep(&place)?;
            return Ok(None);
        }
        self.find(&place, row, &dir)
    }

    /// A path in a directory that is not synced: the first unknown directory above it is looked at instead.
    fn check_above(&mut self, path: &Path) -> Outcome<Option<Look>> {
        if let Some(name) = path.file_name()
            && let Err(reason) = name::parse(name)
        {
            if !self.is_there(path) {
                self.engine.problems.clear_tree(path);
                return Ok(None);
            }
            if self
                .engine
                .rules
                .ignored(&self.engine.root, path, Shape::Other)
                .is_none()
            {
                self.engine.problems.report(path, reason);
            }
            return Ok(None);
        }
        match path.parent() {
            Some(above) if !above.as_os_str().is_empty() => self.check_path(above, Doubt::Nothing),
            Some(_) | None => Ok(None),
        }
    }

    /// Whether something stands at a path that has no place in the mesh, as far as can be told.
    fn is_there(&self, path: &Path) -> bool {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return false;
        };
        match self.engine.root.open_dir(above) {
            Ok(dir) => !matches!(beneath::look(dir.as_fd(), name), Ok(None)),
            Err(error) => !is_replaced(&error),
        }
    }

    /// Compares what stands at a place with what was last synced there. The path is not ignored by a directory above.
    pub(crate) fn find(
        &mut self,
        place: &Place,
        row: Option<Row>,
        dir: &std::sync::Arc<Dir>,
    ) -> Outcome<Option<Look>> {
        let path = name::child(&dir.path, &place.name);
        let Ok(seen) = self.look(dir, place.os_name()) else {
            return Ok(None);
        };
        let same = matches!((&row, &seen), (Some(row), Some(seen)) if unchanged(row, seen));
        let bad = place.name.as_str() == name::IGNORE && self.engine.rules.is_bad(&path);
        if place.name.as_str() == name::IGNORE && (bad || !same) {
            self.rules_changed(&path);
        }
        let Some(seen) = seen else {
            if row.is_some() {
                self.todo.gone.push(place.clone());
            }
            return Ok(None);
        };
        self.todo.ask_held |= self.engine.held.contains(place);
        let shape = if seen.kind == SeenKind::Directory {
            Shape::Directory
        } else {
            Shape::Other
        };
        if self.ignored(&path, Some(place), shape)? || self.unsyncable(&path, &seen) {
            return Ok(None);
        }
        match row {
            Some(row) if unchanged(&row, &seen) => {
                if seen.kind != SeenKind::Directory {
                    if !bad {
                        self.engine.problems.clear(&path);
                    }
                } else if self.engine.problems.at(&path).is_some() {
                    // Its name is fine; whether it can be looked into, looking into it shows.
                    self.todo.scans.push(path.clone());
                }
                self.unreferenced(place, &path, &row)
            }
            Some(row) if row.seen.kind == seen.kind => self.changed(place, &path, &row, seen, dir),
            Some(_) => {
                // Another kind of thing under the same name: the old one is gone, the new one is new.
                self.submit()?;
                self.replaced(place)?;
                self.appeared(place, &path, seen, dir)
            }
            None => self.appeared(place, &path, seen, dir),
        }
    }

    /// A file as it was last synced, which the store has lost sight of: it is read again, so that others can have it.
    fn unreferenced(&mut self, place: &Place, path: &Path, row: &Row) -> Outcome<Option<Look>> {
        let Node::File { content, .. } = &row.node else {
            return Ok(None);
        };
        let file = self.engine.file_path(path);
        match self.engine.store.refers_to(&file) {
            Ok(false) if !content.is_empty() => self.look_inside(place, path, row.seen),
            Ok(_) => Ok(None),
            Err(error) => {
                tracing::warn!(path = %name::display(path), %error, "cannot tell whether others can have it");
                Ok(None)
            }
        }
    }

    fn unsyncable(&mut self, path: &Path, seen: &Seen) -> bool {
        let reason = if seen.kind == SeenKind::Special {
            Reason::SpecialFile
        } else if seen.stamp.dev != self.engine.dev {
            Reason::OtherFileSystem
        } else {
            return false;
        };
        self.engine.problems.report(path, reason);
        true
    }

    /// The same kind of thing under the same name, but not the same as before.
    fn changed(
        &mut self,
        place: &Place,
        path: &Path,
        row: &Row,
        seen: Seen,
        dir: &Dir,
    ) -> Outcome<Option<Look>> {
        match seen.kind {
            SeenKind::File => self.look_inside(place, path, seen),
            SeenKind::Directory => {
                // Replaced by another directory: the entry stays, what is in it is compared.
                if !same_inode(&row.seen, &seen) {
                    self.todo.scans.push(path.to_owned());
                }
                let mode = self.mode_of(&seen, Some(row));
                self.decide(place, path, Node::Directory { mode }, seen, false)?;
                Ok(None)
            }
            SeenKind::Symlink => {
                if let Ok(node) = self.link_node(path, place, dir) {
                    self.decide(place, path, node, seen, false)?;
                }
                Ok(None)
            }
            SeenKind::Special => Ok(None),
        }
    }

    /// Something stands where nothing was synced.
    fn appeared(
        &mut self,
        place: &Place,
        path: &Path,
        seen: Seen,
        dir: &Dir,
    ) -> Outcome<Option<Look>> {
        if let Some((from, row)) = self.renamed_from(&seen)? {
            return self.renamed(&from, place, path, row, seen);
        }
        let now = Instant::now();
        if self.engine.at_home {
            let bytes = if seen.kind == SeenKind::File {
                seen.stamp.size
            } else {
                0
            };
            self.engine.guard.appeared(path, bytes, now);
            self.todo.ask_held |= self.engine.held.may_be_replaced(path, now);
        } else {
            self.engine.guard.was_there(path, now);
        }
        match seen.kind {
            SeenKind::File => self.look_inside(place, path, seen),
            SeenKind::Directory => {
                if self.batch.is_kept(place)? {
                    if !self.holds_something(path)? {
                        return Ok(None);
                    }
                    self.batch.unkeep(place)?;
                }
                let mode = self.mode_of(&seen, None);
                self.decide(place, path, Node::Directory { mode }, seen, false)?;
                self.todo.scans.push(path.to_owned());
                Ok(None)
            }
            SeenKind::Symlink => {
                if let Ok(node) = self.link_node(path, place, dir) {
                    self.decide(place, path, node, seen, false)?;
                }
                Ok(None)
            }
            SeenKind::Special => Ok(None),
        }
    }

    /// Whether a directory that was deleted elsewhere holds anything that would be synced.
    pub(crate) fn holds_something(&mut self, path: &Path) -> Outcome<bool> {
        let mut directories = vec![path.to_owned()];
        while let Some(path) = directories.pop() {
            let Ok(fd) = self.engine.root.open_dir(&path) else {
                continue;
            };
            let mut names = Vec::new();
            let listed = beneath::list(fd.as_fd(), &mut |name| {
                names.push(name.to_owned());
            });
            if let Err(error) = listed {
                self.engine.io_problem(&path, &error);
            }
            for name in names {
                let child = path.join(&name);
                let shape = match beneath::look(fd.as_fd(), &name) {
                    Ok(Some(seen)) if seen.kind == SeenKind::Directory => Shape::Directory,
                    Ok(_) | Err(_) => Shape::Other,
                };
                if self.ignored(&child, None, shape)? {
                    continue;
                }
                match shape {
                    Shape::Directory => directories.push(child),
                    Shape::Other => return Ok(true),
                }
            }
        }
        Ok(false)
    }

    fn look_inside(&mut self, place: &Place, path: &Path, seen: Seen) -> Outcome<Option<Look>> {
        let now = now_ns();
        let pause = self.engine.config.quiet.growing;
        let quiet = i64::try_from(pause.as_nanos()).unwrap_or(i64::MAX);
        if self.comparing && (now.saturating_sub(quiet)..=now).contains(&seen.stamp.mtime_ns) {
            // Perhaps somebody is writing it. Once it is left alone for a moment, or after that moment if nobody tells.
            self.todo.later.push((path.to_owned(), pause));
            return Ok(None);
        }
        let look = Look {
            place: place.clone(),
            path: path.to_owned(),
            seen,
            at_ns: now,
            said: self.said_and_forgotten(place)?.map(Box::new),
        };
        if seen.stamp.size > BESIDE_BYTES {
            self.todo.imports.push(look);
            return Ok(None);
        }
        Ok(Some(look))
    }

    /// The permissions that the mesh shall know of what is seen. Those that were applied here stand for those that
    /// were wanted; what a file system without permissions shows stands for nothing.
    fn mode_of(&self, seen: &Seen, row: Option<&Row>) -> Mode {
        let wanted = row.and_then(|row| Some((row.node.mode()?, row.seen.mode)));
        match wanted {
            Some((wanted, applied)) if !self.engine.keeps_modes || applied == seen.mode => wanted,
            None if !self.engine.keeps_modes => match seen.kind {
                SeenKind::Directory => Mode::DIRECTORY,
                SeenKind::File | SeenKind::Symlink | SeenKind::Special => Mode::FILE,
            },
            Some(_) | None => Mode::new(seen.mode),
        }
    }

    fn link_node(&mut self, path: &Path, place: &Place, dir: &Dir) -> Result<Node, Passed> {
        match beneath::read_link(dir.fd.as_fd(), place.os_name()) {
            Ok(raw) => {
                let text = String::from_utf8(raw).ok();
                match text.and_then(|text| LinkTarget::parse(&text).ok()) {
                    Some(target) => Ok(Node::Symlink { target }),
                    None => {
                        self.engine.problems.report(path, Reason::LinkTarget);
                        Err(Passed)
                    }
                }
            }
            Err(error) => {
                self.engine.io_problem(path, &error);
                Err(Passed)
            }
        }
    }

    /// The place this very file or directory was last synced at, if it is not there any more.
    fn renamed_from(&mut self, seen: &Seen) -> Outcome<Option<(Place, Row)>> {
        let Some((from, row)) = self.batch.by_inode(seen)? else {
            return Ok(None);
        };
        if !same_inode(&row.seen, seen) {
            return Ok(None);
        }
        let Some(dir) = self.dir(from.parent)? else {
            let gone = self.is_dir_gone(from.parent)?;
            return Ok(gone.then_some((from, row)));
        };
        let Ok(still) = self.look(&dir, from.os_name()) else {
            return Ok(None);
        };
        Ok(match still {
            None => Some((from, row)),
            // A second name of one file (a hard link) is a file of its own to the mesh. A file that was set aside while a
            // new one took its name is how some editors save: the entry stays with its name.
            Some(now) if same_inode(&now, seen) || now.kind == SeenKind::File => None,
            Some(_) => Some((from, row)),
        })
    }

    fn renamed(
        &mut self,
        from: &Place,
        to: &Place,
        path: &Path,
        row: Row,
        seen: Seen,
    ) -> Outcome<Option<Look>> {
        if self.engine.is_read_only() {
            self.engine.problems.report(path, Reason::ReadOnlyMember);
            return Ok(None);
        }
        let from_path = self.path_of(from)?;
        let Some(to) = self.draft_move(from, to, path, &row)? else {
            return Ok(None);
        };
        let to = &to;
        // A directory that was made again for it may be the one it was in.
        let stood = self.batch.by_key(&row.key)?;
        let from = stood.as_ref().map_or(from, |(place, _)| place);
        // Its permissions may have changed with its name.
        let chmod = row.seen.mode != seen.mode;
        let same = seen.kind != SeenKind::File || (same_data(&row.seen, &seen) && !chmod);
        let row = if same {
            let seen = seen.with_mode(row.seen.mode);
            // Who edits in place and puts the time back leaves no other trace: a rename moves the ctime. It is read later.
            let racy = row.racy || seen.kind == SeenKind::File;
            Row { seen, racy, ..row }
        } else {
            row
        };
        if same && chmod {
            self.todo.paths.push(path.to_owned());
        }
        self.batch.remove(from)?;
        self.batch.put(to, &row)?;
        self.engine.problems.clear(path);
        if let Some(from_path) = from_path {
            self.engine
                .store
                .moved(&self.engine.config.id, &from_path, path)?;
            self.engine.problems.clear_tree(&from_path);
            if seen.kind == SeenKind::Directory {
                self.unwatch(&from_path);
            }
        }
        if seen.kind == SeenKind::Directory {
            self.forget_dirs();
            self.todo.scans.push(path.to_owned());
        }
        if same {
            if seen.kind == SeenKind::File {
                self.todo.doubted.push(path.to_owned());
            }
            return Ok(None);
        }
        self.look_inside(to, path, seen)
    }

    pub(crate) fn path_of(&self, place: &Place) -> Outcome<Option<PathBuf>> {
        let dir = self
            .batch
            .path_of_dir(self.engine.config.base, place.parent)?;
        Ok(dir.map(|dir| name::child(&dir, &place.name)))
    }

    /// Decides about a place whose facts on disk are known.
    pub(crate) fn decide(
        &mut self,
        place: &Place,
        path: &Path,
        node: Node,
        seen: Seen,
        racy: bool,
    ) -> Outcome<()> {
        let row = match self
            .batch
            .get(place)?
            .filter(|row| row.seen.kind == seen.kind)
        {
            Some(row) => Some(self.following(place, row)?),
            None => None,
        };
        let entry = match &row {
            Some(row) => self.shown(&row.key)?,
            None => self.shown_at(place)?,
        };
        let mesh = entry.as_ref().and_then(node_of);
        let action = plan::plan_entry(
            row.as_ref().map(|row| &row.node),
            Some(&node),
            mesh.as_ref(),
        );
        self.engine.problems.clear(path);
        match (action, row, entry) {
            (Action::Nothing, Some(row), _) => self.batch.put(place, &Row { seen, racy, ..row })?,
            (Action::Apply, Some(row), _) => {
                let key = row.key;
                self.batch.put(place, &Row { seen, racy, ..row })?;
                self.todo.keys.push(key);
            }
            (Action::Adopt, _, Some(entry)) => self.adopt(place, &entry, node, seen, racy)?,
            (Action::Record, row, entry)
                if self.same_without_memory(row.as_ref(), &node, entry.as_ref()) =>
            {
                // The same bytes, or a directory, on both sides before they were ever synced: nothing to send, only
                // the time and the permissions of the mesh to take over.
                if let Some(entry) = entry {
                    let key = entry.key;
                    self.adopt(place, &entry, node, seen, racy)?;
                    self.todo.keys.push(key);
                }
            }
            (_, row, entry) => self.draft(place, path, row, entry, node, seen, racy)?,
        }
        Ok(())
    }

    fn same_without_memory(&self, row: Option<&Row>, node: &Node, entry: Option<&Entry>) -> bool {
        let theirs = entry.and_then(node_of);
        match (row, node, theirs) {
            (None, Node::File { content, .. }, Some(Node::File { content: other, .. })) => {
                *content == other
            }
            (None, Node::Directory { .. }, Some(Node::Directory { .. })) => true,
            _ => false,
        }
    }

    /// Disk and mesh agree: remember it.
    pub(crate) fn adopt(
        &mut self,
        place: &Place,
        entry: &Entry,
        node: Node,
        seen: Seen,
        racy: bool,
    ) -> Outcome<()> {
        let version = version_of(entry);
        self.rekey_children(place, entry.key)?;
        self.batch.put(
            place,
            &Row {
                key: entry.key,
                version,
                node,
                seen,
                racy,
            },
        )?;
        self.todo.progress = true;
        if entry.kind == wormhole_crdt::Kind::Directory {
            self.todo
                .scans
                .push(self.path_of(place)?.unwrap_or_default());
            for child in self.engine.replica.children(entry.key.id)? {
                if self.batch.by_key(&child.key)?.is_none() {
                    self.todo.keys.push(child.key);
                }
            }
        }
        Ok(())
    }

    /// The directory at a place is another entry now (two of one name became one): its rows follow.
    pub(crate) fn rekey_children(&mut self, place: &Place, key: EntryKey) -> Outcome<()> {
        let Some(old) = self.batch.get(place)? else {
            return Ok(());
        };
        if old.key.id == key.id || !old.node.is_directory() {
            return Ok(());
        }
        for (from, _row) in self.batch.children(old.key.id)? {
            self.batch
                .relocate(&from, &Place::new(key.id, from.name.clone()))?;
        }
        self.forget_dirs();
        Ok(())
    }
}
