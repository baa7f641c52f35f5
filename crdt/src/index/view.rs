//! Reads the tree at one moment, through a read transaction.

use std::ops::ControlFlow;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};
use wormhole_store::Content;

use super::IndexError;
use super::record::Record;
use super::table::{
    Bytes, CONFLICTS, COUNTS_KEY, RECORDS, ROWS, TOTALS, keys_with, row_key, unpack,
};
use crate::entry::{Counts, Entry, EntryKey, Rival};
use crate::id::EntryId;
use crate::name::{EntryPath, fold};
use crate::register::CopyOf;

/// The tree at one moment.
#[derive(Debug)]
pub(crate) struct View {
    records: ReadOnlyTable<Bytes, Bytes>,
    rows: ReadOnlyTable<Bytes, Bytes>,
    conflicts: ReadOnlyTable<Bytes, Bytes>,
    totals: ReadOnlyTable<Bytes, Bytes>,
}

impl View {
    pub(crate) fn open(txn: &ReadTransaction) -> Result<Self, IndexError> {
        Ok(Self {
            records: txn.open_table(RECORDS)?,
            rows: txn.open_table(ROWS)?,
            conflicts: txn.open_table(CONFLICTS)?,
            totals: txn.open_table(TOTALS)?,
        })
    }

    fn record(&self, id: &EntryId) -> Result<Option<Record>, IndexError> {
        let stored = self.records.get(id.as_bytes().as_slice())?;
        stored.map(|bytes| unpack(bytes.value())).transpose()
    }

    fn row(&self, directory: &EntryId, fold: &str) -> Result<Option<Entry>, IndexError> {
        let stored = self.rows.get(row_key(directory, fold).as_slice())?;
        stored.map(|bytes| unpack(bytes.value())).transpose()
    }

    /// The directory that stands for `id`, or `id` if nothing is known of it.
    fn stands(&self, id: &EntryId) -> Result<EntryId, IndexError> {
        if *id == EntryId::ROOT {
            return Ok(*id);
        }
        Ok(self.record(id)?.map_or(*id, |record| record.stands))
    }

    /// What `key` shows. For a directory that is merged into another this is the other's entry. `None`
    /// for the root, which has no name.
    pub(crate) fn entry(&self, key: &EntryKey) -> Result<Option<Entry>, IndexError> {
        let Some(mut record) = self.record(&key.id)? else {
            return Ok(None);
        };
        if record.stands != key.id {
            let Some(stands) = self.record(&record.stands)? else {
                return Err(IndexError::Damaged);
            };
            record = stands;
        }
        match record.row(key.version) {
            None => Ok(None),
            Some(place) => self.row(&place.directory, &place.fold),
        }
    }

    /// By any spelling of the name.
    pub(crate) fn lookup(&self, parent: &EntryId, name: &str) -> Result<Option<Entry>, IndexError> {
        self.row(&self.stands(parent)?, &fold(name))
    }

    /// In the order of the folded names.
    pub(crate) fn children(&self, parent: &EntryId) -> Result<Vec<Entry>, IndexError> {
        let directory = self.stands(parent)?;
        let mut children = Vec::new();
        self.each_row(&directory, &mut |bytes| {
            children.push(unpack(bytes)?);
            Ok(())
        })?;
        Ok(children)
    }

    pub(crate) fn child_count(&self, parent: &EntryId) -> Result<u64, IndexError> {
        let mut count = 0;
        self.each_row(&self.stands(parent)?, &mut |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    fn each_row(
        &self,
        directory: &EntryId,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let prefix = directory.as_bytes().as_slice();
        for row in self.rows.range::<&[u8]>(prefix..)? {
            let (key, value) = row?;
            if !key.value().starts_with(prefix) {
                break;
            }
            visit(value.value())?;
        }
        Ok(())
    }

    /// The names from the top down to `key`; `None` if it is not shown.
    pub(crate) fn path_of(&self, key: &EntryKey) -> Result<Option<EntryPath>, IndexError> {
        let mut names = Vec::new();
        let mut at = *key;
        while at.id != EntryId::ROOT {
            let Some(entry) = self.entry(&at)? else {
                return Ok(None);
            };
            names.push(entry.name);
            at = entry.parent.into();
        }
        names.reverse();
        Ok(Some(names.into()))
    }

    /// What is shown at `path`, each name in any spelling. `None` for the root, which is no entry.
    pub(crate) fn resolve(&self, path: &EntryPath) -> Result<Option<Entry>, IndexError> {
        let mut parent = EntryId::ROOT;
        let mut found = None;
        for name in path.names() {
            let Some(entry) = self.row(&parent, &name.fold())? else {
                return Ok(None);
            };
            parent = entry.key.id;
            found = Some(entry);
        }
        Ok(found)
    }

    /// Everything below `from`, parents before children, until `visit` breaks. Paths begin below `from`.
    /// Holds one directory's entries per level in memory.
    pub(crate) fn walk(
        &self,
        from: &EntryId,
        visit: &mut dyn FnMut(&EntryPath, &Entry) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let mut path = EntryPath::root();
        let mut levels = vec![self.children(from)?.into_iter()];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.next() else {
                levels.pop();
                path.pop();
                continue;
            };
            path.push(entry.name.clone());
            if visit(&path, &entry).is_break() {
                break;
            }
            if entry.is_directory() {
                levels.push(self.children(&entry.key.id)?.into_iter());
            } else {
                path.pop();
            }
        }
        Ok(())
    }

    /// Every conflict copy.
    pub(crate) fn conflicts(&self) -> Result<Vec<Entry>, IndexError> {
        let mut conflicts = Vec::new();
        for key in keys_with(&self.conflicts, &[])? {
            let stored = self.rows.get(key.as_slice())?.ok_or(IndexError::Damaged)?;
            conflicts.push(unpack(stored.value())?);
        }
        Ok(conflicts)
    }

    /// Beside what a conflict copy stands; `None` for what is no copy.
    pub(crate) fn rival(&self, copy: &Entry) -> Result<Option<Rival>, IndexError> {
        let Some(record) = self.record(&copy.key.id)?.filter(|_| copy.conflict) else {
            return Ok(None);
        };
        let (name, kept) = match &record.merged.copy_of {
            _ if copy.key.version.is_some() => (record.name(), Some(copy.key.id)),
            Some(CopyOf { id, name }) => (name, Some(*id)),
            None => (record.name(), None),
        };
        let original = match kept {
            Some(id) => self.entry(&id.into())?,
            None => None,
        };
        let original = match original {
            None => self.row(&copy.parent, &name.fold())?,
            Some(original) => Some(original),
        };
        Ok(Some(Rival {
            copy: copy.clone(),
            name: name.clone(),
            original: original.filter(|original| original.key != copy.key),
        }))
    }

    /// The conflict copies that stand beside an entry; of a copy itself, that one.
    pub(crate) fn rivals(&self, entry: &Entry) -> Result<Vec<Rival>, IndexError> {
        if entry.conflict {
            return Ok(self.rival(entry)?.into_iter().collect());
        }
        let mut rivals = Vec::new();
        for copy in self.conflicts()? {
            let beside = |original: &Entry| original.key == entry.key;
            rivals.extend(
                self.rival(&copy)?
                    .filter(|rival| rival.original.as_ref().is_some_and(beside)),
            );
        }
        Ok(rivals)
    }

    pub(crate) fn counts(&self) -> Result<Counts, IndexError> {
        match self.totals.get(COUNTS_KEY)? {
            None => Ok(Counts::default()),
            Some(bytes) => unpack(bytes.value()),
        }
    }

    /// Every content that is shown, as often as it is.
    pub(crate) fn contents(&self, visit: &mut dyn FnMut(&Content)) -> Result<(), IndexError> {
        for row in self.rows.iter()? {
            let entry: Entry = unpack(row?.1.value())?;
            if let Some(file) = &entry.file {
                visit(&file.content);
            }
        }
        Ok(())
    }
}
