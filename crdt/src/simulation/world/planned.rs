//! What an operation is expected to do on a plain disk, and what it retires there.

use super::{Disk, Entries, Planned, Refused, body, in_hand, path, replaced};
use crate::edit::{Edit, NewAttributes};
use crate::entry::{Entry, EntryKey, Kind, Version};
use crate::simulation::disk::File;

impl Planned {
    /// `entry` gets the bytes of `new`; if it is not what the user had in hand, it is kept.
    pub(super) fn keep_unseen(
        &mut self,
        entries: &Entries,
        entry: &Entry,
        base: Option<Version>,
        new: &File,
    ) {
        if base.is_none_or(|base| base == entry.version) {
            self.replaces.extend(replaced(entry));
            return;
        }
        self.kept = body(entry).filter(|old| Some(*old) != new.body());
        self.take_in_hand(entries, &entry.key, base);
    }

    /// What the user had in hand is a copy now, or somebody has made an entry of that already.
    pub(super) fn take_in_hand(
        &mut self,
        entries: &Entries,
        key: &EntryKey,
        base: Option<Version>,
    ) {
        for entry in in_hand(entries, key, base) {
            self.replaces.extend(replaced(entry));
            let copy = path(entries, &entry.key);
            self.change(|disk| {
                disk.take(&copy);
                Ok(())
            });
        }
    }

    pub(super) fn remove(&mut self, entries: &Entries, key: &EntryKey, base: Option<Version>) {
        self.edits.push(Edit::Remove { key: *key, base });
        let entry = &entries[key];
        if base.is_some_and(|base| base != entry.version) {
            let gone = in_hand(entries, key, base).map(|entry| entry.key.id);
            self.removes.extend(gone);
            self.take_in_hand(entries, key, base);
            return;
        }
        let gone = path(entries, key);
        let inside = entries
            .values()
            .filter(|entry| path(entries, &entry.key).starts_with(&gone));
        for entry in inside {
            self.retires.extend(body(entry));
            self.removes.push(entry.key.id);
        }
        self.change(|disk| {
            disk.take(&gone);
            Ok(())
        });
    }

    pub(super) fn set_attributes(
        &mut self,
        entries: &Entries,
        key: &EntryKey,
        base: Option<Version>,
        attributes: NewAttributes,
    ) {
        self.edits.push(Edit::SetAttributes {
            key: *key,
            attributes,
            base,
        });
        let unseen = base.is_some_and(|base| base != entries[key].version);
        let copy = EntryKey {
            id: key.id,
            version: base,
        };
        let copy = entries.get(&copy).filter(|_| unseen);
        let NewAttributes { mode, mtime } = attributes;
        let mtime = mtime.filter(|_| copy.is_some() || !unseen);
        let shown = copy.unwrap_or(&entries[key]);
        let at = path(entries, &shown.key);
        self.change(|disk| match disk.files.get_mut(&at).expect("it is there") {
            // Of what came unseen nothing else is known.
            file if file.kind == Kind::Symlink && unseen && copy.is_none() => Ok(()),
            file if file.kind == Kind::Symlink => Err(Refused),
            file => {
                file.mode = mode.unwrap_or(file.mode);
                if file.kind == Kind::File {
                    file.mtime = mtime.or(file.mtime);
                }
                Ok(())
            }
        });
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut Disk) -> Result<(), Refused>) {
        if let Ok(disk) = &mut self.expected
            && change(disk).is_err()
        {
            self.expected = Err(Refused);
        }
    }
}
