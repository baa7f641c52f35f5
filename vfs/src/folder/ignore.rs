//! Which paths are left out: `.wormholeignore` files, shared through the mesh, and `.wormhole/ignore`, this device's own.
//!
//! The patterns are gitignore's, by the `ignore` crate. A rule in a deeper directory wins over one further up, and this
//! device's own rules win over all. What is ignored is neither recorded nor deleted nor fetched. Rules are read through
//! the folder's own handles and cached until [`Rules::forget`], which a scan of the whole folder begins with.

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
/// Ignore files that are remembered; of nearly all directories only that there is none.
const CACHED_FILES: usize = 16_384;

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

/// What an ignore file says.
#[derive(Clone, Debug)]
struct Text {
    hash: blake3::Hash,
    /// `None` when there is no rule in it.
    rules: Option<Arc<Gitignore>>,
}

fn hash(text: &Option<Text>) -> Option<blake3::Hash> {
    text.as_ref().map(|text| text.hash)
}

/// All rules of a folder.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Every ignore file that was asked for; `None` where there is none.
    files: HashMap<PathBuf, Option<Text>>,
    /// What was known before it was forgotten, to tell what changed.
    before: HashMap<PathBuf, Option<Text>>,
    changed: bool,
    bad: Vec<BadRule>,
}

impl Rules {
    /// Reads everything again when it is next needed.
    pub(crate) fn forget(&mut self) {
        self.before.extend(self.files.drain());
    }

    /// Reads one file again. True when it says something else than before.
    pub(crate) fn read_again(&mut self, root: &Root, file: &Path) -> bool {
        let forgotten = self.before.remove(file);
        let old = self.files.remove(file).or(forgotten);
        let new = self.read(root, file);
        // Without an old one nothing was decided yet.
        let changed = old.is_some_and(|old| hash(&old) != hash(&new));
        self.files.insert(file.to_owned(), new);
        changed
    }

    /// Whether there are rules in this file, as far as is known.
    pub(crate) fn has(&self, file: &Path) -> bool {
        let known = self.files.get(file).or_else(|| self.before.get(file));
        known.is_some_and(Option::is_some)
    }

    /// True once after a file that was forgotten turned out to say something else.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
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
        if !is_dir && path.file_name().is_some_and(|name| name == name::IGNORE) {
            // An allow list (`*`, then what is wanted) must not leave itself out: nobody else would have the rules.
            return None;
        }
        if let Some(local) = self.of_file(root, PathBuf::from(name::LOCAL_IGNORE)) {
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
            if let Some(rules) = self.of_file(root, at.join(name::IGNORE)) {
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

    fn of_file(&mut self, root: &Root, file: PathBuf) -> Option<Arc<Gitignore>> {
        if let Some(known) = self.files.get(&file) {
            return known.as_ref().and_then(|text| text.rules.clone());
        }
        let read = self.read(root, &file);
        if let Some(before) = self.before.remove(&file) {
            self.changed |= hash(&before) != hash(&read);
        }
        if self.files.len() >= CACHED_FILES {
            self.files.retain(|_, text| text.is_some());
        }
        let rules = read.as_ref().and_then(|text| text.rules.clone());
        self.files.insert(file, read);
        rules
    }

    /// Reads one file. One that cannot be read leaves nothing out: better too much synced than silently too little.
    fn read(&mut self, root: &Root, file: &Path) -> Option<Text> {
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
        let rules = match builder.build() {
            Ok(rules) => (!rules.is_empty()).then(|| Arc::new(rules)),
            Err(error) => {
                self.bad.push(BadRule {
                    file: file.to_owned(),
                    message: error.to_string(),
                });
                None
            }
        };
        Some(Text {
            hash: blake3::hash(&text),
            rules,
        })
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
    fn rules_never_leave_themselves_out() {
        let (_dir, root) = folder(&[
            (".wormholeignore", "*\n!*.mp4\n!sub/\n"),
            (".wormhole/ignore", ".wormholeignore\n"),
        ]);
        let mut rules = Rules::default();
        let mut is_ignored = |path: &str| {
            rules
                .ignored(&root, Path::new(path), Shape::Other)
                .is_some()
        };
        assert!(is_ignored("notes.txt"));
        assert!(!is_ignored("film.mp4"));
        assert!(!is_ignored(".wormholeignore"));
        assert!(!is_ignored("sub/.wormholeignore"));
        assert!(
            is_ignored("other/.wormholeignore"),
            "of a directory that is left out"
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
