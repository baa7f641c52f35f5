//! Which paths are left out: `.wormholeignore` files, shared through the mesh, and `.wormhole/ignore`, this device's own.
//!
//! The patterns are gitignore's, by the `ignore` crate. A rule in a deeper directory wins over one further up, and this
//! device's own rules win over all. What is ignored is neither recorded nor deleted nor fetched. Rules are read through
//! the folder's own handles and cached until [`Rules::forget`], which a scan of the whole folder begins with.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::ignore::Match;
use ::ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::beneath::{self, Root};
use super::engine::{Step, is_replaced};
use super::name;
use super::problem::Problems;
use super::status::Reason;

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

/// A file that could not be read, or of which a line could not be understood.
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
    /// Files that could not be read or understood when that was last tried.
    bad: HashSet<PathBuf>,
    found_bad: Vec<BadRule>,
    healed: Vec<PathBuf>,
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
        let was_bad = self.bad.remove(file);
        let Some(new) = self.read(root, file) else {
            // Its last rules hold.
            self.before.extend(old.map(|old| (file.to_owned(), old)));
            return false;
        };
        if was_bad && !self.bad.contains(file) {
            self.healed.push(file.to_owned());
        }
        let changed = match old {
            Some(old) => hash(&old) != hash(&new),
            // Nothing was decided yet, unless it could not be read.
            None => was_bad,
        };
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

    /// Reports files that were found bad, and clears those that are not any more, since the last call.
    pub(crate) fn tell(&mut self, problems: &mut Problems) {
        // What the system says of the file itself says more.
        let other = |found: Option<&Reason>| {
            found.is_some_and(|reason| !matches!(reason, Reason::IgnoreRule { .. }))
        };
        for file in std::mem::take(&mut self.healed) {
            if !other(problems.at(&file)) {
                problems.clear(&file);
            }
        }
        for BadRule { file, message } in std::mem::take(&mut self.found_bad) {
            if !other(problems.at(&file)) {
                problems.report(&file, Reason::IgnoreRule { message });
            }
        }
    }

    /// Whether the file could not be read or understood when that was last tried.
    pub(crate) fn is_bad(&self, file: &Path) -> bool {
        self.bad.contains(file)
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
        let was_bad = self.bad.contains(&file);
        let Some(read) = self.read(root, &file) else {
            let last = self.before.get(&file).cloned().flatten();
            return last.and_then(|text| text.rules);
        };
        self.changed |= match self.before.remove(&file) {
            Some(before) => hash(&before) != hash(&read),
            // It could not be read so far.
            None => was_bad,
        };
        if self.files.len() >= CACHED_FILES {
            self.files.retain(|_, text| text.is_some());
        }
        let rules = read.as_ref().and_then(|text| text.rules.clone());
        self.files.insert(file, read);
        rules
    }

    /// Reads one file. `None` when that cannot be done now: what it said before holds, and if that is not known, nothing is
    /// left out: better too much synced than silently too little.
    fn read(&mut self, root: &Root, file: &Path) -> Option<Option<Text>> {
        let (above, name) = (file.parent()?, file.file_name()?);
        let parent = match root.open_dir(above) {
            Ok(parent) => parent,
            Err(error) if is_replaced(&error) => return Some(self.is_absent(file)),
            // Of the directory that is told.
            Err(_) => return None,
        };
        let text = beneath::open_file(parent.as_fd(), name).and_then(|opened| {
            let mut text = Vec::new();
            opened.take(MAX_RULES_BYTES).read_to_end(&mut text)?;
            Ok(text)
        });
        match text {
            Ok(text) => Some(Some(self.understand(file, &text))),
            Err(error) if is_replaced(&error) || error.kind() == io::ErrorKind::IsADirectory => {
                Some(self.is_absent(file))
            }
            Err(error) => {
                if let Ok(Some(_)) = beneath::look(parent.as_fd(), name) {
                    let message = format!("cannot be read ({error}); what it said before holds");
                    self.spoil(file, message);
                }
                None
            }
        }
    }

    fn is_absent(&mut self, file: &Path) -> Option<Text> {
        self.heal(file);
        None
    }

    fn understand(&mut self, file: &Path, text: &[u8]) -> Text {
        let mut builder = GitignoreBuilder::new("");
        let mut bad = None;
        for line in String::from_utf8_lossy(text).lines() {
            if let Err(error) = builder.add_line(None, line) {
                bad.get_or_insert(error.to_string());
            }
        }
        let rules = match builder.build() {
            Ok(rules) => (!rules.is_empty()).then(|| Arc::new(rules)),
            Err(error) => {
                bad.get_or_insert(error.to_string());
                None
            }
        };
        match bad {
            Some(message) => self.spoil(file, message),
            None => self.heal(file),
        }
        Text {
            hash: blake3::hash(text),
            rules,
        }
    }

    fn spoil(&mut self, file: &Path, message: String) {
        if self.bad.len() < CACHED_FILES && self.bad.insert(file.to_owned()) {
            let file = file.to_owned();
            self.found_bad.push(BadRule { file, message });
        }
    }

    fn heal(&mut self, file: &Path) {
        if self.bad.remove(file) {
            self.healed.push(file.to_owned());
        }
    }
}

impl Step<'_> {
    /// An ignore file may have changed: what it says now is applied to the disk and to the mesh.
    pub(crate) fn rules_changed(&mut self, file: &Path) {
        let engine = &mut *self.engine;
        if !engine.rules.read_again(&engine.root, file) {
            return;
        }
        let dir = if file == Path::new(name::LOCAL_IGNORE) {
            Path::new("")
        } else {
            file.parent().unwrap_or(Path::new(""))
        };
        self.todo.scans.push(dir.to_owned());
        self.todo.audit = true;
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
        assert_eq!(rules.found_bad.len(), 1);
    }
}
