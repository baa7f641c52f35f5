//! Looks for synced folders around a directory and inside of it, by their markers: one of another node of this machine
//! is known by nothing else.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Asker, Nested, marker};

/// Directories that are looked into for a folder inside. What is beyond is not found here; a folder there loses nothing
/// either, because what it keeps in `.wormhole` is never synced.
const MOST_DIRECTORIES: usize = 100_000;

/// The nearest synced folder around the directory, or one that is inside of it.
pub(super) fn find(dir: &Path, asker: &Asker) -> Option<Nested> {
    let is_folder = |dir: &Path| {
        // What cannot be read tells nothing.
        marker::read(dir).is_ok_and(|marker| asker.is_in_use(&marker))
    };
    let mut above = dir.ancestors().skip(1);
    if let Some(outer) = above.find(|above| is_folder(above)) {
        return Some(Nested::In(outer.to_owned()));
    }
    below(dir, is_folder).map(Nested::Around)
}

/// The first directory below that is a folder, on the same file system and without following links.
fn below(dir: &Path, is_folder: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let device = fs::symlink_metadata(dir).ok()?.dev();
    let mut queue = VecDeque::from([dir.to_owned()]);
    let mut looked = 0;
    while let Some(at) = queue.pop_front() {
        let Ok(entries) = fs::read_dir(&at) else {
            continue;
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = entry.path();
            if path.file_name().is_some_and(|name| name == marker::CONTROL) {
                if at != dir && is_folder(&at) {
                    return Some(at);
                }
                continue;
            }
            let is_here = entry.metadata().is_ok_and(|found| found.dev() == device);
            if is_here && looked < MOST_DIRECTORIES {
                looked += 1;
                queue.push_back(path);
            }
        }
    }
    None
}
