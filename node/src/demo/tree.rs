//! What a folder holds, to the last bit: names, kinds, hashes of contents, link targets, exec bits.
//!
//! Read from the disk with no help of the nodes, because it is the nodes that are on trial.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A folder as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tree {
    leaves: BTreeMap<PathBuf, Leaf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Leaf {
    Directory,
    Link(PathBuf),
    File {
        hash: blake3::Hash,
        size: u64,
        executable: bool,
    },
}

/// What wormhole itself keeps at the top of a synced folder.
const OWN_DIRECTORY: &str = ".wormhole";

impl Tree {
    /// Reads and hashes everything in `folder`.
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        Self::walk(folder, hash)
    }

    /// The same without the contents: every file counts as if it were empty.
    pub(super) fn outline(folder: &Path) -> io::Result<Self> {
        Self::walk(folder, |_| Ok(blake3::hash(b"")))
    }

    fn walk(folder: &Path, hash: fn(&Path) -> io::Result<blake3::Hash>) -> io::Result<Self> {
        let mut tree = Self::default();
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            for item in fs::read_dir(folder.join(&directory))? {
                let item = item?;
                let path = directory.join(item.file_name());
                if path == Path::new(OWN_DIRECTORY) {
                    continue;
                }
                let leaf = leaf(&item.path(), hash)?;
                if leaf == Leaf::Directory {
                    directories.push(path.clone());
                }
                tree.leaves.insert(path, leaf);
            }
        }
        Ok(tree)
    }

    /// How many files there are.
    pub(super) fn files(&self) -> u64 {
        self.leaves
            .values()
            .filter(|leaf| matches!(leaf, Leaf::File { .. }))
            .count() as u64
    }

    /// The sizes of all files together.
    pub(super) fn bytes(&self) -> u64 {
        let size = |leaf: &Leaf| match leaf {
            Leaf::File { size, .. } => *size,
            Leaf::Directory | Leaf::Link(_) => 0,
        };
        self.leaves.values().map(size).sum()
    }

    /// The contents of all files, with one path for each.
    pub(super) fn contents(&self) -> BTreeMap<[u8; 32], &Path> {
        let mut contents = BTreeMap::new();
        for (path, leaf) in &self.leaves {
            if let Leaf::File { hash, .. } = leaf {
                contents.insert(*hash.as_bytes(), path.as_path());
            }
        }
        contents
    }

    /// One line for each path that is not the same in both; empty when the trees are identical.
    pub(super) fn differences(&self, other: &Self, [one, two]: [&str; 2]) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, leaf) in &self.leaves {
            match other.leaves.get(path) {
                None => lines.push(format!("{} is only on {one}", path.display())),
                Some(there) if there != leaf => {
                    lines.push(format!("{} differs on {one} and {two}", path.display()));
                }
                Some(_) => {}
            }
        }
        for path in other
            .leaves
            .keys()
            .filter(|path| !self.leaves.contains_key(*path))
        {
            lines.push(format!("{} is only on {two}", path.display()));
        }
        lines
    }
}

fn hash(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize())
}

fn leaf(path: &Path, hash: fn(&Path) -> io::Result<blake3::Hash>) -> io::Result<Leaf> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() {
        return Ok(Leaf::Directory);
    }
    if meta.is_symlink() {
        return Ok(Leaf::Link(fs::read_link(path)?));
    }
    Ok(Leaf::File {
        hash: hash(path)?,
        size: meta.len(),
        executable: meta.permissions().mode() & 0o100 != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_found() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            let folder = dir.path().join(name);
            fs::create_dir_all(folder.join(".wormhole")).unwrap();
            fs::write(folder.join(".wormhole/own"), name).unwrap();
            fs::write(folder.join("same"), "same").unwrap();
            fs::write(folder.join("content"), name).unwrap();
            fs::create_dir(folder.join(format!("only-{name}"))).unwrap();
        }
        let one = Tree::read(&dir.path().join("one")).unwrap();
        let two = Tree::read(&dir.path().join("two")).unwrap();
        let lines = one.differences(&two, ["one", "two"]);
        assert_eq!(
            lines,
            [
                "content differs on one and two",
                "only-one is only on one",
                "only-two is only on two",
            ]
        );
        assert!(one.differences(&one, ["one", "one"]).is_empty());
    }
}
