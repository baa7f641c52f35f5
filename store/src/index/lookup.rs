//! Looking rows up and changing them, pending ones included.
//!
//! A row is looked for in the active layer, in the layer that is being committed, and in the
//! snapshot of the database, in this order; the first that knows it decides. The caller holds the
//! lock around [`Layers`], so several calls see one state.

use std::collections::HashMap;
use std::iter::Peekable;
use std::path::PathBuf;
use std::sync::Arc;

use super::layer::Layer;
use super::row::{FilePlace, Node, NodeId, PackId, PackPlace, Place, Root};
use super::snapshot::Snapshot;
use crate::error::IndexError;
use crate::id::{ChunkId, RootId};

/// Rows that are not in the database yet, and the database as of the last commit.
pub(crate) struct Layers {
    pub(super) active: Layer,
    pub(super) frozen: Option<Arc<Layer>>,
    pub(super) snapshot: Arc<Snapshot>,
    /// Counts updates; tells committers whether their rows are covered.
    pub(super) updates: u64,
    /// Directories by path, so that importing a tree does not walk it again for each file.
    directories: HashMap<(RootId, PathBuf), NodeId>,
}

impl Layers {
    /// No pending rows over a snapshot.
    pub(super) fn over(snapshot: Snapshot) -> Self {
        Self {
            active: Layer::default(),
            frozen: None,
            snapshot: Arc::new(snapshot),
            updates: 0,
            directories: HashMap::new(),
        }
    }

    /// The database as of the last commit.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// Rows that wait for a commit.
    pub(crate) fn pending(&self) -> usize {
        self.active.len()
    }

    /// Directories found by path; emptied by whoever renames or removes nodes.
    pub(crate) fn directories(&mut self) -> &mut HashMap<(RootId, PathBuf), NodeId> {
        &mut self.directories
    }

    /// The references of a chunk, newest first: the newest are the likeliest to hold.
    pub(crate) fn file_places(
        &self,
        id: &ChunkId,
    ) -> Result<impl Iterator<Item = Result<FilePlace, IndexError>>, IndexError> {
        let stored = self.snapshot.references(id)?;
        let active = self.active.references_of(id).rev();
        let frozen = self
            .frozen
            .as_deref()
            .map(|layer| layer.references_of(id).rev());
        Ok(Merge {
            active: active.peekable(),
            frozen: frozen.into_iter().flatten().peekable(),
            stored: stored.peekable(),
        })
    }

    /// The pack copy of a chunk.
    pub(crate) fn pack_place(&self, id: &ChunkId) -> Result<Option<PackPlace>, IndexError> {
        let pack = |place: Place| match place {
            Place::Pack(place) => Some(place),
            Place::File(_) => None,
        };
        if let Some(row) = self.pending_row(|layer| layer.places.get(&(*id, NodeId::NONE))) {
            return Ok(row.and_then(pack));
        }
        Ok(self.snapshot.pack_place(id)?.and_then(pack))
    }

    /// A file or directory.
    pub(crate) fn node(&self, id: NodeId) -> Result<Option<Node>, IndexError> {
        if let Some(row) = self.pending_row(|layer| layer.nodes.get(&id)) {
            return Ok(row);
        }
        self.snapshot.node(id)
    }

    /// What a directory has under a name.
    pub(crate) fn child(&self, parent: NodeId, name: &[u8]) -> Result<Option<NodeId>, IndexError> {
        let key = (parent, Box::from(name));
        if let Some(row) = self.pending_row(|layer| layer.names.get(&key)) {
            return Ok(row);
        }
        self.snapshot.child(parent, name)
    }

    /// A registered root.
    pub(crate) fn root(&self, id: &RootId) -> Result<Option<Root>, IndexError> {
        if let Some(row) = self.pending_row(|layer| layer.roots.get(id)) {
            return Ok(row);
        }
        self.snapshot.root(id)
    }

    /// The packs that commits have covered, with how many bytes of each.
    pub(crate) fn packs(&self) -> Result<HashMap<PackId, u64>, IndexError> {
        self.snapshot.packs()?.collect()
    }

    /// Records or, with `None`, removes a place of a chunk.
    pub(crate) fn set_place(&mut self, id: ChunkId, node: NodeId, place: Option<Place>) {
        self.active.places.insert((id, node), place);
    }

    /// Records or removes a file or directory.
    pub(crate) fn set_node(&mut self, id: NodeId, node: Option<Node>) {
        self.active.nodes.insert(id, node);
    }

    /// Records or removes what a directory has under a name.
    pub(crate) fn set_child(&mut self, parent: NodeId, name: &[u8], node: Option<NodeId>) {
        self.active.names.insert((parent, name.into()), node);
    }

    /// Registers or removes a root.
    pub(crate) fn set_root(&mut self, id: RootId, root: Option<Root>) {
        self.active.roots.insert(id, root);
    }

    /// Records how much of a pack is accounted for, or that it is gone.
    pub(crate) fn set_pack(&mut self, id: PackId, length: Option<u64>) {
        self.active.packs.insert(id, length);
    }

    /// The newest pending row, `Some(None)` if it says "removed".
    fn pending_row<V: Clone>(
        &self,
        find: impl for<'l> Fn(&'l Layer) -> Option<&'l Option<V>>,
    ) -> Option<Option<V>> {
        find(&self.active)
            .or_else(|| find(self.frozen.as_deref()?))
            .cloned()
    }
}

/// The references of one chunk out of three sources, each ordered by node from the newest.
struct Merge<A: Iterator, F: Iterator, S: Iterator> {
    active: Peekable<A>,
    frozen: Peekable<F>,
    stored: Peekable<S>,
}

impl<A, F, S> Iterator for Merge<A, F, S>
where
    A: Iterator<Item = (NodeId, Option<Place>)>,
    F: Iterator<Item = (NodeId, Option<Place>)>,
    S: Iterator<Item = Result<(NodeId, Place), IndexError>>,
{
    type Item = Result<FilePlace, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let active = self.active.peek().map(|(node, _)| *node);
            let frozen = self.frozen.peek().map(|(node, _)| *node);
            let stored = match self.stored.peek() {
                Some(Ok((node, _))) => Some(*node),
                Some(Err(_)) => {
                    let error = self.stored.next()?.err()?;
                    return Some(Err(error));
                }
                None => None,
            };
            let newest = active.max(frozen).max(stored)?;
            // All three move past this node; the youngest source that has it decides.
            let stored = self
                .stored
                .next_if(|row| matches!(row, Ok((node, _)) if *node == newest));
            let frozen = self.frozen.next_if(|(node, _)| *node == newest);
            let active = self.active.next_if(|(node, _)| *node == newest);
            let row = active.or(frozen).or_else(|| {
                stored
                    .and_then(Result::ok)
                    .map(|(node, place)| (node, Some(place)))
            });
            if let Some((_, Some(Place::File(place)))) = row {
                return Some(Ok(place));
            }
        }
    }
}

#[cfg(test)]
mod tests;
