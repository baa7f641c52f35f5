//! The list of what is wrong, by path; it heals by itself when a path is looked at again and is fine.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::path::{Path, PathBuf};

use super::name;
use super::status::{FolderStatus, Problem, Reason};

/// Problems that are remembered; they come up again once these are solved.
const MAX_PROBLEMS: usize = 10_000;

/// All problems of a folder.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    /// What concerns the folder as a whole, each kind of trouble once.
    folder: Vec<Reason>,
    by_path: BTreeMap<PathBuf, Reason>,
}

impl Problems {
    /// Something is wrong with a path.
    pub(crate) fn report(&mut self, path: &Path, reason: Reason) {
        let full = self.by_path.len() >= MAX_PROBLEMS && !self.by_path.contains_key(path);
        if full || self.by_path.get(path) == Some(&reason) {
            return;
        }
        tracing::warn!(path = %name::display(path), %reason, "not synced");
        self.by_path.insert(path.to_owned(), reason);
    }

    /// Something is wrong with the folder as a whole.
    pub(crate) fn report_folder(&mut self, reason: Reason) {
        if self.folder.contains(&reason) {
            return;
        }
        tracing::warn!(%reason, "the folder needs attention");
        self.clear_folder(&reason);
        self.folder.push(reason);
    }

    /// The folder does not suffer from this kind of trouble any more, whatever its numbers were.
    pub(crate) fn clear_folder(&mut self, like: &Reason) {
        self.folder
            .retain(|reason| discriminant(reason) != discriminant(like));
    }

    /// A path is fine now.
    pub(crate) fn clear(&mut self, path: &Path) {
        self.by_path.remove(path);
    }

    /// A path and all below it are gone.
    pub(crate) fn clear_tree(&mut self, path: &Path) {
        self.by_path.retain(|at, _| !at.starts_with(path));
    }

    /// What is wrong with the folder as a whole.
    #[cfg(test)]
    pub(crate) fn folder(&self) -> &[Reason] {
        &self.folder
    }

    pub(crate) fn at(&self, path: &Path) -> Option<&Reason> {
        self.by_path.get(path)
    }

    /// Fills in the problem part of a status.
    pub(crate) fn describe(&self, status: &mut FolderStatus) {
        status.problem_count = (self.folder.len() + self.by_path.len()) as u64;
        let whole = self.folder.iter().map(|reason| (Path::new(""), reason));
        let paths = self
            .by_path
            .iter()
            .map(|(path, reason)| (path.as_path(), reason));
        status.problems = whole
            .chain(paths)
            .take(FolderStatus::LISTED)
            .map(|(path, reason)| Problem {
                path: name::display(path),
                reason: reason.clone(),
            })
            .collect();
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.by_path.keys().cloned().collect()
    }
}
