//! A plain disk with one user: what the tree must look like after an operation.

use std::collections::BTreeMap;

use crate::entry::{Entry, EntryKey, Kind, LinkTarget, Mode};
use crate::id::{EntryId, Timestamp};
use crate::name::{EntryName, fold};
use wormhole_store::Content;

/// Names from the top.
pub(super) type Path = Vec<String>;

/// What is at a path.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) kind: Kind,
    pub(super) content: Option<Content>,
    pub(super) target: Option<LinkTarget>,
    pub(super) mode: Mode,
    pub(super) mtime: Option<Timestamp>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            content,
            target,
            mode,
            mtime,
        } = self;
        let size = content.map(|content| content.size);
        let target = target.as_ref().map(LinkTarget::as_str);
        write!(f, "{kind:?} {size:?} {target:?} {mode:?} {mtime:?}")
    }
}

/// The operation cannot be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<Path, File>,
}

/// The path of `key`. Panics if it has none, which would be an orphan or a cycle.
pub(super) fn path(entries: &BTreeMap<EntryKey, Entry>, key: &EntryKey) -> Path {
    let mut names = Vec::new();
    let mut at = *key;
    while at.id != EntryId::ROOT {
        let entry = entries
            .get(&at)
            .expect("the parents of what is shown are shown");
        names.push(entry.name.as_str().to_owned());
        assert!(names.len() <= entries.len(), "a cycle at {key:?}");
        at = entry.parent.into();
    }
    names.reverse();
    names
}

impl Disk {
    pub(super) fn of(entries: &BTreeMap<EntryKey, Entry>) -> Self {
        let file = |entry: &Entry| File {
            kind: entry.kind,
            content: entry.file.map(|file| file.content),
            target: entry.target.clone(),
            mode: entry.mode,
            mtime: entry.file.map(|file| file.mtime),
        };
        let files = entries
            .iter()
            .map(|(key, entry)| (path(entries, key), file(entry)));
        Self {
            files: files.collect(),
        }
    }

    pub(super) fn free(&self, parent: &[String], name: &EntryName) -> bool {
        !self.files.keys().any(|path| {
            path.split_last()
                .is_some_and(|(last, above)| above == parent && fold(last) == name.fold())
        })
    }

    pub(super) fn create(
        &mut self,
        parent: &[String],
        name: &EntryName,
        file: File,
    ) -> Result<(), Refused> {
        if !self.free(parent, name) {
            return Err(Refused);
        }
        self.files.insert(join(parent, name), file);
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        from: &[String],
        parent: &[String],
        name: &EntryName,
    ) -> Result<(), Refused> {
        if parent.starts_with(from) {
            return Err(Refused);
        }
        let moved = self.take(from);
        if !self.free(parent, name) {
            return Err(Refused);
        }
        let to = join(parent, name);
        for (path, file) in moved {
            self.files
                .insert([to.as_slice(), &path[from.len()..]].concat(), file);
        }
        Ok(())
    }

    pub(super) fn replace(&mut self, from: &[String], over: &[String]) -> Result<(), Refused> {
        if from == over {
            return Ok(());
        }
        let (name, parent) = over.split_last().expect("the root is not replaced");
        let directory = |path: &[String]| self.files[path].kind == Kind::Directory;
        if directory(from) != directory(over) {
            return Err(Refused);
        }
        let inside = self
            .files
            .keys()
            .filter(|path| path.starts_with(over))
            .count();
        if inside > 1 {
            return Err(Refused);
        }
        self.files.remove(over);
        self.rename(from, parent, &EntryName::parse(name).unwrap())
    }

    pub(super) fn take(&mut self, from: &[String]) -> Vec<(Path, File)> {
        let paths: Vec<Path> = self
            .files
            .keys()
            .filter(|path| path.starts_with(from))
            .cloned()
            .collect();
        paths
            .into_iter()
            .filter_map(|path| self.files.remove_entry(&path))
            .collect()
    }
}

pub(super) fn join(parent: &[String], name: &EntryName) -> Path {
    let mut path = parent.to_vec();
    path.push(name.as_str().to_owned());
    path
}
