//! Everything that was shared or written during the story and must be there at its end.
//!
//! The ledger knows contents, not names: when two people change a file apart, both versions must
//! be somewhere, whatever they are called.

use std::collections::BTreeMap;

use super::tree::Tree;

/// Contents that must not be lost, each with a word on where it came from.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    contents: BTreeMap<[u8; 32], String>,
}

impl Ledger {
    /// Notes everything that a folder holds.
    pub(super) fn found(&mut self, tree: &Tree) {
        for (content, path) in tree.contents() {
            self.contents.insert(content, path.display().to_string());
        }
    }

    /// Notes that this content was saved.
    pub(super) fn saved(&mut self, what: &str, content: &[u8]) {
        self.contents
            .insert(*blake3::hash(content).as_bytes(), what.to_owned());
    }

    /// Somebody who had seen this content deleted or replaced it: it may be gone.
    pub(super) fn given_up(&mut self, content: &[u8]) {
        self.contents.remove(blake3::hash(content).as_bytes());
    }

    /// How many contents are noted.
    pub(super) fn len(&self) -> usize {
        self.contents.len()
    }

    /// What is nowhere in the tree.
    pub(super) fn lost(&self, tree: &Tree) -> Vec<&str> {
        let there = tree.contents();
        let lost = self
            .contents
            .iter()
            .filter(|(content, _)| !there.contains_key(*content));
        lost.map(|(_, what)| what.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_that_is_nowhere_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("under another name"), "kept").unwrap();
        let mut ledger = Ledger::default();
        ledger.saved("a", b"kept");
        ledger.saved("b", b"gone");
        ledger.saved("c", b"deleted by its owner");
        ledger.given_up(b"deleted by its owner");
        assert_eq!(ledger.lost(&Tree::read(dir.path()).unwrap()), ["b"]);
    }
}
