//! What a directory holds, in a form that two devices can be compared by.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// A directory's entries by relative path; Wormhole's own control directory is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree(pub BTreeMap<PathBuf, Node>);

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory,
    /// A symbolic link and where it points.
    Link(PathBuf),
    /// A file: the hash of its bytes, its length, and whether it may be executed.
    File {
        /// BLAKE3 of the bytes.
        hash: blake3::Hash,
        /// Length in bytes.
        length: u64,
        /// Whether the owner may execute it.
        executable: bool,
    },
}

impl Tree {
    /// Reads the directory `root`.
    ///
    /// # Errors
    /// When something in it cannot be read, also because it vanished meanwhile.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.visit(root, root)?;
        Ok(tree)
    }

    /// Complains, naming the first few paths, unless `self` and `other` are the same.
    ///
    /// # Errors
    /// When they differ.
    pub fn must_equal(&self, other: &Self) -> Result<()> {
        let differing = |path: &&PathBuf| self.0.get(*path) != other.0.get(*path);
        let paths: Vec<_> = self
            .0
            .keys()
            .chain(other.0.keys())
            .filter(differing)
            .take(8)
            .collect();
        if paths.is_empty() {
            Ok(())
        } else {
            bail!("the trees differ, for instance in {paths:?}")
        }
    }

    /// How many regular files are in it.
    #[must_use]
    pub fn files(&self) -> usize {
        self.0
            .values()
            .filter(|node| matches!(node, Node::File { .. }))
            .count()
    }

    /// Whether some file holds exactly `bytes`, under whatever name.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let wanted = blake3::hash(bytes);
        self.0
            .values()
            .any(|node| matches!(node, Node::File { hash, .. } if *hash == wanted))
    }

    fn visit(&mut self, root: &Path, dir: &Path) -> Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let relative = path.strip_prefix(root)?.to_path_buf();
            if relative == Path::new(".wormhole") {
                continue;
            }
            let meta = fs::symlink_metadata(&path)?;
            let node = if meta.is_dir() {
                self.visit(root, &path)?;
                Node::Directory
            } else if meta.is_symlink() {
                Node::Link(fs::read_link(&path)?)
            } else {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(fs::File::open(&path)?)?;
                let executable = meta.permissions().mode() & 0o100 != 0;
                Node::File {
                    hash: hasher.finalize(),
                    length: meta.len(),
                    executable,
                }
            };
            self.0.insert(relative, node);
        }
        Ok(())
    }
}
