//! No circles between modules of different folders of a crate, so that each can be read from the bottom.
//!
//! A file uses the files that its paths name (`crate::`, `super::`, children); a name that is only passed
//! on (`pub use`) is looked up where it is made, and passing on is no use. `foo.rs` belongs to the folder
//! `foo`. A circle inside one folder is the folder's own affair. The house is not free of circles yet:
//! `circle/known.txt` lists which folder uses which within one, and may only become shorter.

mod path;

use std::collections::{BTreeMap, BTreeSet};

use crate::repository::Source;

/// Steps from folder to folder that are part of a circle today, as in `node: api -> node`.
const KNOWN: &str = include_str!("circle/known.txt");

/// Rooms that are looked at: what is shipped.
const ROOMS: [&str; 6] = ["api", "crdt", "mesh", "node", "store", "vfs"];

/// One line for each step of a circle that is not on the list, or on the list and in no circle.
pub(super) fn faults(sources: &[Source]) -> Vec<String> {
    let known: BTreeSet<&str> = KNOWN.lines().filter(|line| !line.is_empty()).collect();
    compare(&steps(sources), &known)
}

fn compare(steps: &BTreeMap<String, String>, known: &BTreeSet<&str>) -> Vec<String> {
    let new = steps
        .iter()
        .filter(|(step, _)| !known.contains(step.as_str()));
    let told = new.map(|(step, example)| format!("{example}, which closes a circle ({step})"));
    let gone = known.iter().filter(|step| !steps.contains_key(**step));
    let told_gone = gone.map(|step| {
        format!("xtask/src/check/circle/known.txt: `{step}` is in no circle any more: take it off")
    });
    told.chain(told_gone).collect()
}

/// Each step from one folder to another that is part of a circle of files, with the first file that makes it.
fn steps(sources: &[Source]) -> BTreeMap<String, String> {
    let mut steps = BTreeMap::new();
    for room in ROOMS {
        let files: BTreeMap<String, &Source> = sources
            .iter()
            .filter(|source| source.room() == room && !source.is_test)
            .filter_map(|source| Some((path::module(&source.path)?, source)))
            .collect();
        let uses = path::uses(&files);
        for ring in rings(&uses) {
            for name in &ring {
                for used in uses.get(*name).into_iter().flatten() {
                    let (from, to) = (folder(name, &files), folder(used, &files));
                    if from == to || !ring.contains(used) {
                        continue;
                    }
                    let step = format!("{room}: {} -> {}", shown(from), shown(to));
                    let path = |module: &str| files.get(module).map_or("", |source| &source.path);
                    let example = format!("{} uses {}", path(name), path(used));
                    steps.entry(step).or_insert(example);
                }
            }
        }
    }
    steps
}

/// How a folder is called; the crate's own has no name.
fn shown(folder: &str) -> &str {
    if folder.is_empty() { "src" } else { folder }
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
        let found = steps(&house("use crate::{Deep, b};\n"));
        let expected = ["crdt: a -> b", "crdt: b -> a"];
        assert!(found.keys().eq(expected), "{found:?}");
        let known = BTreeSet::from(["crdt: a -> b", "crdt: b -> c"]);
        let told = compare(&found, &known);
        assert!(told[0].starts_with("crdt/src/b/inner.rs uses crdt/src/a/deep.rs"));
        assert!(told[1].contains("`crdt: b -> c`"));
        assert_eq!(told.len(), 2, "one is new, one is gone");
        assert!(compare(&found, &BTreeSet::from(expected)).is_empty());
    }

    #[test]
    fn a_circle_in_one_folder_and_one_of_tests_or_comments_is_none() {
        assert!(steps(&house("// crate::a::deep\n")).is_empty());
        let test = "#[cfg(test)]\nmod tests {\n    use crate::a::deep::Deep;\n}\n";
        assert!(steps(&house(test)).is_empty());
        let own = "use super::Outer;\n";
        let text = "mod inner;\nuse inner::Inner;\n";
        let folder = [
            source("crdt/src/b.rs", text),
            source("crdt/src/b/inner.rs", own),
        ];
        assert!(steps(&folder).is_empty());
    }
}
