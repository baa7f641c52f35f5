//! Takes from disk what the mesh does not show any more: only what was synced, and only if it is as it was synced.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use wormhole_crdt::{EntryId, EntryKey};

use crate::folder::beneath;
use crate::folder::engine::{Dir, Outcome, Step};
use crate::folder::name::{self, Place};
use crate::folder::stamp::same_data;
use crate::folder::state::Row;
use crate::folder::status::Reason;
use crate::folder::taken::Taken;
use crate::folder::trash::Berth;

impl Step<'_> {
    /// Removes what was synced at a place. The row stays while something there has to be recorded first.
    pub(super) fn withdraw(&mut self, place: &Place, row: &Row) -> Outcome<()> {
        let Some(dir) = self.dir_for(place, row.key)? else {
            return Ok(());
        };
        let path = name::child(&dir.path, &place.name);
        let Ok(seen) = self.look(&dir, place.os_name()) else {
            return Ok(());
        };
        let Some(seen) = seen else {
            self.batch.remove_tree(place)?;
            self.engine.problems.clear_tree(&path);
            return Ok(());
        };
        if !self.is_believed(row, &seen, &path)? {
            self.blocked_by(row.key, &path)?;
            return Ok(());
        }
        if row.node.is_directory() {
            return self.withdraw_directory(place, &dir, row);
        }
        let berth = self.take_leave(Some(row), &path)?;
        match self.remove_checked(place, &dir, row, berth) {
            Ok(true) => {
                self.touch(&dir);
                self.crash_point("file removed");
                self.batch.remove(place)?;
                self.engine.store.forgotten(&self.engine.config.id, &path)?;
                self.engine.problems.clear(&path);
                if place.name.as_str() == name::IGNORE {
                    self.rules_changed(&path);
                }
            }
            Ok(false) => {
                self.blocked_by(row.key, &path)?;
            }
            Err(error) => self.engine.io_problem(&path, &error),
        }
        Ok(())
    }

    /// Removes what was synced at a place, with all below it: the mesh shows it where this device leaves it out. Nothing of
    /// that is a deletion, and nothing is recorded; what was changed here is recorded first, as ever.
    pub(super) fn withdraw_left_out(&mut self, place: &Place) -> Outcome<()> {
        let Some(row) = self.batch.get(place)? else {
            return Ok(());
        };
        // What was just recorded here may be nowhere else yet: its bytes are kept when the file goes.
        self.engine.caught_up = None;
        if !row.node.is_directory() {
            return self.withdraw(place, &row);
        }
        let was_emptying = std::mem::replace(&mut self.emptying, true);
        let emptied = self.withdraw_below(row.key.id);
        let emptied = emptied.and_then(|()| self.withdraw(place, &row));
        self.emptying = was_emptying;
        emptied
    }

    fn withdraw_below(&mut self, top: EntryId) -> Outcome<()> {
        for key in self.keys_below(top)? {
            if let Some((place, row)) = self.batch.by_key(&key)? {
                self.withdraw(&place, &row)?;
            }
        }
        Ok(())
    }

    /// Moves a file or link out of sight, looks once more whether it is the one that is meant, and removes it.
    fn remove_checked(
        &mut self,
        place: &Place,
        dir: &Dir,
        row: &Row,
        berth: Option<Berth>,
    ) -> io::Result<bool> {
        let tmp = self.engine.tmp.dir();
        let out = Taken::new(&row.seen, None, row.key.id).name();
        beneath::rename_new(dir.at(place.os_name()), (tmp.as_fd(), &out))?;
        self.crash_point("taken out");
        let taken = beneath::look(tmp.as_fd(), &out)?;
        if taken.is_some_and(|taken| taken.kind == row.seen.kind && same_data(&taken, &row.seen)) {
            self.dispose(&out, berth)?;
            return Ok(true);
        }
        beneath::rename_new((tmp.as_fd(), &out), dir.at(place.os_name()))?;
        Ok(false)
    }

    /// The entries in a directory and deeper, each after all that are in it.
    fn keys_below(&self, top: EntryId) -> Outcome<Vec<EntryKey>> {
        let mut keys = Vec::new();
        let mut directories = vec![top];
        while let Some(directory) = directories.pop() {
            for (_place, row) in self.batch.children(directory)? {
                keys.push(row.key);
                if row.node.is_directory() {
                    directories.push(row.key.id);
                }
            }
        }
        keys.reverse();
        Ok(keys)
    }

    fn withdraw_directory(&mut self, place: &Place, dir: &Arc<Dir>, row: &Row) -> Outcome<()> {
        let path = name::child(&dir.path, &place.name);
        if !self.emptying {
            self.emptying = true;
            // Each goes its own way: away, or to where the mesh shows it now.
            let emptied = self.keys_below(row.key.id);
            let emptied = emptied.and_then(|keys| keys.iter().try_for_each(|key| self.bring(key)));
            self.emptying = false;
            emptied?;
        }
        if !self.batch.children(row.key.id)?.is_empty() {
            self.todo.blocked.push(row.key);
            return Ok(());
        }
        match beneath::remove_dir(dir.fd.as_fd(), place.os_name()) {
            Ok(()) => {
                self.touch(dir);
                self.crash_point("directory removed");
                self.batch.remove_tree(place)?;
                self.engine.problems.clear_tree(&path);
                self.unwatch(&path);
                self.forget_dirs();
            }
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                let reader = self.engine.is_read_only();
                if !reader && self.holds_something(&path)? {
                    // Files nobody has recorded yet: they are, and the directory lives on.
                    self.todo.scans.push(path);
                    self.todo.blocked.push(row.key);
                    return Ok(());
                }
                self.batch.remove_tree(place)?;
                self.batch.keep(place)?;
                self.engine.problems.report(&path, Reason::KeptDirectory);
            }
            Err(error) => self.engine.io_problem(&path, &error),
        }
        Ok(())
    }
}
