//! Steps one and two of an update: merge the registers that changed, and move the claims of names.
//!
//! An entry claims its name in its parent while it is shown. Whether a removed directory is shown depends
//! on the claims below it, so claims are refreshed until nothing changes. What is left for `group` is a
//! set of names whose claimants changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::IndexError;
use super::record::{Claim, Record};
use super::table::{
    Tables, any_with, claim_key, claimed_fold, keys_with, last_id, name_prefix, pack, pair_key,
    unpack,
};
use crate::entry::{Entry, EntryChange, EntryKey};
use crate::id::EntryId;
use crate::register::Registers;
use crate::rule::cycle::{self, Edge};
use crate::rule::{Fallback, Merged, place, read};

/// The index, open in a write transaction.
pub(crate) struct Index<'t> {
    pub(super) tables: Tables<'t>,
    records: HashMap<EntryId, Cached>,
    /// Names, by directory, whose claimants changed.
    pub(super) dirty: BTreeSet<(EntryId, String)>,
    pub(super) changes: BTreeMap<EntryKey, (Option<Entry>, Option<Entry>)>,
}

/// A record in memory during an update.
struct Cached {
    record: Option<Record>,
    changed: bool,
}

impl<'t> Index<'t> {
    pub(crate) fn open(txn: &'t WriteTransaction) -> Result<Self, IndexError> {
        Ok(Self {
            tables: Tables::open(txn)?,
            records: HashMap::new(),
            dirty: BTreeSet::new(),
            changes: BTreeMap::new(),
        })
    }

    /// See [`super::apply`].
    pub(crate) fn apply(
        &mut self,
        registers: &dyn Registers,
        touched: impl IntoIterator<Item = EntryId>,
    ) -> Result<Vec<EntryChange>, IndexError> {
        let mut refresh = VecDeque::new();
        let mut moved = Vec::new();
        for id in self.with_copies(touched)? {
            self.merge(registers, id, &mut refresh, &mut moved)?;
        }
        self.break_cycles(&moved, &mut refresh)?;
        self.refresh_claims(refresh)?;
        self.name_groups()?;
        self.flush()
    }

    /// And the entries that depend on what was written to these.
    fn with_copies(
        &self,
        touched: impl IntoIterator<Item = EntryId>,
    ) -> Result<BTreeSet<EntryId>, IndexError> {
        let mut all: BTreeSet<EntryId> = touched.into_iter().collect();
        if !self.tables.copies.is_empty()? {
            let mut copies = Vec::new();
            for id in &all {
                copies.append(&mut self.copies(id)?);
            }
            all.extend(copies);
        }
        Ok(all)
    }

    /// The entries that were conflict copies of `id`'s contents, dead ones too.
    pub(crate) fn copies(&self, id: &EntryId) -> Result<Vec<EntryId>, IndexError> {
        let keys = keys_with(&self.tables.copies, id.as_bytes())?;
        keys.iter().map(|key| last_id(key)).collect()
    }

    /// Notes what decides about an entry's contents beside its own registers.
    fn note_origins(
        &mut self,
        id: &EntryId,
        old: &[EntryId],
        new: &[EntryId],
    ) -> Result<(), IndexError> {
        for origin in old {
            self.tables.copies.remove(pair_key(origin, id).as_slice())?;
        }
        for origin in new {
            let key = pair_key(origin, id);
            self.tables.copies.insert(key.as_slice(), [].as_slice())?;
        }
        Ok(())
    }

    /// Step one. Notes in `refresh` whose claims may change, in `moved` which directories did.
    fn merge(
        &mut self,
        registers: &dyn Registers,
        id: EntryId,
        refresh: &mut VecDeque<EntryId>,
        moved: &mut Vec<EntryId>,
    ) -> Result<(), IndexError> {
        let new = read(registers, &id)?;
        let old = self.record(&id)?.map(|record| record.merged.clone());
        if new == old {
            return Ok(());
        }
        let is_directory =
            |merged: &Option<Merged>| merged.as_ref().is_some_and(Merged::is_directory);
        let becomes = is_directory(&old) != is_directory(&new);
        if is_directory(&old) || is_directory(&new) {
            moved.push(id);
        }
        let origins = |merged: &Option<Merged>| {
            merged
                .as_ref()
                .map_or(Vec::new(), |merged| merged.origins.clone())
        };
        self.note_origins(&id, &origins(&old), &origins(&new))?;
        if let Some(old) = &old {
            let key = pair_key(&old.parent, &id);
            match old.is_directory() {
                true => self.tables.subdirectories.remove(key.as_slice())?,
                false => self.tables.waiting.remove(key.as_slice())?,
            };
            if becomes {
                self.unclaim(&id)?;
            }
        }
        if let Some(new) = &new {
            let key = pair_key(&new.parent, &id);
            if new.is_directory() {
                self.tables
                    .subdirectories
                    .insert(key.as_slice(), [].as_slice())?;
            } else if !self.is_directory(&new.parent)? {
                self.tables.waiting.insert(key.as_slice(), [].as_slice())?;
            }
        }
        if becomes {
            refresh.extend(self.children_by_placement(&id, is_directory(&new))?);
        }
        refresh.push_back(id);
        self.set_merged(id, new)
    }

    fn set_merged(&mut self, id: EntryId, merged: Option<Merged>) -> Result<(), IndexError> {
        let Some(merged) = merged else {
            // The registers were dropped for good, which happens only to what was not shown.
            self.unclaim(&id)?;
            self.records.insert(
                id,
                Cached {
                    record: None,
                    changed: true,
                },
            );
            return Ok(());
        };
        match self.record_mut(&id)? {
            Some(record) => record.merged = merged,
            None => {
                let record = Some(Record::new(id, merged));
                self.records.insert(
                    id,
                    Cached {
                        record,
                        changed: true,
                    },
                );
            }
        }
        if let Some(Claim { parent, fold, .. }) = self.claim(&id)? {
            self.mark_dirty(parent, fold)?;
        }
        Ok(())
    }

    /// What names `id` as its parent, when it becomes known as a directory or ceases to be. Of files
    /// that are not shown, none need be told.
    fn children_by_placement(
        &mut self,
        id: &EntryId,
        is_directory: bool,
    ) -> Result<Vec<EntryId>, IndexError> {
        let prefix = id.as_bytes();
        let mut keys = keys_with(&self.tables.subdirectories, prefix)?;
        for key in keys_with(&self.tables.claims, prefix)? {
            let child = last_id(&key)?;
            if !is_directory && !self.is_directory(&child)? {
                self.tables
                    .waiting
                    .insert(pair_key(id, &child).as_slice(), [].as_slice())?;
            }
            keys.push(key);
        }
        for key in keys_with(&self.tables.waiting, prefix)? {
            if is_directory {
                self.tables.waiting.remove(key.as_slice())?;
            }
            keys.push(key);
        }
        keys.iter().map(|key| last_id(key)).collect()
    }

    /// Recomputes who falls back, if one of `moved` is or was on a cycle.
    fn break_cycles(
        &mut self,
        moved: &[EntryId],
        refresh: &mut VecDeque<EntryId>,
    ) -> Result<(), IndexError> {
        if moved.is_empty() {
            return Ok(());
        }
        let mut old = BTreeMap::new();
        if !self.tables.fallbacks.is_empty()? {
            for row in self.tables.fallbacks.iter()? {
                let (key, value) = row?;
                old.insert(last_id(key.value())?, unpack::<Fallback>(value.value())?);
            }
        }
        // A directory that no other names as its parent closes no cycle.
        let mut seeds: Vec<EntryId> = old.keys().copied().collect();
        for id in moved {
            if any_with(&self.tables.subdirectories, id.as_bytes())? {
                seeds.push(*id);
            }
        }
        let new = cycle::break_all(seeds, |id| {
            let record = self
                .record(id)?
                .filter(|record| record.merged.is_directory());
            Ok::<_, IndexError>(record.map(|Record { merged, .. }| Edge {
                parent: merged.parent,
                moved: merged.moved,
                from: merged.from.as_ref().map(|origin| origin.parent),
            }))
        })?;
        let changed: BTreeSet<EntryId> = old
            .iter()
            .filter(|(id, fallback)| new.get(id) != Some(fallback))
            .chain(
                new.iter()
                    .filter(|(id, fallback)| old.get(id) != Some(fallback)),
            )
            .map(|(id, _)| *id)
            .collect();
        for id in changed {
            let fallback = new.get(&id).copied();
            match fallback {
                Some(fallback) => {
                    let value = pack(&fallback);
                    self.tables
                        .fallbacks
                        .insert(id.as_bytes().as_slice(), value.as_slice())?;
                }
                None => {
                    self.tables.fallbacks.remove(id.as_bytes().as_slice())?;
                }
            }
            if let Some(record) = self.record_mut(&id)? {
                record.fallback = fallback;
            }
            refresh.push_back(id);
        }
        // Where a fallback leads may depend on a directory that just came to be known.
        refresh.extend(new.into_keys());
        Ok(())
    }

    /// Step two.
    fn refresh_claims(&mut self, mut queue: VecDeque<EntryId>) -> Result<(), IndexError> {
        while let Some(id) = queue.pop_front() {
            if id == EntryId::ROOT {
                continue;
            }
            let old = self.claim(&id)?;
            let new = self.wanted_claim(&id)?;
            if old == new {
                continue;
            }
            let same_name = match (&old, &new) {
                (Some(old), Some(new)) => old.parent == new.parent && old.fold == new.fold,
                _ => false,
            };
            if same_name {
                self.set_claim(&id, new)?;
                continue;
            }
            if let Some(old) = old {
                self.unclaim(&id)?;
                queue.push_back(old.parent);
            }
            if let Some(Claim { parent, fold, .. }) = &new {
                let key = claim_key(parent, fold, &id);
                self.tables.claims.insert(key.as_slice(), [].as_slice())?;
                self.mark_dirty(*parent, fold.clone())?;
                queue.push_back(*parent);
                self.set_claim(&id, new)?;
            }
        }
        Ok(())
    }

    fn wanted_claim(&mut self, id: &EntryId) -> Result<Option<Claim>, IndexError> {
        let Some(record) = self.record(id)?.cloned() else {
            return Ok(None);
        };
        let shown = record.merged.stands_alone()
            || (record.merged.is_directory() && any_with(&self.tables.claims, id.as_bytes())?);
        if !shown {
            return Ok(None);
        }
        let mut known = BTreeSet::new();
        let from = record.merged.from.as_ref().map(|origin| origin.parent);
        for parent in [Some(record.merged.parent), from].into_iter().flatten() {
            if self.is_directory(&parent)? {
                known.insert(parent);
            }
        }
        let (parent, name) = place(&record.merged, record.fallback, |id| known.contains(id));
        let fold = name.fold();
        let name = (*name != record.merged.name).then(|| name.clone());
        Ok(Some(Claim { parent, name, fold }))
    }

    fn set_claim(&mut self, id: &EntryId, claim: Option<Claim>) -> Result<(), IndexError> {
        if let Some(Claim { parent, fold, .. }) = &claim {
            self.mark_dirty(*parent, fold.clone())?;
        }
        if let Some(record) = self.record_mut(id)? {
            record.claim = claim;
        }
        Ok(())
    }

    /// Takes an entry out of the tree: its claim, its rows, its part in a merged directory.
    fn unclaim(&mut self, id: &EntryId) -> Result<(), IndexError> {
        let Some(Claim { parent, fold, .. }) = self.claim(id)? else {
            return Ok(());
        };
        self.tables
            .claims
            .remove(claim_key(&parent, &fold, id).as_slice())?;
        self.mark_dirty(parent, fold)?;
        let Some(record) = self.record_mut(id)? else {
            return Ok(());
        };
        record.claim = None;
        for place in std::mem::take(&mut record.rows) {
            self.remove_row(
                &place,
                EntryKey {
                    id: *id,
                    version: place.version,
                },
            )?;
        }
        self.part_directory(id)
    }

    /// Notes that a name must be resolved again, in the directory and in what stands for it.
    pub(super) fn mark_dirty(&mut self, parent: EntryId, fold: String) -> Result<(), IndexError> {
        let stands = self.stands(&parent)?;
        if stands != parent {
            self.dirty.insert((stands, fold.clone()));
        }
        self.dirty.insert((parent, fold));
        Ok(())
    }

    pub(super) fn claim(&mut self, id: &EntryId) -> Result<Option<Claim>, IndexError> {
        Ok(self.record(id)?.and_then(|record| record.claim.clone()))
    }

    /// Whether `id` may have children.
    pub(crate) fn is_directory(&mut self, id: &EntryId) -> Result<bool, IndexError> {
        if *id == EntryId::ROOT {
            return Ok(true);
        }
        Ok(self
            .record(id)?
            .is_some_and(|record| record.merged.is_directory()))
    }

    /// The directory that stands for `id` in the tree.
    pub(crate) fn stands(&mut self, id: &EntryId) -> Result<EntryId, IndexError> {
        Ok(self.record(id)?.map_or(*id, |record| record.stands))
    }

    /// `id`'s group: itself and what it stands for.
    pub(crate) fn members(&mut self, id: &EntryId) -> Result<Vec<EntryId>, IndexError> {
        let mut members = vec![*id];
        if let Some(record) = self.record(id)? {
            members.extend(&record.members);
        }
        Ok(members)
    }

    /// The claimants of one name in a directory that stands for itself.
    pub(crate) fn claimants(
        &mut self,
        directory: &EntryId,
        fold: &str,
    ) -> Result<Vec<EntryId>, IndexError> {
        let mut ids = Vec::new();
        for member in self.members(directory)? {
            for key in keys_with(&self.tables.claims, &name_prefix(&member, fold))? {
                ids.push(last_id(&key)?);
            }
        }
        Ok(ids)
    }

    /// Every claim in one directory (not in those merged with it): the folded name and who claims it.
    pub(crate) fn claims_in(
        &self,
        directory: &EntryId,
    ) -> Result<Vec<(String, EntryId)>, IndexError> {
        keys_with(&self.tables.claims, directory.as_bytes())?
            .iter()
            .map(|key| Ok((claimed_fold(key)?, last_id(key)?)))
            .collect()
    }

    pub(crate) fn record(&mut self, id: &EntryId) -> Result<Option<&Record>, IndexError> {
        Ok(self.cached(id)?.record.as_ref())
    }

    /// Marks the record as changed.
    pub(super) fn record_mut(&mut self, id: &EntryId) -> Result<Option<&mut Record>, IndexError> {
        let cached = self.cached(id)?;
        cached.changed |= cached.record.is_some();
        Ok(cached.record.as_mut())
    }

    fn cached(&mut self, id: &EntryId) -> Result<&mut Cached, IndexError> {
        match self.records.entry(*id) {
            std::collections::hash_map::Entry::Occupied(slot) => Ok(slot.into_mut()),
            std::collections::hash_map::Entry::Vacant(slot) => {
                let stored = self.tables.records.get(id.as_bytes().as_slice())?;
                let record = stored.map(|bytes| unpack(bytes.value())).transpose()?;
                Ok(slot.insert(Cached {
                    record,
                    changed: false,
                }))
            }
        }
    }

    /// Writes the changed records back and gives what is shown differently.
    fn flush(&mut self) -> Result<Vec<EntryChange>, IndexError> {
        for (id, Cached { record, changed }) in self.records.drain() {
            let key = id.as_bytes().as_slice();
            match record {
                _ if !changed => {}
                Some(record) => {
                    self.tables.records.insert(key, pack(&record).as_slice())?;
                }
                None => {
                    self.tables.records.remove(key)?;
                }
            }
        }
        let changes: Vec<EntryChange> = std::mem::take(&mut self.changes)
            .into_iter()
            .filter(|(_, (before, after))| before != after)
            .map(|(key, (before, after))| EntryChange { key, before, after })
            .collect();
        self.count(&changes)?;
        Ok(changes)
    }
}

/// The tables hold nothing that can be shown in short.
impl std::fmt::Debug for Index<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("dirty", &self.dirty)
            .finish_non_exhaustive()
    }
}
