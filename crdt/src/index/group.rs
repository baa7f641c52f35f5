//! Step three of an update: names the groups whose claimants changed, and writes the rows.
//!
//! All names are decided before any row is written, because names pass from one entry to another.

use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableTable;

use super::IndexError;
use super::record::{Place, Record};
use super::table::{
    COUNTS_KEY, any_with, blocked_key, keys_with, name_prefix, pack, row_key, text, unpack,
};
use super::update::Index;
use crate::entry::{Counts, Entry, EntryChange, EntryKey, Kind};
use crate::id::EntryId;
use crate::rule::naming::{Claimant, Group, Shown, name_all};

/// What was decided in this update.
#[derive(Default)]
struct Decided {
    /// The rows of each entry.
    rows: BTreeMap<EntryId, (EntryId, Vec<Shown>)>,
    /// Which group a name was given out by that is not its own: `(directory, name)` → claimed name.
    lent: BTreeMap<(EntryId, String), String>,
}

impl Index<'_> {
    pub(super) fn name_groups(&mut self) -> Result<(), IndexError> {
        let mut decided = Decided::default();
        while let Some((parent, fold)) = self.dirty.pop_first() {
            let directory = self.stands(&parent)?;
            self.name_group(directory, &fold, &mut decided)?;
        }
        self.write_rows(decided)
    }

    fn name_group(
        &mut self,
        directory: EntryId,
        fold: &str,
        decided: &mut Decided,
    ) -> Result<(), IndexError> {
        let ids = self.claimants(&directory, fold)?;
        self.wake_others(directory, fold, decided)?;
        let mut records: Vec<(EntryId, Record)> = Vec::with_capacity(ids.len());
        for id in ids {
            records.push((id, self.record(&id)?.cloned().ok_or(IndexError::Damaged)?));
        }
        let claimants: Vec<Claimant<'_>> = records
            .iter()
            .map(|(id, record)| Claimant {
                id: *id,
                name: record.name(),
                merged: &record.merged,
            })
            .collect();
        let members = self.members(&directory)?;
        let mut blocked = Vec::new();
        let group = name_all(&claimants, |wanted| {
            for member in &members {
                if any_with(&self.tables.claims, &name_prefix(member, wanted))? {
                    blocked.push(wanted.to_owned());
                    return Ok::<_, IndexError>(true);
                }
            }
            Ok(false)
        })?;
        for wanted in blocked {
            let key = blocked_key(&directory, &wanted, fold);
            self.tables.blocked.insert(key.as_slice(), [].as_slice())?;
        }
        let Group { directories, shown } = group;
        self.join_directories(&directories)?;
        let mut rows: BTreeMap<EntryId, Vec<Shown>> =
            records.iter().map(|(id, _)| (*id, Vec::new())).collect();
        for row in shown {
            let folded = row.name.fold();
            if folded != fold {
                decided.lent.insert((directory, folded), fold.to_owned());
            }
            rows.entry(row.key.id).or_default().push(row);
        }
        decided
            .rows
            .extend(rows.into_iter().map(|(id, rows)| (id, (directory, rows))));
        Ok(())
    }

    /// Other groups of the directory that use this name for a copy, or would like to: they must decide
    /// again when its claimants change.
    fn wake_others(
        &mut self,
        directory: EntryId,
        fold: &str,
        decided: &mut Decided,
    ) -> Result<(), IndexError> {
        let prefix = name_prefix(&directory, fold);
        for key in keys_with(&self.tables.blocked, &prefix)? {
            let claimed = text(key.get(prefix.len()..).unwrap_or_default())?;
            self.tables.blocked.remove(key.as_slice())?;
            self.dirty.insert((directory, claimed));
        }
        if let Some(claimed) = decided.lent.remove(&(directory, fold.to_owned())) {
            self.dirty.insert((directory, claimed));
        }
        let Some(entry) = self.row(&directory, fold)? else {
            return Ok(());
        };
        if let Some(claim) = self.claim(&entry.key.id)?
            && claim.fold != fold
        {
            self.mark_dirty(claim.parent, claim.fold)?;
        }
        Ok(())
    }

    /// Makes the first stand for all. What is inside those that joined or left is named again.
    fn join_directories(&mut self, directories: &[EntryId]) -> Result<(), IndexError> {
        let Some((first, others)) = directories.split_first() else {
            return Ok(());
        };
        let before = self.members(first)?;
        let changed: BTreeSet<EntryId> = before
            .iter()
            .filter(|id| !directories.contains(id))
            .chain(directories.iter().filter(|id| !before.contains(id)))
            .copied()
            .collect();
        for id in directories {
            let stood = self.stands(id)?;
            if stood != *first {
                let record = self.record_mut(id)?.ok_or(IndexError::Damaged)?;
                record.stands = *first;
                if id != first {
                    record.members.clear();
                }
                self.rename_inside(id, &[*id, stood, *first])?;
            }
        }
        if !changed.is_empty() {
            let record = self.record_mut(first)?.ok_or(IndexError::Damaged)?;
            record.members = others.to_vec();
            for id in &changed {
                self.rename_inside(id, &[*id, *first])?;
            }
        }
        Ok(())
    }

    /// Dissolves what `id` stands for, or takes it out of what stands for it: it leaves its place.
    pub(super) fn part_directory(&mut self, id: &EntryId) -> Result<(), IndexError> {
        let stood = self.stands(id)?;
        let members = self.members(id)?;
        if stood == *id && members.len() == 1 {
            return Ok(());
        }
        for member in members {
            self.rename_inside(&member, &[member, stood, *id])?;
        }
        if let Some(record) = self.record_mut(id)? {
            record.stands = *id;
            record.members.clear();
        }
        Ok(())
    }

    /// Every name claimed in `id`, in each of `directories`.
    fn rename_inside(&mut self, id: &EntryId, directories: &[EntryId]) -> Result<(), IndexError> {
        for (fold, _) in self.claims_in(id)? {
            for directory in directories {
                self.dirty.insert((*directory, fold.clone()));
            }
        }
        Ok(())
    }

    fn write_rows(&mut self, decided: Decided) -> Result<(), IndexError> {
        let mut new: Vec<(Place, Entry)> = Vec::new();
        for (id, (directory, shown)) in decided.rows {
            let Some(record) = self
                .record(&id)?
                .filter(|record| record.claim.is_some())
                .cloned()
            else {
                continue;
            };
            let mut places = Vec::with_capacity(shown.len());
            for Shown {
                key,
                name,
                conflict,
            } in shown
            {
                let place = Place {
                    version: key.version,
                    directory,
                    fold: name.fold(),
                };
                let entry = record.merged.show(key, directory, name, conflict);
                new.push((place.clone(), entry.ok_or(IndexError::Damaged)?));
                places.push(place);
            }
            for old in record.rows.iter().filter(|old| !places.contains(old)) {
                self.remove_row(
                    old,
                    EntryKey {
                        id,
                        version: old.version,
                    },
                )?;
            }
            if places != record.rows
                && let Some(record) = self.record_mut(&id)?
            {
                record.rows = places;
            }
        }
        for (place, entry) in new {
            self.insert_row(&place, entry)?;
        }
        Ok(())
    }

    /// Removes a row, if `key` still has it.
    pub(super) fn remove_row(&mut self, place: &Place, key: EntryKey) -> Result<(), IndexError> {
        let Some(entry) = self
            .row(&place.directory, &place.fold)?
            .filter(|row| row.key == key)
        else {
            return Ok(());
        };
        let row = row_key(&place.directory, &place.fold);
        self.tables.rows.remove(row.as_slice())?;
        if entry.conflict {
            self.tables.conflicts.remove(row.as_slice())?;
        }
        self.note(key, Some(entry), None);
        Ok(())
    }

    fn insert_row(&mut self, place: &Place, entry: Entry) -> Result<(), IndexError> {
        let old = self.row(&place.directory, &place.fold)?;
        if old.as_ref() == Some(&entry) {
            return Ok(());
        }
        let row = row_key(&place.directory, &place.fold);
        self.tables
            .rows
            .insert(row.as_slice(), pack(&entry).as_slice())?;
        if entry.conflict {
            self.tables
                .conflicts
                .insert(row.as_slice(), [].as_slice())?;
        } else if old.as_ref().is_some_and(|old| old.conflict) {
            self.tables.conflicts.remove(row.as_slice())?;
        }
        if let Some(other) = old.as_ref().filter(|old| old.key != entry.key) {
            self.note(other.key, Some(other.clone()), None);
        }
        let before = old.filter(|old| old.key == entry.key);
        self.note(entry.key, before, Some(entry));
        Ok(())
    }

    /// Remembers what was shown before the update, and what is shown now.
    fn note(&mut self, key: EntryKey, before: Option<Entry>, after: Option<Entry>) {
        self.changes.entry(key).or_insert((before, None)).1 = after;
    }

    pub(crate) fn row(&self, directory: &EntryId, fold: &str) -> Result<Option<Entry>, IndexError> {
        let stored = self.tables.rows.get(row_key(directory, fold).as_slice())?;
        stored.map(|bytes| unpack(bytes.value())).transpose()
    }

    /// Keeps the totals.
    pub(super) fn count(&mut self, changes: &[EntryChange]) -> Result<(), IndexError> {
        if changes.is_empty() {
            return Ok(());
        }
        let stored = self.tables.totals.get(COUNTS_KEY)?;
        let mut counts: Counts = stored
            .map(|bytes| unpack(bytes.value()))
            .transpose()?
            .unwrap_or_default();
        for change in changes {
            if let Some(before) = &change.before {
                tally(&mut counts, before, |total, amount| {
                    *total = total.saturating_sub(amount);
                });
            }
            if let Some(after) = &change.after {
                tally(&mut counts, after, |total, amount| {
                    *total = total.saturating_add(amount);
                });
            }
        }
        self.tables
            .totals
            .insert(COUNTS_KEY, pack(&counts).as_slice())?;
        Ok(())
    }
}

fn tally(counts: &mut Counts, entry: &Entry, change: impl Fn(&mut u64, u64)) {
    match entry.kind {
        Kind::File => change(&mut counts.files, 1),
        Kind::Directory => change(&mut counts.directories, 1),
        Kind::Symlink => change(&mut counts.symlinks, 1),
    }
    change(&mut counts.bytes, entry.size());
}
