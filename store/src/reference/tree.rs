//! The tree of directories and files that references hang from, kept as rows of the index.
//!
//! A chunk's row names a node, a node names its parent. Renaming or forgetting a directory is one
//! row, whatever is below it: nodes whose way up is broken count as gone, and `evict` collects
//! them. No disk is touched here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{FilePath, components};
use crate::error::{IndexError, PathError, WriteError};
use crate::id::RootId;
use crate::index::{Index, Layers, Node, NodeId};
use crate::stamp::FileStamp;

/// Directories remembered by path while a tree is imported; forgotten together when full.
const MAX_DIRECTORIES: usize = 4096;
/// A way up longer than this is a damaged index, not a tree.
const MAX_CLIMB: usize = 2 * super::MAX_DEPTH;

/// Where a node's file is now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Location {
    /// The root's directory.
    pub(crate) directory: PathBuf,
    /// The path below it.
    pub(crate) path: PathBuf,
    /// The node itself.
    pub(crate) node: Node,
}

impl Location {
    /// The whole path, for messages only; opening goes through [`super::open`].
    pub(crate) fn full_path(&self) -> PathBuf {
        self.directory.join(&self.path)
    }
}

/// Climbs from a file's node to its root. `None` if it is no file, or was forgotten.
pub(crate) fn locate(layers: &Layers, file: NodeId) -> Result<Option<Location>, IndexError> {
    let Some(node) = layers.node(file)?.filter(|node| node.stamp.is_some()) else {
        return Ok(None);
    };
    let mut names = vec![node.name.clone()];
    let mut above = node.parent;
    for _ in 0..MAX_CLIMB {
        let Some(parent) = layers.node(above)? else {
            return Ok(None);
        };
        if parent.parent == NodeId::NONE {
            let Some(directory) = root_directory(layers, above, &parent)? else {
                return Ok(None);
            };
            let path = names
                .iter()
                .rev()
                .map(|name| OsStr::from_bytes(name))
                .collect();
            return Ok(Some(Location {
                directory,
                path,
                node,
            }));
        }
        names.push(parent.name);
        above = parent.parent;
    }
    Err(IndexError::row("nodes"))
}

fn root_directory(layers: &Layers, id: NodeId, node: &Node) -> Result<Option<PathBuf>, IndexError> {
    let Ok(root) = <[u8; 16]>::try_from(node.name.as_ref()) else {
        return Ok(None);
    };
    let root = layers.root(&RootId::from_bytes(root))?;
    Ok(root
        .filter(|root| root.node == id)
        .map(|root| root.directory))
}

/// Whether the way up from a node ends at a registered root.
pub(crate) fn is_rooted(layers: &Layers, id: NodeId) -> Result<bool, IndexError> {
    let mut at = id;
    for _ in 0..MAX_CLIMB {
        let Some(node) = layers.node(at)? else {
            return Ok(false);
        };
        if node.parent == NodeId::NONE {
            return Ok(root_directory(layers, at, &node)?.is_some());
        }
        at = node.parent;
    }
    Ok(false)
}

/// Makes the node of a new root. The caller registers the root itself.
pub(crate) fn plant(layers: &mut Layers, index: &Index, root: &RootId) -> NodeId {
    let id = index.new_node();
    let name = root.as_bytes().as_slice().into();
    layers.set_node(
        id,
        Some(Node {
            parent: NodeId::NONE,
            name,
            stamp: None,
        }),
    );
    id
}

/// The node of a path, if there is one.
pub(crate) fn find(
    layers: &Layers,
    root: &RootId,
    path: &Path,
) -> Result<Option<NodeId>, WriteError> {
    let mut at = root_node(layers, root)?;
    for name in components(path)? {
        match layers.child(at, name)? {
            Some(child) => at = child,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// Puts a file's node at its path, in place of whatever was there.
pub(crate) fn bind(
    layers: &mut Layers,
    index: &Index,
    file: &FilePath,
    id: NodeId,
    stamp: FileStamp,
) -> Result<(), WriteError> {
    let (parent, name) = place(layers, index, &file.root, &file.path)?;
    if let Some(old) = layers.child(parent, &name)?
        && old != id
    {
        uproot(layers, old)?;
    }
    layers.set_child(parent, &name, Some(id));
    layers.set_node(
        id,
        Some(Node {
            parent,
            name,
            stamp: Some(stamp),
        }),
    );
    Ok(())
}

/// Moves the node at `from`, with all below it, to `to`.
pub(crate) fn rename(
    layers: &mut Layers,
    index: &Index,
    root: &RootId,
    from: &Path,
    to: &Path,
) -> Result<(), WriteError> {
    let moving = find(layers, root, from)?;
    if from == to {
        return Ok(());
    }
    let Some(id) = moving else {
        return remove(layers, root, to);
    };
    let Some(node) = layers.node(id)? else {
        return remove(layers, root, to);
    };
    if node.stamp.is_none() && to.starts_with(from) {
        return Err(PathError::IntoItself {
            path: from.to_owned(),
        }
        .into());
    }
    // Taken off its old place first: what is made or removed at `to` may be above that place, and
    // a file may move below a directory that has got its old name.
    layers.set_child(node.parent, &node.name, None);
    layers.directories().clear();
    let (parent, name) = place(layers, index, root, to)?;
    if let Some(old) = layers.child(parent, &name)? {
        uproot(layers, old)?;
    }
    layers.set_child(parent, &name, Some(id));
    layers.set_node(
        id,
        Some(Node {
            parent,
            name,
            stamp: node.stamp,
        }),
    );
    layers.directories().clear();
    Ok(())
}

/// Forgets the node at a path, and with it all below.
pub(crate) fn remove(layers: &mut Layers, root: &RootId, path: &Path) -> Result<(), WriteError> {
    if let Some(id) = find(layers, root, path)? {
        forget(layers, id)?;
    }
    Ok(())
}

/// Forgets a node, and with it all below.
pub(crate) fn forget(layers: &mut Layers, id: NodeId) -> Result<(), IndexError> {
    if let Some(node) = layers.node(id)? {
        if layers.child(node.parent, &node.name)? == Some(id) {
            layers.set_child(node.parent, &node.name, None);
        }
        uproot(layers, id)?;
    }
    Ok(())
}

fn uproot(layers: &mut Layers, id: NodeId) -> Result<(), IndexError> {
    let was_directory = layers.node(id)?.is_some_and(|node| node.stamp.is_none());
    layers.set_node(id, None);
    if was_directory {
        layers.directories().clear();
    }
    Ok(())
}

/// The directory node and the name that stand for a path; makes the directories.
fn place(
    layers: &mut Layers,
    index: &Index,
    root: &RootId,
    path: &Path,
) -> Result<(NodeId, Box<[u8]>), WriteError> {
    let names = components(path)?;
    let not_below = || PathError::NotBelow {
        path: path.to_owned(),
    };
    let (name, above) = names.split_last().ok_or_else(not_below)?;
    let key = (*root, path.parent().map(Path::to_owned).unwrap_or_default());
    if let Some(&known) = layers.directories().get(&key) {
        return Ok((known, (*name).into()));
    }
    let mut at = root_node(layers, root)?;
    for name in above {
        let child = layers.child(at, name)?;
        at = match child {
            Some(child) if layers.node(child)?.is_some_and(|node| node.stamp.is_none()) => child,
            // Nothing, or a file where there is a directory now.
            Some(_) | None => {
                let id = index.new_node();
                if let Some(old) = child {
                    uproot(layers, old)?;
                }
                layers.set_child(at, name, Some(id));
                layers.set_node(
                    id,
                    Some(Node {
                        parent: at,
                        name: (*name).into(),
                        stamp: None,
                    }),
                );
                id
            }
        };
    }
    if layers.directories().len() >= MAX_DIRECTORIES {
        layers.directories().clear();
    }
    layers.directories().insert(key, at);
    Ok((at, (*name).into()))
}

fn root_node(layers: &Layers, root: &RootId) -> Result<NodeId, WriteError> {
    let known = layers.root(root)?;
    Ok(known.ok_or(PathError::UnknownRoot { root: *root })?.node)
}
