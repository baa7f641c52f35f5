//! Names on disk and names in the mesh: which names are ours, and how a path is shown to people.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wormhole_crdt::{EntryId, EntryName};

use super::status::Reason;

/// The folder's control directory. Never synced.
pub(crate) const CONTROL: &str = ".wormhole";
/// Unfinished files, inside the control directory and so on the same file system as their targets.
pub(crate) const TMP: &str = ".wormhole/tmp";
/// What was removed or replaced from elsewhere, inside the control directory and so on the same file system.
pub(crate) const TRASH: &str = ".wormhole/trash";
/// The marker, inside the control directory.
pub(crate) const MARKER: &str = "folder";
/// Tells git that nothing in the control directory is for a repository.
pub(crate) const UNLISTED: &str = ".gitignore";
/// Shared ignore rules, synced like any file.
pub(crate) const IGNORE: &str = ".wormholeignore";
/// Rules for this device only, inside the control directory.
pub(crate) const LOCAL_IGNORE: &str = ".wormhole/ignore";

/// Where something stands: a name in a directory that is known by its entry. A renamed directory moves all its
/// descendants without touching their places.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) parent: EntryId,
    pub(crate) name: EntryName,
}

impl Place {
    pub(crate) fn new(parent: EntryId, name: EntryName) -> Self {
        Self { parent, name }
    }

    pub(crate) fn os_name(&self) -> &OsStr {
        OsStr::new(self.name.as_str())
    }
}

/// Reads a name from disk as a name of the mesh.
pub(crate) fn parse(name: &OsStr) -> Result<EntryName, Reason> {
    let text = name.to_str().ok_or(Reason::NameNotUtf8)?;
    EntryName::parse(text).map_err(|_refused| Reason::NameRefused)
}

/// A path as it may be printed: control, bidi and zero-width characters and broken UTF-8 are escaped.
pub(crate) fn display(path: &Path) -> Arc<str> {
    let mut shown = String::new();
    for component in path.components() {
        if !shown.is_empty() {
            shown.push('/');
        }
        let raw = component.as_os_str();
        match parse(raw) {
            Ok(name) => shown.push_str(&name.display().to_string()),
            Err(_refused) => shown.extend(raw.as_encoded_bytes().escape_ascii().map(char::from)),
        }
    }
    if shown.is_empty() {
        Arc::from(".")
    } else {
        Arc::from(shown)
    }
}

/// A longer ending is no extension but part of the name, and is cut like the rest of it.
const MAX_KEPT_EXTENSION: usize = 32;

/// The name under which a read-only member's own change is kept: `stem (local).ext`, then `stem (local 2).ext`.
pub(crate) fn aside(name: &EntryName, attempt: u32) -> Option<EntryName> {
    let text = name.as_str();
    let (stem, extension) = match text.rfind('.') {
        Some(dot) if dot > 0 && text.len() - dot <= MAX_KEPT_EXTENSION => text.split_at(dot),
        Some(_) | None => (text, ""),
    };
    let suffix = if attempt < 2 {
        " (local)".to_owned()
    } else {
        format!(" (local {attempt})")
    };
    let mut keep = stem
        .len()
        .min(255usize.saturating_sub(suffix.len() + extension.len()));
    while !stem.is_char_boundary(keep) {
        keep -= 1;
    }
    let stem = stem.get(..keep)?;
    EntryName::parse(&format!("{stem}{suffix}{extension}")).ok()
}

/// True for a control directory and everything in it: this folder's own, and that of any folder further down. The mesh
/// may be shown there from that directory on, by another device or after an unbinding.
pub(crate) fn is_control(path: &Path) -> bool {
    path.components().any(|one| {
        let text = one.as_os_str();
        // A disk that folds case takes every spelling for the control directory.
        text.eq_ignore_ascii_case(CONTROL)
            || (!text.is_ascii() && parse(text).is_ok_and(|name| name.fold() == CONTROL))
    })
}

/// `dir/name`.
pub(crate) fn child(dir: &Path, name: &EntryName) -> PathBuf {
    dir.join(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> EntryName {
        EntryName::parse(text).unwrap()
    }

    #[test]
    fn a_local_copy_keeps_its_extension() {
        assert_eq!(aside(&name("plan.txt"), 1), Some(name("plan (local).txt")));
        assert_eq!(
            aside(&name("plan.txt"), 3),
            Some(name("plan (local 3).txt"))
        );
        assert_eq!(aside(&name(".profile"), 1), Some(name(".profile (local)")));
    }

    #[test]
    fn a_local_copy_of_the_longest_name_still_fits() {
        let longest = name(&"é".repeat(127));
        assert!(aside(&longest, 12).unwrap().as_str().len() <= 255);
        let ending = name(&format!("a.{}", "e".repeat(253)));
        assert!(aside(&ending, 12).unwrap().as_str().len() <= 255);
    }

    #[test]
    fn every_spelling_of_the_control_directory_is_ours() {
        for path in [
            ".wormhole",
            ".WORMHOLE/tmp",
            ".Wormhole/folder",
            "sub/.wormhole",
            "sub/.wormhole/folder",
        ] {
            assert!(is_control(Path::new(path)), "{path}");
        }
        for path in [".wormholeignore", "sub/wormhole", "wormhole"] {
            assert!(!is_control(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn names_that_are_not_text_are_shown_escaped() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new("dir").join(OsStr::from_bytes(b"caf\xe9\x1b[31m"));
        assert_eq!(&*display(&path), "dir/caf\\xe9\\x1b[31m");
    }
}
