//! Puts a finished file, a link or a directory in its place without ever destroying what the user may have put there meanwhile.
//!
//! A new name is taken with `RENAME_NOREPLACE`. An old file is swapped out with `RENAME_EXCHANGE`, looked at once more in
//! the temporary directory, and only then removed: a save that slipped in between is swapped back and recorded.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use wormhole_crdt::{Entry, EntryId, LinkTarget, Mode};
use wormhole_store::Content;

use crate::folder::beneath::{self, Exchanged, Seen, SeenKind};
use crate::folder::engine::{Dir, Outcome, Step, version_of};
use crate::folder::name::{self, Place};
use crate::folder::owner;
use crate::folder::partial::PartialFile;
use crate::folder::plan::Node;
use crate::folder::record::now_ns;
use crate::folder::stamp::{is_racy_when_set, same_data, same_inode, same_stamp};
use crate::folder::state::Row;
use crate::folder::taken::Taken;
use crate::folder::trash::Berth;

/// What came of putting something in place.
enum Placed {
    Done,
    /// Something else stands there.
    Occupied,
}

impl Step<'_> {
    #[expect(
        clippy::too_many_arguments,
        reason = "what stands there, what shall, and the file"
    )]
    pub(super) fn install(
        &mut self,
        place: &Place,
        dir: &Arc<Dir>,
        row: Option<Row>,
        seen: Option<Seen>,
        entry: &Entry,
        node: Node,
        file: &PartialFile,
    ) -> Outcome<()> {
        let path = name::child(&dir.path, &place.name);
        if let Some(Row {
            node: Node::Directory { .. },
            ..
        }) = row
        {
            // A directory stood here: its files leave one by one, then this is tried again.
            if let Some(row) = row {
                self.withdraw(place, &row)?;
            }
            self.todo.blocked.push(entry.key);
            return Ok(());
        }
        if !matches!(file.is_intact(), Ok(true)) {
            // Somebody touched it where it lay, or removed it: it is not what was fetched, and is fetched again.
            file.discard();
            self.todo.keys.push(entry.key);
            return Ok(());
        }
        if let Err(error) = self.inherit(file, dir, place, row.as_ref(), seen, entry.mode) {
            self.engine.io_problem(&path, &error);
            return Ok(());
        }
        let berth = self.take_leave(row.as_ref(), &path)?;
        let made = beneath::look(self.engine.tmp.dir().as_fd(), file.name());
        self.crash_point("file complete");
        match self.put_in_place(file.name(), dir, place, row.as_ref().zip(seen), berth) {
            Ok(Placed::Done) => {}
            Ok(Placed::Occupied) => {
                self.blocked_by(entry.key, &path)?;
                return Ok(());
            }
            Err(error) => {
                self.engine.io_problem(&path, &error);
                return Ok(());
            }
        }
        self.touch(dir);
        self.crash_point("file in place");
        let at_ns = now_ns();
        let (Ok(Some(made)), Ok(Some(mut now))) = (made, self.look(dir, place.os_name())) else {
            // What stands there now, if anything, is found by trying again.
            self.todo.keys.push(entry.key);
            return Ok(());
        };
        if !same_data(&made, &now) || made.mode != now.mode {
            // Somebody was quicker: what they did to it is found by looking again, and is not what was fetched.
            now = made;
            self.todo.paths.push(path.clone());
        }
        self.refer_to(&path, &file.want().content);
        let version = version_of(entry);
        self.batch.put(
            place,
            &Row {
                key: entry.key,
                version,
                node,
                seen: now,
                racy: is_racy_when_set(&now.stamp, at_ns),
            },
        )?;
        self.engine.problems.clear(&path);
        if place.name.as_str() == name::IGNORE {
            self.rules_changed(&path);
        }
        Ok(())
    }

    /// Tells the store that a file in place holds this content.
    fn refer_to(&mut self, path: &Path, content: &Content) {
        let file = self.engine.file_path(path);
        if let Err(error) = self.engine.store.adopt(&file, content) {
            // The content is on disk all the same; it is hashed when the file is next looked at.
            tracing::warn!(path = %name::display(path), %error, "cannot refer to a fetched file");
            self.todo.paths.push(path.to_owned());
        }
    }

    /// What the disk knows of the old file stays, its permissions as far as the mesh did not change them, whatever this
    /// user's umask is now; a new one is as if it was written there.
    fn inherit(
        &self,
        file: &PartialFile,
        dir: &Dir,
        place: &Place,
        row: Option<&Row>,
        seen: Option<Seen>,
        mode: Mode,
    ) -> io::Result<()> {
        let tmp = self.engine.tmp.dir();
        let made = beneath::open_file(tmp.as_fd(), file.name())?;
        let wanted = match seen.filter(|seen| seen.kind == SeenKind::File) {
            Some(old) => {
                // One that we may not even read is not ours to take anything over from.
                if let Ok(old) = beneath::open_file(dir.fd.as_fd(), place.os_name()) {
                    owner::take_over(made.as_fd(), old.as_fd())?;
                }
                let unchanged = row.and_then(|row| row.node.mode()) == Some(mode);
                if unchanged {
                    old.mode
                } else {
                    beneath::file_mode(mode)
                }
            }
            None => {
                // Where nothing particular was said, the directory has its say as with any program that writes there.
                let asked = match mode.bits() {
                    0o644 => 0o666,
                    0o755 => 0o777,
                    said => said,
                };
                let given = owner::as_written_in(made.as_fd(), dir.fd.as_fd(), asked)?;
                given.map_or_else(|| beneath::file_mode(mode), |given| given | 0o400)
            }
        };
        if self.engine.keeps_modes && beneath::look_at(made.as_fd())?.mode != wanted {
            beneath::set_mode(made.as_fd(), wanted)?;
        }
        Ok(())
    }

    /// Moves `from` of the temporary directory to a place. `stands` is what stands there, as it was last synced; it goes to
    /// its berth.
    fn put_in_place(
        &mut self,
        from: &OsStr,
        dir: &Dir,
        place: &Place,
        stands: Option<(&Row, Seen)>,
        berth: Option<Berth>,
    ) -> io::Result<Placed> {
        let tmp = self.engine.tmp.dir();
        let source = (tmp.as_fd(), from);
        let Some((row, seen)) = stands else {
            return match beneath::rename_new(source, dir.at(place.os_name())) {
                Ok(()) => Ok(Placed::Done),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Placed::Occupied),
                Err(error) => Err(error),
            };
        };
        // Under a name of its own: what comes out must never be taken for an unfinished file and written into.
        let Some(new) = beneath::look(source.0, source.1)? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let name = Taken::new(&seen, Some(&new), row.key.id).name();
        let swap = (tmp.as_fd(), name.as_os_str());
        beneath::rename_over(source, swap)?;
        let target = dir.at(place.os_name());
        let placed = self.swap_in(swap, target, &seen, row.key.id, berth);
        // After trouble the user's own file may have that name: it stays, and the next start puts it where it belongs.
        let is_ours = |found: Option<Seen>| found.is_some_and(|found| same_inode(&found, &new));
        if !matches!(placed, Ok(Placed::Done)) && is_ours(beneath::look(swap.0, swap.1)?) {
            beneath::rename_over(swap, source)?;
        }
        placed
    }

    fn swap_in(
        &mut self,
        source: (BorrowedFd<'_>, &OsStr),
        target: (BorrowedFd<'_>, &OsStr),
        seen: &Seen,
        id: EntryId,
        berth: Option<Berth>,
    ) -> io::Result<Placed> {
        if !self.can_swap() || beneath::exchange(source, target)? == Exchanged::Unsupported {
            return self.step_in(source, target, seen, id, berth);
        }
        self.crash_point("swapped");
        let taken = beneath::look(source.0, source.1)?;
        if taken.is_some_and(|taken| is_still(&taken, seen)) {
            self.dispose_of_old(source.1, berth);
            return Ok(Placed::Done);
        }
        beneath::exchange(source, target)?;
        Ok(Placed::Occupied)
    }

    /// Where the file system cannot swap, the old one goes out and then the new one in: the name is empty for a moment,
    /// but nothing is replaced that was not looked at.
    fn step_in(
        &mut self,
        source: (BorrowedFd<'_>, &OsStr),
        target: (BorrowedFd<'_>, &OsStr),
        seen: &Seen,
        id: EntryId,
        berth: Option<Berth>,
    ) -> io::Result<Placed> {
        let name = Taken::new(seen, None, id).name();
        let out = (source.0, name.as_os_str());
        beneath::rename_new(target, out)?;
        self.crash_point("taken out to be replaced");
        let taken = beneath::look(out.0, out.1)?;
        if !taken.is_some_and(|taken| is_still(&taken, seen)) {
            beneath::rename_new(out, target)?;
            return Ok(Placed::Occupied);
        }
        match beneath::rename_new(source, target) {
            Ok(()) => {
                self.dispose_of_old(&name, berth);
                Ok(Placed::Done)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.dispose_of_old(&name, berth);
                Ok(Placed::Occupied)
            }
            Err(error) => {
                beneath::rename_new(out, target)?;
                Err(error)
            }
        }
    }

    /// What was replaced goes to its berth. When that fails the new one is in its place all the same, and the old one lies
    /// where it is until the next start tries again.
    fn dispose_of_old(&mut self, taken: &OsStr, berth: Option<Berth>) {
        if let Err(error) = self.dispose(taken, berth) {
            self.engine.io_problem(Path::new(name::TMP), &error);
        }
    }

    /// Only the time or the permissions differ: the file stays, its attributes change.
    pub(super) fn set_attributes(
        &mut self,
        place: &Place,
        dir: &Arc<Dir>,
        row: Option<Row>,
        entry: &Entry,
        node: Node,
    ) -> Outcome<()> {
        let path = name::child(&dir.path, &place.name);
        let (Some(row), Node::File { mode, mtime, .. }) = (row, &node) else {
            return Ok(());
        };
        let set = || -> io::Result<Option<Seen>> {
            let file = beneath::open_file(dir.fd.as_fd(), place.os_name())?;
            if !same_stamp(&beneath::look_at(file.as_fd())?, &row.seen) {
                return Ok(None);
            }
            if self.engine.keeps_modes && row.node.mode() != Some(*mode) {
                beneath::set_mode(file.as_fd(), beneath::file_mode(*mode))?;
            }
            beneath::set_mtime(file.as_fd(), *mtime)?;
            beneath::look_at(file.as_fd()).map(Some)
        };
        match set() {
            Ok(Some(seen)) => {
                let content = entry.file.map(|file| file.content);
                let file = self.engine.file_path(&path);
                if let Some(Err(error)) =
                    content.map(|content| self.engine.store.adopt(&file, &content))
                {
                    tracing::debug!(path = %name::display(&path), %error, "reference not renewed");
                }
                let version = version_of(entry);
                self.touch(dir);
                // A write just before the time was set cannot be told by the times any more.
                self.todo.paths.push(path.clone());
                self.batch.put(
                    place,
                    &Row {
                        key: entry.key,
                        version,
                        node,
                        seen,
                        racy: true,
                    },
                )?;
            }
            Ok(None) => {
                self.blocked_by(entry.key, &path)?;
            }
            Err(error) => self.engine.io_problem(&path, &error),
        }
        Ok(())
    }

    /// A directory gets the permissions that the mesh says.
    pub(super) fn set_dir_attributes(
        &mut self,
        place: &Place,
        dir: &Arc<Dir>,
        row: Option<Row>,
        entry: &Entry,
        node: Node,
    ) -> Outcome<()> {
        let path = name::child(&dir.path, &place.name);
        let (Some(row), Some(mode)) = (row, node.mode()) else {
            return Ok(());
        };
        let keeps_modes = self.engine.keeps_modes;
        let set = || -> io::Result<Option<Seen>> {
            let opened = self.engine.root.open_dir(&path)?;
            let found = beneath::look_at(opened.as_fd())?;
            if !same_inode(&found, &row.seen) || found.mode != row.seen.mode {
                return Ok(None);
            }
            if keeps_modes && row.node.mode() != Some(mode) {
                beneath::set_dir_mode(opened.as_fd(), beneath::dir_mode(mode))?;
            }
            beneath::look_at(opened.as_fd()).map(Some)
        };
        match set() {
            Ok(Some(seen)) => {
                let (key, version, racy) = (entry.key, None, false);
                let row = Row {
                    key,
                    version,
                    node,
                    seen,
                    racy,
                };
                self.batch.put(place, &row)?;
                self.todo.unwanted.push(key);
            }
            Ok(None) => {
                self.blocked_by(entry.key, &path)?;
            }
            Err(error) => self.engine.io_problem(&path, &error),
        }
        Ok(())
    }

    pub(super) fn make_directory(
        &mut self,
        place: &Place,
        dir: &Arc<Dir>,
        row: Option<Row>,
        seen: Option<Seen>,
        entry: &Entry,
        mode: Mode,
    ) -> Outcome<()> {
        let path = name::child(&dir.path, &place.name);
        if let (Some(row), Some(_)) = (row, seen) {
            // A file stood here: it goes the careful way first.
            self.withdraw(place, &row)?;
            if self.batch.get(place)?.is_some() {
                self.todo.blocked.push(entry.key);
                return Ok(());
            }
        }
        if let Err(error) =
            beneath::make_dir_with(dir.fd.as_fd(), place.os_name(), beneath::dir_mode(mode))
        {
            self.engine.io_problem(&path, &error);
            return Ok(());
        }
        self.touch(dir);
        self.crash_point("directory made");
        let Ok(Some(seen)) = self.look(dir, place.os_name()) else {
            self.todo.keys.push(entry.key);
            return Ok(());
        };
        if seen.kind != SeenKind::Directory {
            self.blocked_by(entry.key, &path)?;
            return Ok(());
        }
        self.batch.unkeep(place)?;
        let row = Row {
            key: entry.key,
            version: None,
            node: Node::Directory { mode },
            seen,
            racy: false,
        };
        self.batch.put(place, &row)?;
        if let Ok(made) = self.engine.root.open_dir(&path) {
            self.watch(&path, &made);
            // Whoever wrote into it before that was not heard.
            let mut is_empty = true;
            let listed = beneath::list(made.as_fd(), &mut |_| is_empty = false);
            if listed.is_err() || !is_empty {
                self.todo.scans.push(path.clone());
            }
        }
        self.engine.problems.clear(&path);
        let children = self.engine.replica.children(entry.key.id)?;
        self.todo
            .keys
            .extend(children.into_iter().map(|child| child.key));
        Ok(())
    }

    pub(super) fn make_symlink(
        &mut self,
        place: &Place,
        dir: &Arc<Dir>,
        row: Option<Row>,
        seen: Option<Seen>,
        entry: &Entry,
        target: &LinkTarget,
    ) -> Outcome<()> {
        let path = name::child(&dir.path, &place.name);
        if let Some(Row {
            node: Node::Directory { .. },
            ..
        }) = row
        {
            if let Some(row) = row {
                self.withdraw(place, &row)?;
            }
            self.todo.blocked.push(entry.key);
            return Ok(());
        }
        let mut berth = self.take_leave(row.as_ref(), &path)?;
        let temporary = std::ffi::OsString::from(format!("link-{}", entry.key.id));
        let tmp = self.engine.tmp.dir();
        let mut make = || -> io::Result<Placed> {
            beneath::remove_file(tmp.as_fd(), &temporary)?;
            beneath::make_link(tmp.as_fd(), &temporary, target.as_str())?;
            self.put_in_place(&temporary, dir, place, row.as_ref().zip(seen), berth.take())
        };
        match make() {
            Ok(Placed::Done) => {}
            Ok(Placed::Occupied) => {
                self.blocked_by(entry.key, &path)?;
                return Ok(());
            }
            Err(error) => {
                self.engine.io_problem(&path, &error);
                return Ok(());
            }
        }
        self.touch(dir);
        self.crash_point("link in place");
        let Ok(Some(now)) = self.look(dir, place.os_name()) else {
            self.todo.keys.push(entry.key);
            return Ok(());
        };
        let node = Node::Symlink {
            target: target.clone(),
        };
        let row = Row {
            key: entry.key,
            version: version_of(entry),
            node,
            seen: now,
            racy: false,
        };
        self.batch.put(place, &row)?;
        self.engine.problems.clear(&path);
        Ok(())
    }
}

/// Whether what was taken out is what was last seen there.
fn is_still(taken: &Seen, seen: &Seen) -> bool {
    taken.kind == seen.kind && same_data(taken, seen)
}
