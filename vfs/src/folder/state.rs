//! The memory of the last sync: what stood where, as which entry, with which stamp. A redb file in the node's home.
//!
//! Rows are keyed by (entry id of the directory, name), so a renamed directory of 20,000 files is one row. Two indexes
//! find a row by entry and by inode; the latter recognises renames. The file may be lost or fall behind at a crash:
//! then more is looked at again, and nothing is deleted, because absence here never means deletion.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use wormhole_crdt::{EntryId, EntryKey, EntryName, Version};

use super::beneath::Seen;
use super::name::{self, Place};
use super::plan::Node;
use super::status::Counts;
use crate::error::StateError;

mod row;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const KEYS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");
const INODES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("inodes");
const KEPT: TableDefinition<'_, &[u8], ()> = TableDefinition::new("kept");
const HELD: TableDefinition<'_, &[u8], ()> = TableDefinition::new("held");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Raised when a row's meaning changes.
const FORMAT: u32 = 2;
/// Index pages kept in RAM; the whole of a 200,000-file folder is about five times this.
const CACHE_BYTES: usize = 16 << 20;
/// The note that everything on disk was compared once with what the mesh shows.
const COMPARED: &str = "compared";
/// The parent of what is moved out of the way while names are swapped: the folder's temporary directory.
pub(crate) const STASH: EntryId = EntryId::from_bytes([0xff; 16]);

/// What was last synced at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: EntryKey,
    /// The version of the content, for files and links.
    pub(crate) version: Option<Version>,
    pub(crate) node: Node,
    /// How the disk showed it then: the permissions in it are the ones that were *applied*, those in `node`
    /// the ones that the mesh *wants*. Only what differs from the applied ones was changed here.
    pub(crate) seen: Seen,
    /// Written so shortly before it was read that an equal stamp proves nothing.
    pub(crate) racy: bool,
}

/// The database.
#[derive(Debug)]
pub(crate) struct State {
    db: Database,
}

impl State {
    /// Opens or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)?;
        let state = Self { db };
        let batch = state.begin()?;
        {
            let mut meta = batch.txn.open_table(META)?;
            let found = match meta.get("format")? {
                Some(value) => Some(row::decode_format(value.value())?),
                None => None,
            };
            match found {
                Some(found) if found > FORMAT => {
                    return Err(StateError::Newer {
                        found,
                        known: FORMAT,
                    });
                }
                Some(found) if found < FORMAT => return Err(StateError::Damaged),
                Some(_) => {}
                None => {
                    meta.insert("format", FORMAT.to_le_bytes().as_slice())?;
                }
            }
            batch.txn.open_table(ROWS)?;
            batch.txn.open_table(KEYS)?;
            batch.txn.open_table(INODES)?;
            batch.txn.open_table(KEPT)?;
            batch.txn.open_table(HELD)?;
        }
        batch.commit(Keep::Now)?;
        Ok(state)
    }

    /// Starts a batch; there is one at a time.
    pub(crate) fn begin(&self) -> Result<Batch, StateError> {
        let txn = self.db.begin_write()?;
        let read = self.db.begin_read()?;
        let counts = match read.open_table(META) {
            Ok(meta) => match meta.get("counts")? {
                Some(value) => row::decode_counts(value.value())?,
                None => Counts::default(),
            },
            Err(redb::TableError::TableDoesNotExist(_)) => Counts::default(),
            Err(error) => return Err(error.into()),
        };
        Ok(Batch {
            txn,
            counts,
            changed: false,
        })
    }
}

/// How durable a commit has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// On disk when it returns.
    Now,
    /// With the next [`Keep::Now`].
    Later,
}

/// Changes that become visible together.
pub(crate) struct Batch {
    txn: WriteTransaction,
    counts: Counts,
    changed: bool,
}

impl Batch {
    /// Makes the changes permanent. Without changes nothing is written.
    pub(crate) fn commit(mut self, keep: Keep) -> Result<Counts, StateError> {
        if !self.changed && keep == Keep::Later {
            self.txn.abort()?;
            return Ok(self.counts);
        }
        self.txn
            .open_table(META)?
            .insert("counts", row::encode_counts(&self.counts).as_slice())?;
        match keep {
            Keep::Now => self.txn.set_quick_repair(true),
            Keep::Later => self.txn.set_durability(Durability::None)?,
        }
        self.txn.commit()?;
        Ok(self.counts)
    }

    /// Whether there is anything to keep.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// How much is synced.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The row at a place.
    pub(crate) fn get(&self, place: &Place) -> Result<Option<Row>, StateError> {
        self.row_at(&row::place_key(place))
    }

    fn row_at(&self, key: &[u8]) -> Result<Option<Row>, StateError> {
        match self.txn.open_table(ROWS)?.get(key)? {
            Some(value) => Ok(Some(row::decode(key, value.value())?)),
            None => Ok(None),
        }
    }

    /// Where an entry was last synced.
    pub(crate) fn by_key(&self, key: &EntryKey) -> Result<Option<(Place, Row)>, StateError> {
        let place = match self
            .txn
            .open_table(KEYS)?
            .get(row::entry_key(key).as_slice())?
        {
            Some(value) => value.value().to_vec(),
            None => return Ok(None),
        };
        self.with_place(&place)
    }

    /// Which row last stood for this inode.
    pub(crate) fn by_inode(&self, seen: &Seen) -> Result<Option<(Place, Row)>, StateError> {
        let inode = seen.stamp.ino;
        let place = match self.txn.open_table(INODES)?.get(inode)? {
            Some(value) => value.value().to_vec(),
            None => return Ok(None),
        };
        self.with_place(&place)
    }

    fn with_place(&self, key: &[u8]) -> Result<Option<(Place, Row)>, StateError> {
        match self.row_at(key)? {
            Some(found) => Ok(Some((row::decode_place(key)?, found))),
            None => Ok(None),
        }
    }

    /// Writes the row at a place.
    pub(crate) fn put(&mut self, place: &Place, new: &Row) -> Result<(), StateError> {
        self.remove(place)?;
        let key = row::place_key(place);
        self.txn
            .open_table(ROWS)?
            .insert(key.as_slice(), row::encode(&key, new)?.as_slice())?;
        self.txn
            .open_table(KEYS)?
            .insert(row::entry_key(&new.key).as_slice(), key.as_slice())?;
        let inode = new.seen.stamp.ino;
        self.txn.open_table(INODES)?.insert(inode, key.as_slice())?;
        count(&mut self.counts, &new.node, u64::wrapping_add);
        self.changed = true;
        Ok(())
    }

    /// Forgets the row at a place.
    pub(crate) fn remove(&mut self, place: &Place) -> Result<Option<Row>, StateError> {
        let key = row::place_key(place);
        let old = match self.txn.open_table(ROWS)?.remove(key.as_slice())? {
            Some(value) => row::decode(&key, value.value())?,
            None => return Ok(None),
        };
        // Either index may already point to a newer place.
        let mut keys = self.txn.open_table(KEYS)?;
        let entry = row::entry_key(&old.key);
        let here = keys
            .get(entry.as_slice())?
            .is_some_and(|value| value.value() == key.as_slice());
        if here {
            keys.remove(entry.as_slice())?;
        }
        drop(keys);
        let mut inodes = self.txn.open_table(INODES)?;
        let inode = old.seen.stamp.ino;
        let here = inodes
            .get(inode)?
            .is_some_and(|value| value.value() == key.as_slice());
        if here {
            inodes.remove(inode)?;
        }
        drop(inodes);
        count(&mut self.counts, &old.node, u64::wrapping_sub);
        self.changed = true;
        Ok(Some(old))
    }

    /// Moves a row; the rows below a directory come along untouched.
    pub(crate) fn relocate(&mut self, from: &Place, to: &Place) -> Result<(), StateError> {
        if let Some(moved) = self.remove(from)? {
            self.put(to, &moved)?;
        }
        Ok(())
    }

    /// The rows directly in a directory, by name.
    pub(crate) fn children(&self, parent: EntryId) -> Result<Vec<(Place, Row)>, StateError> {
        let (start, end) = row::child_range(parent);
        let rows = self.txn.open_table(ROWS)?;
        let mut children = Vec::new();
        for entry in rows.range(start.as_slice()..end.as_slice())? {
            let (key, value) = entry?;
            let found = row::decode(key.value(), value.value())?;
            children.push((row::decode_place(key.value())?, found));
        }
        Ok(children)
    }

    /// The places directly in a directory whose names are not among these, which are sorted.
    pub(crate) fn places_but(
        &self,
        parent: EntryId,
        known: &[OsString],
    ) -> Result<Vec<Place>, StateError> {
        let (start, end) = row::child_range(parent);
        let rows = self.txn.open_table(ROWS)?;
        let mut places = Vec::new();
        for entry in rows.range(start.as_slice()..end.as_slice())? {
            let (key, value) = entry?;
            row::check(key.value(), value.value())?;
            let place = row::decode_place(key.value())?;
            let found = known.binary_search_by(|name| name.as_os_str().cmp(place.os_name()));
            if found.is_err() {
                places.push(place);
            }
        }
        Ok(places)
    }

    /// How many entries are synced at and below a place, and the bytes of the files, counted up to `limit` entries.
    pub(crate) fn count_below(&self, place: &Place, limit: u64) -> Result<(u64, u64), StateError> {
        let (mut total, mut bytes) = (0_u64, 0_u64);
        let mut todo: Vec<Row> = self.get(place)?.into_iter().collect();
        while let Some(next) = todo.pop() {
            total += 1;
            match next.node {
                Node::Directory { .. } if total + (todo.len() as u64) < limit => {
                    let children = self.children(next.key.id)?;
                    todo.extend(children.into_iter().map(|(_, row)| row));
                }
                Node::File { content, .. } => bytes = bytes.saturating_add(content.size),
                Node::Directory { .. } | Node::Symlink { .. } => {}
            }
        }
        Ok((total, bytes))
    }

    /// Forgets a place and everything below it.
    pub(crate) fn remove_tree(&mut self, place: &Place) -> Result<(), StateError> {
        let mut todo = vec![place.clone()];
        while let Some(next) = todo.pop() {
            if let Some(old) = self.remove(&next)?
                && old.node.is_directory()
            {
                todo.extend(
                    self.children(old.key.id)?
                        .into_iter()
                        .map(|(place, _)| place),
                );
            }
        }
        Ok(())
    }

    /// Where a directory is, relative to the folder. `None` when it is not synced here.
    pub(crate) fn path_of_dir(
        &self,
        base: EntryId,
        dir: EntryId,
    ) -> Result<Option<PathBuf>, StateError> {
        let mut names: Vec<EntryName> = Vec::new();
        let mut at = dir;
        // Deeper than any path the system takes means a cycle in a damaged database.
        for _depth in 0..4096 {
            if at == base || at == STASH {
                let top = if at == base {
                    PathBuf::new()
                } else {
                    PathBuf::from(name::TMP)
                };
                return Ok(Some(
                    names
                        .iter()
                        .rev()
                        .fold(top, |path, name| name::child(&path, name)),
                ));
            }
            let Some((place, _row)) = self.by_key(&EntryKey {
                id: at,
                version: None,
            })?
            else {
                return Ok(None);
            };
            names.push(place.name);
            at = place.parent;
        }
        Err(StateError::Damaged)
    }

    /// Which place a path means. `None` when a directory on the way is not synced or a name cannot be.
    pub(crate) fn place_of(&self, base: EntryId, path: &Path) -> Result<Option<Place>, StateError> {
        let mut parent = base;
        let mut components = path.components().peekable();
        while let Some(component) = components.next() {
            let Ok(entry) = name::parse(component.as_os_str()) else {
                return Ok(None);
            };
            let place = Place::new(parent, entry);
            if components.peek().is_none() {
                return Ok(Some(place));
            }
            match self.get(&place)? {
                Some(row) if row.node.is_directory() => parent = row.key.id,
                Some(_) | None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Remembers a directory that was deleted elsewhere but had to stay for what it holds.
    pub(crate) fn keep(&mut self, place: &Place) -> Result<(), StateError> {
        self.txn
            .open_table(KEPT)?
            .insert(row::place_key(place).as_slice(), ())?;
        self.changed = true;
        Ok(())
    }

    /// Whether it is one of those.
    pub(crate) fn is_kept(&self, place: &Place) -> Result<bool, StateError> {
        Ok(self
            .txn
            .open_table(KEPT)?
            .get(row::place_key(place).as_slice())?
            .is_some())
    }

    /// It is an ordinary directory again, or gone.
    pub(crate) fn unkeep(&mut self, place: &Place) -> Result<(), StateError> {
        if self
            .txn
            .open_table(KEPT)?
            .remove(row::place_key(place).as_slice())?
            .is_some()
        {
            self.changed = true;
        }
        Ok(())
    }

    /// The places whose deletion waits for a person.
    pub(crate) fn held(&self) -> Result<Vec<Place>, StateError> {
        let held = self.txn.open_table(HELD)?;
        let mut places = Vec::new();
        for entry in held.iter()? {
            let (key, _value) = entry?;
            places.push(row::decode_place(key.value())?);
        }
        Ok(places)
    }

    /// These wait for a person, and no others.
    pub(crate) fn set_held<'p>(
        &mut self,
        places: impl Iterator<Item = &'p Place>,
    ) -> Result<(), StateError> {
        self.txn.delete_table(HELD)?;
        let mut held = self.txn.open_table(HELD)?;
        for place in places {
            held.insert(row::place_key(place).as_slice(), ())?;
        }
        self.changed = true;
        Ok(())
    }

    /// Whether everything was compared once: what this device said of a place is then remembered there, but for what a
    /// crash cut off.
    pub(crate) fn is_compared(&self) -> Result<bool, StateError> {
        Ok(self.note(COMPARED)?.is_some())
    }

    /// It was.
    pub(crate) fn set_compared(&mut self) -> Result<(), StateError> {
        self.set_note(COMPARED, b"1")
    }

    /// A value of the folder as a whole.
    pub(crate) fn note(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self
            .txn
            .open_table(META)?
            .get(key)?
            .map(|value| value.value().to_vec()))
    }

    /// Sets it.
    pub(crate) fn set_note(&mut self, key: &str, value: &[u8]) -> Result<(), StateError> {
        self.txn.open_table(META)?.insert(key, value)?;
        self.changed = true;
        Ok(())
    }

    /// Forgets it.
    pub(crate) fn remove_note(&mut self, key: &str) -> Result<(), StateError> {
        self.changed |= self.txn.open_table(META)?.remove(key)?.is_some();
        Ok(())
    }

    /// Forgets everything: the mesh's metadata was replaced by an older copy, so what is remembered here may be of a
    /// future that it does not know. Everything on disk is then compared afresh and nothing is deleted.
    pub(crate) fn clear(&mut self) -> Result<(), StateError> {
        self.txn.delete_table(ROWS)?;
        self.txn.delete_table(KEYS)?;
        self.txn.delete_table(INODES)?;
        self.txn.delete_table(HELD)?;
        self.remove_note(COMPARED)?;
        self.counts = Counts::default();
        self.changed = true;
        Ok(())
    }
}

fn count(counts: &mut Counts, node: &Node, change: fn(u64, u64) -> u64) {
    match node {
        Node::Directory { .. } => counts.directories = change(counts.directories, 1),
        Node::Symlink { .. } => counts.symlinks = change(counts.symlinks, 1),
        Node::File { content, .. } => {
            counts.files = change(counts.files, 1);
            counts.bytes = change(counts.bytes, content.size);
        }
    }
}
