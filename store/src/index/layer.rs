//! A layer: rows that were changed and are not in the database yet.
//!
//! `None` means that the row was removed. Ordered maps, so that a commit inserts in key order,
//! which is the cheapest for a B-tree. Bounded by `StoreOptions::commit_rows`.

use std::collections::BTreeMap;

use redb::WriteTransaction;

use super::row::{self, Node, NodeId, PackId, Place, Root};
use super::{NAMES, NODES, PACKS, PLACES, ROOTS};
use crate::error::IndexError;
use crate::id::{ChunkId, RootId};

/// Changed rows, by table.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    pub(super) places: BTreeMap<(ChunkId, NodeId), Option<Place>>,
    pub(super) nodes: BTreeMap<NodeId, Option<Node>>,
    pub(super) names: BTreeMap<(NodeId, Box<[u8]>), Option<NodeId>>,
    pub(super) roots: BTreeMap<RootId, Option<Root>>,
    pub(super) packs: BTreeMap<PackId, Option<u64>>,
}

impl Layer {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
            + self.nodes.len()
            + self.names.len()
            + self.roots.len()
            + self.packs.len()
    }

    /// Writes the rows into the tables of a transaction.
    pub(super) fn write(&self, write: &WriteTransaction) -> Result<(), IndexError> {
        let mut places = write.open_table(PLACES)?;
        for (&(id, node), place) in &self.places {
            let key = row::place_key(id, node);
            match place {
                Some(place) => places.insert(&key, place.encode().as_slice())?,
                None => places.remove(&key)?,
            };
        }
        let mut nodes = write.open_table(NODES)?;
        for (id, node) in &self.nodes {
            match node {
                Some(node) => nodes.insert(id.0, node.encode().as_slice())?,
                None => nodes.remove(id.0)?,
            };
        }
        let mut names = write.open_table(NAMES)?;
        for ((parent, name), node) in &self.names {
            let key = row::name_key(*parent, name);
            match node {
                Some(node) => names.insert(key.as_slice(), node.0)?,
                None => names.remove(key.as_slice())?,
            };
        }
        let mut roots = write.open_table(ROOTS)?;
        for (id, root) in &self.roots {
            match root {
                Some(root) => roots.insert(id.as_bytes(), root.encode().as_slice())?,
                None => roots.remove(id.as_bytes())?,
            };
        }
        let mut packs = write.open_table(PACKS)?;
        for (id, length) in &self.packs {
            match length {
                Some(length) => packs.insert(id.0, length)?,
                None => packs.remove(id.0)?,
            };
        }
        Ok(())
    }

    /// The changed references of one chunk, oldest first.
    pub(super) fn references_of(
        &self,
        id: &ChunkId,
    ) -> impl DoubleEndedIterator<Item = (NodeId, Option<Place>)> + use<'_> {
        let rows = self
            .places
            .range((*id, NodeId::FIRST)..=(*id, NodeId::LAST));
        rows.map(|(&(_, node), &place)| (node, place))
    }
}
