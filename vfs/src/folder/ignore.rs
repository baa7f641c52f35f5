//! Which paths are left out: `.wormholeignore` files, shared through the mesh, and `.wormhole/ignore`, this device's own.
//!
//! The patterns are gitignore's, by the `ignore` crate. A rule in a deeper directory wins over one further up, and this
//! device's own rules win over all. What is ignored is neither recorded nor deleted nor fetched. Rules are read through
//! the folder's own handles and cached per directory until [`Rules::forget`].

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::ignore::Match;
use ::ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::beneath::{self, Root};
use super::name;

/// An ignore file larger than this is cut off: it is input from other devices.
const MAX_RULES_BYTES: u64 = 256 << 10;
/// Directories whose rules stay in memory; nearly all have none, which costs a map entry.
const CACHED_DIRS: usize = 16_384;

/// What kind of thing a path is: patterns that end in `/` mean directories only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Directory,
    Other,
}

/// The rule that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) pattern: String,
    /// The file it stands in, relative to the folder.
    pub(crate) file: PathBuf,
}

/// A line that could not be understood.
#[derive(Clone, Debug)]
pub(crate) struct BadRule {
    pub(crate) file: PathBuf,
    pub(crate) message: String,
}

/// All rules of a folder.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    local: Option<Option<Arc<Gitignore>>>,
    dirs: HashMap<PathBuf, Option<Arc<Gitignore>>>,
    bad: Vec<BadRule>,
}

impl Rules {
    /// Reads everything again when it is next needed.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Bad lines found since the last call.
    pub(crate) fn take_bad(&mut self) -> Vec<BadRule> {
        std::mem::take(&mut self.bad)
    }

    /// The rule that leaves this path out, itself or by one of its directories.
    pub(crate) fn ignored(&mut self, root: &Root, path: &Path, shape: Shape) -> Option<Rule> {
        let mut upto = PathBuf::new();
        let mut components = path.components().peekable();
        while let Some(component) = components.next() {
            upto.push(component);
            let shape = if components.peek().is_some() {
                Shape::Directory
            } else {
                shape
            };
            if let Some(rule) = self.ignored_itself(root, &upto, shape) {
                return Some(rule);
            }
        }
        None
    }

    /// Same, when its directories are known not to be ignored.
    pub(crate) fn ignored_itself(
        &mut self,
        root: &Root,
        path: &Path,
        shape: Shape,
    ) -> Option<Rule> {
        let is_dir = shape == Shape::Directory;
        if self.local.is_none() {
            let read = self.read(root, Path::new(name::LOCAL_IGNORE));
            self.local = Some(read);
        }
        if let Some(Some(local)) = &self.local {
            match local.matched(path, is_dir) {
                Match::Ignore(glob) => {
                    let file = PathBuf::from(name::LOCAL_IGNORE);
                    return Some(Rule {
                        pattern: glob.original().to_owned(),
                        file,
                    });
                }
                Match::Whitelist(_) => return None,
                Match::None => {}
            }
        }
        let mut dir = path.parent();
        while let Some(at) = dir {
            if let Some(rules) = self.of_dir(root, at) {
                match rules.matched(path.strip_prefix(at).unwrap_or(path), is_dir) {
                    Match::Ignore(glob) => {
                        let file = at.join(name::IGNORE);
                        return Some(Rule {
                            pattern: glob.original().to_owned(),
                            file,
                        });
                    }
                    Match::Whitelist(_) => return None,
                    Match::None => {}
                }
            }
            dir = at.parent();
        }
        None
    }

    fn of_dir(&mut self, root: &Root, dir: &Path) -> Option<Arc<Gitignore>> {
        if let Some(known) = self.dirs.get(dir) {
            return known.clone();
        }
        let read = self.read(root, &dir.join(name::IGNORE));
        if self.dirs.len() >= CACHED_DIRS {
            self.dirs.clear();
        }
        self.dirs.insert(dir.to_owned(), read.clone());
        read
    }

    /// Reads one file. One that cannot be read leaves nothing out: better too much synced than silently too little.
    fn read(&mut self, root: &Root, file: &Path) -> Option<Arc<Gitignore>> {
        let parent = root.open_dir(file.parent()?).ok()?;
        let opened = beneath::open_file(parent.as_fd(), file.file_name()?).ok()?;
        let mut text = Vec::new();
        opened.take(MAX_RULES_BYTES).read_to_end(&mut text).ok()?;
        let mut builder = GitignoreBuilder::new("");
        for line in String::from_utf8_lossy(&text).lines() {
            if let Err(error) = builder.add_line(None, line) {
                self.bad.push(BadRule {
                    file: file.to_owned(),
                    message: error.to_string(),
                });
            }
        }
        match builder.build() {
            Ok(rules) if !rules.is_empty() => Some(Arc::new(rules)),
            Ok(_) => None,
            Err(error) => {
                self.bad.push(BadRule {
                    file: file.to_owned(),
                    message: error.to_string(),
                });
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn a_deeper_rule_wins_and_a_local_rule_wins_over_all() {
        let (_dir, root) = folder(&[
            (".wormholeignore", "*.log\nbuild/\n"),
            ("sub/.wormholeignore", "!keep.log\n"),
            (".wormhole/ignore", "sub/secret\n"),
        ]);
        let mut rules = Rules::default();
        let mut ignored = |path: &str, shape| {
            rules
                .ignored(&root, Path::new(path), shape)
                .map(|rule| rule.pattern)
        };
        assert_eq!(ignored("a.log", Shape::Other).as_deref(), Some("*.log"));
        assert_eq!(ignored("sub/a.log", Shape::Other).as_deref(), Some("*.log"));
        assert_eq!(ignored("sub/keep.log", Shape::Other), None);
        assert_eq!(
            ignored("sub/secret", Shape::Other).as_deref(),
            Some("sub/secret")
        );
        assert_eq!(
            ignored("build/deep/file", Shape::Other).as_deref(),
            Some("build/")
        );
        assert_eq!(
            ignored("build", Shape::Other),
            None,
            "a file may have that name"
        );
    }

    #[test]
    fn a_bad_line_is_reported_and_the_others_hold() {
        let (_dir, root) = folder(&[(".wormholeignore", "a{b\n*.tmp\n")]);
        let mut rules = Rules::default();
        assert!(
            rules
                .ignored(&root, Path::new("x.tmp"), Shape::Other)
                .is_some()
        );
        assert_eq!(rules.take_bad().len(), 1);
    }
}
