//! The index's tables as of one commit.
//!
//! Holding the opened tables saves every lookup a read transaction. A snapshot lives until the
//! next commit and those who still iterate over it; the database reuses its pages after that.

use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata};

use super::row::{self, Node, NodeId, Place};
use super::{NAMES, NODES, PACKS, PLACES, ROOTS};
use crate::error::IndexError;
use crate::id::ChunkId;

/// The database's tables as of one commit.
pub(crate) struct Snapshot {
    pub(super) places: ReadOnlyTable<&'static [u8; 40], &'static [u8]>,
    pub(super) nodes: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) names: ReadOnlyTable<&'static [u8], u64>,
    pub(super) roots: ReadOnlyTable<&'static [u8; 16], &'static [u8]>,
    pub(super) packs: ReadOnlyTable<u32, u64>,
}

impl Snapshot {
    pub(super) fn take(database: &Database) -> Result<Self, IndexError> {
        let read = database.begin_read()?;
        Ok(Self {
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
        let rows = self.places.range::<&[u8; 40]>(..)?;
        Ok(rows.map(|entry| {
            let (key, value) = entry?;
            let (id, node) = row::split_place_key(key.value());
            Ok((id, node, Place::decode(node, value.value())?))
        }))
    }

    /// Every file and directory that references hang from.
    pub(crate) fn nodes(
        &self,
    ) -> Result<impl Iterator<Item = Result<(NodeId, Node), IndexError>>, IndexError> {
        let rows = self.nodes.range::<u64>(..)?;
        Ok(rows.map(|entry| {
            let (key, value) = entry?;
            Ok((NodeId(key.value()), Node::decode(value.value())?))
        }))
    }

    /// How many places there are.
    pub(crate) fn place_count(&self) -> Result<u64, IndexError> {
        Ok(self.places.len()?)
    }
}
