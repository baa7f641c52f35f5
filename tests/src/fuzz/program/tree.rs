//! What programs do with whole directories.

use std::fs;

use anyhow::Result;
use rand::RngExt as _;

use super::{FILES, Hand, join, make_parent, paths};

impl Hand<'_> {
    pub(super) fn make_directory(&mut self) -> Result<()> {
        let path = join(&self.some_directory(), self.some(&["n", "e", "d2"]));
        fs::create_dir_all(self.full(&path))?;
        self.tell(&format!("mkdir {path}"));
        Ok(())
    }

    /// A directory that is there and is not the whole folder.
    fn some_tree(&mut self) -> Option<String> {
        let trees: Vec<String> = paths(&self.root)
            .into_iter()
            .filter(|path| self.full(path).is_dir())
            .collect();
        let index = self.rng.random_range(0..trees.len().max(1));
        trees.get(index).cloned()
    }

    pub(super) fn remove_some_tree(&mut self) -> Result<()> {
        let Some(tree) = self.some_tree() else {
            return Ok(());
        };
        self.remove_tree(&tree)
    }

    fn remove_tree(&mut self, tree: &str) -> Result<()> {
        let root = self.full(tree);
        let mut gone = Vec::new();
        let mut inside = paths(&root);
        inside.reverse();
        for path in inside {
            let path = join(tree, &path);
            let full = self.full(&path);
            if fs::symlink_metadata(&full)?.is_dir() {
                fs::remove_dir(full)?;
            } else {
                gone.push(format!("{path} {}", self.take(&path)));
                fs::remove_file(full)?;
            }
        }
        self.tell(&format!("rm -r {tree} : {}", gone.join(" ")));
        fs::remove_dir(root)?;
        Ok(())
    }

    pub(super) fn rebuild(&mut self) -> Result<()> {
        let tree = self.some(&["d0", "d1", "d1/e", "d2"]);
        if self.full(tree).is_dir() {
            self.remove_tree(tree)?;
        }
        fs::create_dir_all(self.full(tree))?;
        self.tell(&format!("mkdir {tree}"));
        for _ in 0..self.rng.random_range(1..4) {
            let path = join(tree, self.some(&FILES));
            self.save_in_place(&path)?;
        }
        Ok(())
    }

    pub(super) fn move_tree(&mut self) -> Result<()> {
        let Some(tree) = self.some_tree() else {
            return Ok(());
        };
        let to = join(&self.some_directory(), self.some(&["d0", "d1", "e", "m"]));
        if self.full(&to).exists() {
            return Ok(());
        }
        make_parent(&self.full(&to))?;
        fs::rename(self.full(&tree), self.full(&to))?;
        self.tell(&format!("mv {tree} {to}"));
        Ok(())
    }

    pub(super) fn replace_tree(&mut self) -> Result<()> {
        let Some(tree) = self.some_tree() else {
            return Ok(());
        };
        let old = format!("{tree}.old");
        if self.full(&old).exists() {
            return Ok(());
        }
        let new = self.full(&format!("{tree}.new"));
        fs::create_dir(&new)?;
        self.save_in_place(&format!("{tree}.new/a.txt"))?;
        fs::rename(self.full(&tree), self.full(&old))?;
        fs::rename(new, self.full(&tree))?;
        self.tell(&format!("mv {tree} {old} and {tree}.new {tree}"));
        Ok(())
    }
}
