//! No circles between modules of different folders of a crate, so that each can be read from the bottom.
//!
//! A file uses the files that its paths name (`crate::`, `super::`, children); a name that is only passed
//! on (`pub use`) is looked up where it is made, and passing on is no use. `foo.rs` belongs to the folder
//! `foo`. A circle inside one folder is the folder's own affair. The house is not free of circles yet:
//! `circle/known.txt` lists the files that are in one, and may only become shorter.

mod path;

use std::collections::{BTreeMap, BTreeSet};

use crate::repository::Source;

/// Files that are in a circle today, in the order of their paths.
const KNOWN: &str = include_str!("circle/known.txt");

/// Rooms that are looked at: what is shipped.
const ROOMS: [&str; 6] = ["api", "crdt", "mesh", "node", "store", "vfs"];

/// Files of a circle that are named.
const SHOWN: usize = 6;

/// One line for each file that is in a circle and not on the list, or on the list and in none.
pub(super) fn faults(sources: &[Source]) -> Vec<String> {
    let known: BTreeSet<&str> = KNOWN.lines().filter(|line| !line.is_empty()).collect();
    compare(&circles(sources), &known)
}

fn compare(circles: &[BTreeSet<&str>], known: &BTreeSet<&str>) -> Vec<String> {
    let mut faults = Vec::new();
    for circle in circles {
        for file in circle.iter().filter(|file| !known.contains(*file)) {
            let mut others = circle.iter().filter(|other| *other != file);
            let shown: Vec<_> = others.by_ref().take(SHOWN).copied().collect();
            let more = match others.count() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            faults.push(format!(
                "{file}: is in a circle over folders with {}{more}",
                shown.join(", ")
            ));
        }
    }
    let free = |file: &&&str| !circles.iter().any(|circle| circle.contains(**file));
    faults.extend(known.iter().filter(free).map(|file| {
        format!("xtask/src/check/circle/known.txt: {file} is in no circle any more: take it off")
    }));
    faults
}

/// The files of each circle that goes over more than one folder.
fn circles(sources: &[Source]) -> Vec<BTreeSet<&str>> {
    let mut found = Vec::new();
    for room in ROOMS {
        let files: BTreeMap<String, &Source> = sources
            .iter()
            .filter(|source| source.room() == room && !source.is_test)
            .filter_map(|source| Some((path::module(&source.path)?, source)))
            .collect();
        let uses = path::uses(&files);
        let over_folders = |circle: &BTreeSet<&String>| {
            let folders: BTreeSet<&str> = circle.iter().map(|name| folder(name, &files)).collect();
            folders.len() > 1
        };
        let circles = rings(&uses).into_iter().filter(over_folders);
        let named = circles.map(|circle| {
            let files = circle.iter().filter_map(|name| files.get(*name));
            files.map(|source| source.path.as_str()).collect()
        });
        found.extend(named.collect::<Vec<BTreeSet<&str>>>());
    }
    found
}

/// The folder of a module: its own when it has children, else its parent's.
fn folder<'a>(name: &'a str, files: &BTreeMap<String, &Source>) -> &'a str {
    let below = format!("{name}::");
    if files.keys().any(|other| other.starts_with(&below)) {
        return name;
    }
    name.rsplit_once("::").map_or("", |(parent, _)| parent)
}

/// Sets of modules each of which reaches each other one: two or more in a set.
fn rings(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<&String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        uses.keys().map(|name| (name, reach(uses, name))).collect();
    let mut seen = BTreeSet::new();
    let mut rings = Vec::new();
    for (name, reaches) in &reached {
        let comes_back =
            |other: &&&String| reached.get(**other).is_some_and(|back| back.contains(name));
        let ring: BTreeSet<&String> = reaches.iter().filter(comes_back).copied().collect();
        if ring.len() > 1 && seen.insert(ring.clone()) {
            rings.push(ring);
        }
    }
    rings
}

/// Everything that `from` uses, and what that uses.
fn reach<'a>(uses: &'a BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&String> = uses.get(from).into_iter().flatten().collect();
    while let Some(name) = open.pop() {
        if reached.insert(name) {
            open.extend(uses.get(name).into_iter().flatten());
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path.to_owned(), text.to_owned())
    }

    fn house(in_b: &str) -> Vec<Source> {
        vec![
            source(
                "crdt/src/lib.rs",
                "mod a;\nmod b;\npub use a::deep::Deep;\n",
            ),
            source("crdt/src/a.rs", "mod deep;\nmod other;\nuse deep::Deep;\n"),
            source(
                "crdt/src/a/deep.rs",
                "use super::other::Other;\npub struct Deep;\n",
            ),
            source(
                "crdt/src/a/other.rs",
                "use crate::b::{self, inner::Inner};\n",
            ),
            source("crdt/src/b.rs", "mod inner;\n"),
            source("crdt/src/b/inner.rs", in_b),
        ]
    }

    #[test]
    fn a_circle_over_folders_is_found_also_through_a_name_that_is_passed_on() {
        let sources = house("use crate::{Deep, b};\n");
        let found = circles(&sources);
        let files = [
            "crdt/src/a/deep.rs",
            "crdt/src/a/other.rs",
            "crdt/src/b/inner.rs",
        ];
        assert_eq!(found, [BTreeSet::from(files)]);
        let known = BTreeSet::from(["crdt/src/a/deep.rs", "crdt/src/b.rs"]);
        assert_eq!(compare(&found, &known).len(), 3, "two are new, one is free");
        assert_eq!(compare(&found, &BTreeSet::from(files)).len(), 0);
    }

    #[test]
    fn a_circle_in_one_folder_and_one_of_tests_or_comments_is_none() {
        assert!(circles(&house("// crate::a::deep\n")).is_empty());
        let test = "#[cfg(test)]\nmod tests {\n    use crate::a::deep::Deep;\n}\n";
        assert!(circles(&house(test)).is_empty());
        let own = "use super::Outer;\n";
        let text = "mod inner;\nuse inner::Inner;\n";
        let folder = [
            source("crdt/src/b.rs", text),
            source("crdt/src/b/inner.rs", own),
        ];
        assert!(circles(&folder).is_empty());
    }
}
