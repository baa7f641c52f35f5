//! References: chunks that are ranges of files in synced folders, so that content is on disk once.
//!
//! Here are the words of it: [`FilePath`], and the calls that tell the store what
//! became of files. The tree that rows hang from is in [`tree`], opening without following links
//! in [`open`]. A reference is a hint: what is read through it is compared by stat before and
//! after, and by hash always, and is forgotten when the file was written to since (`reader`). A file
//! that is not found under its name may have been renamed: its references wait for [`Store::moved`]
//! or [`Store::forgotten`].

pub(crate) mod open;
pub(crate) mod tree;

use std::path::{Component, Path, PathBuf};

use crate::error::{PathError, WriteError};
use crate::id::RootId;
use crate::index::Root;
use crate::store::Store;

/// Deeper trees are refused: 4,096 bytes of path cannot have more useful components.
const MAX_DEPTH: usize = 1024;

/// A file below a registered root.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct FilePath {
    /// The binding whose directory the path is below.
    pub root: RootId,
    /// The path, relative to the root, of plain components only.
    pub path: PathBuf,
}

impl FilePath {
    /// Names `path` below `root`. It is checked when it is used.
    pub fn new(root: RootId, path: impl Into<PathBuf>) -> Self {
        Self {
            root,
            path: path.into(),
        }
    }
}

/// Splits a path below a root into its components.
pub(crate) fn components(path: &Path) -> Result<Vec<&[u8]>, PathError> {
    use std::os::unix::ffi::OsStrExt;
    let mut names = Vec::new();
    for component in path.components() {
        let Component::Normal(name) = component else {
            return Err(PathError::NotBelow {
                path: path.to_owned(),
            });
        };
        names.push(name.as_bytes());
    }
    match names.len() {
        0 => Err(PathError::NotBelow {
            path: path.to_owned(),
        }),
        1..=MAX_DEPTH => Ok(names),
        _ => Err(PathError::TooDeep {
            path: path.to_owned(),
        }),
    }
}

impl Store {
    /// Registers the directory of a binding. Paths of references are below it.
    ///
    /// A root that is known moves with all its references: the directory was renamed.
    ///
    /// # Errors
    /// The index could not be read, or the store is poisoned.
    pub fn add_root(&self, root: &RootId, directory: &Path) -> Result<(), WriteError> {
        self.check_writable()?;
        let index = &self.inner.index;
        let mut layers = index.update();
        let node = match layers.root(root)? {
            Some(known) => known.node,
            None => tree::plant(&mut layers, index, root),
        };
        layers.set_root(
            *root,
            Some(Root {
                node,
                directory: directory.to_owned(),
            }),
        );
        Ok(())
    }

    /// Forgets a binding's directory and every reference into it. The files stay.
    ///
    /// # Errors
    /// The index could not be read, or the store is poisoned.
    pub fn remove_root(&self, root: &RootId) -> Result<(), WriteError> {
        self.check_writable()?;
        let mut layers = self.inner.index.update();
        if let Some(known) = layers.root(root)? {
            layers.set_node(known.node, None);
            layers.set_root(*root, None);
            layers.directories().clear();
        }
        Ok(())
    }

    /// Whether there is a reference to this file, as it was when it was imported or adopted.
    ///
    /// # Errors
    /// The path is not below the root, or the index could not be read.
    pub fn refers_to(&self, file: &FilePath) -> Result<bool, WriteError> {
        let layers = self.inner.index.read();
        let node = match tree::find(&layers, &file.root, &file.path)? {
            Some(id) => layers.node(id)?,
            None => None,
        };
        Ok(node.is_some_and(|node| node.stamp.is_some()))
    }

    /// Says that a file or a whole directory was renamed: its references follow, what was at `to`
    /// is forgotten. Costs the same for one file and for a directory of a million.
    ///
    /// # Errors
    /// A path is not below the root, or a directory would move into itself.
    pub fn moved(&self, root: &RootId, from: &Path, to: &Path) -> Result<(), WriteError> {
        self.check_writable()?;
        let index = &self.inner.index;
        tree::rename(&mut index.update(), index, root, from, to)?;
        self.commit_if_large()
    }

    /// Says that a file or a whole directory is gone or was replaced: its references are dropped.
    ///
    /// # Errors
    /// The path is not below the root.
    pub fn forgotten(&self, root: &RootId, path: &Path) -> Result<(), WriteError> {
        self.check_writable()?;
        tree::remove(&mut self.inner.index.update(), root, path)?;
        self.commit_if_large()
    }
}

#[cfg(test)]
mod tests;
