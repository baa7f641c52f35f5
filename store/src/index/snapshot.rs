//! The index's tables as of one commit: the only place that reads the database.
//!
//! Holding the opened tables saves every lookup a read transaction. A snapshot lives until the
//! next commit and those who still iterate over it; the database reuses its pages after that.

use std::ops::Bound;
use std::sync::Arc;

use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata};

use super::guard::Guard;
use super::row::{self, Node, NodeId, PackId, Place, Root};
use super::{NAMES, NODES, PACKS, PLACES, ROOTS};
use crate::error::IndexError;
use crate::id::{ChunkId, RootId};

/// The database's tables as of one commit.
pub(crate) struct Snapshot {
    guard: Arc<Guard>,
    places: ReadOnlyTable<&'static [u8; 40], &'static [u8]>,
    nodes: ReadOnlyTable<u64, &'static [u8]>,
    names: ReadOnlyTable<&'static [u8], u64>,
    roots: ReadOnlyTable<&'static [u8; 16], &'static [u8]>,
    packs: ReadOnlyTable<u32, u64>,
}

impl Snapshot {
    pub(super) fn take(database: &Database, guard: &Arc<Guard>) -> Result<Self, IndexError> {
        let read = database.begin_read()?;
        Ok(Self {
            guard: Arc::clone(guard),
            places: read.open_table(PLACES)?,
            nodes: read.open_table(NODES)?,
            names: read.open_table(NAMES)?,
            roots: read.open_table(ROOTS)?,
            packs: read.open_table(PACKS)?,
        })
    }

    /// Every place, ordered by chunk, the pack copy of a chunk before its references.
    pub(crate) fn places(
        &self,
    ) -> Result<impl Iterator<Item = Result<(ChunkId, NodeId, Place), IndexError>>, IndexError>
    {
        self.places_after(None)
    }

    /// The places whose keys are greater than this one; all without one.
    pub(crate) fn places_after(
        &self,
        key: Option<&[u8; 40]>,
    ) -> Result<impl Iterator<Item = Result<(ChunkId, NodeId, Place), IndexError>>, IndexError>
    {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (from, Bound::Unbounded);
        let rows = self
            .guard
            .run(|| Ok(self.places.range::<&[u8; 40]>(range)?))?;
        Ok(self.guard.rows(rows, |row| {
            let (key, value) = row?;
            let (id, node) = row::split_place_key(key.value());
            Ok((id, node, Place::decode(node, value.value())?))
        }))
    }

    /// Every file and directory that references hang from.
    pub(crate) fn nodes(
        &self,
    ) -> Result<impl Iterator<Item = Result<(NodeId, Node), IndexError>>, IndexError> {
        let rows = self.guard.run(|| Ok(self.nodes.range::<u64>(..)?))?;
        Ok(self.guard.rows(rows, |row| {
            let (key, value) = row?;
            Ok((NodeId(key.value()), Node::decode(value.value())?))
        }))
    }

    /// How many places there are.
    pub(crate) fn place_count(&self) -> Result<u64, IndexError> {
        self.guard.run(|| Ok(self.places.len()?))
    }

    /// The references of a chunk, newest first.
    pub(super) fn references(
        &self,
        id: &ChunkId,
    ) -> Result<impl Iterator<Item = Result<(NodeId, Place), IndexError>>, IndexError> {
        let first = row::place_key(*id, NodeId::FIRST);
        let last = row::place_key(*id, NodeId::LAST);
        let rows = self
            .guard
            .run(|| Ok(self.places.range::<&[u8; 40]>(&first..=&last)?))?;
        Ok(self.guard.rows(rows.rev(), |row| {
            let (key, value) = row?;
            let (_, node) = row::split_place_key(key.value());
            Ok((node, Place::decode(node, value.value())?))
        }))
    }

    pub(super) fn pack_place(&self, id: &ChunkId) -> Result<Option<Place>, IndexError> {
        self.guard.run(|| {
            let row = self.places.get(&row::place_key(*id, NodeId::NONE))?;
            row.map(|row| Place::decode(NodeId::NONE, row.value()))
                .transpose()
        })
    }

    pub(super) fn node(&self, id: NodeId) -> Result<Option<Node>, IndexError> {
        self.guard.run(|| {
            let row = self.nodes.get(id.0)?;
            row.map(|row| Node::decode(row.value())).transpose()
        })
    }

    pub(super) fn child(&self, parent: NodeId, name: &[u8]) -> Result<Option<NodeId>, IndexError> {
        self.guard.run(|| {
            let row = self.names.get(row::name_key(parent, name).as_slice())?;
            Ok(row.map(|row| NodeId(row.value())))
        })
    }

    pub(super) fn root(&self, id: &RootId) -> Result<Option<Root>, IndexError> {
        self.guard.run(|| {
            let row = self.roots.get(id.as_bytes())?;
            row.map(|row| Root::decode(row.value())).transpose()
        })
    }

    pub(super) fn packs(
        &self,
    ) -> Result<impl Iterator<Item = Result<(PackId, u64), IndexError>>, IndexError> {
        let rows = self.guard.run(|| Ok(self.packs.range::<u32>(..)?))?;
        Ok(self.guard.rows(rows, |row| {
            let (id, length) = row?;
            Ok((PackId(id.value()), length.value()))
        }))
    }
}
